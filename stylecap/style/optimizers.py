"""L-BFGS and Adam over one image, with state that can be written down and taken up again.

A step is one evaluation of the objective, whatever the optimiser, so that it costs the same.
Neither reads a number from the device: a step on a GPU never waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

HISTORY = 20  # pairs of L-BFGS: more were no better, and each costs two images


class Optimizer(Protocol):
    """Gets a point and its gradient, gives the next point."""

    def step(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The next point to evaluate, shaped like ``x``."""

    def restart(self, scale: float) -> None:
        """Forget all curvature and shorten the steps by ``scale``."""

    def state(self) -> dict[str, Tensor]:
        """All that the next steps depend on."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state`."""


class LBFGS:
    """Limited-memory BFGS without line search, one evaluation a step.

    The direction is the two-loop recursion of Nocedal & Wright 2006, algorithm 7.4, with
    H_0 = sᵀy / yᵀy I; the first step moves by at most ``first_step`` in each pixel on
    average. Steps in which the gradient changed against the move (sᵀy too small) are not
    remembered, which keeps the inverse Hessian positive definite.
    """

    def __init__(self, history: int = HISTORY, first_step: float = 0.01) -> None:
        """Start without curvature.

        Args:
            history: pairs (s, y) remembered; each costs two images in float32.
            first_step: mean absolute change of a pixel in the first step, in [0, 1].
        """
        self._history = history
        self._first_step = first_step
        self._scale = 1.0
        self._moves: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._inverses: list[Tensor] = []
        self._last: tuple[Tensor, Tensor] | None = None
        self._curvature = torch.ones(())  # sᵀy / yᵀy of the youngest pair that has curvature

    def step(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The next point, by the direction of the remembered curvature."""
        point, slope = x.detach().flatten(), gradient.detach().flatten()
        if self._last is None:
            tiny = torch.finfo(slope.dtype).tiny
            self._curvature = self._first_step / slope.abs().mean().clamp_min(tiny)
        else:
            self._remember(point - self._last[0], slope - self._last[1])
        self._last = (point.clone(), slope.clone())
        return (point + self._scale * self._direction(slope)).view_as(x)

    def _remember(self, move: Tensor, change: Tensor) -> None:
        product = move.dot(change)
        # A pair without curvature gets the weight 0 instead of a branch that would wait
        # for the device.
        bent = product > 1e-10 * change.dot(change)
        inverse = torch.where(bent, 1 / torch.where(bent, product, 1.0), 0.0)
        # Where no pair has curvature yet, that of the first step stays, and it goes on moving.
        square = torch.where(bent, change.dot(change), 1.0)
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
            weight = inverse * move.dot(q)
            q.addcmul_(change, weight, value=-1)
            weights.append(weight)
        q.mul_(self._curvature)
        for move, change, inverse, weight in zip(
            self._moves, self._changes, self._inverses, reversed(weights), strict=True
        ):
            q.addcmul_(move, weight - inverse * change.dot(q))
        return q

    def restart(self, scale: float) -> None:
        """Forget all curvature and shorten the steps by ``scale``."""
        self._moves, self._changes, self._inverses = [], [], []
        self._last = None
        self._scale *= scale

    def state(self) -> dict[str, Tensor]:
        """All that the next steps depend on."""
        state = {"scale": torch.tensor(self._scale, dtype=torch.float64)}
        if self._last is not None:
            state["last_point"], state["last_slope"] = self._last
            state["curvature"] = self._curvature[None]  # (1,)
        if self._moves:
            state["moves"] = torch.stack(self._moves)  # (history, pixels)
            state["changes"] = torch.stack(self._changes)  # (history, pixels)
            state["inverses"] = torch.stack(self._inverses)  # (history,)
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state`."""
        self._scale = float(state["scale"])
        self._last = (state["last_point"], state["last_slope"]) if "last_point" in state else None
        self._curvature = state["curvature"][0] if "curvature" in state else self._curvature
        # Cloned, since each has its own aligned memory in a run that was not interrupted.
        self._moves, self._changes, self._inverses = (
            [value.clone() for value in state.get(name, ())]
            for name in ("moves", "changes", "inverses")
        )


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) with β = (0.9, 0.999)."""

    def __init__(self, learning_rate: float) -> None:
        """Start without moments.

        Args:
            learning_rate: step size, in units of the pixel range.
        """
        self._rate = learning_rate
        self._count = 0
        self._mean: Tensor | None = None
        self._square: Tensor | None = None

    def step(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The next point."""
        slope = gradient.detach().contiguous()
        if self._mean is None or self._square is None:
            self._mean, self._square = torch.zeros_like(slope), torch.zeros_like(slope)
        self._count += 1
        self._mean = self._mean.lerp(slope, 1 - 0.9)
        self._square = self._square.lerp(slope.square(), 1 - 0.999)
        mean = self._mean / (1 - 0.9**self._count)
        square = self._square / (1 - 0.999**self._count)
        return x.detach() - self._rate * mean / (square.sqrt() + 1e-12)

    def restart(self, scale: float) -> None:
        """Forget the moments and shorten the steps by ``scale``."""
        self._count, self._mean, self._square = 0, None, None
        self._rate *= scale

    def state(self) -> dict[str, Tensor]:
        """All that the next steps depend on."""
        state = {
            "rate": torch.tensor(self._rate, dtype=torch.float64),
            "count": torch.tensor(self._count),
        }
        if self._mean is not None and self._square is not None:
            state["mean"], state["square"] = self._mean, self._square
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state`."""
        self._rate, self._count = float(state["rate"]), int(state["count"])
        self._mean, self._square = state.get("mean"), state.get("square")
