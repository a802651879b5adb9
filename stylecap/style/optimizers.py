"""L-BFGS and Adam over images, with state that can be written down and taken up again.

The images of a batch are independent: each goes the way it would go alone. A step is one
evaluation of the objective, whatever the optimiser, so that it costs the same. Neither reads a
number from the device: a step on a GPU never waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

HISTORY = 20  # pairs of L-BFGS: more were no better, and each costs two images
_COARSEST = 64  # px; `smoothed` halves pictures while their shorter side is above it


class Optimizer(Protocol):
    """Gets points and their gradients, gives the next points; each image is one."""

    def step(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The next points to evaluate, shaped like ``x``, (B, ...)."""

    def restart(self, image: int, scale: float) -> None:
        """Forget what was learned of one image, and shorten its steps by ``scale``."""

    def state(self, image: int) -> dict[str, Tensor]:
        """All that the next steps of one image depend on."""

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Continue from a `state` of each image, all after the same number of steps."""


_KEPT = ("moves", "changes", "inverses")  # of L-BFGS, in checkpoints


class LBFGS:
    """Limited-memory BFGS without line search, one evaluation a step.

    The direction is the two-loop recursion of Nocedal & Wright 2006, algorithm 7.4, with
    H_0 = sᵀy / yᵀPy P, where P is `smoothed`; the first step moves by at most ``first_step`` in
    each pixel on average. Steps in which the gradient changed against the move (sᵀy too small)
    are not remembered, which keeps the inverse Hessian positive definite.
    """

    def __init__(
        self,
        images: int = 1,
        history: int = HISTORY,
        *,
        half: bool = False,
        first_step: float = 0.01,
    ) -> None:
        """Start without curvature.

        Args:
            images: of the batch, B.
            history: pairs (s, y) remembered; each costs two images in float32.
            half: remember them in bfloat16, which costs one image, and a little time.
            first_step: mean absolute change of a pixel in the first step, in [0, 1].
        """
        self._history = history
        self._half = half
        self._first_step = first_step
        self._scales = [1.0] * images
        self._fresh = [True] * images  # without any pair
        self._moves: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._inverses: list[Tensor] = []
        self._last: tuple[Tensor, Tensor] | None = None
        self._curvature = torch.ones(())  # (B,) sᵀy / yᵀPy of the youngest pair with curvature
        self._shape = torch.Size()  # of the points

    def step(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The next points, by the direction of the remembered curvature."""
        self._shape = x.shape
        point, slope = x.detach().flatten(1), gradient.detach().flatten(1)  # (B, pixels)
        if self._last is not None:
            self._remember(point - self._last[0], slope - self._last[1])
        if any(self._fresh):
            self._begin(slope)
        self._last = (point, slope)
        return (point + _column(self._scales, slope) * self._direction(slope)).view_as(x)

    def _begin(self, slope: Tensor) -> None:
        """Give images without any pair the curvature of the first step."""
        for image, fresh in enumerate(self._fresh):
            if fresh:  # what was kept may not even be a number
                for kept in (*self._moves, *self._changes, *self._inverses):
                    kept[image].zero_()
        tiny = torch.finfo(slope.dtype).tiny
        first = self._first_step / self._smoothed(slope).abs().mean(1).clamp_min(tiny)  # (B,)
        begins = _column(self._fresh, slope)[:, 0] > 0  # (B,)
        self._curvature = torch.where(begins, first, self._curvature)
        self._fresh = [False] * len(self._fresh)

    def _remember(self, move: Tensor, change: Tensor) -> None:
        bend = change
        if self._half:  # what is remembered has to fit together, not what it was rounded from
            move, change = move.bfloat16(), change.bfloat16()
            bend = change.to(bend.dtype)
        product, square = _dots(move, bend), _dots(change, self._smoothed(bend))  # (B,)
        # A pair without curvature gets the weight 0 instead of a branch that would wait
        # for the device.
        bent = product > 1e-10 * square
        inverse = torch.where(bent, 1 / torch.where(bent, product, 1.0), 0.0)
        # Where no pair has curvature yet, that of the first step stays, and it goes on moving.
        square = torch.where(bent, square, 1.0)
        self._curvature = torch.where(bent, product / square, self._curvature)
        for kept, value in (
            (self._moves, move),
            (self._changes, change),
            (self._inverses, inverse),
        ):
            kept.append(value)
            del kept[: -self._history]

    def _direction(self, slope: Tensor) -> Tensor:
        q = -slope
        weights: list[Tensor] = []
        for move, change, inverse in zip(
            reversed(self._moves), reversed(self._changes), reversed(self._inverses), strict=True
        ):
            weight = inverse * _dots(move, q)  # (B,)
            q.addcmul_(change, weight[:, None], value=-1)
            weights.append(weight)
        q = self._smoothed(q).mul_(self._curvature[:, None])
        for move, change, inverse, weight in zip(
            self._moves, self._changes, self._inverses, reversed(weights), strict=True
        ):
            q.addcmul_(move, (weight - inverse * _dots(change, q))[:, None])
        return q

    def _smoothed(self, rows: Tensor) -> Tensor:
        return smoothed(rows.view(self._shape)).flatten(1)

    def restart(self, image: int, scale: float) -> None:
        """Forget the curvature of one image, and shorten its steps by ``scale``."""
        self._fresh[image] = True
        self._scales[image] *= scale

    def state(self, image: int) -> dict[str, Tensor]:
        """All that the next steps of one image depend on."""
        state = {
            "scale": torch.tensor(self._scales[image], dtype=torch.float64),
            "fresh": torch.tensor(self._fresh[image]),
        }
        if self._last is not None:
            state["last_point"], state["last_slope"] = (
                last[image].clone()
                for last in self._last  # shared with the picture itself
            )
            state["curvature"] = self._curvature[image : image + 1]  # (1,)
        # One by one, and not copied: together they are the largest part of what a run remembers.
        for name, kept in zip(_KEPT, (self._moves, self._changes, self._inverses), strict=True):
            for place, rows in enumerate(kept):
                state[f"{name}/{place}"] = rows[image]
        return state

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Continue from a `state` of each image."""
        self._scales = [float(state["scale"]) for state in states]
        self._fresh = [bool(state["fresh"]) for state in states]
        if "last_point" in states[0]:
            point, slope = (
                torch.stack([state[name] for state in states])
                for name in ("last_point", "last_slope")
            )
            self._last = (point, slope)
            self._curvature = torch.cat([state["curvature"] for state in states])
        count = sum(key.startswith(f"{_KEPT[0]}/") for key in states[0])
        self._moves, self._changes, self._inverses = (
            [torch.stack([s[f"{name}/{place}"] for s in states]) for place in range(count)]
            for name in _KEPT
        )


def smoothed(images: Tensor) -> Tensor:
    """P, which passes detail as it is, and twice as much of every octave that is coarser.

    The objective bends least where pictures change slowly, by about the inverse of their
    frequency; where L-BFGS knows nothing yet, it moves along these changes by so much more.

    Args:
        images: (..., H, W); as they are where the shorter side has no more than 64 pixels.
    Returns:
        (..., H, W) Σ_k 8^k A_kᵀ A_k x, where A_k halves the picture k times, and 4^k A_kᵀ enlarges
        it again: symmetric, and no eigenvalue is below 1.
    Source: Bramble, Pasciak & Xu 1990, "Parallel Multilevel Preconditioners".
    """
    height, width = images.shape[-2:]
    if min(height, width) <= _COARSEST:
        return images
    places = torch.arange(4, dtype=images.dtype, device=images.device)
    taps = (1 + places * (3 - places)) / 8  # 1 3 3 1, made on the device, which does not wait
    kernel = (taps[:, None] * taps)[None, None]
    each = images.reshape(-1, 1, height, width)
    halved = functional.conv2d(each, kernel, stride=2, padding=1)
    back = functional.conv_transpose2d(
        smoothed(halved),
        8 * kernel,
        stride=2,
        padding=1,
        output_padding=(height % 2, width % 2),
    )
    return images + back.view_as(images)


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) with β = (0.9, 0.999)."""

    def __init__(self, learning_rate: float, images: int = 1) -> None:
        """Start without moments.

        Args:
            learning_rate: step size, in units of the pixel range.
            images: of the batch, B.
        """
        self._rates = [learning_rate] * images
        self._counts = [0] * images
        self._mean: Tensor | None = None
        self._square: Tensor | None = None

    def step(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The next points."""
        slope = gradient.detach().flatten(1)  # (B, pixels)
        if self._mean is None or self._square is None:
            self._mean, self._square = torch.zeros_like(slope), torch.zeros_like(slope)
        self._counts = [count + 1 for count in self._counts]
        self._mean = self._mean.lerp(slope, 1 - 0.9)
        self._square = self._square.lerp(slope.square(), 1 - 0.999)
        mean = self._mean / _column([1 - 0.9**count for count in self._counts], slope)
        square = self._square / _column([1 - 0.999**count for count in self._counts], slope)
        move = _column(self._rates, slope) * mean / (square.sqrt() + 1e-12)
        return x.detach() - move.view_as(x)

    def restart(self, image: int, scale: float) -> None:
        """Forget the moments of one image, and shorten its steps by ``scale``."""
        self._counts[image] = 0
        self._rates[image] *= scale
        if self._mean is not None and self._square is not None:
            self._mean[image].zero_()
            self._square[image].zero_()

    def state(self, image: int) -> dict[str, Tensor]:
        """All that the next steps of one image depend on."""
        state = {
            "rate": torch.tensor(self._rates[image], dtype=torch.float64),
            "count": torch.tensor(self._counts[image]),
        }
        if self._mean is not None and self._square is not None:
            state["mean"], state["square"] = self._mean[image], self._square[image]
        return state

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Continue from a `state` of each image."""
        self._rates = [float(state["rate"]) for state in states]
        self._counts = [int(state["count"]) for state in states]
        if "mean" in states[0]:
            self._mean, self._square = (
                torch.stack([state[name] for state in states]) for name in ("mean", "square")
            )


def _dots(first: Tensor, second: Tensor) -> Tensor:
    """Inner products of rows, (B, N) and (B, N) to (B,), in the second's type."""
    first = first.to(second.dtype)
    if first.device.type == "cpu":  # where it is three times faster than all rows at once
        return torch.stack([one.dot(other) for one, other in zip(first, second, strict=True)])
    products: Tensor = torch.linalg.vecdot(first, second)
    return products


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """One number for each row of (B, N), (B, 1); written on the device, which does not wait."""
    return torch.stack([like.new_full((1,), value) for value in values])
