"""How long work reports where it is, and how it is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Progress:
    """One moment of a long computation, the same for terminal, web page and log.

    Attributes:
        step: steps done so far over the whole run, from 1 to ``steps``.
        steps: steps that the whole run will take at most; fewer than before once a part of it
            has ended early.
        seconds: time since the run began.
        stage: what is being done, in words (``"scale 2 of 3, 192x144"``, ``"epoch 3"``).
        loss: value of the objective at this step, if it was read from the device.
        parts: its named parts, unweighted.
        message: something worth telling a person (a restart after a diverging step).
        share: of the work done, from 0 to 1, where not all steps cost the same.
        preview: gives the picture so far, (1, 3, H, W) in [0, 1] on the CPU; only
            called when somebody wants to see it, since it reads from the device.
    """

    step: int
    steps: int
    seconds: float
    stage: str = ""
    loss: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    message: str = ""
    share: float | None = None
    preview: Callable[[], Tensor] | None = None

    @property
    def done(self) -> float:
        """The share of the work done, from 0 to 1."""
        return self.step / max(1, self.steps) if self.share is None else self.share

    @property
    def seconds_left(self) -> float | None:
        """Estimated remaining time, or None before the first step."""
        return self.seconds * (1 - self.done) / self.done if self.done else None


OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]
