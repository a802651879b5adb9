"""One job at a time, bounded lines of those that wait, and a clear refusal when one is full.

There are three lanes. A painting lets quick jobs (captions, feature maps) through between its
steps, and a batch lets paintings through between its own, so that nobody waits for hours and
still only one thing is computed at any moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stylecap.errors import StylecapError
from stylecap.progress import Progress

QUICK, SINGLE, BATCH = 0, 1, 2
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


class BusyError(StylecapError):
    """The line is full, or this visitor has enough jobs in it.

    Attributes:
        waiting: jobs in the line.
        own: it is the visitor's own jobs that are too many.
    """

    def __init__(self, waiting: int, *, own: bool) -> None:
        self.waiting, self.own = waiting, own
        super().__init__(
            "you have a job here already; wait for it, or stop it"
            if own
            else f"busy: {waiting} jobs are waiting; try again in a few minutes"
        )


@dataclass(eq=False)
class Job:
    """Work that was asked for, from the line to its end.

    The page reads the fields while the worker writes them; each is replaced as a whole.

    Attributes:
        owner: whose it is: the visitor's browser.
        session: the tab that asked; what is stopped when it closes.
        lane: ``QUICK``, ``SINGLE`` or ``BATCH``.
        state: ``waiting``, ``running``, ``done`` or ``failed``.
        progress: the latest event of the computation.
        found: what the work has to show so far, by name.
        result: what it returned; None if it was stopped before its turn.
        error: what it raised.
    """

    owner: str
    session: str
    lane: int
    work: Callable[[Job], Any]
    give_way: Callable[[], None]
    state: str = WAITING
    progress: Progress | None = None
    found: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> bool:
        """Whether it is over, one way or another."""
        return self._ended.is_set()

    def should_stop(self) -> bool:
        """Whether somebody asked it to stop; for `stylize`."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask it to stop: a running one returns what it has, a waiting one never starts."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end; True if it came in time."""
        return self._ended.wait(seconds)

    def run(self) -> None:
        """Do the work, once; for the worker."""
        try:
            if not self.should_stop():
                self.state = RUNNING
                self.result = self.work(self)
            self.state = DONE
        except BaseException as error:  # the worker must outlive any job
            self.error = error
            self.state = FAILED
        finally:
            self.work = self.give_way = _nothing  # lets go of pictures and tensors
            self._ended.set()


class JobQueue:
    """A worker thread and the jobs that wait for it, in their order.

    Args:
        max_waiting: jobs of a lane that may wait besides the running one.
        max_each: jobs of a lane, waiting and running, that one owner may have.
    """

    def __init__(self, max_waiting: int, max_each: int) -> None:
        self._max_waiting, self._max_each = max_waiting, max_each
        self._line: list[Job] = []
        self._running: list[Job] = []  # the innermost last: each gave way to the next
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._serve, name="stylecap-jobs", daemon=True)
        self._worker.start()

    def submit(
        self,
        owner: str,
        session: str,
        work: Callable[[Job], Any],
        lane: int = SINGLE,
        *,
        unlimited: bool = False,
    ) -> Job:
        """Put work into the line.

        Args:
            owner: whose it is.
            session: tab of the owner.
            work: what to do.
            lane: `QUICK`, `SINGLE` or `BATCH`.
            unlimited: it was let in before, so that no limit holds.
        Raises:
            BusyError: the line is full, or the owner has enough in it.
        """
        with self._changed:
            self._forget_stopped()
            own = [j for j in self._all() if (j.owner, j.lane) == (owner, lane)]
            going = sum(not job.should_stop() for job in own)
            if going >= self._max_each and not unlimited:
                raise BusyError(len(self._line), own=True)
            waiting = sum(job.lane == lane for job in self._line)
            if (waiting >= self._max_waiting and not unlimited) or self._closed:
                raise BusyError(waiting, own=False)
            job = Job(owner, session, lane, work, lambda: self._serve_before(lane))
            self._line.append(job)
            self._changed.notify()
        return job

    def place(self, job: Job) -> int:
        """How many jobs come before it; 0 for those that run or ended."""
        with self._changed:
            self._forget_stopped()
            if job not in self._line:
                return 0
            before = self._line[: self._line.index(job)]
            ahead = sum(each.lane == job.lane for each in before)
            return ahead + sum(each.lane <= job.lane for each in self._running)

    def stop(self, owner: str, session: str) -> int:
        """Stop all jobs of a tab; returns how many."""
        with self._changed:
            jobs = [job for job in self._all() if (job.owner, job.session) == (owner, session)]
            for job in jobs:
                job.stop()
            self._forget_stopped()
        return len(jobs)

    def end(self, job: Job) -> None:
        """Stop a job; one that waits is over at once."""
        with self._changed:
            job.stop()
            self._forget_stopped()

    def counts(self) -> dict[str, int]:
        """How many jobs wait and run."""
        with self._changed:
            return {"waiting": len(self._line), "running": len(self._running)}

    def close(self) -> None:
        """Stop everything and wait for the worker a moment."""
        with self._changed:
            self._closed = True
            for job in self._all():
                job.stop()
            self._forget_stopped()
            self._changed.notify()
        self._worker.join(10)

    def _all(self) -> list[Job]:
        return [*self._line, *self._running]

    def _forget_stopped(self) -> None:
        for job in [job for job in self._line if job.should_stop()]:
            self._line.remove(job)
            job.run()  # does nothing but end it

    def _next(self, below: int) -> Job | None:
        """Take the first job of the lowest lane under ``below``; with the lock held."""
        waiting = [job for job in self._line if job.lane < below]
        if not waiting:
            return None
        job = min(waiting, key=lambda each: each.lane)
        self._line.remove(job)
        self._running.append(job)
        return job

    def _run(self, job: Job) -> None:
        job.run()
        with self._changed:
            self._running.remove(job)

    def _serve_before(self, lane: int) -> None:
        while True:
            with self._changed:
                job = self._next(lane)
            if job is None:
                return
            self._run(job)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line or self._closed)
                if self._closed:
                    return
                job = self._next(BATCH + 1)
            if job is not None:
                self._run(job)


def _nothing(*arguments: object) -> None:
    return None
