"""Is a painting of stylecap's as good as one by plain float32 L-BFGS at the same weights?

    python benchmarks/quality.py --contents samples/*.jpg --styles night-swirls stained-glass

Every content is painted in every style by the objective `relative`: by torch.optim.LBFGS in float32
on one scale (`peers.plain_lbfgs`), and by stylecap as it comes, with equally many steps.

AlexNet, which painted neither, judges the 8-bit pictures: LPIPS to the content, of which less
is better, and the share of the way from the content's layer statistics to the style's that is gone,
of which more is better. `objective` is in float64, by `objective.py`.

At equal weights stylecap goes further on the way from photo to style, so that one number is better
and the other worse. `as near` tells whether the way is as good: stylecap with the greatest strength
of those tried with which its painting is no farther from the photo than that of plain L-BFGS. If
it is nearer to the style as well, stylecap is better at any price of one in the other.

One Markdown row is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import torch
from objective import Objective
from peers import plain_lbfgs, torchvision_vgg16
from PIL import Image
from torch import Tensor

import stylecap
from stylecap.images import load_picture, scale_picture, to_image, to_picture
from stylecap.studio.quality import QualityCard, load_judge, quality_card
from stylecap.style.losses import gram_matrix, style_loss

WAYS = ("plain", "stylecap", "as near")
TRIES = 4  # of strengths between half and the whole of the usual one, each halves what is possible

judge = cache(load_judge)


@dataclass(frozen=True)
class Painting:
    """By a program, as saved, with what the judge says of it."""

    picture: Image.Image
    strength: float
    card: QualityCard


class Pair:
    """A photo and a style at one size, and how they are painted and judged."""

    def __init__(self, photo: str, name: str, options: stylecap.StyleOptions) -> None:
        painted = stylecap.paint_style(name) if name in stylecap.STYLES else load_picture(name)
        self.name = (Path(photo).stem, Path(name).stem)
        self.options = options
        self.picture = scale_picture(load_picture(photo), options.size)
        self.manner = scale_picture(painted, options.size)
        self.content, self.style = to_image(self.picture), to_image(self.manner)

    def plain(self, exact: stylecap.Backbone) -> Painting:
        """By torch.optim.LBFGS."""
        weights, steps = self.weights(exact), self.options.steps
        found = plain_lbfgs(torchvision_vgg16(), self.content, self.style, steps, *weights)
        return self.judged(found, self.options.strength)

    def ours(self, backbone: stylecap.Backbone, strength: float) -> Painting:
        """By stylecap, of some strength."""
        options = replace(self.options, strength=strength)
        found = stylecap.stylize(self.content, self.style, options, backbone=backbone)
        return self.judged(found.image, strength)

    def as_near(self, backbone: stylecap.Backbone, lpips: float) -> Painting:
        """By stylecap, the strongest of those tried that is near enough to the photo."""
        low, high = self.options.strength / 2, self.options.strength
        best: Painting | None = None
        for _ in range(TRIES):
            middle = (low + high) / 2
            tried = self.ours(backbone, middle)
            if tried.card.content_lpips <= lpips:
                low, best = middle, tried
            else:
                high = middle
        if best is None:
            raise SystemExit(f"even with strength {high:.3f} it is farther than {lpips:.4f}")
        return best

    def judged(self, image: Tensor, strength: float) -> Painting:
        """As it would be saved."""
        result = to_picture(image)
        card = quality_card(self.picture, result, self.manner, judge())
        return Painting(result, strength, card)

    def weights(self, exact: stylecap.Backbone) -> tuple[float, list[float]]:
        """The objective `relative` as weights c and w_l of the paper's."""
        options, layers = self.options, self.options.resolved_style_layers
        (layer,) = options.resolved_content_layers
        with torch.no_grad():
            content = exact.features(self.content, [layer, *layers])
            style = exact.features(self.style, layers)
            losses = [style_loss(gram_matrix(content[k]), gram_matrix(style[k])) for k in layers]
        shares = [options.strength / len(layers) / float(loss) for loss in losses]
        return (1 - options.strength) / float(content[layer].var()), shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contents", nargs="+", required=True, help="photos")
    parser.add_argument("--styles", nargs="+", required=True, help="built-in styles or pictures")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()

    exact = stylecap.load_backbone(runtime=stylecap.Runtime.choose(precision="float32"))
    backbone = stylecap.load_backbone()
    options = stylecap.StyleOptions(
        size=arguments.size, steps=arguments.steps, early_stopping=False
    )
    print(f"stylecap in {backbone.runtime.precision}")
    print("| content | style | by | strength | objective | LPIPS to the content | style reached |")
    print("|---|---|---|---|---|---|---|")
    totals = {way: torch.zeros(3) for way in WAYS}
    pairs = list(product(arguments.contents, arguments.styles))
    for photo, name in pairs:
        pair = Pair(photo, name, options)
        score = Objective(pair.content, pair.style, *pair.weights(exact))
        plain = pair.plain(exact)
        own = pair.ours(backbone, options.strength)
        near = pair.as_near(backbone, plain.card.content_lpips)
        for way, each in zip(WAYS, (plain, own, near), strict=True):
            card = each.card
            scores = (score(to_image(each.picture)), card.content_lpips, card.style)
            totals[way] += torch.tensor(scores)
            cells = (*pair.name, way, f"{each.strength:.3f}", *(f"{s:.4f}" for s in scores))
            print("|", " | ".join(cells), "|", flush=True)
    for way, total in totals.items():
        cells = ("mean", "", way, "", *(f"{value / len(pairs):.4f}" for value in total.tolist()))
        print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
