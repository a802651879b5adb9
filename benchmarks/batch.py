"""Share of a batch's time outside optimiser steps, and its ratio to a shell loop.

    python benchmarks/batch.py --contents 20 --styles 2

The contents are crops of the sample photos. Both ways paint with the draft preset at 256 px, one
picture after the other; both include the start of Python. The loop paints the first five contents,
since its time goes with their number: a job of the one is compared with a job of the other. In
full that is some ten minutes on two threads; fewer ``--contents`` are a part of it.

Wall time is what counts where nothing else runs; processor time is printed for machines that are
busy with other things.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch

import stylecap
from stylecap.batch import BatchOptions, JobEvent, plan_jobs, run, write_report
from stylecap.images import load_picture, save_picture
from stylecap.style.builtin import STYLES
from stylecap.style.options import StyleOptions

SAMPLES = Path(__file__).parent.parent / "samples"


class Clock:
    """Wall and processor seconds since it was made, of this process and its children."""

    def __init__(self) -> None:
        self._begin = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in usages)

    def read(self) -> tuple[float, float]:
        """(wall, processor) seconds."""
        now = self._now()
        return now[0] - self._begin[0], now[1] - self._begin[1]


def crops(folder: Path, count: int) -> None:
    """Write ``count`` different crops, 3:2, of the sample photos."""
    photos = [load_picture(path) for path in sorted(SAMPLES.glob("*.jpg"))]
    for number in range(count):
        photo = photos[number % len(photos)]
        width = min(photo.width, photo.height * 3 // 2) - 3 * (number // len(photos))
        crop = photo.crop((0, 0, width, width * 2 // 3))
        save_picture(crop, folder / f"{number:02}.png")


def batch(
    contents: Path, styles: list[str], options: StyleOptions, out: Path
) -> tuple[float, float]:
    """Paint all, and print how the time was spent; gives wall and processor seconds."""
    clock = Clock()
    command = [sys.executable, "-c", "import stylecap.batch.driver"]
    subprocess.run(command, check=True)  # what this process has done already
    begun: list[tuple[float, float]] = []
    marks: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def watch(event: JobEvent) -> None:
        if event.kind == "started" and not begun:
            begun.append(clock.read())
        if event.job is not None and event.progress is not None:
            marks[event.job.output, event.progress.stage].append(clock.read())

    jobs = plan_jobs([contents], styles, options)
    one_by_one = BatchOptions(workers=1, together=1)  # as the loop does, and every step is heard
    results = list(run(jobs, out, one_by_one, on_event=watch))
    write_report(out)
    assert all(result.status == "done" for result in results)
    total = clock.read()
    assert all(len(stage) > 1 for stage in marks.values()), "a scale needs two steps"
    for kind, name in enumerate(("wall", "processor")):
        # The first step of a scale has no mark before it: it counts as the mean of the others.
        steps = sum((m[-1][kind] - m[0][kind]) * len(m) / (len(m) - 1) for m in marks.values())
        outside = total[kind] - steps
        print(
            f"batch, {len(results)} jobs, {name}: {total[kind]:.1f} s, "
            f"{100 * outside / total[kind]:.1f} % outside steps: {begun[0][kind]:.1f} s until the "
            f"first job, then {(outside - begun[0][kind]) / len(results):.2f} s a job",
            flush=True,
        )
    return total


def loop(
    contents: list[Path], styles: list[str], flags: list[str], out: Path
) -> tuple[float, float]:
    """Paint all with one command each; gives wall and processor seconds."""
    out.mkdir()
    clock = Clock()
    for content in contents:
        for style in styles:
            target = out / f"{content.stem}-{style}.png"
            arguments = ["stylize", str(content), style, "-o", str(target), "--quiet", *flags]
            subprocess.run([sys.executable, "-m", "stylecap", *arguments], check=True)
    return clock.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contents", type=int, default=20)
    parser.add_argument("--styles", type=int, default=2)
    parser.add_argument("--loop", type=int, default=5, help="contents of the loop (default 5)")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=None, help="instead of the preset's")
    arguments = parser.parse_args()
    chosen = {"size": arguments.size}
    if arguments.steps:
        chosen["steps"] = arguments.steps
    options = StyleOptions.preset("draft", **chosen)
    flags = ["--preset", "draft", *(f"--{name}={value}" for name, value in chosen.items())]
    styles = list(STYLES)[: arguments.styles]
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, stylecap {stylecap.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        contents = Path(folder) / "contents"
        contents.mkdir()
        crops(contents, arguments.contents)
        ours = batch(contents, styles, options, Path(folder) / "batch")
        few = sorted(contents.iterdir())[: arguments.loop]
        theirs = loop(few, styles, flags, Path(folder) / "loop")
    for kind, name in enumerate(("wall", "processor")):
        one = ours[kind] / (arguments.contents * len(styles))
        other = theirs[kind] / (len(few) * len(styles))
        print(
            f"loop of stylize, {len(few) * len(styles)} jobs, {name}: {theirs[kind]:.1f} s, "
            f"{other:.2f} s a job; batch {one:.2f} s a job, batch / loop {one / other:.3f}"
        )


if __name__ == "__main__":
    main()
