"""Optimise an image over scales, from coarse to fine.

Source: Gatys et al. 2016, section 2.3 (the optimisation), and 2017, section 6 (coarse to
fine). After every step the image is put back into [0, 1]: what is optimised is what will be
saved, while an image left free loses a tenth of its gain when it is clipped at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
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
        content: (1, 3, H, W) in [0, 1], at the size of the result.
        styles: each (1, 3, H', W'), large enough for the style scale.
        options: all but size, which the content has.
        backbone: of the options' name.
        init_image: (1, 3, H, W), required by and only used with ``init="image"``.
        regions: (R, 1, H, W) zeros and ones, one region for each style, or None.
        cache: shared with other transfers; the styles' Gram matrices are looked up there.
        resume: where an equal transfer was; the result is the one that it would have had.
        on_progress: called after every step.
        on_checkpoint: called after every step, before ``on_progress``.
        should_stop: asked before every step.
    Raises:
        OptionError: options that contradict each other or the inputs.
        InputError: the content is too small or too narrow for the layers.
        DeviceError: the optimisation does not fit into memory.
        RecordError: the checkpoint to resume from is of another transfer.
    """
    size = (content.shape[-2], content.shape[-1])
    _check(size, options, backbone, len(styles), init_image, regions)
    runtime = backbone.runtime
    budget = memory_budget(options, runtime) if resume is None else resume.budget
    check_memory(size, options, runtime, budget)
    sizes = scale_sizes(size, options)
    # Only hashed where somebody asks for a checkpoint or brings one.
    identity = lru_cache(
        lambda: transfer_identity([content, *styles, init_image, regions], options, backbone)
    )
    if resume is not None and resume.identity != identity():
        raise RecordError(
            "checkpoint: it is of a run with other options, inputs, network, threads or versions; "
            "start without it"
        )
    run = _Run(options, runtime, budget, identity, resume, on_progress, on_checkpoint, should_stop)
    painting = content
    with runtime.using_threads():
        for order, at in enumerate(sizes):
            if order < run.first_scale:
                continue
            small = resize_image(content, at)
            start = (
                resize_image(painting, at) if order else _start(small, styles, init_image, options)
            )
            plan = plan_memory(at, options, runtime, budget)
            run.spared |= plan.spares
            seen, prepared, bring_back = _colored(small, styles, start, options)
            objective = Objective(
                backbone,
                seen.expand(-1, 3, -1, -1),
                _targets(backbone, prepared, at, options, regions, plan.strips, cache),
                options,
                plan.strips,
            )
            steps = options.steps // len(sizes) + (order < options.steps % len(sizes))
            stage = f"scale {order + 1} of {len(sizes)}, {at[1]}x{at[0]}"
            variable = luminance(start) if options.color == "keep-luminance" else start
            optimizer: Optimizer = (
                LBFGS(plan.history) if options.optimizer == "lbfgs" else Adam(options.learning_rate)
            )
            painting = bring_back(
                run.descend(objective, optimizer, variable, order, steps, stage, bring_back)
            )
            if run.stopped:
                break
    if painting.shape[-2:] != content.shape[-2:]:
        painting = _enlarge(painting, content, options)
    return run.result(painting)


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


@dataclass(slots=True)
class _Descent:
    """The optimisation of one scale between two steps."""

    optimizer: Optimizer
    image: Tensor
    good: Tensor
    best: float = math.inf
    step: int = 0


class _Run:
    """The progress of one transfer over all its scales."""

    def __init__(
        self,
        options: StyleOptions,
        runtime: Runtime,
        budget: int | None,
        identity: Callable[[], str],
        resume: Checkpoint | None,
        on_progress: OnProgress | None,
        on_checkpoint: OnCheckpoint | None,
        should_stop: ShouldStop | None,
    ) -> None:
        self._options = options
        self._runtime = runtime
        self._budget = budget
        self._identity = identity
        self._resume = resume
        self._on_progress = on_progress
        self._on_checkpoint = on_checkpoint
        self._should_stop = should_stop
        # Reading a loss makes a GPU wait; on a CPU it is there already.
        self._read_every = 1 if runtime.device == "cpu" else 10
        self._begin = time.perf_counter() - (resume.seconds if resume else 0)
        self._messages: list[str] = list(resume.messages) if resume else []
        self._loss: dict[str, Any] = {}
        self._step = resume.steps if resume else 0
        self.first_scale = resume.scale if resume else 0
        self.stopped = False
        self.spared = False

    def descend(
        self,
        objective: Objective,
        optimizer: Optimizer,
        start: Tensor,
        scale: int,
        steps: int,
        stage: str,
        bring_back: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Minimise over one scale; returns the last good picture, shaped like ``start``."""
        at = self._begun(optimizer, start)
        while at.step < steps:
            if self._should_stop is not None and self._should_stop():
                self.stopped = True
                break
            x = at.image.detach().requires_grad_()
            losses, gradient = self._evaluate(objective, x)
            self._step += 1
            message, total = "", None
            if at.step % self._read_every == 0:
                total = float(losses.total.detach())
                if math.isfinite(total) and total <= _DIVERGED * at.best:
                    at.good, at.best = x.detach(), min(at.best, total)
                else:
                    message = f"step {self._step}: the loss became {total:.3g}; shorter steps"
                    self._messages.append(message)
                    at.optimizer.restart(0.25)
                    at.image = at.good
            if not message:
                at.image = at.optimizer.step(x, gradient).clamp(0, 1)
            at.step += 1
            if self._on_checkpoint is not None:
                self._on_checkpoint(lambda: self._checkpoint(scale, at))
            self._report(stage, total, losses, message, at.image, bring_back)
        x = at.image
        with torch.no_grad():
            final = objective(x.expand(-1, 3, -1, -1))
            if not float(final.total) <= _DIVERGED * at.best:
                x, final = at.good, objective(at.good.expand(-1, 3, -1, -1))
        self._loss = final.numbers()
        if not math.isfinite(self._loss["total"]):
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
                return losses, torch.autograd.grad(losses.total, x)[0]
            except torch.OutOfMemoryError:
                if not objective.save_memory():
                    raise
            self._messages.append(f"step {self._step + 1}: out of memory; more of it in strips")

    def _begun(self, optimizer: Optimizer, start: Tensor) -> _Descent:
        """A scale at its start, or where the checkpoint left it."""
        device = self._runtime.torch_device
        before, self._resume = self._resume, None
        if before is None:
            x = start.to(device).contiguous()
            return _Descent(optimizer, x, x)
        optimizer.load(
            {name: v.to(device) if v.ndim else v for name, v in before.optimizer.items()}
        )
        image, good = before.image.to(device), before.good.to(device)
        return _Descent(optimizer, image, good, before.best, before.step)

    def _checkpoint(self, scale: int, at: _Descent) -> Checkpoint:
        return Checkpoint(
            identity=self._identity(),
            runtime=self._runtime,
            budget=self._budget,
            scale=scale,
            step=at.step,
            steps=self._step,
            seconds=time.perf_counter() - self._begin,
            messages=tuple(self._messages),
            best=at.best,
            image=at.image.detach().cpu(),
            good=at.good.cpu(),
            optimizer={name: value.cpu() for name, value in at.optimizer.state().items()},
        )

    def _report(
        self,
        stage: str,
        total: float | None,
        losses: Losses,
        message: str,
        x: Tensor,
        bring_back: Callable[[Tensor], Tensor],
    ) -> None:
        if self._on_progress is None:
            return
        shown = x.detach()
        parts = {}
        if total is not None:
            parts = {
                "content": float(losses.content.detach()),
                "style": sum(float(loss.detach()) for loss in losses.style.values()),
            }
        self._on_progress(
            Progress(
                step=self._step,
                steps=self._options.steps,
                seconds=time.perf_counter() - self._begin,
                stage=stage,
                loss=total,
                parts=parts,
                message=message,
                preview=lambda: bring_back(shown).cpu(),
            )
        )

    def result(self, painting: Tensor) -> Transfer:
        """Sum up."""
        return Transfer(
            image=painting.float().cpu(),
            loss=self._loss,
            steps=self._step,
            seconds=time.perf_counter() - self._begin,
            stopped=self.stopped,
            messages=tuple(self._messages),
            memory=memory_taken(self._budget, self._runtime) if self.spared else AUTO,
        )


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
    content: Tensor, styles: Sequence[Tensor], init_image: Tensor | None, options: StyleOptions
) -> Tensor:
    chosen = styles[0] if options.init == "style" else init_image
    if chosen is not None:
        return resize_image(chosen, (content.shape[-2], content.shape[-1]))
    if options.init == "noise":
        generator = torch.Generator().manual_seed(options.seed)
        noise = torch.randn(content.shape, generator=generator)
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
        return style_grams(backbone, resize_image(style, size), options, strips)

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
    content: Tensor, styles: Sequence[Tensor], start: Tensor, options: StyleOptions
) -> tuple[Tensor, list[Tensor], Callable[[Tensor], Tensor]]:
    """Content and styles as the objective sees them, and the way back to a coloured picture."""
    if options.color == "keep-luminance":
        gray = luminance(content)
        seen = [match_luminance(luminance(s), gray).expand(-1, 3, -1, -1) for s in styles]
        return gray, seen, lambda y: join_luminance(y, content.to(y.device))
    if options.color == "match":
        matched = [match_color(s, content, options.color_method) for s in styles]
        return content, matched, lambda x: x
    return content, list(styles), lambda x: x


def _enlarge(painting: Tensor, content: Tensor, options: StyleOptions) -> Tensor:
    """Enlarge a painting that was stopped at a coarse scale to the size of its content."""
    large = resize_image(painting.cpu(), (content.shape[-2], content.shape[-1]))
    if options.color == "keep-luminance":
        return join_luminance(luminance(large), content)
    return large
