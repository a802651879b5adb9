"""What is written to the terminal: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from stylecap.progress import Progress

#: Exit codes; 0 is done.
FAILED, WRONG_USAGE, SOME_FAILED, INTERRUPTED = 1, 2, 3, 130


def one_line(text: str) -> str:
    """A text without line breaks or other control characters, which are escaped."""
    joined = " ".join(text.split())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in joined)


def say(text: str) -> None:
    """Print to stdout; what its encoding lacks is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def remark(text: str) -> None:
    """Print one line to stderr."""
    print(f"stylecap: {one_line(text)}", file=sys.stderr, flush=True)


def say_json(value: Any) -> None:
    """Print one JSON object; numbers that are not finite become null."""
    print(json.dumps(finite(value), indent=2, allow_nan=False))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Align rows in columns.

    Args:
        head: one title a column.
        rows: as many texts each.
        right: numbers of the columns that are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if place in right else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )


def duration(seconds: float) -> str:
    """Seconds as a person would say them: ``12 s``, ``3:05``, ``1:02:03``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display:
    """Shows `Progress` on stderr: a bar on a terminal, else a line every tenth of the way.

    Attributes:
        told: the messages shown so far.
    """

    def __init__(self, *, quiet: bool = False, bar: bool = True) -> None:
        """Show progress.

        Args:
            quiet: say nothing, neither progress nor messages.
            bar: whether progress is shown, and not only messages.
        """
        self.told: list[str] = []
        self._quiet = quiet
        self._shows = bar and not quiet
        self._loss: float | None = None
        self._tenth = -1
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Display:
        if self._shows and sys.stderr.isatty():
            self._bar = _rich_bar()
            self._task = self._bar.add_task("starting", total=None, loss="", left="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, progress: Progress) -> None:
        """Show one moment; for ``on_progress``."""
        if progress.loss is not None or progress.step <= 1:  # it is not read at every step
            self._loss = progress.loss
        if progress.message:
            self.tell(progress.message)
        if not self._shows:
            return
        left = progress.seconds_left
        loss = "" if self._loss is None else f"loss {self._loss:.4g}"
        remaining = "" if left is None else f"{duration(left)} left"
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=progress.stage or "working",
                completed=progress.step,
                total=progress.steps or None,
                loss=loss,
                left=remaining,
            )
            return
        tenth = 10 * progress.step // max(1, progress.steps)
        if tenth != self._tenth:
            self._tenth = tenth
            words = [progress.stage, f"step {progress.step} of {progress.steps}", loss, remaining]
            remark(", ".join(word for word in words if word))

    def tell(self, message: str) -> None:
        """Show a message once, above the bar."""
        if message in self.told:
            return
        self.told.append(message)
        if not self._quiet:
            self.warn(message)

    def warn(self, message: str) -> None:
        """Show a failure, even where little is said."""
        if self._bar is not None:
            self._bar.console.print(f"stylecap: {one_line(message)}", markup=False, highlight=False)
        else:
            remark(message)


class Interruption:
    """Turns the first Ctrl-C into a flag; a second one leaves at once.

    Usable as ``should_stop``. Outside the main thread, where signals cannot be handled, it
    stays unset.

    Args:
        display: shows what happens now.
        keeps: what is kept, in words.
    Attributes:
        requested: whether Ctrl-C was pressed.
    """

    def __init__(self, display: Display, keeps: str) -> None:
        self.requested = False
        self._display = display
        self._keeps = keeps
        self._before: Any = None

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.requested

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._display.tell(f"stopping, {self._keeps}; Ctrl-C again leaves at once")


def _rich_bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=False,  # rich would send it to stderr
        transient=True,
    )


def finite(value: Any) -> Any:
    """A value for JSON: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
