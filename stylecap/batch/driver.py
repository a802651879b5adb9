"""The run of a batch: hands jobs out, keeps the journal, yields results as they finish."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import torch

from stylecap.batch.executors import Executor, InProcess, Processes
from stylecap.batch.groups import grouped
from stylecap.batch.jobs import Job, check_jobs, is_builtin
from stylecap.batch.journal import Journal, Row, asked_of, is_disk_full
from stylecap.batch.options import BatchOptions
from stylecap.batch.painter import Outcome, PainterSettings, Task
from stylecap.batch.results import JobEvent, JobResult
from stylecap.errors import InputError, OutputError
from stylecap.files import file_sha256
from stylecap.progress import Progress, ShouldStop
from stylecap.runtime import Runtime
from stylecap.studio.quality import judge_of
from stylecap.weights import find_weights

OnEvent = Callable[[JobEvent], None]

_WHERE_ONLY = ("device",)  # options that say where, and not what
_OTHER_JOBS = (
    "another share saw other jobs: pictures came or went since it began; when all shares are over, "
    "run the batch once without them for what is missing"
)
_TOGETHER = 16  # pictures in a batch on a GPU, at most


def run(
    jobs: Sequence[Job],
    output: str | Path,
    options: BatchOptions | None = None,
    *,
    shard: tuple[int, int] = (1, 1),
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
) -> Iterator[JobResult]:
    """Paint all jobs; whatever happens, calling it again goes on where it was.

    A journal in ``output/.stylecap`` remembers what is finished, and from which options and
    input files. Jobs finished before are kept, unless their options or inputs changed; one that
    was running resumes from its last checkpoint. A job that fails is one failed result; the
    others go on.

    With several workers, a script that calls it needs ``if __name__ == "__main__":`` around
    its beginning, since each worker imports the script.

    Args:
        jobs: with distinct outputs, as of `plan_jobs` or `read_manifest`.
        output: folder of the results; made if it is missing.
        options: `BatchOptions()` if None.
        shard: (i, n): only the i-th, from 1, of n equal shares of the jobs; other processes or
            machines that share the folder run the other shares.
        on_event: told of every job queued, started, progressing and ended, in this thread.
        should_stop: asked between steps; when true, running jobs write a checkpoint and the
            iteration ends. What was not finished is not yielded.
    Yields:
        One result a job of this share: the kept ones first, then each when it finishes.
    Raises:
        OptionError: two jobs have the same output, an output would overwrite an input, or Ray
            is asked for and not installed.
        OutputError: another run works on the folder, it cannot be written, or the disk is full.
        WeightsError: weights are missing or corrupt.
        DeviceError: the device or the cluster is not here.
    """
    options = options or BatchOptions()
    folder = Path(output)
    check_jobs(jobs, folder)
    _check_weights(jobs, options)
    tell = on_event or (lambda event: None)
    stop = should_stop or (lambda: False)
    share = jobs[shard[0] - 1 :: shard[1]]
    with Journal(folder, shard) as journal:
        batch = _Batch(journal, folder, options, tell)
        if journal.sees_other_jobs([job.output for job in jobs]):
            tell(JobEvent("note", message=_OTHER_JOBS))
        known = journal.find([job.output for job in share])
        todo: list[Job] = []
        undescribed = unjudged = 0
        for job in share:
            kept = None if options.overwrite else batch.kept(job, known.get(job.output))
            if kept is None:
                todo.append(job)
                continue
            undescribed += options.caption and not kept.result_caption
            unjudged += options.card and not kept.card
            tell(JobEvent("kept", job, result=kept))
            yield kept
        if undescribed:
            tell(
                JobEvent("note", message=f"{undescribed} jobs were painted before without captions")
            )
        if unjudged:
            tell(JobEvent("note", message=f"{unjudged} jobs were painted before and not judged"))
        yield from batch.refuse(todo, known)
        missing = len(todo)
        try:
            batch.enqueue(todo, known)
            if todo and not stop():
                executor = _executor(todo, options, journal)
                groups = grouped(todo, _together(options, executor, len(todo)))
                tasks = ([batch.task(job) for job in group] for group in groups)
                with closing(executor.paint(tasks, batch.report, stop)) as outcomes:
                    for outcome in outcomes:
                        if outcome.status != "stopped":
                            result = batch.finish(outcome)
                            missing -= 1
                            yield result
        except OutputError as error:
            if not is_disk_full(error):
                raise
            raise OutputError(
                f"{folder}: no space left on the disk, {missing} of {len(share)} jobs are "
                "missing; make room and run the same again"
            ) from error
        batch.tidy()


class _Batch:
    """One run's dealings with its folder and its journal."""

    def __init__(
        self, journal: Journal, folder: Path, options: BatchOptions, tell: OnEvent
    ) -> None:
        self._journal = journal
        self._folder = folder
        self._options = options
        self._tell = tell
        self._hashes: dict[str, str] = {}
        self._running: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        # Jobs painted before, otherwise or of other inputs, whose picture stands: the journal
        # tells of that one until another takes its place.
        self._standing: set[str] = set()
        self._recover()

    def kept(self, job: Job, row: Row | None) -> JobResult | None:
        """The result of an earlier run, if nothing that it is made from has changed."""
        path = self._folder / job.output
        if row is None or row.state != "done" or not path.is_file():
            return None
        if _what(row.asked) != _what(asked_of(job)):
            return None
        if [entry["role"] for entry in row.inputs] != [role for role, _ in job.inputs]:
            return None
        for (_, name), before in zip(job.inputs, row.inputs, strict=True):
            if not self._is_unchanged(name, before):
                return None
        # Left behind by a run killed between the job's end and the checkpoint's.
        self.task(job).checkpoint.unlink(missing_ok=True)
        return JobResult(job, "kept", path, **row.ending)

    def refuse(self, todo: list[Job], known: Mapping[str, Row]) -> Iterator[JobResult]:
        """Take out the jobs whose name belongs to a file that no batch of this folder made."""
        for job in list(todo):
            row = known.get(job.output)
            ours = self._options.overwrite or (row is not None and row.state != "refused")
            if ours or not (self._folder / job.output).exists():
                continue
            todo.remove(job)
            error = "a file of this name is there already; --overwrite replaces it"
            self._journal.put([Row(job.output, "refused", asked_of(job), ending={"error": error})])
            yield self._failed(job, error)

    def enqueue(self, jobs: Sequence[Job], known: Mapping[str, Row]) -> None:
        """Write down what there is to do."""
        if self._options.overwrite:
            for job in jobs:
                self.task(job).checkpoint.unlink(missing_ok=True)
        self._standing = {
            job.output
            for job in jobs
            if (row := known.get(job.output)) is not None
            and row.state == "done"
            and (self._folder / job.output).is_file()
        }
        self._journal.put(
            Row(job.output, "queued", asked_of(job))
            for job in jobs
            if job.output not in self._standing
        )
        for job in jobs:
            self._tell(JobEvent("queued", job))

    def task(self, job: Job) -> Task:
        """A job with its places in the work folder."""
        name = hashlib.sha256(job.output.encode()).hexdigest()[:24]
        work = self._journal.work
        return Task(
            job, work / (name + Path(job.output).suffix), work / f"{name}.checkpoint.safetensors"
        )

    def report(self, task: Task, worker: int, progress: Progress | None) -> None:
        """What an executor says of a running task."""
        if progress is not None:
            self._tell(JobEvent("progress", task.job, worker, progress))
            return
        # Before the inputs are read: a change meanwhile then shows as one.
        stamps = [_stamp(role, name) for role, name in task.job.inputs]
        self._running[task.job.output] = (worker, stamps)
        if task.job.output not in self._standing:
            self._journal.set_state(task.job.output, "running")
        self._tell(JobEvent("started", task.job, worker))

    def finish(self, outcome: Outcome) -> JobResult:
        """Give a picture its name, and the journal its end.

        Raises:
            OutputError: the disk is full.
        """
        job = outcome.task.job
        for message in outcome.messages:
            self._tell(JobEvent("note", job, message=message))
        if outcome.status == "full":
            raise OutputError(outcome.error) from OSError(28, "No space left on device")
        worker, inputs = self._running.pop(job.output)
        if outcome.status == "failed":
            return self._fail(outcome, outcome.error, worker)
        for entry, sha256 in zip(inputs, outcome.input_sha256, strict=True):
            entry["sha256"] = sha256
        row = Row(job.output, "written", asked_of(job), inputs, outcome.sha256, outcome.ending)
        self._journal.put([row])
        self._standing.discard(job.output)
        try:
            path = self._place(job.output, outcome.task.picture)
        except OutputError as error:
            if is_disk_full(error):
                raise
            outcome.task.picture.unlink(missing_ok=True)
            return self._fail(outcome, str(error), worker)
        self._journal.set_state(job.output, "done")
        outcome.task.checkpoint.unlink(missing_ok=True)
        result = JobResult(job, "done", path, **outcome.ending)
        self._tell(JobEvent("done", job, worker, result=result))
        return result

    def tidy(self) -> None:
        """Remove the work folder when nothing is left in it."""
        with suppress(OSError):
            self._journal.work.rmdir()

    def _fail(self, outcome: Outcome, error: str, worker: int) -> JobResult:
        """Write down that a job that was begun failed; it begins anew in the next run."""
        job = outcome.task.job
        if job.output not in self._standing:
            self._journal.put([Row(job.output, "failed", asked_of(job), ending={"error": error})])
        outcome.task.checkpoint.unlink(missing_ok=True)
        return self._failed(job, error, worker)

    def _failed(self, job: Job, error: str, worker: int = 0) -> JobResult:
        result = JobResult(job, "failed", error=error)
        self._tell(JobEvent("failed", job, worker, result=result))
        return result

    def _place(self, output: str, picture: Path) -> Path:
        path = self._folder / output
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(picture, path)
            _sync_folder(path.parent)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror}); check the folder and the space "
                "on the disk"
            ) from error
        return path

    def _recover(self) -> None:
        """Finish what a killed run had all but finished, and remove what it left behind."""
        for row in self._journal.written():
            job_files = self._journal.work.glob(
                hashlib.sha256(row.output.encode()).hexdigest()[:24] + ".*"
            )
            state = "queued"
            for path in (self._folder / row.output, *job_files):
                if path.is_file() and file_sha256(path) == row.picture_sha256:
                    with suppress(OutputError):  # it is painted again, and says then what is wrong
                        if path != self._folder / row.output:
                            self._place(row.output, path)
                        state = "done"
                    break
            self._journal.set_state(row.output, state)
        for work in self._journal.folder.glob("work-*"):
            if self._journal.is_others(work):
                continue
            with suppress(FileNotFoundError):  # all shares remove those of another number of them
                for path in work.iterdir():
                    resumable = path.name.endswith(".checkpoint.safetensors")
                    if not (resumable and work == self._journal.work):
                        path.unlink(missing_ok=True)
            with suppress(OSError):
                work.rmdir()

    def _is_unchanged(self, name: str, before: dict[str, Any]) -> bool:
        now = _stamp(before["role"], name)
        if "size" not in now or "size" not in before:
            return now == {**before, "sha256": ""}
        if now == {**before, "sha256": ""}:
            return True
        if name not in self._hashes:
            try:
                self._hashes[name] = file_sha256(name)
            except InputError:
                return False
        return bool(self._hashes[name] == before["sha256"])


def _what(asked: dict[str, Any]) -> dict[str, Any]:
    """The part of a job that its picture depends on, besides its input files."""
    chosen = {n: v for n, v in asked["options"].items() if n not in _WHERE_ONLY}
    return {"options": chosen, "mask_colors": asked["mask_colors"]}


def _stamp(role: str, name: str) -> dict[str, Any]:
    """An input as it is now: where it is and when it changed, without reading it."""
    if role == "style" and is_builtin(name):
        return {"role": role, "path": name, "sha256": ""}
    stamp: dict[str, Any] = {"role": role, "path": os.path.abspath(name), "sha256": ""}
    with suppress(OSError, ValueError):
        found = os.stat(name)
        stamp |= {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
        stamp["ctime_ns"] = found.st_ctime_ns
    return stamp


def _sync_folder(folder: Path) -> None:
    """Make a renaming last through a loss of power, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_weights(jobs: Sequence[Job], options: BatchOptions) -> None:
    for name in {job.options.backbone for job in jobs}:
        find_weights(name)
        if options.caption:
            find_weights(f"captioner-{name}")
        if options.card:
            find_weights(judge_of(name))
            find_weights(f"lpips-{judge_of(name)}")


def _executor(jobs: Sequence[Job], options: BatchOptions, journal: Journal) -> Executor:
    settings: dict[str, Any] = {
        "caption": options.caption,
        "card": options.card,
        "quality": options.quality,
        "checkpoint_seconds": options.checkpoint_seconds,
        "cpu_precision": _cpu_precision(jobs, journal),
    }
    if options.executor == "ray":
        from stylecap.batch.ray_cluster import RayCluster

        return RayCluster(
            PainterSettings(**settings), options.workers, options.ray_address, options.retries
        )
    devices = {Runtime.choose(job.options.device, "float32").device for job in jobs}
    on_gpu = devices != {"cpu"}
    places = _places() if "cuda" in devices else ["auto"]
    workers = min(options.workers or len(places), len(jobs))
    if workers == 1:
        return InProcess(PainterSettings(device=places[0], **settings), on_gpu)
    threads = max(1, torch.get_num_threads() // workers)
    return Processes(
        [
            PainterSettings(
                threads=threads,
                device=places[number % len(places)],
                sharing=math.ceil(workers / len(places)),
                **settings,
            )
            for number in range(workers)
        ],
        on_gpu,
        options.retries,
    )


def _places() -> list[str]:
    """The GPUs to paint on: all, or the one that torchrun means this process to have."""
    gpus = torch.cuda.device_count()
    own = os.environ.get("LOCAL_RANK", "")
    if "RANK" in os.environ and own.isdecimal():
        return [f"cuda:{int(own) % gpus}"]
    return [f"cuda:{number}" for number in range(gpus)] if gpus > 1 else ["auto"]


def _together(options: BatchOptions, executor: Executor, jobs: int) -> int:
    """How many jobs are handed out together; painters split what does not fit into memory."""
    if options.together is not None:
        return options.together
    # On a CPU a batch is no faster; and every worker should get its share.
    return min(_TOGETHER, math.ceil(jobs / executor.workers)) if executor.on_gpu else 1


def _cpu_precision(jobs: Sequence[Job], journal: Journal) -> str:
    """What ``auto`` means on a CPU: measured by the first run, and kept by all later ones."""
    if all(job.options.precision != "auto" for job in jobs):
        return "float32"
    known = journal.fact("cpu_precision")
    if known is None:
        known = Runtime.choose("cpu").precision
        journal.set_fact("cpu_precision", known)
    return known
