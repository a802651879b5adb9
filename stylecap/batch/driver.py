"""The run of a batch: hands jobs out, keeps the journal, yields results as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stylecap.batch.jobs import Job
from stylecap.batch.options import BatchOptions
from stylecap.batch.results import JobEvent, JobResult
from stylecap.progress import ShouldStop

OnEvent = Callable[[JobEvent], None]


def run(
    jobs: Sequence[Job],
    output: str | Path,
    options: BatchOptions | None = None,
    *,
    shard: tuple[int, int] = (1, 1),
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
) -> Iterator[JobResult]:
    """Paint all jobs; whatever happens, calling it again goes on where it was.

    A journal in ``output/.stylecap`` remembers what is finished, and from which options and
    input files. Jobs finished before are kept, unless their options or inputs changed; one that
    was running resumes from its last checkpoint. A job that fails is one failed result; the
    others go on.

    Args:
        jobs: with distinct outputs, as of `plan_jobs` or `read_manifest`.
        output: folder of the results; made if it is missing.
        options: `BatchOptions()` if None.
        shard: (i, n): only the i-th, from 1, of n equal shares of the jobs; other processes or
            machines that share the folder run the other shares.
        on_event: told of every job queued, started, progressing and ended, in this thread.
        should_stop: asked between steps; when true, running jobs write a checkpoint and the
            iteration ends. What was not finished is not yielded.
    Yields:
        One result a job of this share: the kept ones first, then each when it finishes.
    Raises:
        OptionError: two jobs have the same output, or an output would overwrite an input.
        OutputError: another run works on the folder, it cannot be written, or the disk is full.
        WeightsError: weights are missing or corrupt.
        DeviceError: the device is not here.
    """
    raise NotImplementedError
    yield
