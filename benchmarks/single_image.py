"""Objective reached and time a step: stylecap, plain torch L-BFGS and PyPI's neural-style.

    pip install --no-deps --target PEER neural-style==0.5.7
    python benchmarks/single_image.py CONTENT STYLE --peer PEER

One run, one after the other, with nothing else running. Every picture is saved as PNG, read
back and scored by `objective.py` in float64. neural-style gets our weights; its time a step is
the difference between a long and a short run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from objective import STYLE, Objective, read
from peers import machine, neural_style, plain_lbfgs, torchvision_vgg16

import stylecap
from stylecap.images import load_picture, scale_picture, to_image, to_picture

STYLE_WEIGHT = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--peer", help="folder into which neural-style was installed")
    arguments = parser.parse_args()

    folder = Path(tempfile.mkdtemp())
    paths = [folder / "content.png", folder / "style.png"]
    for path, source in zip(paths, (arguments.content, arguments.style), strict=True):
        scale_picture(load_picture(source), arguments.size).save(path)
    content, style = (to_image(load_picture(path)) for path in paths)
    weights = (1.0, (STYLE_WEIGHT,) * len(STYLE))
    objective = Objective(read(str(paths[0])), read(str(paths[1])), *weights)
    print(machine(), tuple(content.shape))

    def reached(image: torch.Tensor) -> float:
        to_picture(image).save(folder / "result.png")
        return objective(read(str(folder / "result.png")))

    plain, fast = torchvision_vgg16(), stylecap.load_backbone()
    ours_step = 0.0
    for steps in arguments.steps:
        begin = time.perf_counter()
        image = plain_lbfgs(plain, content, style, steps, *weights)
        seconds = (time.perf_counter() - begin) / steps
        reference = reached(image)
        print(f"{steps} steps, plain L-BFGS float32: {reference:.4f}, {seconds:.3f} s a step")
        options = stylecap.StyleOptions(
            size=arguments.size,
            steps=steps,
            scales=1,
            objective="gatys",
            style_weight=STYLE_WEIGHT,
            early_stopping=False,
        )
        result = stylecap.stylize(*paths, options, backbone=fast)
        ours, ours_step = reached(result.image), result.seconds / steps
        print(
            f"{steps} steps, stylecap {result.precision}: {ours:.4f}, {ours_step:.3f} s a step; "
            f"objective ratio {ours / reference:.4f}, time ratio {ours_step / seconds:.3f}",
            flush=True,
        )
    if arguments.peer:
        short, long = (
            neural_style(arguments.peer, folder, *paths, steps, history=20).seconds
            for steps in (5, 35)
        )
        step = (long - short) / 30
        print(f"neural-style 0.5.7: {step:.3f} s a step; ours / theirs {ours_step / step:.3f}")


if __name__ == "__main__":
    main()
