"""Optimise an image over scales, from coarse to fine.

Source: Gatys et al. 2016, section 2.3 (the optimisation), and 2017, section 6 (coarse to
fine). After every step the image is put back into [0, 1]: what is optimised is what will be
saved, while an image left free loses a tenth of its gain when it is clipped at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from operator import mul
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stylecap.backbone import Backbone, check_layers, smallest_side
from stylecap.errors import DeviceError, InputError, OptionError, RecordError
from stylecap.images import fit_long_side, resize_image
from stylecap.progress import OnProgress, Progress, ShouldStop
from stylecap.runtime import Runtime
from stylecap.style.cache import StyleCache, image_sha256
from stylecap.style.checkpoint import Checkpoint, OnCheckpoint, transfer_identity
from stylecap.style.control import (
    carry_guides,
    join_luminance,
    luminance,
    match_color,
    match_luminance,
)
from stylecap.style.memory import check_memory, memory_budget, memory_taken, plan_memory
from stylecap.style.objective import Losses, Objective, StyleTarget, style_grams
from stylecap.style.optimizers import LBFGS, Adam, Optimizer
from stylecap.style.options import AUTO, StyleOptions
from stylecap.style.strips import Strips

_SHORTEST_SIDE = 64  # px; a scale below it shows nothing of content or style
_DIVERGED = 4.0  # times the best loss of this scale: return to the best picture
_LOOK_EVERY = 10  # steps from one look at whether the picture still changes to the next
_INVISIBLE = 0.5 / 255  # mean change of a pixel between two looks that 8 bits would hide
_FINE_SHARE = 0.8  # strength at which scales are mixed
_NOISE = 0.1  # deviation of the noise that a painting may start from


@dataclass(frozen=True, slots=True)
class Transfer:
    """What an optimisation ends with.

    Attributes:
        image: (1, 3, H, W) in [0, 1], float32, on the CPU.
        loss: of that image: ``content``, ``style`` per layer, ``tv`` and ``total``.
        steps: evaluations really made.
        seconds: time taken.
        stopped: it was asked to stop early.
        messages: what a person should know, such as a return from divergence.
        memory: ``"auto"``, or the options' ``memory`` by which the picture was cut into strips.
    """

    image: Tensor
    loss: dict[str, Any]
    steps: int
    seconds: float
    stopped: bool
    messages: tuple[str, ...]
    memory: str


@dataclass(frozen=True, slots=True)
class Subject:
    """One of several pictures that are painted together, and who is told of it.

    Attributes:
        content: (1, 3, H, W) in [0, 1], at the size of the result.
        init_image: (1, 3, H, W), required by and only used with ``init="image"``.
        resume: where an equal transfer was; the result is the one that it would have had.
        on_progress: called after every step.
        on_checkpoint: called after every step, before ``on_progress``.
    """

    content: Tensor
    init_image: Tensor | None = None
    resume: Checkpoint | None = None
    on_progress: OnProgress | None = None
    on_checkpoint: OnCheckpoint | None = None


def transfer_style(
    content: Tensor,
    styles: Sequence[Tensor],
    options: StyleOptions,
    backbone: Backbone,
    *,
    init_image: Tensor | None = None,
    regions: Tensor | None = None,
    cache: StyleCache | None = None,
    resume: Checkpoint | None = None,
    on_progress: OnProgress | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    should_stop: ShouldStop | None = None,
) -> Transfer:
    """Paint the content in the manner of the styles.

    Args:
        content: as in `Subject`.
        styles: as in `transfer_together`.
        options: as in `transfer_together`.
        backbone: as in `transfer_together`.
        init_image: as in `Subject`.
        regions: as in `transfer_together`.
        cache: as in `transfer_together`.
        resume: as in `Subject`.
        on_progress: as in `Subject`.
        on_checkpoint: as in `Subject`.
        should_stop: as in `transfer_together`.
    Raises:
        As `transfer_together`.
    """
    subject = Subject(content, init_image, resume, on_progress, on_checkpoint)
    (done,) = transfer_together(
        [subject], styles, options, backbone, regions=regions, cache=cache, should_stop=should_stop
    )
    return done


def transfer_together(
    subjects: Sequence[Subject],
    styles: Sequence[Tensor],
    options: StyleOptions,
    backbone: Backbone,
    *,
    regions: Tensor | None = None,
    cache: StyleCache | None = None,
    should_stop: ShouldStop | None = None,
) -> list[Transfer]:
    """Paint several contents in the manner of the same styles, as one batch.

    Each goes the way it would go alone, to within rounding.

    Args:
        subjects: of one size; those to resume all after the same step.
        styles: each (1, 3, H', W'), large enough for the style scale.
        options: all but size, which the contents have.
        backbone: of the options' name.
        regions: (R, 1, H, W) zeros and ones, one region for each style, or None.
        cache: shared with other transfers; the styles' Gram matrices are looked up there.
        should_stop: asked before every step.
    Returns:
        One for each subject.
    Raises:
        OptionError: options that contradict each other or the inputs.
        InputError: the contents are too small or too narrow for the layers, or differ in size.
        DeviceError: the optimisation does not fit into memory.
        RecordError: a checkpoint to resume from is of another transfer, or of another step
            than the others'.
    """
    size = _common_size(subjects)
    for subject in subjects:
        _check(size, options, backbone, len(styles), subject.init_image, regions)
    runtime = backbone.runtime
    budget = _budget(subjects, options, runtime)
    check_memory(size, options, runtime, budget)
    content = torch.cat([subject.content for subject in subjects])  # (B, 3, H, W)
    sizes = scale_sizes(size, options)
    run = _Run(subjects, styles, regions, options, sizes, backbone, budget, should_stop)
    painting = content
    with runtime.using_threads():
        for order, at in enumerate(sizes):
            if order < run.first_scale:
                continue
            small = resize_image(content, at)
            start = (
                resize_image(painting, at) if order else _start(small, subjects, styles, options)
            )
            plan = plan_memory(at, options, runtime, budget)
            run.spared |= plan.spares
            seen, prepared, bring_back = _colored(small, styles, options)
            objective = Objective(
                backbone,
                seen.expand(-1, 3, -1, -1),
                _targets(backbone, prepared, at, options, regions, plan.strips, cache),
                options,
                plan.strips,
            )
            stage = f"scale {order + 1} of {len(sizes)}, {at[1]}x{at[0]}"
            variable = luminance(start) if options.color == "keep-luminance" else start
            optimizer: Optimizer = (
                LBFGS(len(subjects), plan.history)
                if options.optimizer == "lbfgs"
                else Adam(options.learning_rate, len(subjects))
            )
            painting = bring_back(
                run.descend(objective, optimizer, variable, order, stage, bring_back)
            )
            if run.stopped:
                break
    if painting.shape[-2:] != content.shape[-2:]:
        painting = _enlarge(painting, content, options)
    return run.results(painting)


def mix_scales(
    fine: Tensor,
    coarse: Tensor,
    options: StyleOptions,
    backbone: Backbone,
    *,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Transfer:
    """Make a style image with the fine structure of one style and the coarse one of another.

    It starts from the coarse style, and the fine style's Gram loss of the lowest two style
    layers is minimised, while the features of the highest two stay near those of the coarse one.

    Args:
        fine: (1, 3, H', W'), whose strokes are wanted.
        coarse: (1, 3, H, W), whose composition of forms is wanted.
        options: ``steps``, optimiser and layers; the rest is set by the method.
        backbone: of the options' name.
        on_progress: as in `transfer_style`.
        should_stop: as in `transfer_style`.
    Source: Gatys et al. 2017, section 6.1. Theirs has no term for the high layers: starting from
    the coarse style should be enough, but with a fine style of other colours all layers drifted
    to the fine one here.
    """
    layers = options.resolved_style_layers
    mixing = replace(
        options,
        style_layers=layers[:2],
        content_layers=layers[-2:],
        layer_weights=(),
        objective="relative",
        strength=_FINE_SHARE,
        scales=1,
        color="style",
        init="content",
        blend=(),
    )
    return transfer_style(
        coarse,
        [fine],
        mixing,
        backbone,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def scale_sizes(size: tuple[int, int], options: StyleOptions) -> list[tuple[int, int]]:
    """The sizes that a painting goes through, coarse to fine, the last one being ``size``."""
    sizes = [size]
    for halving in range(1, options.scales):
        smaller = fit_long_side(size, max(1, round(max(size) / 2**halving)))
        if min(smaller) < _SHORTEST_SIDE:
            break
        sizes.insert(0, smaller)
    return sizes[-options.steps :]


def scale_steps(options: StyleOptions, scales: int) -> list[int]:
    """Steps at each of the scales that a painting goes through, if none settles early."""
    return [options.steps // scales + (order < options.steps % scales) for order in range(scales)]


@dataclass(slots=True)
class _Descent:
    """The optimisation of one scale between two steps."""

    optimizer: Optimizer
    image: Tensor
    good: Tensor
    seen: Tensor
    best: list[float]
    settled: list[bool]
    step: int = 0

    def look(self, x: Tensor, anew: Container[int]) -> None:
        """Note which pictures have not changed visibly since the last look; reads the device.

        Args:
            x: (B, C, H, W), the pictures now.
            anew: numbers of those that are to be compared with later ones only.
        """
        moved = (x - self.seen).abs().mean(dim=(1, 2, 3)).tolist()
        self.settled = [
            before or (change < _INVISIBLE and number not in anew)
            for number, (before, change) in enumerate(zip(self.settled, moved, strict=True))
        ]
        self.seen = x


class _Run:
    """The progress of one transfer over all its scales."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        styles: Sequence[Tensor],
        regions: Tensor | None,
        options: StyleOptions,
        sizes: Sequence[tuple[int, int]],
        backbone: Backbone,
        budget: int | None,
        should_stop: ShouldStop | None,
    ) -> None:
        # Only hashed where somebody asks for a checkpoint or brings one.
        self._identities = [
            lru_cache(
                partial(
                    transfer_identity,
                    [subject.content, *styles, subject.init_image, regions],
                    options,
                    backbone,
                )
            )
            for subject in subjects
        ]
        self._subjects = subjects
        self._options = options
        self._runtime = backbone.runtime
        self._budget = budget
        self._resume = self._checked()
        self._should_stop = should_stop
        # Reading a loss makes a GPU wait; on a CPU it is there already.
        self._read_every = 1 if self._runtime.device == "cpu" else 10
        before = self._resume or (None,) * len(subjects)
        now = time.perf_counter()
        self._begins = [now - (each.seconds if each else 0) for each in before]
        self._messages = [list(each.messages) if each else [] for each in before]
        self._losses: list[dict[str, Any]] = [{} for _ in subjects]
        self._steps = [each.steps if each else 0 for each in before]
        self.first_scale = self._resume[0].scale if self._resume else 0
        self._planned = scale_steps(options, len(sizes))
        self._pixels = [height * width for height, width in sizes]
        self.stopped = False
        self.spared = False

    def _checked(self) -> list[Checkpoint]:
        """The checkpoint of each subject, or none at all."""
        found = []
        for subject, identity in zip(self._subjects, self._identities, strict=True):
            if subject.resume is None:
                continue
            if subject.resume.identity != identity():
                raise RecordError(
                    "checkpoint: it is of a run with other options, inputs, network, threads or "
                    "versions; start without it"
                )
            found.append(subject.resume)
        alike = len({(each.scale, each.step) for each in found}) == 1
        if found and not (alike and len(found) == len(self._subjects)):
            raise RecordError(
                "checkpoint: pictures painted together must all be after the same step; paint "
                "those that are not by themselves"
            )
        return found

    def descend(
        self,
        objective: Objective,
        optimizer: Optimizer,
        start: Tensor,
        scale: int,
        stage: str,
        bring_back: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Minimise over one scale; returns the last good pictures, shaped like ``start``."""
        at = self._begun(optimizer, start)
        while at.step < self._planned[scale] and not all(at.settled):
            if self._should_stop is not None and self._should_stop():
                self.stopped = True
                break
            x = at.image.detach().requires_grad_()
            losses, gradient = self._evaluate(objective, x)
            for number, settled in enumerate(at.settled):
                self._steps[number] += not settled
            at.image = _chosen(at.settled, at.image, at.optimizer.step(x, gradient).clamp(0, 1))
            numbers = losses.numbers() if at.step % self._read_every == 0 else []
            messages = self._return_diverged(at, x.detach(), numbers)
            if self._options.early_stopping and at.step % _LOOK_EVERY == 0:
                at.look(x.detach(), messages)
            at.step += 1
            for number, subject in enumerate(self._subjects):
                if subject.on_checkpoint is not None:
                    subject.on_checkpoint(partial(self._checkpoint, number, scale, at))
            self._report(scale, at, stage, numbers, messages, bring_back)
        x = at.image
        with torch.no_grad():
            self._losses = objective(x.expand(-1, 3, -1, -1)).numbers()
            diverged = _diverged(self._losses, at.best)
            if any(diverged):
                x = _chosen(diverged, at.good, x)
                self._losses = objective(x.expand(-1, 3, -1, -1)).numbers()
        if not all(math.isfinite(loss["total"]) for loss in self._losses):
            raise DeviceError(
                f"the objective is not a number even for the picture it starts from, on "
                f"{self._runtime.device}; try --precision float32, or smaller weights"
            )
        return x.detach()

    def _evaluate(self, objective: Objective, x: Tensor) -> tuple[Losses, Tensor]:
        """Losses and gradient; where memory does not suffice, in more and more strips."""
        while True:
            try:
                losses = objective(x.expand(-1, 3, -1, -1))
                return losses, torch.autograd.grad(losses.total.sum(), x)[0]
            except torch.OutOfMemoryError:
                if not objective.save_memory():
                    raise
            for steps, messages in zip(self._steps, self._messages, strict=True):
                messages.append(f"step {steps + 1}: out of memory; more of it in strips")

    def _return_diverged(
        self, at: _Descent, x: Tensor, losses: Sequence[dict[str, Any]]
    ) -> dict[int, str]:
        """Put pictures that diverged at ``x`` back to their last good one.

        Args:
            at: the descent, a step after ``x``.
            x: (B, C, H, W), where the losses were read.
            losses: of each picture; empty where none were read.
        Returns:
            For people, by the pictures' numbers.
        """
        messages: dict[int, str] = {}
        if not losses:
            return messages
        diverged = _diverged(losses, at.best)
        at.good = _chosen(diverged, at.good, x)
        at.image = _chosen(diverged, at.good, at.image)
        for number, loss in enumerate(losses):
            total = loss["total"]
            if not diverged[number]:
                at.best[number] = min(at.best[number], total)
                continue
            at.optimizer.restart(number, 0.25)
            step = self._steps[number]
            messages[number] = f"step {step}: the loss became {total:.3g}; shorter steps"
            self._messages[number].append(messages[number])
        return messages

    def _begun(self, optimizer: Optimizer, start: Tensor) -> _Descent:
        """A scale at its start, or where the checkpoints left it."""
        device = self._runtime.torch_device
        before, self._resume = self._resume, []
        if not before:
            x = start.to(device).contiguous()
            count = len(self._subjects)
            seen = torch.full_like(x, math.inf)
            return _Descent(optimizer, x, x, seen, [math.inf] * count, [False] * count)
        optimizer.load(
            [
                {name: v.to(device) if v.ndim else v for name, v in each.optimizer.items()}
                for each in before
            ]
        )
        image, good, seen = (
            torch.cat(images).to(device)
            for images in zip(*((each.image, each.good, each.seen) for each in before), strict=True)
        )
        best, settled = [each.best for each in before], [each.settled for each in before]
        return _Descent(optimizer, image, good, seen, best, settled, before[0].step)

    def _checkpoint(self, number: int, scale: int, at: _Descent) -> Checkpoint:
        this = slice(number, number + 1)
        return Checkpoint(
            identity=self._identities[number](),
            runtime=self._runtime,
            budget=self._budget,
            scale=scale,
            step=at.step,
            steps=self._steps[number],
            seconds=time.perf_counter() - self._begins[number],
            messages=tuple(self._messages[number]),
            best=at.best[number],
            settled=at.settled[number],
            image=at.image[this].detach().cpu(),
            good=at.good[this].cpu(),
            seen=at.seen[this].cpu().clone(),  # a file holds no tensor twice
            optimizer={name: value.cpu() for name, value in at.optimizer.state(number).items()},
        )

    def _report(
        self,
        scale: int,
        at: _Descent,
        stage: str,
        losses: Sequence[dict[str, Any]],
        messages: dict[int, str],
        bring_back: Callable[[Tensor], Tensor],
    ) -> None:
        shown = at.image.detach()
        made = [*self._planned[:scale], at.step]
        left = [0 if all(at.settled) else self._planned[scale] - at.step]
        left += self._planned[scale + 1 :]
        work = sum(map(mul, made, self._pixels))
        rest = sum(map(mul, left, self._pixels[scale:]))
        for number, subject in enumerate(self._subjects):
            if subject.on_progress is None:
                continue
            loss = losses[number] if losses else {}
            subject.on_progress(
                Progress(
                    step=self._steps[number],
                    steps=self._steps[number] + sum(left),
                    seconds=time.perf_counter() - self._begins[number],
                    stage=stage,
                    loss=loss.get("total"),
                    parts={"content": loss["content"], "style": sum(loss["style"].values())}
                    if loss
                    else {},
                    message=messages.get(number, ""),
                    share=work / (work + rest),
                    preview=partial(_preview, bring_back, shown, number),
                )
            )

    def results(self, paintings: Tensor) -> list[Transfer]:
        """Sum up."""
        return [
            Transfer(
                image=painting.float().cpu(),
                loss=loss,
                steps=steps,
                seconds=time.perf_counter() - begin,
                stopped=self.stopped,
                messages=tuple(messages),
                memory=memory_taken(self._budget, self._runtime) if self.spared else AUTO,
            )
            for painting, loss, steps, begin, messages in zip(
                torch.split(paintings, 1),
                self._losses,
                self._steps,
                self._begins,
                self._messages,
                strict=True,
            )
        ]


def _diverged(losses: Sequence[dict[str, Any]], best: Sequence[float]) -> list[bool]:
    """Whether the loss of each picture is far above its best one, or no number."""
    return [
        not (math.isfinite(loss["total"]) and loss["total"] <= _DIVERGED * lowest)
        for loss, lowest in zip(losses, best, strict=True)
    ]


def _chosen(first: Sequence[bool], one: Tensor, other: Tensor) -> Tensor:
    """Of each picture the one where it is said so, else the other: (B, C, H, W)."""
    if not any(first):
        return other
    pairs = zip(first, torch.split(one, 1), torch.split(other, 1), strict=True)
    return torch.cat([a if chosen else b for chosen, a, b in pairs])


def _preview(bring_back: Callable[[Tensor], Tensor], shown: Tensor, number: int) -> Tensor:
    return bring_back(shown)[number : number + 1].cpu()


def _common_size(subjects: Sequence[Subject]) -> tuple[int, int]:
    sizes = sorted({(s.content.shape[-2], s.content.shape[-1]) for s in subjects})
    if len(sizes) != 1:
        raise InputError(
            f"contents: pictures painted together need one size, got "
            f"{', '.join(f'{width}x{height}' for height, width in sizes) or 'none'}"
        )
    return sizes[0]


def _budget(subjects: Sequence[Subject], options: StyleOptions, runtime: Runtime) -> int | None:
    """Bytes of memory that each may take, or as many as it was planned with; None if unknown."""
    before = [subject.resume.budget for subject in subjects if subject.resume is not None]
    if before:
        return min((budget for budget in before if budget is not None), default=None)
    budget = memory_budget(options, runtime)
    return None if budget is None else budget // len(subjects)


def _check(
    size: tuple[int, int],
    options: StyleOptions,
    backbone: Backbone,
    styles: int,
    init_image: Tensor | None,
    regions: Tensor | None,
) -> None:
    if backbone.name != options.backbone:
        raise OptionError(
            f"backbone: the options name {options.backbone}, but {backbone.name} was given"
        )
    layers = (*options.resolved_content_layers, *options.resolved_style_layers)
    check_layers(options.backbone, layers)
    smallest = max(smallest_side(options.backbone, layer) for layer in layers)
    if min(size) < smallest:
        raise InputError(
            f"content: {size[1]}x{size[0]} px is too small for the layers of {options.backbone}, "
            f"which need {smallest} px a side; choose a larger --size or a less narrow picture"
        )
    if not styles:
        raise OptionError("style: expected at least one")
    if options.blend and len(options.blend) != styles:
        raise OptionError(
            f"blend: expected {styles} weights, one for each style, got {len(options.blend)}"
        )
    if (init_image is None) == (options.init == "image"):
        raise OptionError("init: 'image' and an init image belong together; give both or neither")
    if regions is not None and len(regions) != styles:
        raise OptionError(f"mask: {len(regions)} regions for {styles} styles; give one each")
    if regions is not None and options.blend:
        raise OptionError("blend: with a mask each style has its own region; leave blend out")


def _start(
    content: Tensor, subjects: Sequence[Subject], styles: Sequence[Tensor], options: StyleOptions
) -> Tensor:
    size = (content.shape[-2], content.shape[-1])
    if options.init == "style":
        return resize_image(styles[0], size).expand(len(content), -1, -1, -1)
    if options.init == "image":
        given = [s.init_image for s in subjects if s.init_image is not None]
        return torch.cat([resize_image(image, size) for image in given])
    if options.init == "noise":
        generator = torch.Generator().manual_seed(options.seed)
        noise = torch.randn(content.shape[1:], generator=generator)
        return (content.mean(dim=(2, 3), keepdim=True) + _NOISE * noise).clamp(0, 1)
    return content


def _targets(
    backbone: Backbone,
    styles: Sequence[Tensor],
    at: tuple[int, int],
    options: StyleOptions,
    regions: Tensor | None,
    strips: Strips,
    cache: StyleCache | None,
) -> list[StyleTarget]:
    long_side = max(at) * options.style_scale
    layers = options.resolved_style_layers
    smallest = max(smallest_side(options.backbone, layer) for layer in layers)
    grams = []
    for style in styles:
        height, width = fit_long_side((style.shape[-2], style.shape[-1]), round(long_side))
        enough = (max(height, smallest), max(width, smallest))
        # With the content's colours in them, styles cannot be shared.
        shared = cache if options.color == "style" else None
        grams.append(_grams(backbone, style, enough, options, strips, shared))
    if regions is None:
        weights = options.blend or (1.0,) * len(styles)
        blended = {
            layer: torch.stack(
                [weight * gram[layer] for weight, gram in zip(weights, grams, strict=True)]
            ).sum(0)
            / sum(weights)
            for layer in layers
        }
        return [StyleTarget(blended)]
    guides = carry_guides(_shrink(regions, at), options.backbone, layers)
    device = backbone.runtime.torch_device
    return [
        StyleTarget(gram, {layer: guides[layer][region].to(device) for layer in layers})
        for region, gram in enumerate(grams)
    ]


def _grams(
    backbone: Backbone,
    style: Tensor,
    size: tuple[int, int],
    options: StyleOptions,
    strips: Strips,
    cache: StyleCache | None,
) -> dict[str, Tensor]:
    def make() -> dict[str, Tensor]:
        # One by one: a style may be larger than the paintings.
        each = [
            style_grams(backbone, one, options, strips)
            for one in torch.split(resize_image(style, size), 1)
        ]
        return {layer: torch.cat([grams[layer] for grams in each]) for layer in each[0]}

    if cache is None:
        return make()
    network = (backbone.name, backbone.weights_sha256, backbone.runtime)
    chosen = (size, options.resolved_style_layers, options.pooling, strips)
    return cache.get(("grams", image_sha256(style), *chosen, *network), make)


def _shrink(regions: Tensor, at: tuple[int, int]) -> Tensor:
    """Regions at another size, still zeros and ones except where one would vanish."""
    shares = functional.interpolate(regions, at, mode="area")  # (R, 1, h, w)
    hard = functional.one_hot(shares[:, 0].argmax(0), len(regions))  # (h, w, R)
    hard = hard.permute(2, 0, 1)[:, None].to(shares.dtype)  # (R, 1, h, w)
    vanished = hard.sum(dim=(1, 2, 3), keepdim=True) == 0
    return torch.where(vanished, shares, hard)


def _colored(
    content: Tensor, styles: Sequence[Tensor], options: StyleOptions
) -> tuple[Tensor, list[Tensor], Callable[[Tensor], Tensor]]:
    """Contents and styles as the objective sees them, and the way back to coloured pictures.

    The styles are (B, 3, H', W') where each content gives them its own colours, else (1, ...).
    """
    each = torch.split(content, 1)
    if options.color == "keep-luminance":
        gray = luminance(content)
        seen = [
            torch.cat([match_luminance(luminance(style), g) for g in torch.split(gray, 1)])
            for style in styles
        ]
        return (
            gray,
            [style.expand(-1, 3, -1, -1) for style in seen],
            lambda y: join_luminance(y, content.to(y.device)),
        )
    if options.color == "match":
        matched = [
            torch.cat([match_color(style, one, options.color_method) for one in each])
            for style in styles
        ]
        return content, matched, lambda x: x
    return content, list(styles), lambda x: x


def _enlarge(painting: Tensor, content: Tensor, options: StyleOptions) -> Tensor:
    """Enlarge a painting that was stopped at a coarse scale to the size of its content."""
    large = resize_image(painting.cpu(), (content.shape[-2], content.shape[-1]))
    if options.color == "keep-luminance":
        return join_luminance(luminance(large), content)
    return large
