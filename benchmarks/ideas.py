"""Ideas for a faster descent that come down to a few lines, each against what stylecap does.

    python benchmarks/ideas.py samples/coffee.jpg mosaic --size 256 --steps 75
    python benchmarks/ideas.py samples/coffee.jpg mosaic --size 512 --ideas compile targets

    plain      the next scale begins with the coarse painting alone, without the photo's detail
    even       L-BFGS begins with a multiple of the identity, not with more of what is coarser
    half       L-BFGS remembers its pairs in bfloat16
    curvature  the pairs of the scale before, enlarged, begin the next one
    adam       Adam makes the first 5 or 15 steps, then comes L-BFGS
    compile    `torch.compile` of the objective; needs a C++ compiler
    targets    the style's Gram matrices and the content's features are there already

The first five are judged by the objective after ever more steps, divided by that of stylecap, which
begins with a painting of half the size after as many steps; `compile` by the seconds of an
objective with its gradient, the fastest of several turns; `targets` by the share of a painting of
300 steps that making them takes. Only these two need a quiet machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from math import inf

import torch
from torch import Tensor

import stylecap
from stylecap.images import load_picture, resize_image, scale_picture, to_image
from stylecap.style.objective import Objective, StyleTarget, style_grams
from stylecap.style.optimizers import LBFGS, Adam, Optimizer, smoothed
from stylecap.style.transfer import enlarge

SEEN = (1, 2, 3, 5, 10, 20, 40, 75, 150, 300)
SWITCHES = (5, 15)
LEARNING_RATE = stylecap.StyleOptions().learning_rate
TURNS = 12


class Scale:
    """One scale of a painting: its objective, and the content it begins with."""

    def __init__(self, backbone: stylecap.Backbone, content: Tensor, style: Tensor) -> None:
        options = stylecap.StyleOptions(backbone=backbone.name)
        target = StyleTarget(style_grams(backbone, style, options))
        self.content = content
        self.objective = Objective(backbone, content, [target], options)

    def slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The objective at (1, 3, H, W), and its gradient."""
        x = x.detach().requires_grad_()
        total = self.objective(x).total
        return total.detach(), torch.autograd.grad(total.sum(), x)[0]

    def descend(self, x: Tensor, plan: list[tuple[Optimizer, int]]) -> tuple[Tensor, list[float]]:
        """Go through optimisers with their numbers of steps; the losses on the way."""
        losses = []
        for optimizer, steps in plan:
            for _ in range(steps):
                loss, gradient = self.slope(x)
                x = optimizer.step(x, gradient).clamp(0, 1)
                losses.append(float(loss))
        return x, [*losses, float(self.slope(x)[0])]


def enlarged(state: Mapping[str, Tensor], small: Tensor, large: Tensor) -> dict[str, Tensor]:
    """The state of L-BFGS at one size as if it had been at another.

    The objective is a mean over positions, so that a pixel's share in it, and with it the change
    of its gradient, falls with their number.
    """
    share = small.shape[2:].numel() / large.shape[2:].numel()

    def enlarge(rows: Tensor) -> Tensor:
        images = rows.view(-1, *small.shape[1:])
        return resize_image(images, tuple(large.shape[2:])).flatten(1)

    moves, changes = enlarge(state["moves"]), share * enlarge(state["changes"])
    smooth = smoothed(changes.view(-1, *large.shape[1:])).flatten(1)
    products, squares = (moves * changes).sum(1), (changes * smooth).sum(1)
    inverses = torch.where(products > 1e-10 * squares, 1 / products, 0.0)
    return {
        "scale": state["scale"],
        "fresh": state["fresh"],
        "moves": moves,
        "changes": changes,
        "inverses": inverses,
        "curvature": products[-1:] / squares[-1:],
    }


class Even(LBFGS):
    """L-BFGS as in the textbook, H_0 = sᵀy / yᵀy I."""

    def _smoothed(self, rows: Tensor) -> Tensor:
        return rows


class Continued(LBFGS):
    """L-BFGS that begins with pairs, but without a last point."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.load([state])
        self._curvature = state["curvature"]


def compare(coarse: Scale, fine: Scale, steps: int, ideas: list[str]) -> None:
    """Print the objectives of the ideas over those of stylecap."""
    before = LBFGS()
    small, _ = coarse.descend(coarse.content, [(before, steps)])
    start = enlarge(small, fine.content)
    ways: dict[str, tuple[Tensor, list[tuple[Optimizer, int]]]] = {}
    if "plain" in ideas:
        alone = resize_image(small, tuple(fine.content.shape[2:]))
        ways["plain"] = (alone, [(LBFGS(), steps)])
    if "even" in ideas:
        ways["even"] = (start, [(Even(), steps)])
    if "half" in ideas:
        ways["half"] = (start, [(LBFGS(half=True), steps)])
    if "curvature" in ideas:
        continued = Continued(enlarged(before.state(0), small, start))
        ways["curvature"] = (start, [(continued, steps)])
    if "adam" in ideas:
        for first in SWITCHES:
            plan = [(Adam(LEARNING_RATE), first), (LBFGS(), steps - first)]
            ways[f"adam {first}"] = (start, plan)
    if not ways:
        return
    seen = [step for step in SEEN if step <= steps]
    print("objective over stylecap's after steps", *seen, sep="\t")
    _, ours = fine.descend(start, [(LBFGS(), steps)])
    for name, (begin, plan) in ways.items():
        _, losses = fine.descend(begin, plan)
        print(name, *(f"{losses[step] / ours[step]:.3f}" for step in seen), sep="\t", flush=True)


def fastest(job: Callable[[], object]) -> float:
    """Seconds of the fastest of several turns."""
    best = inf
    for _ in range(TURNS):
        begin = time.perf_counter()
        job()
        best = min(best, time.perf_counter() - begin)
    return best


def compiled(scale: Scale) -> None:
    """Print what compiling the objective saves."""

    def total(x: Tensor) -> Tensor:
        return scale.objective(x).total.sum()

    def job(function: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        x = scale.content.clone().requires_grad_()
        return lambda: torch.autograd.grad(function(x), x)

    eager, quick = job(total), job(torch.compile(total))
    begin = time.perf_counter()
    quick()
    took = time.perf_counter() - begin
    print(
        f"compile\t{fastest(quick):.3f} s instead of {fastest(eager):.3f} s, after {took:.0f} s "
        "of compiling"
    )


def targets(backbone: stylecap.Backbone, scale: Scale, style: Tensor) -> None:
    """Print what making the targets takes of a painting of 300 steps."""
    made = fastest(lambda: Scale(backbone, scale.content, style))
    step = fastest(lambda: scale.slope(scale.content))
    print(f"targets\t{made:.3f} s, {made / (300 * step):.2%} of 300 steps of {step:.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("content")
    parser.add_argument("style", help="name of a built-in style")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=75)
    parser.add_argument("--backbone", default="vgg16")
    names = ["plain", "even", "half", "curvature", "adam", "compile", "targets"]
    parser.add_argument("--ideas", nargs="+", choices=names, default=names[:5])
    arguments = parser.parse_args()
    backbone = stylecap.load_backbone(arguments.backbone)
    picture, painted = load_picture(arguments.content), stylecap.paint_style(arguments.style)

    def at(size: int) -> tuple[Tensor, Tensor]:
        content, style = (to_image(scale_picture(each, size)) for each in (picture, painted))
        return content, style

    content, style = at(arguments.size)
    fine = Scale(backbone, content, style)
    coarse = Scale(backbone, *at(arguments.size // 2))
    compare(coarse, fine, arguments.steps, arguments.ideas)
    if "compile" in arguments.ideas:
        compiled(fine)
    if "targets" in arguments.ideas:
        targets(backbone, fine, style)


if __name__ == "__main__":
    main()
