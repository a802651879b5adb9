"""Is a painting of stylecap's as good as one by plain float32 L-BFGS at the same weights?

    python benchmarks/quality.py --contents samples/*.jpg --styles night-swirls stained-glass

Every content is painted in every style by the objective `relative`: by torch.optim.LBFGS in float32
on one scale (`peers.plain_lbfgs`), by stylecap on one scale, and by stylecap as it comes, with
equally many steps. `longer` is plain L-BFGS after four times as many, since it goes less far with
as many.

AlexNet, which painted neither, judges the 8-bit pictures: LPIPS to the content, of which less
is better, and the share of the way from the content's layer statistics to the style's that is gone,
of which more is better. `objective` is in float64, by `objective.py`.

One Markdown row is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from objective import Objective
from peers import plain_lbfgs, torchvision_vgg16
from torch import Tensor

import stylecap
from stylecap.images import load_picture, scale_picture, to_image, to_picture
from stylecap.studio.quality import load_judge, quality_card
from stylecap.style.losses import gram_matrix, style_loss

WAYS = ("plain", "longer", "one scale", "stylecap")
LONGER = 4


def relative_weights(
    backbone: stylecap.Backbone, content: Tensor, style: Tensor, options: stylecap.StyleOptions
) -> tuple[float, list[float]]:
    """The objective `relative` of a pair as weights c and w_l of the paper's."""
    (layer,), layers = options.resolved_content_layers, options.resolved_style_layers
    with torch.no_grad():
        at_content = backbone.features(content, [layer, *layers])
        at_style = backbone.features(style, layers)
        losses = [style_loss(gram_matrix(at_content[k]), gram_matrix(at_style[k])) for k in layers]
    shares = [options.strength / len(layers) / float(loss) for loss in losses]
    return (1 - options.strength) / float(at_content[layer].var()), shares


def paint_plain(content: Tensor, style: Tensor, steps: int, *weights: Any) -> list[Tensor]:
    """Plain L-BFGS, after so many steps and after `LONGER` times as many."""
    seen = 0
    early = content

    def on_step(image: Tensor) -> None:
        nonlocal seen, early
        seen += 1
        if seen == steps + 1:
            early = image.clone()

    network = torchvision_vgg16()
    late = plain_lbfgs(network, content, style, LONGER * steps, *weights, on_step=on_step)
    return [early, late]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contents", nargs="+", required=True, help="photos")
    parser.add_argument("--styles", nargs="+", required=True, help="built-in styles or pictures")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()

    exact = stylecap.load_backbone(runtime=stylecap.Runtime.choose(precision="float32"))
    ours = stylecap.load_backbone()
    judge = load_judge()
    print(f"stylecap in {ours.runtime.precision}")
    print("| content | style | by | objective | LPIPS to the content | style reached | steps |")
    print("|---|---|---|---|---|---|---|")
    totals = {way: torch.zeros(3) for way in WAYS}
    pairs = list(product(arguments.contents, arguments.styles))
    for photo, name in pairs:
        picture = scale_picture(load_picture(photo), arguments.size)
        painted = stylecap.paint_style(name) if name in stylecap.STYLES else load_picture(name)
        manner = scale_picture(painted, arguments.size)
        content, style = to_image(picture), to_image(manner)
        options = stylecap.StyleOptions(
            size=arguments.size, steps=arguments.steps, early_stopping=False
        )
        weights = relative_weights(exact, content, style, options)
        score = Objective(content, style, *weights)
        single, steps = replace(options, scales=1), options.steps
        images = (
            *paint_plain(content, style, steps, *weights),
            stylecap.stylize(content, style, single, backbone=ours).image,
            stylecap.stylize(content, style, options, backbone=ours).image,
        )
        for way, image in zip(WAYS, images, strict=True):
            taken = LONGER * steps if way == "longer" else steps
            result = to_picture(image)
            card = quality_card(picture, result, manner, judge)
            scores = (score(to_image(result)), card.content_lpips, card.style)
            totals[way] += torch.tensor(scores)
            cells = (Path(photo).stem, Path(name).stem, way, *(f"{s:.4f}" for s in scores), taken)
            print("|", " | ".join(map(str, cells)), "|", flush=True)
    for way, total in totals.items():
        cells = ("mean", "", way, *(f"{value / len(pairs):.4f}" for value in total.tolist()), "")
        print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
