"""Read pictures ahead in threads, while the network is busy with the ones before.

What runs there should leave torch alone: each thread that uses it gets OpenMP threads of its own,
and with more of them than processors those of the network sleep at every turn.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 4  # decoding one very large picture takes gigabytes


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 32
) -> Generator[Result]:
    """Apply a function in threads, in the order of the items.

    Args:
        function: of one item; what it raises is raised where its result would come.
        items: taken one after another, in the caller's thread.
        ahead: results that are computed or wait to be taken, at most.
    Returns:
        A generator; closing it, or leaving it, ends the threads.
    """
    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="stylecap-load") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
