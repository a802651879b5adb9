"""What the objective needs of a network, stage by stage and strip by strip: less memory, same sums.

Losses need of each layer only sums over positions. So the network is cut into stages, each from
one pooling to the next, and a stage may be computed in strips of rows: of it, only its input, its
sums and signs are kept. For the gradient every strip is computed again, but only up to the last
layer whose features a term needs; above it, signs are enough (`adjoint`). Each strip reads exactly
the rows that its own rows see, so that nothing is approximated: convolutions pad with zeros only
where the image ends.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (computing again
instead of keeping), here in space as well as in depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from stylecap.backbone import Backbone, Layer, architecture, layer_table, layers_needed
from stylecap.style.adjoint import needs_values, pull_back, remember


class Term(Protocol):
    """A sum over the positions of a layer."""

    def __call__(self, features: Tensor, rows: slice) -> Tensor:
        """The share of some rows, (B, C, rows, W'), in the sum over all of them; differentiable."""

    def slope(self, features: Tensor, rows: slice, gradient: Tensor) -> Tensor:
        """What the sum's gradient is for these features, shaped like them."""


@dataclass(frozen=True, slots=True)
class Strips:
    """How much of a network is computed in strips.

    Attributes:
        stages: so many, from the image on; the others are computed at once.
        values: of one layer in a strip, about; at least one row of the stage's output.
    """

    stages: int = 0
    values: int = 12_000_000


def split_stages(name: str, wanted: Sequence[str], pooling: str = "max") -> list[tuple[Layer, ...]]:
    """Cut a network before each convolution that follows a pooling, up to the deepest layer."""
    stages: list[tuple[Layer, ...]] = []
    pooled = True
    for layer in layers_needed(name, wanted, pooling):
        if pooled and layer.kind == "conv":
            stages.append(())
            pooled = False
        pooled |= layer.kind == "pool"
        stages[-1] += (layer,)
    return stages


def layers_again(layers: Sequence[Layer], wanted: Iterable[str], pooling: str) -> int:
    """How many layers of a stage are computed again for the gradient: up to the last needed one."""
    names = set(wanted)
    return max(
        (
            order
            for order, layer in enumerate(layers, 1)
            if layer.name in names or needs_values(layer, pooling)
        ),
        default=0,
    )


def share_computed_again(name: str, wanted: Sequence[str], pooling: str, strips: Strips) -> float:
    """Share of the multiply-adds, from 0 to 1, that is done again for the gradient."""
    stages = split_stages(name, wanted, pooling)
    table = {row.name: row.multiply_adds for row in layer_table(name)}

    def work(layers: Iterable[Layer]) -> int:
        return sum(table[layer.name] for layer in layers)

    again = [stage[: layers_again(stage, wanted, pooling)] for stage in stages[: strips.stages]]
    return sum(map(work, again)) / sum(map(work, stages))


def measure(
    backbone: Backbone,
    image: Tensor,
    terms: Mapping[str, Sequence[Term]],
    *,
    pooling: str = "max",
    strips: Strips | None = None,
) -> dict[str, list[Tensor]]:
    """Run the network up to the deepest layer that has a term.

    Args:
        backbone: shared, frozen.
        image: (B, 3, H, W) in [0, 1]; gradients flow to it.
        terms: layer -> what is summed over its positions.
        pooling: of the network.
        strips: which stages are computed in strips; none by default.
    Returns:
        layer -> its sums, in the order of its terms.
    """
    strips = strips or Strips()
    found: list[Tensor] = []
    x = image
    for order, layers in enumerate(split_stages(backbone.name, tuple(terms), pooling)):
        stage = _Stage(backbone, layers, terms, pooling, first=order == 0)
        if order < strips.stages:
            x, *sums = _InStrips.apply(x, stage, strips.values)
        else:
            x, seen = stage.run(x, stage.strip(x.shape[2], None).steps)
            sums = [each.term(each.features, each.rows) for each in seen]
        found += sums
    order_of_layers = [layer.name for layer in architecture(backbone.name) if layer.name in terms]
    shares = iter(found)
    return {name: [next(shares) for _ in terms[name]] for name in order_of_layers}


@dataclass(frozen=True, slots=True)
class _Step:
    """One layer of a strip.

    Attributes:
        layer: to be computed.
        rows: of what is held, which it reads.
        zeros: rows of padding above and below.
        own: of what it gives, the rows of this strip and of no other.
        place: the same rows, counted in the whole layer.
    """

    layer: Layer
    rows: slice
    zeros: tuple[int, int]
    own: slice
    place: slice


@dataclass(frozen=True, slots=True)
class _Strip:
    """Rows of a stage's input, and what is done with them."""

    rows: slice
    steps: tuple[_Step, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a term sees in a strip."""

    term: Term
    features: Tensor
    rows: slice


@dataclass(frozen=True, slots=True)
class _Passed:
    """A step that is not computed again.

    Attributes:
        step: likewise.
        size: (H, W) of what its layer read.
        known: of that layer, by `remember`.
    """

    step: _Step
    size: tuple[int, int]
    known: Tensor | None


@dataclass(frozen=True, slots=True)
class _Stage:
    """Layers that are computed together, with the terms of some of them."""

    backbone: Backbone
    layers: tuple[Layer, ...]
    terms: Mapping[str, Sequence[Term]]
    pooling: str
    first: bool

    def run(self, x: Tensor, steps: Sequence[_Step]) -> tuple[Tensor, list[_Seen]]:
        """What some rows of the input become in a strip's first steps, and what terms see of it."""
        if self.first:
            x = self.backbone.normalize(x)
        seen = []
        overwritable = False
        for step in steps:
            x = self.backbone.compute(
                step.layer,
                _cut(x, step.rows),
                pooling=self.pooling,
                padded_rows=step.zeros,
                inplace=overwritable,
            )
            terms = self.terms.get(step.layer.name, ())
            seen += [_Seen(term, _cut(x, step.own), step.place) for term in terms]
            overwritable = not terms
        return x, seen

    def climb(
        self, x: Tensor, steps: Sequence[_Step], returns: bool
    ) -> tuple[Tensor, list[_Passed]]:
        """What becomes of it in the other steps, and what a way back would need of them."""
        passed = []
        for step in steps:
            below = _cut(x, step.rows)
            x = self.backbone.compute(
                step.layer, below, pooling=self.pooling, padded_rows=step.zeros, inplace=True
            )
            known = remember(step.layer, below, x, self.pooling) if returns else None
            passed.append(_Passed(step, (below.shape[2], below.shape[3]), known))
        return x, passed

    def descend(self, gradient: Tensor, passed: Sequence[_Passed]) -> Tensor:
        """The gradient of the rows that the first of these steps reads."""
        for each in reversed(passed):
            layer, padded = each.step.layer, each.step.zeros
            gradient = pull_back(self.backbone, layer, gradient, each.known, each.size, padded)
        return gradient

    def strips(self, height: int, width: int, values: int) -> list[_Strip]:
        """Strips of at most so many values of one layer, for an input of some size."""
        last = _heights(self.layers, height)[-1]
        most = max(layer.channels for layer in self.layers) * width * height
        rows = max(1, min(last, last * values // most))
        return [self.strip(height, range(at, min(at + rows, last))) for at in range(0, last, rows)]

    def strip(self, height: int, own: range | None) -> _Strip:
        """What some rows of the output need; all rows, and at once, if None.

        Rows of the layers below belong to the strip that reads them first.
        """
        heights = _heights(self.layers, height)
        own = own or range(heights[-1])
        ends = own.stop == heights[-1]
        held, steps = own, []
        for index in reversed(range(len(self.layers))):
            layer, below = self.layers[index], heights[index]
            first = held.start * layer.stride - layer.padding
            stop = (held.stop - 1) * layer.stride - layer.padding + layer.kernel
            needed = range(max(first, 0), min(stop, below))
            own_below = range(
                own.start * layer.stride, below if ends else min(own.stop * layer.stride, below)
            )
            before = needed
            if index and self.terms.get(self.layers[index - 1].name):
                before = range(min(needed.start, own_below.start), max(needed.stop, own_below.stop))
            steps.append(
                _Step(
                    layer,
                    _within(needed, before),
                    (max(-first, 0), max(stop - below, 0)),
                    _within(own, held),
                    slice(own.start, own.stop),
                )
            )
            held, own = before, own_below
        return _Strip(slice(held.start, held.stop), tuple(reversed(steps)))


class _InStrips(torch.autograd.Function):
    """A stage whose features are not kept: computed again, or passed by their signs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stage: _Stage, values: int) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x)
        again = layers_again(stage.layers, stage.terms, stage.pooling)
        ctx.stage, ctx.passed = stage, []
        whole: Tensor | None = None
        sums: list[Tensor] = []
        height = _heights(stage.layers, x.shape[2])[-1]
        for strip in stage.strips(x.shape[2], x.shape[3], values):
            rows, seen = stage.run(x[:, :, strip.rows], strip.steps[:again])
            shares = [each.term(each.features, each.rows) for each in seen]
            rows, passed = stage.climb(rows, strip.steps[again:], ctx.needs_input_grad[0])
            ctx.passed.append((strip, passed))
            if whole is None:
                whole = torch.empty(
                    (*rows.shape[:2], height, rows.shape[3]),
                    dtype=rows.dtype,
                    device=rows.device,
                    memory_format=torch.channels_last,
                )
                sums = shares
            else:
                sums = [total + share for total, share in zip(sums, shares, strict=True)]
            whole[:, :, strip.steps[-1].place] = rows
        assert whole is not None
        return whole, *sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        stage: _Stage = ctx.stage
        of_output, *of_sums = gradients
        slope = torch.zeros_like(x)
        for strip, passed in ctx.passed:
            again = strip.steps[: len(strip.steps) - len(passed)]
            with torch.enable_grad():
                rows = x[:, :, strip.rows].detach().requires_grad_()
                output, seen = stage.run(rows, again)
                output = _cut(output, passed[0].step.rows) if passed else output
            slopes = [
                each.term.slope(each.features.detach(), each.rows, gradient)
                for each, gradient in zip(seen, of_sums, strict=True)
            ]
            of_strip = stage.descend(of_output[:, :, strip.steps[-1].place], passed)
            (part,) = torch.autograd.grad(
                [output, *(each.features for each in seen)], rows, [of_strip, *slopes]
            )
            slope[:, :, strip.rows] += part
        return slope, None, None


def _heights(layers: Sequence[Layer], height: int) -> list[int]:
    """Rows of the input and of every layer's output."""
    heights = [height]
    for layer in layers:
        heights.append(layer.output_size(heights[-1]))
    return heights


def _within(rows: range, held: range) -> slice:
    """Rows counted from the first one held."""
    return slice(rows.start - held.start, rows.stop - held.start)


def _cut(x: Tensor, rows: slice) -> Tensor:
    """Some rows; the same tensor if these are all."""
    return x if rows == slice(0, x.shape[2]) else x[:, :, rows]
