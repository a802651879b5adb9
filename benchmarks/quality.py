"""Is a painting of stylecap's as good as one by plain float32 L-BFGS at the same weights?

    python benchmarks/quality.py --contents samples/*.jpg --styles night-swirls stained-glass

Every content is painted in every style by the objective `relative` with equally many steps: by
torch.optim.LBFGS in float32 on one scale (`peers.plain_lbfgs`), by stylecap on one scale, and by
stylecap as it comes. `as far` is stylecap on one scale, ended by the first look, one in ten steps,
at which the objective of its saved picture is as low as that of plain L-BFGS at the end, and not at
all if there is none.

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

import torch
from objective import Objective
from peers import plain_lbfgs, torchvision_vgg16
from torch import Tensor

import stylecap
from stylecap.images import load_picture, scale_picture, to_image, to_picture
from stylecap.progress import Progress
from stylecap.studio.quality import load_judge, quality_card
from stylecap.style.losses import gram_matrix, style_loss

WAYS = ("plain", "as far", "one scale", "stylecap")


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


def paint_as_far(
    content: Tensor,
    style: Tensor,
    options: stylecap.StyleOptions,
    backbone: stylecap.Backbone,
    score: Objective,
    target: float,
) -> tuple[Tensor, int]:
    """A painting that is ended once its saved picture's objective is the target, and its steps."""
    done, reached = 0, False

    def look(progress: Progress) -> None:
        nonlocal done, reached
        done = progress.step
        if progress.loss is not None and progress.preview is not None:
            reached = score(to_image(to_picture(progress.preview()))) <= target

    result = stylecap.stylize(
        content,
        style,
        options,
        backbone=backbone,
        on_progress=look,
        should_stop=lambda: reached,
    )
    return result.image, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contents", nargs="+", required=True, help="photos")
    parser.add_argument("--styles", nargs="+", required=True, help="built-in styles or pictures")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()

    exact = stylecap.load_backbone(runtime=stylecap.Runtime.choose(precision="float32"))
    ours = stylecap.load_backbone()
    network, judge = torchvision_vgg16(), load_judge()
    print(f"stylecap in {ours.runtime.precision}")
    print("| content | style | by | objective | LPIPS to the content | style reached | steps |")
    print("|---|---|---|---|---|---|---|")
    totals = {way: torch.zeros(4) for way in WAYS}
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
        plain = plain_lbfgs(network, content, style, steps, *weights)
        target = score(to_image(to_picture(plain)))
        images = (
            (plain, steps),
            paint_as_far(content, style, single, ours, score, target),
            (stylecap.stylize(content, style, single, backbone=ours).image, steps),
            (stylecap.stylize(content, style, options, backbone=ours).image, steps),
        )
        for way, (image, taken) in zip(WAYS, images, strict=True):
            result = to_picture(image)
            card = quality_card(picture, result, manner, judge)
            scores = (score(to_image(result)), card.content_lpips, card.style)
            totals[way] += torch.tensor((*scores, taken))
            cells = (Path(photo).stem, Path(name).stem, way, *(f"{s:.4f}" for s in scores), taken)
            print("|", " | ".join(map(str, cells)), "|", flush=True)
    for way, total in totals.items():
        *scores, taken = (total / len(pairs)).tolist()
        cells = ("mean", "", way, *(f"{value:.4f}" for value in scores), f"{taken:.0f}")
        print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
