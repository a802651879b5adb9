"""How long a batch would take and how much memory, from steps of one of its jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stylecap.backbone import load_backbone
from stylecap.batch.jobs import Job
from stylecap.errors import StylecapError
from stylecap.estimate import Estimate, estimate, measure_painting
from stylecap.runtime import Runtime


@dataclass(frozen=True, slots=True)
class BatchEstimate:
    """What a batch is expected to need, on one worker of this machine.

    Attributes:
        seconds: of all jobs, one after the other.
        memory_bytes: on the device, of the largest job, besides the network.
        measured: content of the job that was measured.
        job: what that one needs.
    """

    seconds: float
    memory_bytes: int
    measured: str
    job: Estimate


def estimate_batch(jobs: Sequence[Job]) -> BatchEstimate | None:
    """Measure a few steps of the first job that can be read; the others are taken to be alike.

    The aspect of all contents is taken to be that of the one measured. None if no job can be
    read.

    Raises:
        WeightsError, DeviceError: as `stylecap.load_backbone`.
    """
    for job in jobs:
        try:
            return _measured(job, jobs)
        except StylecapError:
            continue
    return None


def _measured(job: Job, jobs: Sequence[Job]) -> BatchEstimate:
    runtime = Runtime.choose(job.options.device, job.options.precision)
    backbone = load_backbone(job.options.backbone, runtime=runtime)
    measured = measure_painting(
        job.content,
        job.styles,
        job.options,
        backbone,
        init_image=job.init_image or None,
        mask=job.mask or None,
        mask_colors=job.mask_colors,
    )
    kinds = Counter((len(other.styles), other.options) for other in jobs)
    each = {kind: estimate(measured.shape, *kind, measured) for kind in kinds}
    painting = sum(count * each[kind].seconds for kind, count in kinds.items())
    # A style is read, or painted, once; that outweighs what reading and saving a job takes.
    return BatchEstimate(
        seconds=painting + measured.around * len({other.styles for other in jobs}),
        memory_bytes=max(found.memory_bytes for found in each.values()),
        measured=job.content,
        job=each[len(job.styles), job.options],
    )
