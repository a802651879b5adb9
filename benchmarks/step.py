"""What one step costs with our gradient of the Gram matrix, and with autograd's own.

    python benchmarks/step.py CONTENT STYLE

The objective `gatys` and its gradient at one image, without the optimiser; both ways take turns,
the fastest of several turns counts. Run it with nothing else running.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor

import stylecap
from stylecap.images import load_picture, scale_picture, to_image
from stylecap.style import objective
from stylecap.style.losses import gram_share


def plain_gram(features: Tensor, share: None, positions: int) -> Tensor:
    rows = features.float().flatten(2)
    return rows @ rows.mT / positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--turns", type=int, default=12)
    arguments = parser.parse_args()

    options = stylecap.StyleOptions(size=arguments.size, objective="gatys")
    backbone = stylecap.load_backbone()
    content, style = (
        to_image(scale_picture(load_picture(path), arguments.size))
        for path in (arguments.content, arguments.style)
    )
    target = objective.StyleTarget(objective.style_grams(backbone, style, options))
    evaluate = objective.Objective(backbone, content, [target], options)
    x = content.clone().requires_grad_()

    def seconds(gram: Callable[..., Tensor]) -> float:
        with mock.patch.object(objective, "gram_share", gram):
            begin = time.perf_counter()
            torch.autograd.grad(evaluate(x).total, x)
            return time.perf_counter() - begin

    ways = {"ours": gram_share, "autograd's": plain_gram}
    fastest = dict.fromkeys(ways, float("inf"))
    for _ in range(arguments.turns):
        for name, gram in ways.items():
            fastest[name] = min(fastest[name], seconds(gram))
    runtime = backbone.runtime
    print(f"{tuple(content.shape)}, {runtime.precision}, {runtime.threads} threads")
    for name, value in fastest.items():
        print(f"{name} gradient of the Gram matrix: {value:.3f} s")


if __name__ == "__main__":
    main()
