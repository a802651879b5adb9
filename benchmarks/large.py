"""A picture larger than memory: resident size, cost per megapixel, and how exact strips are.

    python benchmarks/large.py samples/coffee.jpg mosaic --memory 6GB

One process paints the photo at one megapixel as it likes, a second one at ``--size`` within
``--memory``; each step's time and each process's greatest resident size are printed. A third
compares gradients with and without strips where both fit. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch

import stylecap
from stylecap.images import fit_long_side, load_picture, scale_picture, to_image
from stylecap.progress import Progress
from stylecap.runtime import Runtime
from stylecap.style.builtin import paint_style
from stylecap.style.objective import Objective, StyleTarget, style_grams
from stylecap.style.strips import Strips


def paint(arguments: argparse.Namespace, size: int, memory: str) -> dict[str, float]:
    """Step seconds, pixels and resident bytes of a process that paints at a size."""
    command = [sys.executable, __file__, arguments.content, arguments.style]
    command += ["--steps", str(arguments.steps), "--child", str(size), memory]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def child(content: str, style: str, steps: int, size: int, memory: str) -> None:
    """Paint at a size, and print what it took."""
    picture = load_picture(content)
    large = picture.resize(fit_long_side((picture.height, picture.width), size)[::-1])
    times: list[float] = []

    def told(progress: Progress) -> None:
        times.append(time.perf_counter())

    options = stylecap.StyleOptions(size=size, steps=steps, scales=1, memory=memory)
    result = stylecap.stylize(large, style, options, on_progress=told)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    gaps = [after - before for before, after in pairwise(times)]
    pixels = result.image.shape[-1] * result.image.shape[-2]
    resident = int(peak.split()[1]) * 1024
    print(json.dumps({"step": min(gaps), "pixels": pixels, "resident": resident}))


def difference(content: str, style: str, precision: str) -> float:
    """Relative difference of the gradient with all of the network in strips, at 768 px."""
    runtime = Runtime.choose("cpu", precision)
    backbone = stylecap.load_backbone("vgg16", runtime=runtime)
    options = stylecap.StyleOptions(precision=precision)
    image = to_image(scale_picture(load_picture(content), 768))
    target = StyleTarget(style_grams(backbone, to_image(paint_style(style)), options))
    slopes = []
    for strips in (Strips(), Strips(stages=5, values=1_000_000)):
        evaluate = Objective(backbone, image, [target], options, strips)
        x = image.flip(3).requires_grad_()
        slopes.append(torch.autograd.grad(evaluate(x).total, x)[0])
    return float((slopes[1] - slopes[0]).norm() / slopes[0].norm())


def main() -> None:
    """Paint twice and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("content")
    parser.add_argument("style", help="name of a built-in style")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--memory", default="6GB")
    parser.add_argument("--steps", type=int, default=4)
    precisions = ("float32", "bfloat16")  # the latter takes long where nothing has units for it
    parser.add_argument("--gradients", nargs="*", choices=precisions, default=precisions)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        size, memory = arguments.child
        child(arguments.content, arguments.style, arguments.steps, int(size), memory)
        return
    small = paint(arguments, 1155, "auto")
    large = paint(arguments, arguments.size, arguments.memory)
    for found in (small, large):
        megapixels = found["pixels"] / 1e6
        print(
            f"{megapixels:.2f} megapixels: {found['step']:.2f} s a step, "
            f"{found['step'] / megapixels:.2f} s per megapixel, "
            f"{found['resident'] / 1e9:.2f} GB resident at most"
        )
    ratio = large["step"] / large["pixels"] / (small["step"] / small["pixels"])
    print(f"cost per megapixel: {ratio:.2f} times that at one megapixel")
    for precision in arguments.gradients:
        away = difference(arguments.content, arguments.style, precision)
        print(f"gradient in strips, {precision}: relative difference {away:.1e}")


if __name__ == "__main__":
    main()
