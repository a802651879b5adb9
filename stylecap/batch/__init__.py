"""Many pictures, nothing lost: jobs, the journal that remembers them, and who paints them.

    from stylecap.batch import BatchOptions, plan_jobs, run

    jobs = plan_jobs(["photos/"], ["night-swirls"])
    for result in run(jobs, "out", BatchOptions(workers=2)):
        print(result.job.output, result.status)

Everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylecap.batch.driver import run
    from stylecap.batch.jobs import Job, plan_jobs, read_manifest
    from stylecap.batch.options import BatchOptions
    from stylecap.batch.report import write_report
    from stylecap.batch.results import JobEvent, JobResult

_HOMES = {
    "BatchOptions": "options",
    "Job": "jobs",
    "JobEvent": "results",
    "JobResult": "results",
    "plan_jobs": "jobs",
    "read_manifest": "jobs",
    "run": "driver",
    "write_report": "report",
}

__all__ = [
    "BatchOptions",
    "Job",
    "JobEvent",
    "JobResult",
    "plan_jobs",
    "read_manifest",
    "run",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stylecap.batch' has no attribute {name!r}")
    return getattr(import_module(f"stylecap.batch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
