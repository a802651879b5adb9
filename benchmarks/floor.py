"""The least that a step can take on this machine, and what it takes.

    python benchmarks/floor.py CONTENT STYLE --size 512

A step is the objective at one image, its gradient with respect to the image and the move of
L-BFGS with a full history. The floor takes each layer that the default objective needs, forwards
and backwards by itself, and asks for the longer of

    operations / rate          direct convolutions and full Gram matrices; the rate is the best
                               that any of some convolutions and matrix products reaches
    bytes / bandwidth          each tensor read or written once, from memory; the bandwidth is
                               that of a copy that reads and writes 256 MiB in all

A rectifier costs nothing, since it can be part of a convolution or pooling, and neither does the
optimiser. Caches make the bytes cheaper and Winograd the operations, so it is no bound, but a step
that is near it wastes little. Gram matrices are products in float32; what goes back from them is
in the network's precision.

Rates and steps are measured in turns, in both precisions, and the fastest turn counts: run it with
nothing else running.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from peers import machine
from torch import Tensor
from torch.nn import functional

import stylecap
from stylecap.backbone import layer_table
from stylecap.images import load_picture, scale_picture, to_image
from stylecap.style.objective import Objective, StyleTarget, style_grams
from stylecap.style.optimizers import HISTORY, LBFGS

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COPIED_BYTES = 2**28
#: (channels, side) of 3x3 convolutions, and sides of square matrix products.
CONVOLUTIONS = ((64, 256), (128, 128), (256, 64), (512, 32), (512, 64))
PRODUCTS = (1024, 2048)


def floor_seconds(
    size: tuple[int, int], item_bytes: int, rate: float, gram_rate: float, bandwidth: float
) -> dict[str, float]:
    """Seconds of each layer, forwards and backwards, without the optimiser.

    Args:
        size: (height, width) of the image.
        item_bytes: of one number of the features.
        rate: operations a second, a multiplication and an addition being two.
        gram_rate: the same in float32.
        bandwidth: bytes a second.
    """
    options = stylecap.StyleOptions()
    content, style = options.resolved_content_layers, options.resolved_style_layers

    def longer(operations: float, numbers: float, at: float = rate) -> float:
        return max(operations / at, numbers * item_bytes / bandwidth)

    seconds: dict[str, float] = {}
    incoming, left = 3 * size[0] * size[1], {*content, *style}
    for layer in layer_table(options.backbone, size):
        channels, height, width = layer.output
        numbers, operations = channels * height * width, 2 * layer.multiply_adds
        if not layer.name.startswith("relu"):
            seconds[layer.name] = 2 * longer(operations, incoming + numbers + layer.parameters)
        if layer.name in style:
            product = 2 * channels**2 * height * width
            seconds[f"Gram of {layer.name}"] = longer(product, numbers, gram_rate) + longer(
                product, 3 * numbers
            )
        if layer.name in content:
            seconds[f"content at {layer.name}"] = longer(0, 2 * numbers) + longer(0, 4 * numbers)
        left.discard(layer.name)
        if not left:
            break
        incoming = numbers
    return seconds


def measure(content: Tensor, style: Tensor, turns: int) -> dict[str, Any]:
    """Rates, floor and steps at a content and a style, (1, 3, H, W) each, by precision."""
    size = (content.shape[-2], content.shape[-1])
    load = os.getloadavg()[0]
    jobs: dict[tuple[str, str], tuple[Callable[[], object], float]] = {}
    for precision, dtype in PRECISIONS.items():
        for channels, side in CONVOLUTIONS:
            x, kernel = (
                torch.ones(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
                for shape in ((1, channels, side, side), (channels, channels, 3, 3))
            )
            jobs[precision, f"convolution {channels} at {side}"] = (
                lambda x=x, kernel=kernel: functional.conv2d(x, kernel, padding=1),
                2 * 9 * channels**2 * side**2,
            )
        for side in PRODUCTS:
            matrix = torch.ones(side, side, dtype=dtype)
            jobs[precision, f"product {side}"] = (
                lambda matrix=matrix: matrix @ matrix,
                2 * side**3,
            )
        jobs[precision, "step"] = (_step(content, style, precision), 0)
    source, target = torch.ones(2, COPIED_BYTES // 8)
    jobs["memory", "copy"] = (lambda: target.copy_(source), COPIED_BYTES)

    taken: dict[tuple[str, str], list[float]] = {key: [] for key in jobs}
    for _ in range(turns):
        for key, (job, _) in jobs.items():
            with torch.inference_mode(key[1] != "step"):
                begin = time.perf_counter()
                job()
                taken[key].append(time.perf_counter() - begin)
    rates = {key: work / min(taken[key]) for key, (_, work) in jobs.items() if work}
    bandwidth = rates["memory", "copy"]
    best = {
        precision: max((rate, name) for (kind, name), rate in rates.items() if kind == precision)
        for precision in PRECISIONS
    }
    report: dict[str, Any] = {
        "machine": machine(),
        "load": load,
        "size": size,
        "gigabytes a second": bandwidth / 1e9,
    }
    for precision, dtype in PRECISIONS.items():
        rate, name = best[precision]
        layers = floor_seconds(size, dtype.itemsize, rate, best["float32"][0], bandwidth)
        steps = taken[precision, "step"]
        report[precision] = {
            "gigaflops": rate / 1e9,
            "reached by": name,
            "layers": layers,
            "floor": sum(layers.values()),
            "fastest step": min(steps),
            "median step": median(steps),
        }
    return report


def _step(content: Tensor, style: Tensor, precision: str) -> Callable[[], object]:
    """A step of stylecap's default objective, with a full history."""
    options = stylecap.StyleOptions()
    backbone = stylecap.load_backbone(runtime=stylecap.Runtime.choose("cpu", precision))
    target = StyleTarget(style_grams(backbone, style, options))
    evaluate = Objective(backbone, content, [target], options)
    optimizer = LBFGS()
    x, bend = content, torch.linspace(0.5, 1.5, content.shape[-1])
    for _ in range(HISTORY + 1):
        x = optimizer.step(x, bend * (x - 0.5))

    def step() -> Tensor:
        at = content.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(evaluate(at).total, at)
        return optimizer.step(at, gradient).clamp(0, 1)

    return step


def rows(report: dict[str, Any]) -> list[str]:
    """The report as a Markdown table."""
    lines = [
        "| size | precision | GFLOP/s | GB/s | floor | fastest step | median step | step / floor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    height, width = report["size"]
    for precision in PRECISIONS:
        found = report[precision]
        lines.append(
            f"| {width}x{height} | {precision} | {found['gigaflops']:.0f} ({found['reached by']}) "
            f"| {report['gigabytes a second']:.1f} | {found['floor']:.3f} s "
            f"| {found['fastest step']:.3f} s | {found['median step']:.3f} s "
            f"| {found['fastest step'] / found['floor']:.2f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="everything, the layers too")
    arguments = parser.parse_args()
    content, style = (
        to_image(scale_picture(load_picture(path), arguments.size))
        for path in (arguments.content, arguments.style)
    )
    report = measure(content, style, arguments.turns)
    print(json.dumps(report, indent=2) if arguments.json else "\n".join(rows(report)))


if __name__ == "__main__":
    main()
