"""A transfer interrupted anywhere ends where the uninterrupted one does, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stylecap import inputs, painting
from stylecap.errors import OutputError, RecordError
from stylecap.images import save_picture, to_picture
from stylecap.style import descent, transfer
from stylecap.style.cache import StyleCache
from stylecap.style.checkpoint import Checkpoint, load_checkpoint
from stylecap.style.descent import Transfer
from stylecap.style.optimizers import LBFGS
from stylecap.style.options import StyleOptions
from stylecap.style.transfer import transfer_style

from .small import photo, small_backbone


def options(**changes: object) -> StyleOptions:
    return StyleOptions(**{"backbone": "alexnet", "steps": 10, "scales": 2, **changes})


def paint(chosen: StyleOptions, **given: object) -> Transfer:
    return transfer_style(photo(130, 1), [photo(90, 2)], chosen, small_backbone(), **given)


def interrupted(chosen: StyleOptions, step: int) -> Checkpoint:
    """The checkpoint after a step, from a run that is stopped there."""
    kept: list[Checkpoint] = []

    def keep(checkpoint: Callable[[], Checkpoint]) -> None:
        kept.append(checkpoint())

    paint(chosen, on_checkpoint=keep, should_stop=lambda: len(kept) == step)
    return kept[-1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adam"},
        {"color": "keep-luminance", "init": "noise"},
        {"color": "match", "pooling": "average"},
    ],
)
@pytest.mark.parametrize("step", [1, 5, 8, 10])  # first, last of a scale, within the next, last
def test_resumed_equals_uninterrupted(
    tmp_path: Path, changes: dict[str, object], step: int
) -> None:
    whole = paint(options(**changes))
    interrupted(options(**changes), step).save(tmp_path / "at.safetensors")
    before = load_checkpoint(tmp_path / "at.safetensors")
    resumed = paint(options(**changes), resume=before)
    assert before.steps == step
    assert torch.equal(resumed.image, whole.image)
    assert resumed.loss == whole.loss
    assert resumed.steps == whole.steps == 10
    assert resumed.seconds > before.seconds


@pytest.mark.parametrize("step", [10, 11, 12, 21])  # before and after a scale settles, in the next
def test_resumed_where_scales_end_early(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "_INVISIBLE", 1.0)
    chosen = options(steps=60)
    told: list[tuple[int, int]] = []
    whole = paint(chosen, on_progress=lambda progress: told.append((progress.step, progress.steps)))
    assert whole.steps == 22  # each scale ends at its second look
    assert not whole.stopped
    interrupted(chosen, step).save(tmp_path / "at.safetensors")
    resumed: list[tuple[int, int]] = []
    again = paint(
        chosen,
        resume=load_checkpoint(tmp_path / "at.safetensors"),
        on_progress=lambda progress: resumed.append((progress.step, progress.steps)),
    )
    assert torch.equal(again.image, whole.image)
    assert (again.steps, again.loss) == (whole.steps, whole.loss)
    assert resumed == told[step:]


def test_resumed_after_a_diverging_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wild(LBFGS):
        count = 0

        def step(self, x: Tensor, gradient: Tensor) -> Tensor:
            self.count += 1
            return x * float("nan") if self.count == 3 else super().step(x, gradient)

    monkeypatch.setattr(transfer, "LBFGS", Wild)
    chosen = options(scales=1)
    whole = paint(chosen)
    at = [interrupted(chosen, step) for step in (3, 4)]  # before it is noticed, and after
    monkeypatch.undo()
    assert len(whole.messages) == 1
    for before in at:
        resumed = paint(chosen, resume=before)
        assert torch.equal(resumed.image, whole.image)
        assert resumed.messages == whole.messages


def test_a_checkpoint_of_another_run_is_refused() -> None:
    before = interrupted(options(), 2)
    for changes in ({"steps": 11}, {"strength": 0.8}, {"seed": 1}):
        with pytest.raises(RecordError, match="other options, inputs"):
            paint(options(**changes), resume=before)
    with pytest.raises(RecordError, match="start without it"):
        transfer_style(photo(130, 9), [photo(90, 2)], options(), small_backbone(), resume=before)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "at.safetensors"
    with pytest.raises(RecordError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)
    save_file({"image": torch.zeros(1)}, path)
    with pytest.raises(RecordError, match="expected a checkpoint of format 3"):
        load_checkpoint(path)
    interrupted(options(), 1).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RecordError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)


def test_a_failing_write_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "at.safetensors"
    first = interrupted(options(), 1)
    first.save(path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        replace(first, step=7).save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["at.safetensors"]
    assert load_checkpoint(path).step == 1


def test_grams_are_computed_once_a_style_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    real = transfer.style_grams

    def counted(backbone: object, style: Tensor, *chosen: object) -> dict[str, Tensor]:
        made.append(tuple(style.shape))
        return real(backbone, style, *chosen)

    monkeypatch.setattr(transfer, "style_grams", counted)
    cache = StyleCache()
    alone = paint(options())
    assert len(made) == 2  # one a scale
    made.clear()
    for _ in range(3):
        assert torch.equal(paint(options(), cache=cache).image, alone.image)
    assert len(made) == 2
    paint(options(pooling="average"), cache=cache)
    assert len(made) == 4
    paint(options(color="match"), cache=cache)  # content in the style's colours: not shared
    paint(options(color="match"), cache=cache)
    assert len(made) == 8


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = StyleCache(limit_bytes=8)
    made: list[str] = []

    def value(key: str) -> None:
        def make() -> Tensor:
            made.append(key)
            return torch.zeros(1)  # four bytes

        cache.get(key, make)

    for key in "ababcab":
        value(key)
    assert "".join(made) == "abcab"


def test_a_style_file_is_read_once_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, style = tmp_path / "content.png", tmp_path / "style.png"
    save_picture(to_picture(photo(64, 1)), content)
    save_picture(to_picture(photo(64, 2)), style)
    read: list[str] = []
    real = inputs.load_picture

    def counted(path: Path) -> object:
        read.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(inputs, "load_picture", counted)
    cache = StyleCache()

    def run() -> painting.StyleResult:
        chosen = options(size=64, steps=1)
        return painting.stylize(content, style, chosen, backbone=small_backbone(), cache=cache)

    first, second = run(), run()
    assert read.count("style.png") == 1
    assert torch.equal(first.image, second.image)
    assert first.record.inputs == second.record.inputs
    save_picture(to_picture(photo(64, 3)), style)
    assert run().record.inputs[1].sha256 != first.record.inputs[1].sha256
    assert read.count("style.png") == 2
