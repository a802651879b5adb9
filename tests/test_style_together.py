"""Several pictures as one batch: each goes the way it would go alone, on every device here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stylecap.errors import InputError, RecordError
from stylecap.progress import Progress
from stylecap.runtime import available_devices
from stylecap.style import descent, transfer
from stylecap.style.checkpoint import Checkpoint
from stylecap.style.descent import Subject, Transfer
from stylecap.style.optimizers import LBFGS, Adam, Optimizer
from stylecap.style.options import StyleOptions
from stylecap.style.transfer import transfer_together

from .small import photo, small_backbone

every_device = pytest.mark.parametrize("device", available_devices())
COUNT = 3
STYLE = photo(60, 9)


def options(**changes: object) -> StyleOptions:
    return StyleOptions(**{"backbone": "alexnet", "steps": 8, "scales": 1, **changes})


def subjects(side: int = 64, dtype: torch.dtype = torch.float32) -> list[Subject]:
    """Pictures of different contrast, so that nothing of one fits another."""
    return [Subject(((1 - 0.4 * n) * photo(side, n)).to(dtype)) for n in range(COUNT)]


def paint(
    given: Sequence[Subject], chosen: StyleOptions, device: str = "cpu", **more: object
) -> list[Transfer]:
    dtype = given[0].content.dtype
    backbone = small_backbone(dtype, device)
    return transfer_together(given, [STYLE.to(dtype)], chosen, backbone, **more)


def assert_alike(ours: Transfer, theirs: Transfer, most: float = 1e-4) -> None:
    """Equal to within rounding, before the steps have made more of it."""
    torch.testing.assert_close(ours.image, theirs.image, atol=most, rtol=0)
    assert ours.loss["total"] == pytest.approx(theirs.loss["total"], rel=most)
    assert ours.loss["style"] == pytest.approx(theirs.loss["style"], rel=10 * most, abs=1e-6)
    assert (ours.steps, ours.messages) == (theirs.steps, theirs.messages)


@every_device
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adam", "objective": "gatys"},
        {"objective": "gatys", "tv_weight": 0.1},
        {"color": "keep-luminance", "init": "noise"},
        {"color": "match", "pooling": "average"},
    ],
)
def test_each_of_a_batch_is_painted_as_if_alone(device: str, changes: dict[str, object]) -> None:
    dtype, most = (torch.float32, 1e-2) if device == "mps" else (torch.float64, 1e-5)
    given = subjects(dtype=dtype)
    together = paint(given, options(**changes), device)
    for subject, ours in zip(given, together, strict=True):
        (alone,) = paint([subject], options(**changes), device)
        assert_alike(ours, alone, most)
    assert (together[0].image - together[1].image).abs().mean() > 0.05


@every_device
@pytest.mark.parametrize("changes", [{}, {"optimizer": "adam"}, {"objective": "gatys"}])
def test_also_in_the_precision_of_paintings(device: str, changes: dict[str, object]) -> None:
    together = paint(subjects(), options(**changes), device)
    for subject, ours in zip(subjects(), together, strict=True):
        (alone,) = paint([subject], options(**changes), device)
        assert_alike(ours, alone)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_over_many_steps_only_rounding_grows(optimizer: str) -> None:
    """In float32 some tens of steps make hundredths of it; in float64 nothing can be seen."""
    given = subjects(dtype=torch.float64)[:2]
    chosen = options(optimizer=optimizer, steps=25)
    for subject, ours in zip(given, paint(given, chosen), strict=True):
        assert_alike(ours, *paint([subject], chosen), most=1e-6)


def test_two_scales_and_starts_of_their_own() -> None:
    starts = [replace(s, init_image=photo(130, 20 + n)) for n, s in enumerate(subjects(130)[:2])]
    chosen = options(init="image", scales=2, steps=6)
    together = paint(starts, chosen)
    for subject, ours in zip(starts, together, strict=True):
        assert_alike(ours, *paint([subject], chosen))


@every_device
@pytest.mark.parametrize("make", [lambda n: LBFGS(n, first_step=1e-3), lambda n: Adam(0.05, n)])
def test_an_optimizer_goes_each_way_by_itself(
    device: str, make: Callable[[int], Optimizer]
) -> None:
    """Also where one is restarted, after a slope that is no number."""
    generator = torch.Generator().manual_seed(0)
    curves = (1 + 9 * torch.rand(COUNT, 12, generator=generator)).to(device)

    def run(rows: slice) -> Tensor:
        curve = curves[rows]
        x = torch.ones_like(curve)
        optimizer = make(len(curve))
        for step in range(9):
            slope = curve * x
            diverges = [step == 4 and number == 1 for number in range(COUNT)[rows]]
            slope[diverges] = torch.nan
            stepped = optimizer.step(x, slope)
            for place, does in enumerate(diverges):
                if does:
                    stepped[place] = x[place]
                    optimizer.restart(place, 0.25)
            x = stepped
        return x

    whole = run(slice(COUNT))
    assert (whole.abs().amax(1) < 1).all()
    for number in range(COUNT):
        alone = run(slice(number, number + 1))[0]
        torch.testing.assert_close(alone, whole[number], atol=1e-5, rtol=1e-3)


class Wild(LBFGS):
    """Sends one picture out of the world, once."""

    victim = 0

    def __init__(self, images: int, history: int, *, half: bool) -> None:
        super().__init__(images, history, half=half)
        self.count = 0

    def step(self, x: Tensor, gradient: Tensor) -> Tensor:
        self.count += 1
        stepped = super().step(x, gradient)
        if self.count == 4 and self.victim < len(x):
            stepped = stepped.clone()
            stepped[self.victim] = torch.nan
        return stepped


def test_one_that_diverges_returns_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [paint([subject], options())[0] for subject in subjects()]
    monkeypatch.setattr(transfer, "LBFGS", Wild)
    (diverged,) = paint(subjects()[1:2], options())
    monkeypatch.setattr(Wild, "victim", 1)
    together = paint(subjects(), options())
    assert "shorter steps" in diverged.messages[0]
    for ours, alone in zip(together, (plain[0], diverged, plain[2]), strict=True):
        assert_alike(ours, alone)


def test_each_settles_at_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that no longer changes waits for the others at the end of a scale, as it is."""
    monkeypatch.setattr(descent, "_LOOK_EVERY", 2)
    monkeypatch.setattr(descent, "_INVISIBLE", 0.02)
    together = paint(subjects(), options(steps=40))
    assert len({each.steps for each in together}) > 1
    for subject, ours in zip(subjects(), together, strict=True):
        assert_alike(ours, *paint([subject], options(steps=40)))


def interrupted(chosen: StyleOptions, step: int) -> list[Subject]:
    """The subjects with their checkpoints after a step."""
    kept: list[list[Checkpoint]] = [[] for _ in range(COUNT)]
    given = [
        replace(subject, on_checkpoint=lambda make, here=here: here.append(make()))
        for subject, here in zip(subjects(), kept, strict=True)
    ]
    stopped = paint(given, chosen, should_stop=lambda: len(kept[-1]) == step)
    assert all(each.stopped and each.steps == step for each in stopped)
    return [
        replace(subject, resume=here[-1]) for subject, here in zip(subjects(), kept, strict=True)
    ]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_batch_resumes_exactly_and_its_pictures_also_alone(optimizer: str) -> None:
    chosen = options(optimizer=optimizer)
    whole = paint(subjects(), chosen)
    before = interrupted(chosen, 3)
    again = paint(before, chosen)
    for ours, alike, subject in zip(again, whole, before, strict=True):
        assert torch.equal(ours.image, alike.image)
        assert ours.loss == alike.loss
        (alone,) = paint([subject], chosen)
        assert_alike(alone, alike)


def test_what_cannot_be_together_is_refused() -> None:
    with pytest.raises(InputError, match="need one size, got 64x64, 66x66"):
        paint([*subjects(64), *subjects(66)], options())
    third, fourth = interrupted(options(), 3), interrupted(options(), 4)
    for mixed in ([third[0], fourth[1]], [third[0], subjects()[1]]):
        with pytest.raises(RecordError, match="must all be after the same step"):
            paint(mixed, options())
    with pytest.raises(RecordError, match="other options, inputs"):
        paint([replace(third[0], resume=third[1].resume)], options())


def test_each_hears_of_its_own_progress() -> None:
    heard: list[list[Progress]] = [[] for _ in range(COUNT)]
    given = [replace(s, on_progress=own.append) for s, own in zip(subjects(), heard, strict=True)]
    together = paint(given, options(color="keep-luminance"))
    for ours, own in zip(together, heard, strict=True):
        assert [progress.step for progress in own] == list(range(1, 9))
        assert own[-1].preview is not None
        assert torch.equal(own[-1].preview(), ours.image)
    assert len({own[-1].loss for own in heard}) == COUNT
