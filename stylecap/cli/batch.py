"""`stylecap batch`: paint many pictures in many styles, and lose nothing."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecap.batch.options import BatchOptions
from stylecap.batch.shards import parse_shard, shard_from
from stylecap.cli.flags import add_options, given_options, plain_options, read_options
from stylecap.cli.terminal import (
    FAILED,
    INTERRUPTED,
    SOME_FAILED,
    Display,
    Interruption,
    duration,
    finite,
    one_line,
    remark,
    say,
)
from stylecap.errors import InputError, OptionError, OutputError
from stylecap.files import readable_size
from stylecap.style.options import PRESETS, StyleOptions

if TYPE_CHECKING:
    from rich.progress import TaskID

    from stylecap.batch.jobs import Job
    from stylecap.batch.results import JobEvent

_MANIFESTS = (".csv", ".jsonl", ".toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.usage = "%(prog)s CONTENT [CONTENT ...] --style STYLE [STYLE ...] -o OUTDIR [options]"
    parser.add_argument(
        "contents",
        metavar="CONTENT",
        nargs="*",
        help="photos, folders (with all below them), patterns such as 'photos/*.jpg', or one "
        "manifest (.csv, .jsonl or .toml), each of whose rows is a job with its own options",
    )
    parser.add_argument(
        "--style",
        metavar="STYLE",
        nargs="+",
        action="extend",
        default=[],
        help="pictures, folders, patterns, or names from `stylecap styles`",
    )
    parser.add_argument("-o", "--output", metavar="OUTDIR", type=Path, help="folder of the results")
    plan = parser.add_argument_group("the jobs")
    plan.add_argument(
        "--pair",
        metavar="HOW",
        default="all",
        help="all (every content with every style; default) or zip (first with first, ...)",
    )
    plan.add_argument(
        "--format", metavar="SUFFIX", default="png", help="of the results (default png)"
    )
    plan.add_argument(
        "--shard",
        metavar="I/N",
        help="only the I-th of N equal shares of the jobs (default: from RANK and WORLD_SIZE or "
        "Slurm's array variables where they are set, else all)",
    )
    plan.add_argument(
        "--dry-run",
        action="store_true",
        help="only list the jobs, and estimate time and memory from a step measured here",
    )
    add_options(parser, StyleOptions, presets=PRESETS)
    add_options(parser, BatchOptions, title="options of the batch")
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print events as JSON Lines")
    output.add_argument("--quiet", action="store_true", help="say nothing but errors and shares")


def run(arguments: argparse.Namespace) -> int:
    """Run the command: 0 all done, 1 none, 3 some failed, 130 interrupted."""
    if not arguments.contents:
        raise OptionError("expected CONTENT: pictures, folders, patterns or a manifest")
    if arguments.output is None:
        raise OptionError("expected -o OUTDIR, the folder of the results")
    options = read_options(arguments, BatchOptions)
    shard, source = (
        (parse_shard(arguments.shard), "--shard")
        if arguments.shard is not None
        else shard_from(os.environ)
    )
    jobs = _jobs(arguments)
    share = len(jobs[shard[0] - 1 :: shard[1]])
    if source:
        remark(f"share {shard[0]} of {shard[1]} ({source}): {share} of {len(jobs)} jobs")
    if arguments.dry_run:
        return _dry_run(arguments, jobs[shard[0] - 1 :: shard[1]], options)
    from stylecap import batch

    counts: Counter[str] = Counter()
    trouble = ""
    begin = time.monotonic()
    bars = _Bars(share, quiet=arguments.quiet or arguments.json)
    with bars, Interruption(bars, "running jobs keep a checkpoint") as interruption:

        def show(event: JobEvent) -> None:
            if arguments.json and event.kind != "progress":
                _print_event(_plain(event))
            bars.show(event)

        try:
            for result in batch.run(
                jobs,
                arguments.output,
                options,
                shard=shard,
                on_event=show,
                should_stop=interruption,
            ):
                counts[result.status] += 1
        except OutputError as error:
            if not counts:
                raise
            trouble = str(error)
        except KeyboardInterrupt:
            remark("left at once; the same command continues from the last checkpoints")
            return INTERRUPTED
    page = None
    with suppress(OutputError):
        page, _ = batch.write_report(arguments.output)
    if trouble:
        remark(f"error: {trouble}")
    summary = {
        "jobs": share,
        **{status: counts[status] for status in ("done", "kept", "failed")},
        "missing": share - counts.total(),
        "seconds": round(time.monotonic() - begin, 3),
        "report": None if page is None else str(page),
    }
    if arguments.json:
        _print_event({"event": "finished", **summary})
    elif not arguments.quiet:
        _say_summary(summary)
    if interruption.requested and summary["missing"]:
        return INTERRUPTED
    return FAILED if trouble else _code(share, counts)


def _code(share: int, counts: Counter[str]) -> int:
    good = counts["done"] + counts["kept"]
    if good == share:
        return 0
    return SOME_FAILED if good else FAILED


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    from stylecap.batch import plan_jobs, read_manifest

    suffix = "." + arguments.format.lower().removeprefix(".")
    manifests = [c for c in arguments.contents if Path(c).suffix.lower() in _MANIFESTS]
    base = read_options(arguments, StyleOptions, presets=PRESETS)
    if base.init == "image":
        raise OptionError("--init image: only a manifest's rows can name an init_image")
    if manifests:
        if len(arguments.contents) > 1:
            raise OptionError("expected one manifest alone, or contents without a manifest")
        if arguments.pair != "all":
            raise OptionError("--pair: a manifest's rows pair contents and styles themselves")
        return read_manifest(
            manifests[0],
            given_options(arguments, StyleOptions),
            preset=getattr(arguments, "preset", None),
            styles=arguments.style,
            suffix=suffix,
        )
    if not arguments.style:
        raise OptionError("expected --style STYLE: a picture, or a name from `stylecap styles`")
    return plan_jobs(
        arguments.contents,
        arguments.style,
        base,
        pair=arguments.pair,
        suffix=suffix,
        leave_out=arguments.output,
    )


def _dry_run(arguments: argparse.Namespace, jobs: list[Job], options: BatchOptions) -> int:
    from stylecap.batch.estimate import estimate_batch
    from stylecap.batch.jobs import check_jobs

    check_jobs(jobs, arguments.output)
    for job in jobs:
        if arguments.json:
            _print_event({"event": "queued", **_named(job)})
        else:
            say(one_line(f"{job.content} + {', '.join(job.styles)} -> {job.output}"))
    found = estimate_batch(jobs)
    if found is None:
        raise InputError("dry run: none of the jobs can be read, so nothing could be measured")
    workers = options.workers or 1
    one, runtime = found.job, found.job.runtime
    told = {
        "jobs": len(jobs),
        "seconds_one_worker": found.seconds,
        "step_seconds": one.step_seconds,
        "measured": found.measured,
        "height": one.size[0],
        "width": one.size[1],
        "memory_bytes": found.memory_bytes,
        **asdict(runtime),
    }
    if arguments.json:
        _print_event({"event": "estimate", **told})
        return 0
    whole = duration(found.seconds)
    shared = (
        f"; {workers} workers share the machine's processors, and gain what one leaves idle"
        if workers > 1 and runtime.device == "cpu"
        else f", {duration(found.seconds / workers)} with {workers}"
        if workers > 1
        else ""
    )
    say(
        one_line(
            f"{len(jobs)} jobs, about {whole} with one worker{shared}; a step of "
            f"{one.size[1]}x{one.size[0]} took {one.step_seconds:.3f} s ({runtime.device}, "
            f"{runtime.precision}, {runtime.threads} threads, {found.measured}); each worker needs "
            f"about {readable_size(found.memory_bytes)} of memory"
        )
    )
    return 0


def _print_event(event: dict[str, Any]) -> None:
    print(json.dumps(finite(event), allow_nan=False), flush=True)


def _named(job: Job) -> dict[str, Any]:
    return {"job": job.output, "content": job.content, "styles": list(job.styles)}


def _plain(event: JobEvent) -> dict[str, Any]:
    """An event as plain values."""
    plain: dict[str, Any] = {"event": event.kind}
    if event.job is not None:
        plain |= _named(event.job)
    if event.kind == "queued" and event.job is not None:
        plain["options"] = plain_options(event.job.options)
    if event.kind == "started":
        plain["worker"] = event.worker
    if event.message:
        plain["message"] = event.message
    result = event.result
    if result is not None and result.status == "failed":
        plain["reason"] = result.error
    elif result is not None:
        plain |= {
            "path": str(result.path),
            "seconds": result.seconds,
            "steps": result.steps,
            "loss": result.loss,
        }
        if result.card:
            plain["card"] = result.card
        if result.result_caption:
            plain["content_caption"] = result.content_caption
            plain["result_caption"] = result.result_caption
    return plain


def _say_summary(summary: dict[str, Any]) -> None:
    parts = [f"{summary[key]} {key}" for key in ("done", "kept", "failed", "missing")]
    shown = [part for part in parts if not part.startswith("0 ")]
    where = f"; {summary['report']}" if summary["report"] else ""
    say(
        one_line(
            f"{summary['jobs']} jobs: {', '.join(shown) or 'nothing to do'} "
            f"in {duration(summary['seconds'])}{where}"
        )
    )


class _Bars(Display):
    """One bar over all jobs and one for each worker; a line a job where there is no terminal."""

    def __init__(self, jobs: int, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self._jobs = jobs
        self._ended = 0
        self._painted = 0
        self._begin = time.monotonic()
        self._running: dict[int, tuple[TaskID, list[str]]] = {}

    def __enter__(self) -> Display:
        super().__enter__()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description="jobs", total=self._jobs)
        return self

    def show(self, event: JobEvent) -> None:
        """Show one moment."""
        name = "" if event.job is None else one_line(event.job.output)
        if self._quiet:
            if event.kind == "failed" and event.result is not None:
                self.warn(f"{name}: {event.result.error}")
            return
        if event.kind == "note":
            self.tell(f"{name}: {event.message}" if name else event.message)
        elif event.kind in ("done", "kept", "failed"):
            self._end(event, name)
        elif self._bar is not None and event.kind == "started":
            self._add(event.worker, name)
        elif self._bar is not None and event.progress is not None:
            task, names = self._running[event.worker]
            if name != names[0]:
                return  # painted together with the one whose progress is shown
            progress = event.progress
            if progress.loss is not None:
                self._loss = progress.loss
            left = progress.seconds_left
            self._bar.update(
                task,
                completed=progress.step,
                total=progress.steps,
                loss="" if self._loss is None else f"loss {self._loss:.4g}",
                left="" if left is None else f"{duration(left)} left",
            )

    def _end(self, event: JobEvent, name: str) -> None:
        self._ended += 1
        self._painted += event.kind == "done"
        spent = time.monotonic() - self._begin
        left = spent / self._painted * (self._jobs - self._ended) if self._painted else None
        remaining = "" if left is None else f"{duration(left)} left"
        if self._bar is not None and self._task is not None:
            self._drop(name)
            self._bar.update(self._task, completed=self._ended, left=remaining)
        if event.kind == "kept" or event.result is None:
            return
        took = event.result.error or f"{duration(event.result.seconds)}"
        if event.kind == "failed":
            self.tell(f"{name}: failed: {took}")
        elif self._bar is None:
            words = [f"{self._ended} of {self._jobs}", f"{name} in {took}", remaining]
            remark(", ".join(word for word in words if word))

    def _add(self, worker: int, name: str) -> None:
        if self._bar is None:
            return
        self._drop(name)  # its worker died, and it is tried again
        if worker not in self._running:
            task = self._bar.add_task("", total=None, loss="", left="")
            self._running[worker] = task, []
        self._running[worker][1].append(name)
        self._name(worker)

    def _drop(self, name: str) -> None:
        for worker, (task, names) in list(self._running.items()):
            if self._bar is None or name not in names:
                continue
            names.remove(name)
            if names:
                self._name(worker)
            else:
                self._bar.remove_task(task)
                del self._running[worker]

    def _name(self, worker: int) -> None:
        task, names = self._running[worker]
        if self._bar is not None:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            self._bar.update(task, description=names[0] + more)
