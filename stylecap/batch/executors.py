"""Where painters live: in this process, in processes of this machine, or in a Ray cluster.

An executor knows nothing of the journal; only the driver that asks it does.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol, cast

from stylecap.batch.painter import Outcome, Painter, PainterSettings, Task
from stylecap.errors import DeviceError
from stylecap.progress import Progress, ShouldStop
from stylecap.runtime import share_memory

#: Tasks that may be painted together.
Group = Sequence[Task]

#: Told (task, number of the worker, progress) when a task starts, with None, and steps.
Report = Callable[[Task, int, Progress | None], None]

_LOOK_SECONDS = 0.2  # between two looks at whether to stop; between two reports of a worker
_PATIENCE_SECONDS = 5.0  # for a process whose pipe ended to end too


class Executor(Protocol):
    """Paints groups of tasks, in any order.

    Attributes:
        workers: groups that it paints at the same time.
        on_gpu: whether it paints on something faster than a CPU.
    """

    workers: int
    on_gpu: bool

    def paint(
        self, groups: Iterable[Group], report: Report, should_stop: ShouldStop
    ) -> Generator[Outcome]:
        """Paint them all; a stop ends it early, with running tasks stopped at a checkpoint.

        Closing the iterator ends all workers.
        """


class InProcess:
    """One painter, here."""

    def __init__(self, settings: PainterSettings, on_gpu: bool) -> None:
        """Load nothing yet."""
        self.workers = 1
        self.on_gpu = on_gpu
        self._painter = Painter(settings)

    def paint(
        self, groups: Iterable[Group], report: Report, should_stop: ShouldStop
    ) -> Generator[Outcome]:
        """As `Executor.paint`."""
        for group in groups:
            if should_stop():
                return
            for task in group:
                report(task, 0, None)
            yield from self._painter.paint(
                group, lambda task, progress: report(task, 0, progress), should_stop
            )


class Processes:
    """Spawned processes, each with its own painter; one that dies is replaced."""

    def __init__(self, settings: list[PainterSettings], on_gpu: bool, retries: int) -> None:
        """Start nothing yet.

        Args:
            settings: one for each process.
            on_gpu: whether they paint on something faster than a CPU.
            retries: how often a task is tried again after its process died.
        """
        self.workers = len(settings)
        self.on_gpu = on_gpu
        self._settings = settings
        self._retries = retries

    def paint(
        self, groups: Iterable[Group], report: Report, should_stop: ShouldStop
    ) -> Generator[Outcome]:
        """As `Executor.paint`."""
        waiting = Waiting(groups, self._retries)
        idle = deque(_Worker(number, each) for number, each in enumerate(self._settings))
        busy: dict[Connection, _Worker] = {}
        stopping = False
        try:
            while True:
                if not stopping and should_stop():
                    stopping = True
                    for worker in busy.values():
                        worker.stop()
                while idle and not stopping and (group := waiting.next()) is not None:
                    worker = idle.popleft()
                    for task in group:
                        report(task, worker.number, None)
                    busy[worker.begin(group)] = worker
                if not busy:
                    return
                heard = cast(list[Connection], wait(list(busy), _LOOK_SECONDS))
                for connection in heard:
                    worker = busy[connection]
                    said = worker.hear()
                    if isinstance(said, Outcome):
                        yield said
                    elif said is not None:
                        task, progress = said
                        report(task, worker.number, progress)
                        continue
                    elif not stopping:
                        yield from waiting.again(worker.tasks, worker.last_words)
                    if said is None or not worker.tasks:
                        del busy[connection]
                        idle.append(worker)
        finally:
            for worker in (*busy.values(), *idle):
                worker.end()


class Waiting:
    """Groups not yet handed out, and tasks to be tried again first."""

    def __init__(self, groups: Iterable[Group], retries: int) -> None:
        """Begin with all of them."""
        self._groups = iter(groups)
        self._again: deque[Task] = deque()
        self._deaths: dict[str, int] = {}
        self._retries = retries

    def next(self) -> Group | None:
        """The next group to hand out, or None."""
        return [self._again.popleft()] if self._again else next(self._groups, None)

    def again(self, group: Group, why: str) -> Iterator[Outcome]:
        """Take back a group whose worker died; gives those for which it was once too often.

        Each is tried again by itself, so that the one that kills its worker takes no other along.
        """
        for task in group:
            deaths = self._deaths[task.job.output] = self._deaths.get(task.job.output, 0) + 1
            if deaths <= self._retries:
                self._again.append(task)
                continue
            yield Outcome(
                task,
                "failed",
                f"its worker died {deaths} times ({why}); perhaps there is too little memory: "
                "choose a smaller --size or fewer --workers",
            )


class _Worker:
    """A process and what it is doing, seen from the driver."""

    def __init__(self, number: int, settings: PainterSettings) -> None:
        self.number = number
        self.last_words = ""
        self.tasks: list[Task] = []  # handed to it and not ended
        self._settings = settings
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def begin(self, group: Group) -> Connection:
        """Give it a group; starts the process if there is none."""
        self.tasks = list(group)
        if self._connection is None:
            context = get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(theirs, self._settings), daemon=True
            )
            self._process.start()
            theirs.close()  # so that its death ends the pipe
        with suppress(OSError):  # it died: `hear` will say so
            self._connection.send(self.tasks)
        return self._connection

    def stop(self) -> None:
        """Ask it to keep a checkpoint and stop."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.send(None)

    def hear(self) -> tuple[Task, Progress] | Outcome | None:
        """What it says; None if it died."""
        if self._connection is None:
            return None
        try:
            said: tuple[Task, Progress] | Outcome = self._connection.recv()
        except (EOFError, OSError):
            self.end(_PATIENCE_SECONDS)
            return None
        if isinstance(said, Outcome):
            self.tasks.remove(said.task)
        return said

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
    share_memory(settings.sharing)
    painter = Painter(settings)
    with suppress(EOFError, OSError):
        while True:
            group = connection.recv()
            if group is None:  # a stop that came too late
                continue
            try:
                for outcome in painter.paint(group, _Sender(connection), _StopAsked(connection)):
                    connection.send(outcome)
            except DeviceError as error:  # another process may get on with the device
                raise SystemExit(f"stylecap: {error}") from error


class _Sender:
    """Sends progress through a pipe, for each task not more often than somebody can see."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next: dict[str, float] = {}

    def __call__(self, task: Task, progress: Progress) -> None:
        now = time.monotonic()
        due = now >= self._next.get(task.job.output, 0.0)
        if due or progress.message or progress.step == progress.steps:
            self._next[task.job.output] = now + _LOOK_SECONDS
            with suppress(OSError):  # the driver is gone: `_StopAsked` notices
                self._connection.send((task, replace(progress, preview=None)))


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
