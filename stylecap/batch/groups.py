"""Which jobs are painted together: those that differ only in what is painted."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import cache

from stylecap.batch.jobs import Job
from stylecap.errors import StylecapError
from stylecap.images import fit_long_side, picture_size


def grouped(jobs: Sequence[Job], limit: int) -> Iterator[list[Job]]:
    """Jobs with the same options, styles, mask and size of the result, some at a time.

    A content that cannot be read is a group of its own; painting it will say why.

    Args:
        jobs: in order; a group comes at the place of its first.
        limit: jobs in a group, at most; with 1 no file is looked at.
    """
    if limit == 1:
        yield from ([job] for job in jobs)
        return
    size_of = cache(picture_size)  # a content may have many styles

    def kind(job: Job) -> Hashable:
        try:
            size = fit_long_side(size_of(job.content), job.options.size)
        except (StylecapError, ValueError):
            return job.output
        return size, job.options, job.styles, job.mask, job.mask_colors, bool(job.init_image)

    alike: dict[Hashable, list[Job]] = {}
    for job in jobs:
        alike.setdefault(kind(job), []).append(job)
    for group in alike.values():
        yield from (group[at : at + limit] for at in range(0, len(group), limit))
