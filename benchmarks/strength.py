"""Does one strength mean the same at every size and on every network? A table to see it by.

    python benchmarks/strength.py samples/chelsea.jpg night-swirls --sizes 256 512 --steps 90

The objective `relative` is painted at each strength, size and network, and every painting is
scored by the network that did not paint it, at the common long side of 256 px, so that neither
the optimised features nor the number of pixels decides:

    LPIPS   distance to the content (Zhang et al. 2018, linear heads 0.1), over that of the style
            picture itself: two networks' plain distances are not on one scale
    style   mean over the style layers of E_l(painting) / E_l(content): 1 the photo, 0 the style
    own     the same by the network that painted, at the painting's own size

One Markdown row is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
from functools import cache
from itertools import product

import torch
from torch import Tensor

import stylecap
from stylecap.images import (
    fit_long_side,
    load_picture,
    resize_image,
    resize_picture,
    to_image,
    to_picture,
)
from stylecap.studio.quality import lpips, style_reached

JUDGES = {"vgg16": "alexnet", "alexnet": "vgg16"}
SEEN_PX = 256


@cache
def network(name: str, precision: str = "auto") -> stylecap.Backbone:
    return stylecap.load_backbone(name, runtime=stylecap.Runtime.choose("auto", precision))


def style_left(judge: str, painting: Tensor, content: Tensor, style: Tensor) -> float:
    """Mean over the style layers of E_l(painting) / E_l(content)."""
    reached = style_reached(network(judge, "float32"), painting, content, style)
    return 1 - sum(reached.values()) / len(reached)


def at(image: Tensor, long_side_px: int) -> Tensor:
    return resize_image(image, fit_long_side((image.shape[-2], image.shape[-1]), long_side_px))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("content", help="a photo")
    parser.add_argument("style", nargs="+", help="built-in styles or pictures")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.5, 0.7, 0.85, 0.95])
    parser.add_argument("--backbones", nargs="+", default=["vgg16", "alexnet"], choices=JUDGES)
    parser.add_argument("--steps", type=int, default=90)
    arguments = parser.parse_args()

    print("| style | network | size | strength | LPIPS | style | own |")
    print("|---|---|---|---|---|---|---|")
    cases = product(arguments.sizes, arguments.style, arguments.backbones, arguments.strengths)
    for size, name, painter, strength in cases:
        options = stylecap.StyleOptions(
            backbone=painter,
            size=size,
            strength=strength,
            steps=arguments.steps,
            early_stopping=False,
        )
        result = stylecap.stylize(arguments.content, name, options, backbone=network(painter))
        photo = load_picture(arguments.content)
        content = to_image(resize_picture(photo, tuple(result.image.shape[-2:])))
        manner = stylecap.paint_style(name) if name in stylecap.STYLES else load_picture(name)
        style = at(to_image(manner), size)
        judge = JUDGES[painter]
        eyes = network(judge, "float32")
        with torch.no_grad():
            painting = to_image(to_picture(result.image))
            small = [at(image, SEEN_PX) for image in (painting, content, style)]
            laid_over = resize_image(style, small[1].shape[-2:])
            scores = (
                lpips(eyes, small[0], small[1]) / lpips(eyes, laid_over, small[1]),
                style_left(judge, *small),
                style_left(painter, painting, content, style),
            )
        row = (name, painter, size, strength, *(f"{score:.3f}" for score in scores))
        print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
