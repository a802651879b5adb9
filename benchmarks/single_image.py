"""Objective reached and time a step: stylecap, plain torch L-BFGS and PyPI's neural-style.

    pip install --no-deps --target PEER neural-style==0.5.7
    python benchmarks/single_image.py CONTENT STYLE --peer PEER

One run, one after the other, with nothing else running. Every picture is saved as PNG, read
back and scored by `objective.py` in float64. neural-style gets our weights, converted to
BGR 0..255; its time a step is the difference between a long and a short run.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from objective import objective
from PIL import Image
from torch import Tensor

import stylecap
from stylecap.api import stylize
from stylecap.backbone import Backbone, load_backbone
from stylecap.images import (
    load_picture,
    scale_picture,
    to_image,
    to_picture,
)
from stylecap.runtime import Runtime
from stylecap.style.losses import content_loss, gram_matrix, style_loss
from stylecap.weights import load_weights

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def plain_lbfgs(backbone: Backbone, content: Tensor, style: Tensor, steps: int) -> Tensor:
    """As everyone writes it: torch.optim.LBFGS, float32, history 20, no bounds."""
    with torch.no_grad():
        target = backbone.features(content, ["relu4_2"])["relu4_2"]
        grams = {k: gram_matrix(f) for k, f in backbone.features(style, STYLE_LAYERS).items()}
    x = content.clone(memory_format=torch.contiguous_format).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x],
        max_iter=steps,
        max_eval=steps,
        history_size=20,
        tolerance_grad=0,
        tolerance_change=0,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = backbone.features(x, ["relu4_2", *STYLE_LAYERS])
        loss = content_loss(found["relu4_2"], target)
        for layer in STYLE_LAYERS:
            loss = loss + 3 * style_loss(gram_matrix(found[layer]), grams[layer])
        loss.backward()
        return loss

    optimizer.step(closure)
    return x.detach()


def peer_weights(path: Path) -> None:
    """Our VGG-16 for images in BGR, 0..255, of which neural-style subtracts Caffe's mean."""
    weights = {k: v.float() for k, v in load_weights("vgg16").items()}
    std = torch.tensor([0.229, 0.224, 0.225]) * 255
    mean = torch.tensor([0.485, 0.456, 0.406]) * 255
    caffe_mean = torch.tensor([123.68, 116.779, 103.939])
    kernel = weights["features.0.weight"] / std.view(1, 3, 1, 1)
    shift = (kernel * (caffe_mean - mean).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    weights["features.0.weight"] = kernel.flip(1).contiguous()
    weights["features.0.bias"] = weights["features.0.bias"] + shift
    torch.save(weights, path)


def peer_seconds(peer: str, folder: Path, steps: int) -> float:
    """Whole run of neural-style, in seconds."""
    command = [
        *(sys.executable, "-m", "neural_style.neural_style", "-gpu", "c", "-init", "image"),
        *("-content_image", str(folder / "content.png"), "-style_image", str(folder / "style.png")),
        *("-image_size", str(max(Image.open(folder / "content.png").size))),
        *("-model_file", str(folder / "vgg16-peer.pth"), "-disable_check", "-tv_weight", "0"),
        *("-num_iterations", str(steps), "-print_iter", "0", "-save_iter", "0"),
        *("-output_image", str(folder / "peer.png"), "-lbfgs_num_correction", "20"),
    ]
    begin = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": peer}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"neural-style failed: {done.stderr[-2000:]}")
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--peer", help="folder into which neural-style was installed")
    arguments = parser.parse_args()

    folder = Path(tempfile.mkdtemp())
    for name in ("content", "style"):
        picture = load_picture(getattr(arguments, name))
        scale_picture(picture, arguments.size).save(folder / f"{name}.png")
    content, style = (to_image(load_picture(folder / f"{n}.png")) for n in ("content", "style"))
    paths = (str(folder / "content.png"), str(folder / "style.png"))
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ")
    print(f"torch {torch.__version__}, stylecap {stylecap.__version__}, {tuple(content.shape)}")

    plain = load_backbone(runtime=Runtime("cpu", "float32", torch.get_num_threads()))
    fast = load_backbone()
    ours_step = 0.0
    for steps in arguments.steps:
        begin = time.perf_counter()
        image = plain_lbfgs(plain, content, style, steps)
        seconds = (time.perf_counter() - begin) / steps
        to_picture(image).save(folder / "plain.png")
        with torch.no_grad():
            reference = objective(*paths, str(folder / "plain.png"))
        print(f"{steps} steps, plain L-BFGS float32: {reference:.4f}, {seconds:.3f} s a step")
        options = stylecap.StyleOptions(
            size=arguments.size, steps=steps, scales=1, objective="gatys", early_stopping=False
        )
        result = stylize(*paths, options, backbone=fast)
        result.save(folder / "ours.png")
        with torch.no_grad():
            reached = objective(*paths, str(folder / "ours.png"))
        ours_step = result.seconds / steps
        print(
            f"{steps} steps, stylecap {result.precision}: {reached:.4f}, {ours_step:.3f} s a step; "
            f"objective ratio {reached / reference:.4f}, time ratio {ours_step / seconds:.3f}",
            flush=True,
        )
    if arguments.peer:
        peer_weights(folder / "vgg16-peer.pth")
        short, long = (peer_seconds(arguments.peer, folder, steps) for steps in (5, 35))
        step = (long - short) / 30
        print(f"neural-style 0.5.7: {step:.3f} s a step; ours / theirs {ours_step / step:.3f}")


if __name__ == "__main__":
    main()
