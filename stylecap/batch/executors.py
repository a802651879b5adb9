"""Where painters live: in this process, in processes of this machine, or in a Ray cluster.

An executor knows nothing of the journal; only the driver that asks it does.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from stylecap.batch.painter import Outcome, Painter, PainterSettings, Task
from stylecap.progress import Progress, ShouldStop

#: Told (task, number of the worker, progress) when a task starts, with None, and steps.
Report = Callable[[Task, int, Progress | None], None]

_LOOK_SECONDS = 0.2  # between two looks at whether to stop; between two reports of a worker
_PATIENCE_SECONDS = 5.0  # for a process whose pipe ended to end too


class Executor(Protocol):
    """Paints tasks, in any order."""

    def paint(
        self, tasks: Iterable[Task], report: Report, should_stop: ShouldStop
    ) -> Iterator[Outcome]:
        """Paint them all; a stop ends it early, with running tasks stopped at a checkpoint.

        Closing the iterator ends all workers.
        """


class InProcess:
    """One painter, here."""

    def __init__(self, settings: PainterSettings) -> None:
        """Load nothing yet."""
        self._painter = Painter(settings)

    def paint(
        self, tasks: Iterable[Task], report: Report, should_stop: ShouldStop
    ) -> Iterator[Outcome]:
        """As `Executor.paint`."""
        for task in tasks:
            if should_stop():
                return
            report(task, 0, None)
            yield self._painter.paint(task, _reporter(report, task), should_stop)


def _reporter(report: Report, task: Task) -> Callable[[Progress], None]:
    return lambda progress: report(task, 0, progress)


class Processes:
    """Spawned processes, each with its own painter; one that dies is replaced."""

    def __init__(self, settings: list[PainterSettings], retries: int) -> None:
        """Start nothing yet.

        Args:
            settings: one for each process.
            retries: how often a task is tried again after its process died.
        """
        self._settings = settings
        self._retries = retries

    def paint(
        self, tasks: Iterable[Task], report: Report, should_stop: ShouldStop
    ) -> Iterator[Outcome]:
        """As `Executor.paint`."""
        waiting = Waiting(tasks, self._retries)
        idle = deque(_Worker(number, each) for number, each in enumerate(self._settings))
        busy: dict[Connection, _Worker] = {}
        stopping = False
        try:
            while True:
                if not stopping and should_stop():
                    stopping = True
                    for worker in busy.values():
                        worker.stop()
                while idle and not stopping and (task := waiting.next()) is not None:
                    worker = idle.popleft()
                    busy[worker.begin(task)] = worker
                    report(task, worker.number, None)
                if not busy:
                    return
                for connection in wait(list(busy), _LOOK_SECONDS):
                    assert isinstance(connection, Connection)
                    worker = busy[connection]
                    said = worker.hear()
                    if isinstance(said, Progress):
                        report(worker.task, worker.number, said)
                        continue
                    del busy[connection]
                    idle.append(worker)
                    if said is None and not stopping:
                        said = waiting.again(worker.task, worker.last_words)
                    if said is not None:
                        yield said
        finally:
            for worker in (*busy.values(), *idle):
                worker.end()


class Waiting:
    """Tasks not yet handed out, and those to be tried again first."""

    def __init__(self, tasks: Iterable[Task], retries: int) -> None:
        """Begin with all of them."""
        self._tasks = iter(tasks)
        self._again: deque[Task] = deque()
        self._deaths: dict[str, int] = {}
        self._retries = retries

    def next(self) -> Task | None:
        """The next task to hand out, or None."""
        return self._again.popleft() if self._again else next(self._tasks, None)

    def again(self, task: Task, why: str) -> Outcome | None:
        """Take back a task whose worker died; how it ended if that was once too often."""
        deaths = self._deaths[task.job.output] = self._deaths.get(task.job.output, 0) + 1
        if deaths <= self._retries:
            self._again.append(task)
            return None
        return Outcome(
            task,
            "failed",
            f"its worker died {deaths} times ({why}); perhaps there is too little memory: choose "
            "a smaller --size or fewer --workers",
        )


class _Worker:
    """A process and what it is doing, seen from the driver."""

    def __init__(self, number: int, settings: PainterSettings) -> None:
        self.number = number
        self.last_words = ""
        self._settings = settings
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._task: Task | None = None

    @property
    def task(self) -> Task:
        if self._task is None:
            raise RuntimeError("the worker was given no task")
        return self._task

    def begin(self, task: Task) -> Connection:
        """Give it a task; starts the process if there is none."""
        self._task = task
        if self._connection is None:
            context = get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(theirs, self._settings), daemon=True
            )
            self._process.start()
            theirs.close()  # so that its death ends the pipe
        with suppress(OSError):  # it died: `hear` will say so
            self._connection.send(task)
        return self._connection

    def stop(self) -> None:
        """Ask it to keep a checkpoint and stop."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.send(None)

    def hear(self) -> Progress | Outcome | None:
        """What it says; None if it died."""
        if self._connection is None:
            return None
        try:
            said: Progress | Outcome = self._connection.recv()
            return said
        except (EOFError, OSError):
            self.end(_PATIENCE_SECONDS)
            return None

    def end(self, patience_seconds: float = 0.0) -> None:
        """End the process: nothing is lost with it but the steps since its checkpoint."""
        if self._connection is None or self._process is None:
            return
        self._connection.close()
        self._process.join(patience_seconds)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self.last_words = f"exit code {self._process.exitcode}"
        self._connection, self._process = None, None


def _serve(connection: Connection, settings: PainterSettings) -> None:
    """Paint what comes through the pipe until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to hear
    painter = Painter(settings)
    with suppress(EOFError, OSError):
        while True:
            task = connection.recv()
            if task is not None:  # a stop that came too late
                connection.send(painter.paint(task, _Sender(connection), _StopAsked(connection)))


class _Sender:
    """Sends progress through a pipe, not more often than somebody can see."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next or progress.message or progress.step == progress.steps:
            self._next = now + _LOOK_SECONDS
            with suppress(OSError):  # the driver is gone: `_StopAsked` notices
                self._connection.send(replace(progress, preview=None))


@dataclass(slots=True)
class _StopAsked:
    """Whether the driver sent a stop, or is gone."""

    connection: Connection
    asked: bool = False

    def __call__(self) -> bool:
        if not self.asked:
            try:
                self.asked = self.connection.poll()
            except OSError:
                self.asked = True
        return self.asked
