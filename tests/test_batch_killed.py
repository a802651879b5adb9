"""Killed at any moment, a batch continues, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylecap.images import save_picture, to_picture

from .batch_child import MOMENTS
from .small import photo

STEPS = 4
STYLES = ("night-swirls", "mosaic")


def contents(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        save_picture(to_picture(photo(64, number)), folder / f"{number:03}.png")
    return folder


class Runs:
    """Runs of the command, each in a process of its own."""

    def __init__(self, log: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._log = log
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.batch_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *error: object) -> None:
        self._parent.communicate()

    def batch(
        self, source: Path, output: Path, moment: str = "step", count: int = 0, together: int = 1
    ) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and events; killed at the count-th moment unless count is 0."""
        arguments = [
            *("batch", str(source), "--style", *STYLES, "-o", str(output), "--json"),
            *("--backbone", "alexnet", "--size", "64", "--steps", str(STEPS), "--scales", "1"),
            *("--precision", "float32", "--checkpoint-seconds", "0"),
            *("--together", str(together)),
        ]
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        print(
            json.dumps([moment, count, str(self._log), arguments]),
            file=self._parent.stdin,
            flush=True,
        )
        code = int(self._parent.stdout.readline())
        return code, [json.loads(line) for line in self._log.read_text().splitlines()]


def results(output: Path) -> dict[str, tuple[int, int]]:
    """Each result with what changes when a file is written anew."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in output.glob("*.png")
    }


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def survive(
    tmp_path: Path, photos: int, kills: Sequence[tuple[str, int]], together: int = 1
) -> None:
    """Kill a batch at moments; it ends like one that nobody killed and that painted one by one."""
    source = contents(tmp_path / "photos", photos)
    jobs = photos * len(STYLES)
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "output"
    finished: dict[str, tuple[int, int]] = {}
    reported: set[str] = set()
    with Runs(tmp_path / "log") as runs:
        assert runs.batch(source, undisturbed)[0] == 0
        for moment, count in kills:
            code, events = runs.batch(source, output, moment, count, together)
            assert code == -signal.SIGKILL, (moment, count, events[-1])
            started = {event["job"] for event in events if event["event"] == "started"}
            assert not started & finished.keys(), "a finished job was started again"
            reported |= {event["job"] for event in events if event["event"] == "done"}
            now = results(output)
            assert finished.items() <= now.items(), "a finished picture was written again"
            assert reported <= now.keys()
            finished = now
            for name in now:
                pixels(output / name)  # no half-written file has a final name
        code, events = runs.batch(source, output, together=together)
    assert code == 0, events
    assert events[-1]["kept"] == len(finished)
    assert events[-1]["done"] == jobs - len(finished)
    assert finished.items() <= results(output).items()

    names = {path.relative_to(undisturbed) for path in undisturbed.rglob("*")}
    assert {path.relative_to(output) for path in output.rglob("*")} == names
    assert len(results(output)) == jobs
    for name in results(output):
        ours, theirs = (pixels(folder / name).astype(int) for folder in (output, undisturbed))
        assert np.abs(ours - theirs).max() <= (1 if together > 1 else 0), name


#: A run that is to be killed is forked from a process that has torch, or forty would import it.
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows cannot fork")


@needs_fork
def test_a_killed_batch_continues(tmp_path: Path) -> None:
    survive(tmp_path, 4, [("checkpoint", 3), ("picture", 1), ("named", 2)])


@needs_fork
def test_a_killed_batch_that_paints_three_together_continues(tmp_path: Path) -> None:
    """Also where only some of three have a checkpoint, of a later step, or are finished."""
    survive(tmp_path, 3, [("checkpoint", 5), ("step", 3), ("named", 2), ("picture", 1)], 3)


@pytest.mark.slow
@needs_fork
def test_two_hundred_jobs_killed_twenty_times(tmp_path: Path) -> None:
    kills = [(moment, count) for count in (3, 9) for moment in MOMENTS]
    # In the second step or later of a job: after its first checkpoint.
    kills += [("step", STEPS * jobs + step) for jobs, step in ((0, 2), (2, 3), (5, 2), (11, 3))]
    kills += [("checkpoint", STEPS * jobs + 2) for jobs in (1, 4, 7, 12)]
    assert len(kills) == 20
    survive(tmp_path, 100, kills)
