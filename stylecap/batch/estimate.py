"""How long a batch would take and how much memory, from a step measured here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stylecap import api
from stylecap.backbone import load_backbone
from stylecap.batch.jobs import Job
from stylecap.errors import StylecapError
from stylecap.images import fit_long_side
from stylecap.runtime import Runtime
from stylecap.style.memory import estimate_bytes
from stylecap.style.options import StyleOptions
from stylecap.style.transfer import scale_sizes

_STEPS = 4  # measured, after one that warms up


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch is expected to need, on one worker of this machine.

    Attributes:
        seconds: of all jobs, one after the other.
        step_seconds: of one step at the finest scale of the job measured.
        measured: its content.
        size: (height, width) of that scale.
        memory_bytes: on the device, of the largest job, besides the network.
        device: where it was measured.
        precision: of the network.
        threads: of the CPU.
    """

    seconds: float
    step_seconds: float
    measured: str
    size: tuple[int, int]
    memory_bytes: int
    device: str
    precision: str
    threads: int


def estimate(jobs: Sequence[Job]) -> Estimate | None:
    """Measure a few steps of the first job that can be read; the others are taken to be alike.

    A step's time goes with its pixels; the aspect of all contents is taken to be that of the
    one measured. None if no job can be read.

    Raises:
        WeightsError, DeviceError: as `stylecap.load_backbone`.
    """
    for job in jobs:
        try:
            return _measured(job, jobs)
        except StylecapError:
            continue
    return None


def _measured(job: Job, jobs: Sequence[Job]) -> Estimate:
    runtime = Runtime.choose(job.options.device, job.options.precision)
    backbone = load_backbone(job.options.backbone, runtime=runtime)
    times: list[float] = []
    result = api.stylize(
        job.content,
        list(job.styles),
        replace(job.options, scales=1, steps=_STEPS + 1, init="content"),
        backbone=backbone,
        on_progress=lambda progress: times.append(time.perf_counter()),
    )
    step = (times[-1] - times[0]) / (len(times) - 1)
    size = (result.image.shape[-2], result.image.shape[-1])
    pixel = step / (size[0] * size[1])
    kinds = Counter(other.options for other in jobs)
    return Estimate(
        seconds=sum(count * pixel * _pixel_steps(size, each) for each, count in kinds.items()),
        step_seconds=step,
        measured=job.content,
        size=size,
        memory_bytes=max(
            estimate_bytes(fit_long_side(size, each.size), each, runtime) for each in kinds
        ),
        device=runtime.device,
        precision=runtime.precision,
        threads=runtime.threads,
    )


def _pixel_steps(shape: tuple[int, int], options: StyleOptions) -> int:
    """Pixels times steps of a whole painting; each scale begins and ends with half a step."""
    sizes = scale_sizes(fit_long_side(shape, options.size), options)
    return sum(
        height * width * (1 + options.steps // len(sizes) + (order < options.steps % len(sizes)))
        for order, (height, width) in enumerate(sizes)
    )
