"""Run the command line in processes that are killed, by SIGKILL, at a chosen moment.

    python -m tests.batch_child

reads lines of JSON, ``[moment, count, output, arguments]``, and answers each with an exit code,
negative for a signal. Each runs in a process of its own, forked so that torch is imported once,
which writes to the file ``output`` and dies when the moment comes for the count-th time; with
count 0 never.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from stylecap import images
from stylecap.batch.jobs import STATE
from stylecap.batch.journal import Journal
from stylecap.cli.main import main
from stylecap.style import checkpoint, descent

import_module("stylecap.batch.driver")  # before the fork: it brings torch, once for all

MOMENTS = (
    "step",  # between two steps
    "checkpoint",  # a checkpoint's data is in a temporary file without its name
    "picture",  # the same of a picture
    "written",  # the journal is about to hear that a picture is complete
    "rename",  # a picture is about to get its name
    "named",  # a picture has its name, and the journal does not know
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, count: int) -> None:
    """Make the process die when a moment comes for the count-th time."""
    left = count

    def came() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            die()

    writing = ""

    def while_writing(kind: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal writing
            before, writing = writing, kind
            try:
                return write(*arguments, **named)
            finally:
                writing = before

        return wrapped

    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        if writing == moment:
            came()

    def replace(source: Any, target: Any) -> None:
        final = STATE not in str(target) and not str(target).endswith((".html", ".csv"))
        if final and moment == "rename":
            came()
        real_replace(source, target)
        if final and moment == "named":
            came()

    real_put, real_report = Journal.put, descent.Run._report

    def put(self: Journal, rows: Any) -> None:
        listed = list(rows)
        if moment == "written" and any(row.state == "written" for row in listed):
            came()
        real_put(self, listed)

    def report(self: Any, *arguments: Any) -> None:
        real_report(self, *arguments)
        if moment == "step":
            came()

    checkpoint.save_tensors = while_writing("checkpoint", checkpoint.save_tensors)
    images.write_atomically = while_writing("picture", images.write_atomically)
    os.fsync, os.replace = fsync, replace
    Journal.put = put
    descent.Run._report = report


def run(moment: str, count: int, output: str, arguments: list[str]) -> int:
    child = os.fork()
    if child == 0:
        with open(output, "w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        if count:
            arm(moment, count)
        os._exit(main(arguments))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        print(run(*json.loads(line)), flush=True)
