"""What a batch says about its jobs: results as they finish, events on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylecap.batch.jobs import Job
from stylecap.progress import Progress


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended.

    Attributes:
        job: which.
        status: ``"done"`` now, ``"kept"`` from an earlier run, or ``"failed"``.
        path: of the picture, or None if it failed.
        seconds: that painting took, earlier runs and those painted together with it included.
        steps: evaluations of the objective.
        loss: ``content``, ``style`` per layer, ``tv`` and ``total``.
        error: why it failed, one line.
        card: figures by name with `BatchOptions.card`, see `QualityCard.figures`; else empty.
        content_caption, result_caption: with `BatchOptions.caption`, else ``""``.
    """

    job: Job
    status: str
    path: Path | None = None
    seconds: float = 0.0
    steps: int = 0
    loss: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    card: dict[str, float] = field(default_factory=dict)
    content_caption: str = ""
    result_caption: str = ""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One moment of a batch.

    Attributes:
        kind: ``queued``, ``started``, ``progress``, ``done``, ``kept``, ``failed`` or ``note``.
        job: which, or None for a note about the whole batch.
        worker: number of who paints it, from 0.
        progress: of the running job; kind ``"progress"``. Its ``preview`` is None when the job
            runs in another process.
        result: kinds ``"done"``, ``"kept"`` and ``"failed"``.
        message: for people; kind ``"note"``.
    """

    kind: str
    job: Job | None = None
    worker: int = 0
    progress: Progress | None = None
    result: JobResult | None = None
    message: str = ""
