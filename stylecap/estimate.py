"""What a painting takes, before it is begun: seconds, from steps measured here, and bytes."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from stylecap import __version__, painting
from stylecap.backbone import Backbone
from stylecap.images import fit_long_side
from stylecap.inputs import Pictorial
from stylecap.measured import measure, processor, recall
from stylecap.progress import Progress
from stylecap.runtime import Runtime
from stylecap.style.descent import scale_steps
from stylecap.style.memory import Plan, memory_budget, plan_memory
from stylecap.style.optimizers import HISTORY, LBFGS
from stylecap.style.options import StyleOptions
from stylecap.style.strips import share_computed_again
from stylecap.style.transfer import scale_sizes

_STEPS = 3  # measured, after one that warms up
_LARGEST_PX = 1024  # measured; what is larger is taken to cost the same a pixel
_USUAL = ((144, 192), (288, 384))  # (height, width) at which a network is measured for the page
_FORWARD = 1 / 3  # of a step: features without a gradient
_EDGES = 0.08  # of a step: rows that neighbouring strips compute, too, and what they note

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of one step, as measured: they grow with the pixels from a part that does not.

    Attributes:
        fixed: at no pixels.
        per_pixel: of the objective, its gradient and the first steps' update.
        update: per pixel, what L-BFGS adds once its history is full.
    """

    fixed: float
    per_pixel: float
    update: float

    def seconds(self, size: tuple[int, int], steps: float = 1.0, passes: float = 0.0) -> float:
        """Of the first steps at a (height, width), and of passes without a gradient there."""
        pixels = size[0] * size[1]
        filling = min(steps, HISTORY) / 2  # steps' worth of update that a history saves
        return (steps + _FORWARD * passes) * (self.fixed + self.per_pixel * pixels) + (
            steps - filling
        ) * self.update * pixels

    def late(self, size: tuple[int, int]) -> float:
        """Of one step once the history is full."""
        return self.fixed + (self.per_pixel + self.update) * size[0] * size[1]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a painting is expected to need, if no scale of it ends early.

    Attributes:
        seconds: of the optimisation.
        steps: of all scales.
        step_seconds: of one at the finest scale.
        size: (height, width) of that scale.
        memory_bytes: on the device, at most; on a CPU of the whole process.
        runtime: where.
    """

    seconds: float
    steps: int
    step_seconds: float
    size: tuple[int, int]
    memory_bytes: int
    runtime: Runtime


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one painting; tells of others with the same network.

    Attributes:
        shape: (height, width) of the result that was measured.
        cost: of its steps.
        around: seconds of reading its pictures and saving the result.
        runtime: where.
    """

    shape: tuple[int, int]
    cost: StepCost
    around: float
    runtime: Runtime


def measure_painting(
    content: Pictorial,
    styles: Sequence[Pictorial],
    options: StyleOptions,
    backbone: Backbone,
    **given: Any,
) -> Measured:
    """Paint a few steps at the finest scale and, if there are several, at the coarsest.

    Args:
        content: as for `stylecap.stylize`.
        styles: likewise.
        options: of the painting.
        backbone: loaded.
        given: ``init_image``, ``mask`` and ``mask_colors`` of the painting.
    Raises:
        As `stylecap.stylize`.
    """
    chosen = replace(options, size=min(options.size, _LARGEST_PX))
    clock = time.perf_counter
    begin = clock()
    result, fine = _timed_steps(content, styles, chosen, backbone, given, clock)
    with tempfile.TemporaryDirectory() as folder:
        result.save(Path(folder) / "result.png")
    around = clock() - begin - result.seconds
    coarsest = scale_sizes(fine.size, chosen)[0]
    coarse = None
    if coarsest != fine.size:
        small = replace(chosen, size=max(coarsest))
        coarse = _timed_steps(content, styles, small, backbone, given, clock)[1]
    larger = (options.size / chosen.size) ** 2  # reading and saving grow with the pixels too
    cost = _line(fine, coarse, options, backbone.runtime, clock)
    return Measured(fine.size, cost, around * larger, backbone.runtime)


def estimate(
    shape: tuple[int, int], styles: int, options: StyleOptions, measured: Measured
) -> Estimate:
    """Work out what a painting takes.

    Args:
        shape: (height, width) of the content, in any unit.
        styles: how many.
        options: of the painting.
        measured: with the same network, on the runtime that will be used.
    """
    size = fit_long_side(shape, options.size)
    sizes = scale_sizes(size, options)
    # Content, picture at the end, and styles go through the network without a gradient.
    passes = 2 + styles * options.style_scale**2
    runtime, budget = measured.runtime, memory_budget(options, measured.runtime)
    seconds = 0.0
    for at, steps in zip(sizes, scale_steps(options, len(sizes)), strict=True):
        plan = plan_memory(at, options, runtime, budget)
        again = _again(options, plan)
        seconds += measured.cost.seconds(at, steps, passes + again * steps)
    return Estimate(
        seconds=seconds,
        steps=options.steps,
        step_seconds=measured.cost.late(size)
        + _FORWARD * again * measured.cost.per_pixel * size[0] * size[1],
        size=size,
        memory_bytes=plan.resident_bytes(runtime),
        runtime=runtime,
    )


def measure_network(backbone: Backbone) -> Measured:
    """Measure a network's steps at usual sizes, or take what this machine remembers of them.

    It tells of all options with that network, more coarsely than `measure_painting` does. On a
    CPU the program's own time is counted, so that what is remembered holds for a machine that
    does nothing else.
    """
    runtime = backbone.runtime
    options = StyleOptions(backbone=backbone.name)

    def own_time() -> float:
        return time.process_time() / runtime.threads

    clock = own_time if runtime.device == "cpu" else time.perf_counter

    def values() -> dict[str, float]:
        steps = []
        for size in _USUAL:
            image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
            chosen = replace(options, size=max(size))
            steps.append(_timed_steps(image, [image], chosen, backbone, {}, clock)[1])
        return asdict(_line(steps[1], steps[0], options, runtime, clock))

    model, abilities = processor()
    on_cuda = runtime.torch_device.type == "cuda"
    key = {
        "processor": model,
        "abilities": abilities,
        "gpu": torch.cuda.get_device_name(runtime.device) if on_cuda else "",
        "torch": str(torch.__version__),
        "stylecap": __version__,
        "runtime": repr(runtime),
        "network": backbone.name,
    }
    names = [field.name for field in fields(StepCost)]
    note = recall("step", key, names) or measure("step", key, values)
    return Measured(_USUAL[-1], StepCost(**note.values), 0.0, runtime)


@dataclass(frozen=True, slots=True)
class _Step:
    """Seconds of a step at (height, width), whose history is short, without strips."""

    size: tuple[int, int]
    seconds: float


def _timed_steps(
    content: Pictorial,
    styles: Sequence[Pictorial],
    options: StyleOptions,
    backbone: Backbone,
    given: dict[str, Any],
    clock: Clock,
) -> tuple[painting.StyleResult, _Step]:
    """A painting of a few steps at one scale, and one of its steps as if without strips."""
    times: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.preview is not None:
            progress.preview()  # waits for the device
        times.append(clock())

    result = painting.stylize(
        content,
        list(styles),
        replace(options, scales=1, steps=_STEPS + 1, early_stopping=False),
        backbone=backbone,
        on_progress=watch,
        **given,
    )
    step = statistics.median(after - before for before, after in pairwise(times))
    size = (result.image.shape[-2], result.image.shape[-1])
    budget = memory_budget(result.options, backbone.runtime)
    plan = plan_memory(size, result.options, backbone.runtime, budget)
    return result, _Step(size, step / (1 + _FORWARD * _again(options, plan)))


def _again(options: StyleOptions, plan: Plan) -> float:
    """What strips add to every step, in passes through the network."""
    if not plan.strips.stages:
        return 0.0
    layers = (*options.resolved_style_layers, *options.resolved_content_layers)
    again = share_computed_again(options.backbone, layers, options.pooling, plan.strips)
    return again + _EDGES / _FORWARD


def _line(
    fine: _Step, coarse: _Step | None, options: StyleOptions, runtime: Runtime, clock: Clock
) -> StepCost:
    """The line through one or two measured steps; it never falls."""
    pixels = fine.size[0] * fine.size[1]
    update = 0.0
    if options.optimizer == "lbfgs":
        update = _update_seconds(fine.size, runtime, clock) / pixels
    fixed = 0.0
    if coarse is not None:
        fewer = coarse.size[0] * coarse.size[1]
        slope = (fine.seconds - coarse.seconds) / (pixels - fewer)
        fixed = min(max(0.0, fine.seconds - slope * pixels), fine.seconds)
    return StepCost(fixed, (fine.seconds - fixed) / pixels, update)


def _update_seconds(size: tuple[int, int], runtime: Runtime, clock: Clock) -> float:
    """What a step of L-BFGS takes besides the objective once its history is full."""
    optimizer = LBFGS()
    x, slope = (torch.rand(1, 3, *size, device=runtime.torch_device) for _ in range(2))
    times = []
    with runtime.using_threads():
        for _ in range(HISTORY + _STEPS):
            x = optimizer.step(x, x * slope).cpu().to(x.device)  # waits for the device
            times.append(clock())
    return statistics.median(after - before for before, after in pairwise(times[-_STEPS - 1 :]))
