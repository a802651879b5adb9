"""The optimisation: it learns, it stops, it survives, it repeats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylecap.errors import InputError, OptionError
from stylecap.images import resize_image
from stylecap.progress import Progress
from stylecap.style import transfer
from stylecap.style.descent import Transfer
from stylecap.style.optimizers import LBFGS, Adam, Optimizer, smoothed
from stylecap.style.options import StyleOptions
from stylecap.style.transfer import enlarge, scale_sizes, transfer_style

from .small import photo, small_backbone


def options(**changes: object) -> StyleOptions:
    return StyleOptions(**{"backbone": "alexnet", "steps": 12, "scales": 1, **changes})


def quadratic(seed: int, dimensions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A positive definite matrix and a right-hand side, in float64."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64)
    return (
        matrix @ matrix.mT + dimensions * torch.eye(dimensions, dtype=torch.float64),
        torch.randn(dimensions, generator=generator, dtype=torch.float64),
    )


@given(st.integers(0, 1000), st.integers(2, 8))
def test_lbfgs_solves_a_quadratic(seed: int, dimensions: int) -> None:
    matrix, right = quadratic(seed, dimensions)
    optimizer = LBFGS(history=20, first_step=1e-3)
    x = torch.zeros(1, dimensions, dtype=torch.float64)
    for _ in range(60):
        x = optimizer.step(x, x @ matrix - right)
    torch.testing.assert_close(x[0], torch.linalg.solve(matrix, right), atol=1e-4, rtol=1e-3)


def test_lbfgs_agrees_with_torch() -> None:
    matrix, right = quadratic(3, 6)
    reference = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.LBFGS(
        [reference],
        lr=1,
        max_iter=9,
        max_eval=9,
        history_size=5,
        tolerance_grad=0,
        tolerance_change=0,
    )

    def closure() -> torch.Tensor:
        theirs.zero_grad()
        value = 0.5 * reference @ matrix @ reference - right @ reference
        value.backward()
        return value

    theirs.step(closure)
    ours = LBFGS(history=5, first_step=float(1 / right.abs().sum() * right.abs().mean()))
    x = torch.zeros(1, 6, dtype=torch.float64)
    for _ in range(8):  # torch counts the evaluation at the last point as well
        x = ours.step(x, x @ matrix - right)
    torch.testing.assert_close(x[0], reference.detach(), atol=1e-8, rtol=1e-6)


def test_lbfgs_leaves_a_place_that_curves_downwards() -> None:
    """Near 0 every move along the slope makes it steeper, and no pair can be remembered."""
    optimizer = LBFGS()
    x = torch.full((1, 4), 0.05, dtype=torch.float64)
    for _ in range(90):
        x = optimizer.step(x, x**3 - x)  # the slope of x⁴/4 - x²/2, lowest at 1
    torch.testing.assert_close(x, torch.ones_like(x), atol=1e-6, rtol=0)


@given(st.integers(0, 1000), st.integers(65, 140), st.integers(65, 140))
def test_smoothing_is_symmetric_and_keeps_what_is_fine(seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 2, height, width, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((smoothed(x) * y).sum(), (x * smoothed(y)).sum())
    assert (smoothed(x) * x).sum() >= x.square().sum()
    checkered = (torch.arange(height)[:, None] + torch.arange(width)) % 2 - 0.5
    inner = (slice(8, -8), slice(8, -8))  # at borders it is no checkerboard
    torch.testing.assert_close(smoothed(checkered)[inner], checkered[inner])


def test_smoothing_passes_more_of_every_coarser_octave() -> None:
    places = torch.arange(512) / 512

    def gain(cycles: int) -> float:
        wave = torch.sin(2 * torch.pi * cycles * places).expand(512, 512)
        return float((smoothed(wave) * wave).sum() / wave.square().sum())

    gains = [gain(cycles) for cycles in (128, 64, 32, 16)]
    assert gains[0] < 1.3
    assert all(1.7 < coarse / fine < 2.3 for fine, coarse in pairwise(gains))
    assert gain(1) == pytest.approx(15, rel=0.1)  # 1 + 2 + 4 + 8
    assert torch.equal(smoothed(places[:64].expand(64, 64)), places[:64].expand(64, 64))


def test_lbfgs_goes_further_where_coarse_changes_bend_less() -> None:
    """A quadratic of one eigenvalue for each frequency, f from 1 to 64."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.rand(1, 1, 128, 128, generator=generator, dtype=torch.float64)
    across, down = torch.fft.rfftfreq(128), torch.fft.fftfreq(128)[:, None]
    bends = (128 * (across.square() + down.square()).sqrt()).clamp_min(1)

    def slope(x: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(bends * torch.fft.rfft2(x - wanted), s=(128, 128))

    def left(shape: tuple[int, ...]) -> float:
        optimizer, x = LBFGS(), torch.zeros_like(wanted)
        for _ in range(8):
            x = optimizer.step(x.view(shape), slope(x).view(shape)).view_as(x)
        return float(((x - wanted) * slope(x)).sum())

    assert left((1, 1, 128, 128)) < 0.5 * left((1, 128 * 128))  # which is not seen as a picture


def test_adam_agrees_with_torch() -> None:
    matrix, right = quadratic(1, 4)
    reference = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([reference], lr=0.05, eps=1e-12)
    ours = Adam(0.05)
    x = torch.zeros(1, 4, dtype=torch.float64)
    for _ in range(20):
        reference.grad = (matrix @ reference - right).detach()
        theirs.step()
        x = ours.step(x, x @ matrix - right)
    torch.testing.assert_close(x[0], reference.detach())


def test_lbfgs_remembers_in_half_the_room() -> None:
    matrix, right = quadratic(4, 30)
    solution = torch.linalg.solve(matrix, right)

    def run(half: bool) -> tuple[torch.Tensor, LBFGS]:
        optimizer, x = LBFGS(half=half), torch.zeros(1, 30, dtype=torch.float64)
        for _ in range(25):
            x = optimizer.step(x, x @ matrix - right)
        return (x[0] - solution).norm() / solution.norm(), optimizer

    (exact, whole), (rounded, half) = run(False), run(True)
    assert rounded < 4 * exact
    for name in ("moves/0", "changes/19"):
        assert half.state(0)[name].dtype == torch.bfloat16
        assert half.state(0)[name].shape == whole.state(0)[name].shape


@pytest.mark.parametrize("make", [LBFGS, partial(LBFGS, half=True), partial(Adam, 0.01)])
def test_optimizer_continues_exactly_from_its_state(make: Callable[[], Optimizer]) -> None:
    matrix, right = quadratic(5, 6)

    def run(optimizer: Optimizer, x: torch.Tensor, steps: int) -> torch.Tensor:
        for _ in range(steps):
            x = optimizer.step(x, x @ matrix - right)
        return x

    start = torch.zeros(1, 6, dtype=torch.float64)
    whole = run(make(), start, 14)
    first, second = make(), make()
    middle = run(first, start, 6)
    second.load([{name: value.clone() for name, value in first.state(0).items()}])
    assert torch.equal(run(second, middle, 8), whole)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("init", ["content", "style", "noise"])
def test_a_few_steps_lower_the_loss(optimizer: str, init: str) -> None:
    losses: list[float | None] = []
    done = transfer_style(
        photo(48, 1),
        [photo(48, 2)],
        options(optimizer=optimizer, init=init, strength=0.5),
        small_backbone(),
        on_progress=lambda progress: losses.append(progress.loss),
    )
    assert losses[0] is not None
    assert done.loss["total"] < 0.9 * losses[0]
    assert done.steps == len(losses) == 12
    assert done.image.shape == (1, 3, 48, 48)
    assert done.image.min() >= 0
    assert done.image.max() <= 1


def test_init_style_starts_from_the_style() -> None:
    done = transfer_style(
        photo(48, 1),
        [photo(60, 2)],
        options(init="style", steps=1, optimizer="adam", learning_rate=1e-6),
        small_backbone(),
    )
    start = transfer.resize_image(photo(60, 2), (48, 48))
    torch.testing.assert_close(done.image, start, atol=1e-4, rtol=0)


def test_the_same_seed_gives_the_same_picture() -> None:
    arguments = (photo(48, 1), [photo(48, 2)])
    first, again, other = (
        transfer_style(*arguments, options(init="noise", seed=seed), small_backbone()).image
        for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_stop_keeps_the_picture_so_far_at_full_size() -> None:
    steps: list[Progress] = []
    done = transfer_style(
        photo(140, 1),
        [photo(48, 2)],
        options(steps=40, scales=2),
        small_backbone(),
        on_progress=steps.append,
        should_stop=lambda: len(steps) == 5,
    )
    assert done.stopped
    assert done.steps == 5
    assert done.image.shape == (1, 3, 140, 140)
    assert (done.image - photo(140, 1)).abs().mean() > 1e-3


def test_a_scale_ends_when_the_picture_no_longer_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam with tiny steps: no pixel moves by more than the rate times the steps."""
    chosen = options(steps=60, scales=2, optimizer="adam", learning_rate=1e-5)
    told: list[Progress] = []

    def paint(changed: StyleOptions) -> Transfer:
        told.clear()
        return transfer_style(
            photo(140, 1), [photo(48, 2)], changed, small_backbone(), on_progress=told.append
        )

    done = paint(chosen)
    assert done.steps == 22
    assert not done.stopped
    assert [progress.steps for progress in told] == [60] * 10 + [41] * 11 + [22]
    assert [progress.step for progress in told] == list(range(1, 23))
    assert told[-1].seconds_left == 0
    shares = [progress.share or 0 for progress in told]
    assert shares == sorted(shares)
    assert paint(replace(chosen, early_stopping=False)).steps == 60
    assert paint(replace(chosen, learning_rate=0.01)).steps == 60


def test_the_work_left_counts_pixels() -> None:
    shares: list[float | None] = []
    transfer_style(
        photo(140, 1),
        [photo(48, 2)],
        options(steps=4, scales=2),
        small_backbone(),
        on_progress=lambda progress: shares.append(progress.share),
    )
    assert shares == pytest.approx(
        [0.1, 0.2, 0.6, 1.0]
    )  # the finer scale has four times the pixels


def test_a_diverging_step_returns_to_the_last_good_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wild(LBFGS):
        count = 0

        def step(self, x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return x * float("nan") if self.count == 4 else super().step(x, gradient)

    monkeypatch.setattr(transfer, "LBFGS", Wild)
    done = transfer_style(photo(48, 1), [photo(48, 2)], options(), small_backbone())
    assert done.image.isfinite().all()
    assert len(done.messages) == 1
    assert "shorter steps" in done.messages[0]
    assert done.loss["total"] < 0.85


def test_preview_is_the_picture_of_its_step() -> None:
    previews: list[torch.Tensor] = []

    def keep(progress: Progress) -> None:
        assert progress.preview is not None
        previews.append(progress.preview())

    done = transfer_style(
        photo(48, 1),
        [photo(48, 2)],
        options(color="keep-luminance"),
        small_backbone(),
        on_progress=keep,
    )
    assert torch.equal(previews[-1], done.image)
    assert not torch.equal(previews[0], previews[-1])


def test_blend_of_one_and_zero_is_the_first_style() -> None:
    styles = [photo(48, 2), photo(48, 3)]
    blended = transfer_style(photo(48, 1), styles, options(blend=(1, 0)), small_backbone())
    alone = transfer_style(photo(48, 1), styles[:1], options(), small_backbone())
    torch.testing.assert_close(blended.image, alone.image, atol=1e-4, rtol=0)


def test_a_scale_begins_with_detail_that_the_one_before_could_not_show() -> None:
    content = photo(160, 1)

    def detail(image: torch.Tensor) -> torch.Tensor:
        return image - resize_image(resize_image(image, (80, 80)), (160, 160))

    torch.testing.assert_close(
        enlarge(resize_image(content, (80, 80)), content), content, atol=1e-6, rtol=0
    )
    done = transfer_style(content, [photo(96, 2)], options(scales=2, steps=2), small_backbone())
    seen, painted = detail(content).flatten(), detail(done.image).flatten()
    assert torch.cosine_similarity(seen, painted, dim=0) > 0.5


def test_scales_double_and_keep_the_aspect() -> None:
    assert scale_sizes((288, 384), StyleOptions(scales=3)) == [(72, 96), (144, 192), (288, 384)]
    assert scale_sizes((100, 100), StyleOptions(scales=8)) == [(100, 100)]
    assert len(scale_sizes((512, 512), StyleOptions(scales=4, steps=2))) == 2


@pytest.mark.parametrize(
    ("changes", "size", "error", "message"),
    [
        ({}, 20, InputError, "too small for the layers of alexnet"),
        ({"blend": (1, 2)}, 48, OptionError, "blend: expected 1 weights"),
        ({"init": "image"}, 48, OptionError, "init: 'image' and an init image belong together"),
        ({"style_layers": ("relu9",)}, 48, OptionError, "alexnet has no layer 'relu9'"),
        ({"backbone": "vgg16"}, 48, OptionError, "the options name vgg16, but alexnet"),
    ],
)
def test_contradictions_are_refused(
    changes: dict[str, object], size: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        transfer_style(photo(size, 1), [photo(48, 2)], options(**changes), small_backbone())
