"""Is a painting of stylecap's as good as one by plain float32 L-BFGS at the same weights?

    python benchmarks/quality.py --contents samples/*.jpg --styles night-swirls stained-glass

Every content is painted in every style by the objective `relative`: by torch.optim.LBFGS in float32
on one scale (`peers.plain_lbfgs`), and by stylecap as it comes, with equally many steps. `longer`
is plain L-BFGS after twice as many, since it goes less far with as many. With --plain-strength both
of its rows are painted with another strength than stylecap's: how far from the photo must it go to
be as near to the style?

AlexNet, which painted neither, judges the 8-bit pictures: LPIPS to the content, of which less
is better, and the share of the way from the content's layer statistics to the style's that is gone,
of which more is better. Each can be had at the other's cost, by doing nothing or by forgetting the
photo, so that `both` joins them: (1 + LPIPS) (1 + what is left of the way to the style), of which
less is better. It is the form of ArtFID (Wright & Ommer 2022, "ArtFID: Quantitative Evaluation of
Neural Style Transfer"), whose distance to the style is FID. `objective` is in float64, by
`objective.py`.

One Markdown row is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import torch
from objective import Objective
from peers import plain_lbfgs, torchvision_vgg16
from torch import Tensor

import stylecap
from stylecap.images import load_picture, scale_picture, to_image, to_picture
from stylecap.studio.quality import load_judge, quality_card
from stylecap.style.losses import gram_matrix, style_loss

WAYS = ("plain", "longer", "stylecap")
LONGER = 2


class Pair:
    """A photo and a style at one size, and how they are painted and judged."""

    def __init__(self, photo: str, name: str, options: stylecap.StyleOptions) -> None:
        painted = stylecap.paint_style(name) if name in stylecap.STYLES else load_picture(name)
        self.name = (Path(photo).stem, Path(name).stem)
        self.options = options
        self.picture = scale_picture(load_picture(photo), options.size)
        self.manner = scale_picture(painted, options.size)
        self.content, self.style = to_image(self.picture), to_image(self.manner)

    def plain(self, exact: stylecap.Backbone, strength: float) -> list[Tensor]:
        """By torch.optim.LBFGS, after so many steps and after `LONGER` times as many."""
        weights, steps = self.weights(exact, strength), self.options.steps
        seen, early = 0, self.content

        def on_step(image: Tensor) -> None:
            nonlocal seen, early
            seen += 1
            if seen == steps + 1:
                early = image.clone()

        network = torchvision_vgg16()
        late = plain_lbfgs(
            network, self.content, self.style, LONGER * steps, *weights, on_step=on_step
        )
        return [early, late]

    def ours(self, backbone: stylecap.Backbone) -> Tensor:
        """By stylecap."""
        options = self.options
        return stylecap.stylize(self.content, self.style, options, backbone=backbone).image

    def weights(self, exact: stylecap.Backbone, strength: float) -> tuple[float, list[float]]:
        """The objective `relative` of a strength as weights c and w_l of the paper's."""
        options, layers = self.options, self.options.resolved_style_layers
        (layer,) = options.resolved_content_layers
        with torch.no_grad():
            content = exact.features(self.content, [layer, *layers])
            style = exact.features(self.style, layers)
            losses = [style_loss(gram_matrix(content[k]), gram_matrix(style[k])) for k in layers]
        shares = [strength / len(layers) / float(loss) for loss in losses]
        return (1 - strength) / float(content[layer].var()), shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contents", nargs="+", required=True, help="photos")
    parser.add_argument("--styles", nargs="+", required=True, help="built-in styles or pictures")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=150)
    default = stylecap.StyleOptions().strength
    parser.add_argument("--plain-strength", type=float, default=default)
    arguments = parser.parse_args()

    exact = stylecap.load_backbone(runtime=stylecap.Runtime.choose(precision="float32"))
    backbone = stylecap.load_backbone()
    options = stylecap.StyleOptions(
        size=arguments.size, steps=arguments.steps, early_stopping=False
    )
    print(f"stylecap in {backbone.runtime.precision}")
    print("| content | style | by | objective | LPIPS to the content | style reached | both |")
    print("|---|---|---|---|---|---|---|")
    judge = load_judge()
    totals = {way: torch.zeros(4) for way in WAYS}
    pairs = list(product(arguments.contents, arguments.styles))
    for photo, name in pairs:
        pair = Pair(photo, name, options)
        score = Objective(pair.content, pair.style, *pair.weights(exact, options.strength))
        images = [*pair.plain(exact, arguments.plain_strength), pair.ours(backbone)]
        for way, image in zip(WAYS, images, strict=True):
            result = to_picture(image)
            card = quality_card(pair.picture, result, pair.manner, judge)
            both = (1 + card.content_lpips) * (1 + (1 - card.style))
            scores = (score(to_image(result)), card.content_lpips, card.style, both)
            totals[way] += torch.tensor(scores)
            print(
                "|", " | ".join((*pair.name, way, *(f"{s:.4f}" for s in scores))), "|", flush=True
            )
    for way, total in totals.items():
        cells = ("mean", "", way, *(f"{value / len(pairs):.4f}" for value in total.tolist()))
        print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
