"""What a painting takes: a line through what was measured, added up over scales."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stylecap import estimate as module
from stylecap.cli.main import main
from stylecap.errors import InputError
from stylecap.estimate import Measured, StepCost, estimate, measure_network, measure_painting
from stylecap.files import readable_size
from stylecap.images import save_picture, to_picture
from stylecap.progress import OnProgress, Progress
from stylecap.runtime import Runtime
from stylecap.style import memory
from stylecap.style.memory import estimate_bytes, plan_memory
from stylecap.style.options import StyleOptions
from stylecap.style.strips import share_computed_again

from .small import photo, small_backbone

CPU = Runtime("cpu", "float32", 1)
OPTIONS = StyleOptions(backbone="alexnet", size=260, steps=100, scales=2)


def of(cost: StepCost) -> Measured:
    return Measured((100, 200), cost, 0.0, CPU)


def test_seconds_add_up_over_scales() -> None:
    """(100, 200) and (64, 128) of 50 steps: 3 passes at a third, half of 20 updates saved."""
    options = replace(OPTIONS, size=256)
    found = estimate((1000, 2000), 1, options, of(StepCost(0.5, 1e-4, 1e-5)))
    coarse = 51 * (0.5 + 1e-4 * 64 * 128) + 40 * 1e-5 * 64 * 128
    fine = 51 * (0.5 + 1e-4 * 128 * 256) + 40 * 1e-5 * 128 * 256
    assert found.seconds == pytest.approx(coarse + fine)
    assert found.step_seconds == pytest.approx(0.5 + 1.1e-4 * 128 * 256)
    assert (found.size, found.steps) == ((128, 256), 100)
    assert found.memory_bytes == memory._PROGRAM + estimate_bytes((128, 256), options, CPU)


def test_strips_take_longer_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of a step for the network, of what is computed again, and a share of it for edges."""
    monkeypatch.setattr(Runtime, "free_bytes", lambda self: None)
    options, cost = StyleOptions(size=4096, scales=1, steps=100), StepCost(0.5, 1e-4, 0.0)
    whole = estimate((1000, 2000), 1, options, of(cost))
    least = plan_memory(whole.size, options, CPU, 0)
    memory_bytes = least.resident_bytes(CPU)
    tight = replace(options, memory=f"{memory_bytes // 10**6 + 1}MB")
    found = estimate((1000, 2000), 1, tight, of(cost))
    assert found.memory_bytes == memory_bytes < whole.memory_bytes
    layers = (*options.resolved_style_layers, *options.resolved_content_layers)
    share = share_computed_again("vgg16", layers, "max", least.strips)
    assert 0.3 < share < 0.4
    again = (share / 3 + 0.08) * (0.5 + 1e-4 * 2048 * 4096)
    assert found.seconds - whole.seconds == pytest.approx(100 * again)
    assert found.step_seconds - whole.step_seconds == pytest.approx(again, rel=1e-3)


def test_more_of_anything_takes_longer() -> None:
    cost = of(StepCost(0.5, 1e-4, 1e-5))

    def seconds(styles: int = 1, **changes: object) -> float:
        return estimate((100, 200), styles, replace(OPTIONS, **changes), cost).seconds

    assert seconds(styles=2) > seconds()
    assert seconds(steps=101) > seconds()
    assert seconds(size=261) > seconds()
    assert seconds(style_scale=2) > seconds()
    assert seconds(scales=1) > seconds()  # all steps at the full size
    assert seconds(early_stopping=False) == seconds()  # an upper bound


@pytest.mark.parametrize(
    ("coarse", "expected"),
    [(2.0, 1.0), (4.0, 4.0), (5.0, 4.0), (0.1, 0.0)],  # a line, flat, falling, from below zero
)
def test_the_line_goes_through_the_fine_step(coarse: float, expected: float) -> None:
    fine, small = module._Step((30, 10), 4.0), module._Step((10, 10), coarse)
    cost = module._line(fine, small, replace(OPTIONS, optimizer="adam"), CPU, float)
    assert cost.fixed == pytest.approx(expected)
    assert cost.late((30, 10)) == pytest.approx(4.0)
    assert cost.update == 0


def test_a_painting_is_measured_at_its_coarsest_and_finest_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[StyleOptions] = []
    real = module.painting.stylize

    def noted(content: object, style: object, options: StyleOptions, **more: object) -> object:
        asked.append(options)
        return real(content, style, options, **more)

    monkeypatch.setattr(module.painting, "stylize", noted)
    monkeypatch.setattr(module, "_LARGEST_PX", 160)
    measured = measure_painting(photo(130, 1), [photo(90, 2)], OPTIONS, small_backbone())
    assert [(options.size, options.scales, options.steps) for options in asked] == [
        (160, 1, 4),
        (80, 1, 4),
    ]
    assert not any(options.early_stopping for options in asked)
    assert measured.shape == (160, 160)
    assert measured.cost.late((160, 160)) > 0 and measured.cost.update > 0
    assert measured.around > 0
    with pytest.raises(InputError, match="nowhere"):
        measure_painting("nowhere.png", ["mosaic"], OPTIONS, small_backbone())


def test_a_network_is_measured_once_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_USUAL", ((48, 64), (96, 128)))
    first = measure_network(small_backbone())
    monkeypatch.setattr(module, "_timed_steps", None)
    assert measure_network(small_backbone()).cost == first.cost
    assert len(list(tmp_path.rglob("step-*.json"))) == 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [(999, "0.999 kB"), (34_210_000, "34.2 MB"), (999_999_999, "1000 MB"), (1_234e6, "1.23 GB")],
)
def test_sizes_are_readable(size: int, expected: str) -> None:
    assert readable_size(size) == expected


def test_steps_in_strips_are_told_as_if_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    options, size, ticks = StyleOptions(), (2048, 4096), iter(range(100))

    def painted(*pictures: object, on_progress: OnProgress, **more: object) -> object:
        for step in range(5):
            on_progress(Progress(step, 5, 0.0))
        return SimpleNamespace(image=torch.zeros(1).expand(1, 3, *size), options=options)

    monkeypatch.setattr(module.painting, "stylize", painted)
    monkeypatch.setattr(module, "memory_budget", lambda options, runtime: None)
    step = module._timed_steps("a", ["b"], options, small_backbone(), {}, lambda: next(ticks))[1]
    assert step.seconds == 1
    monkeypatch.setattr(module, "memory_budget", lambda options, runtime: 0)
    layers = (*options.resolved_style_layers, *options.resolved_content_layers)
    strips = plan_memory(size, options, CPU, 0).strips
    share = share_computed_again("vgg16", layers, "max", strips)
    assert share > 0.3
    step = module._timed_steps("a", ["b"], options, small_backbone(), {}, lambda: next(ticks))[1]
    assert step.seconds == pytest.approx(1 / (1 + share / 3 + 0.08))


@pytest.mark.real_weights
def test_the_command_only_estimates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_picture(to_picture(photo(64, 1)), tmp_path / "cat.png")
    flags = [
        "--backbone",
        "alexnet",
        "--size",
        "64",
        "--steps",
        "7",
        "--precision",
        "float32",
        "--estimate",
    ]
    assert main(["stylize", "cat.png", "mosaic", *flags, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["seconds"] > 7 * told["step_seconds"] > 0
    assert (told["steps"], told["width"], told["height"]) == (7, 64, 64)
    assert (told["device"], told["precision"]) == ("cpu", "float32")
    chosen = StyleOptions(backbone="alexnet", size=64, steps=7)
    assert told["memory_bytes"] == memory._PROGRAM + estimate_bytes((64, 64), chosen, CPU)
    assert main(["stylize", "cat.png", "mosaic", *flags]) == 0
    assert "at most about" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]
