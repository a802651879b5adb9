"""Who paints: one process with its networks and styles loaded once, one group after the other."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from stylecap import describing, painting
from stylecap.backbone import Backbone, load_backbone
from stylecap.batch.jobs import Job
from stylecap.batch.journal import is_disk_full
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.captioner_file import load_captioner
from stylecap.errors import DeviceError, RecordError, StylecapError
from stylecap.files import file_sha256, reason_of
from stylecap.progress import OnProgress, Progress, ShouldStop
from stylecap.runtime import Runtime, is_device_lost
from stylecap.studio.quality import Judge
from stylecap.style.cache import StyleCache
from stylecap.style.checkpoint import Checkpoint, load_checkpoint
from stylecap.style.memory import how_many_fit
from stylecap.style.options import StyleOptions

_CHECKPOINT_SHARE = 50  # a checkpoint may take this part of the time since the last one
_CAPTIONS_KEPT = 256  # contents whose caption is remembered for their next style


@dataclass(frozen=True, slots=True)
class PainterSettings:
    """What a painter is told once.

    Attributes:
        cpu_precision: what precision ``auto`` means on a CPU, the same for all painters.
        caption: whether contents and results are described.
        card: whether results are judged.
        quality: of lossy results.
        checkpoint_seconds: time between checkpoints.
        threads: CPU threads of its network; those of the process if None.
        device: for jobs with device ``auto``, or ``cuda`` if it is one of several.
        sharing: painters of this batch that share its device's memory.
    """

    cpu_precision: str
    caption: bool
    card: bool
    quality: int
    checkpoint_seconds: float
    threads: int | None = None
    device: str = "auto"
    sharing: int = 1


@dataclass(frozen=True, slots=True)
class Task:
    """A job and the two files it may use meanwhile.

    Attributes:
        job: what to paint.
        picture: where the result waits for its name, with the same suffix.
        checkpoint: where the unfinished job is kept.
    """

    job: Job
    picture: Path
    checkpoint: Path


#: Called after every step with each task of a group.
OnTaskProgress = Callable[[Task, Progress], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Attributes:
        task: which.
        status: ``"painted"``, ``"failed"``, ``"stopped"`` with a checkpoint kept, or ``"full"``
            where the disk was.
        error: one line, if it failed.
        sha256: of the picture's file.
        input_sha256: of each of the job's inputs, in order; ``""`` for a built-in style.
        ending: ``seconds``, ``steps``, ``loss``, ``card``, ``content_caption``, ``result_caption``.
        messages: what a person should know.
    """

    task: Task
    status: str
    error: str = ""
    sha256: str = ""
    input_sha256: tuple[str, ...] = ()
    ending: dict[str, Any] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Begun:
    """A task of which everything has been read.

    Attributes:
        task: which.
        sketch: of its painting.
        backbone: to paint it with.
        fits: how many like it fit into memory together.
    """

    task: Task
    sketch: painting.Sketch
    backbone: Backbone
    fits: int

    @property
    def kind(self) -> Hashable:
        """Equal for tasks that can be painted together."""
        before = self.sketch.subject.resume
        at = None if before is None else (before.scale, before.step)
        return self.sketch.kind, self.backbone.runtime, at


class Painter:
    """Paints tasks with networks that it loads when they are first needed."""

    def __init__(self, settings: PainterSettings) -> None:
        """Start with nothing loaded."""
        self._settings = settings
        self._cache = StyleCache()
        self._backbones: OrderedDict[tuple[str, Runtime], Backbone] = OrderedDict()
        self._captioners: dict[str, Captioner] = {}
        self._judges: dict[str, Judge] = {}
        self._captions: OrderedDict[tuple[str, str], str] = OrderedDict()

    def paint(
        self, tasks: Sequence[Task], on_progress: OnTaskProgress, should_stop: ShouldStop
    ) -> Iterator[Outcome]:
        """Paint tasks, each from its checkpoint if there is one; no bad job raises.

        Those that are alike and after the same step are painted together, as many as fit into
        memory. Where that fails, each half of them is tried by itself, so that what is wrong
        with one keeps no other from being painted.
        """
        alike: dict[Hashable, list[_Begun]] = {}
        for task in tasks:
            try:
                begun = self._begin(task, partial(on_progress, task))
                alike.setdefault(begun.kind, []).append(begun)
            except Exception as error:
                yield _failure(task, error)
        for group in alike.values():
            limit = group[0].fits
            for at in range(0, len(group), limit):
                part = group[at : at + limit]
                if should_stop():
                    yield from (Outcome(begun.task, "stopped") for begun in part)
                else:
                    yield from self._paint(part, on_progress, should_stop)

    def _paint(
        self, group: list[_Begun], on_progress: OnTaskProgress, should_stop: ShouldStop
    ) -> Iterator[Outcome]:
        tasks = [begun.task for begun in group]
        keeper = _Keeper([task.checkpoint for task in tasks], self._settings.checkpoint_seconds)
        sketches = [
            replace(each.sketch, subject=replace(each.sketch.subject, on_checkpoint=remember))
            for each, remember in zip(group, keeper.hooks, strict=True)
        ]
        failure = None
        try:
            results = painting.paint(
                sketches,
                group[0].backbone,
                judge=self._judge(tasks[0].job.options.backbone) if self._settings.card else None,
                cache=self._cache,
                should_stop=should_stop,
            )
        except Exception as error:
            failure = _failure(tasks[0], error)
            stale = isinstance(error, RecordError) and group[0].sketch.subject.resume is not None
        # Out of the except block, since an error holds the tensors of where it was raised.
        if failure is None:
            for task, result in zip(tasks, results, strict=True):
                try:
                    yield self._ended(task, result, keeper)
                except Exception as error:
                    yield _failure(task, error)
        elif failure.status != "full" and len(group) > 1:
            for half in (tasks[: len(tasks) // 2], tasks[len(tasks) // 2 :]):
                yield from self.paint(half, on_progress, should_stop)
        elif stale:
            # The checkpoint is of other options, inputs or versions: they changed since.
            tasks[0].checkpoint.unlink(missing_ok=True)
            yield from self.paint(tasks, on_progress, should_stop)
        else:
            yield from (replace(failure, task=task) for task in tasks)

    def _begin(self, task: Task, on_progress: OnProgress) -> _Begun:
        """Read a task's inputs, and its checkpoint if there is one.

        The network is on the runtime that the checkpoint was made with.
        """
        job = task.job
        before = runtime = None
        if task.checkpoint.exists():
            try:
                before = load_checkpoint(task.checkpoint)
                Runtime.choose(before.runtime.device, before.runtime.precision)
                runtime = before.runtime
                if not _is_allowed(runtime, job.options):
                    before = runtime = None
            except (RecordError, DeviceError):
                before = None  # damaged, or from another machine: paint anew
        sketch = painting.sketch(
            job.content,
            list(job.styles),
            job.options,
            init_image=job.init_image or None,
            mask=job.mask or None,
            mask_colors=job.mask_colors,
            cache=self._cache,
            resume=before,
            on_progress=on_progress,
        )
        backbone = self._backbone(job.options, runtime)
        fits = how_many_fit(sketch.size, sketch.options, backbone.runtime)
        return _Begun(task, sketch, backbone, fits)

    def _ended(self, task: Task, result: painting.StyleResult, keeper: _Keeper) -> Outcome:
        """Keep what a task came to."""
        job = task.job
        if result.stopped:
            keeper.keep()
            return Outcome(task, "stopped")
        ending: dict[str, Any] = {
            "seconds": round(result.seconds, 3),
            "steps": result.steps,
            "loss": result.loss,
        }
        if result.card is not None:
            ending["card"] = result.card.figures
        task.picture.parent.mkdir(parents=True, exist_ok=True)
        result.save(task.picture, quality=self._settings.quality)
        messages = result.messages
        if self._settings.caption:
            try:  # it is painted, whatever comes of this
                seen = result.record.inputs[0].sha256
                before, after = self._caption_of_content(job, seen), result.picture
                ending["result_caption"] = self._caption(job.options, after)
                ending["content_caption"] = before
            except (StylecapError, MemoryError, RuntimeError) as error:
                messages = (*messages, f"not described: {reason_of(error)}")
        return Outcome(
            task,
            "painted",
            sha256=file_sha256(task.picture),
            input_sha256=tuple(entry.sha256 for entry in result.record.inputs),
            ending=ending,
            messages=messages,
        )

    def _backbone(self, options: StyleOptions, runtime: Runtime | None = None) -> Backbone:
        key = (options.backbone, runtime or self._runtime(options))
        if key not in self._backbones:
            while len(self._backbones) > 1:
                self._backbones.popitem(last=False)
            self._backbones[key] = load_backbone(key[0], runtime=key[1])
        self._backbones.move_to_end(key)
        return self._backbones[key]

    def _runtime(self, options: StyleOptions) -> Runtime:
        own = self._settings.device
        free = options.device == "auto" or (options.device == "cuda" and own.startswith("cuda"))
        device = own if free else options.device
        chosen = Runtime.choose(device, "float32", self._settings.threads)
        if options.precision != "auto":
            return replace(chosen, precision=options.precision)
        if chosen.device == "cpu":
            return replace(chosen, precision=self._settings.cpu_precision)
        return Runtime.choose(device, "auto", self._settings.threads)

    def _judge(self, painter: str) -> Judge:
        if painter not in self._judges:
            self._judges[painter] = Judge(painter)
        return self._judges[painter]

    def _caption_of_content(self, job: Job, sha256: str) -> str:
        key = (job.options.backbone, sha256)
        if key not in self._captions:
            while len(self._captions) >= _CAPTIONS_KEPT:
                self._captions.popitem(last=False)
            self._captions[key] = self._caption(job.options, Path(job.content))
        return self._captions[key]

    def _caption(self, options: StyleOptions, picture: Path | Image.Image) -> str:
        name = options.backbone
        if name not in self._captioners:
            self._captioners[name] = load_captioner(name, runtime=self._runtime(options))
        captioner = self._captioners[name]
        backbone = self._backbone(options, captioner.runtime)
        with captioner.runtime.using_threads():
            return describing.caption(picture, captioner=captioner, backbone=backbone).text


def _is_allowed(runtime: Runtime, options: StyleOptions) -> bool:
    """Whether a checkpoint's runtime is one that the options allow now."""
    kind = runtime.device.partition(":")[0]
    return options.precision in ("auto", runtime.precision) and options.device in (
        "auto", kind, runtime.device
    )  # fmt: skip


def _failure(task: Task, error: Exception) -> Outcome:
    """What is wrong with a task.

    Raises:
        DeviceError: the device is lost, which no other task would be spared.
    """
    if is_device_lost(error):
        raise DeviceError(
            f"{task.job.output}: the device failed ({reason_of(error)}); run the same again"
        ) from error
    if is_disk_full(error):
        return Outcome(task, "full", str(error))
    if isinstance(error, StylecapError | MemoryError):
        return Outcome(task, "failed", str(error) or "too little memory")
    return Outcome(task, "failed", f"unexpected {type(error).__name__}: {error}")


class _Keeper:
    """Writes the checkpoints of a group now and then, all of the same step.

    Attributes:
        hooks: for ``on_checkpoint`` of each.
    """

    def __init__(self, paths: Sequence[Path], every_seconds: float) -> None:
        self._every = every_seconds
        self._next = time.monotonic() + every_seconds
        self._latest: dict[Path, Callable[[], Checkpoint]] = {}
        self._last = paths[-1]
        self.hooks = [partial(self._remember, path) for path in paths]

    def _remember(self, path: Path, checkpoint: Callable[[], Checkpoint]) -> None:
        self._latest[path] = checkpoint
        if path == self._last and time.monotonic() >= self._next:
            self.keep()

    def keep(self) -> None:
        """Write the checkpoints of the last step, if there was one."""
        if not self._latest:
            return
        begin = time.monotonic()
        for path, checkpoint in self._latest.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint().save(path)
        self._latest = {}
        end = time.monotonic()
        pause = max(self._every, _CHECKPOINT_SHARE * (end - begin)) if self._every else 0.0
        self._next = end + pause
