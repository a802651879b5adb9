"""The loop of a painting: steps over one scale after another, watched, stopped and taken up again.

Several pictures may go together, each its own way: it diverges, settles and is written down by
itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import mul
from typing import Any

import torch
from torch import Tensor

from stylecap.backbone import Backbone
from stylecap.errors import DeviceError, RecordError
from stylecap.progress import OnProgress, Progress, ShouldStop
from stylecap.runtime import is_out_of_memory
from stylecap.style.checkpoint import Checkpoint, OnCheckpoint, transfer_identity
from stylecap.style.memory import memory_taken
from stylecap.style.objective import Losses, Objective
from stylecap.style.optimizers import Optimizer
from stylecap.style.options import AUTO, StyleOptions

_DIVERGED = 4.0  # times the best loss of this scale: return to the best picture
_LOOK_EVERY = 10  # steps from one look at whether the picture still changes to the next
_INVISIBLE = 0.5 / 255  # mean change of a pixel between two looks that 8 bits would hide


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

    def look(self, x: Tensor) -> None:
        """Note which of (B, C, H, W) have not changed visibly since the last look.

        Reads the device.
        """
        moved = (x - self.seen).abs().mean(dim=(1, 2, 3)).tolist()
        self.settled = [
            before or change < _INVISIBLE
            for before, change in zip(self.settled, moved, strict=True)
        ]
        self.seen = x


class Run:
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
                at.look(x.detach())
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
            except RuntimeError as error:
                if not (is_out_of_memory(error) and objective.save_memory()):
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
        at.seen = _chosen(diverged, torch.full_like(x, math.inf), at.seen)
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
