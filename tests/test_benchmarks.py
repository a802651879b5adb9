"""What the benchmarks compute by themselves; what they measure is in benchmarks/RESULTS.md."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional

import stylecap
from stylecap.images import to_image, to_picture
from stylecap.style.objective import Objective, StyleTarget, style_grams

_ROOT = Path(__file__).parents[1]


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(_ROOT)
    monkeypatch.syspath_prepend(_ROOT / "benchmarks")
    return importlib.import_module(name)


def test_a_goal_is_reached_between_two_points_of_a_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    reached_after = benchmark("speed", monkeypatch).reached_after
    curve = [(1, 2.0, 8.0), (2, 12.0, 2.0), (3, 20.0, 3.0)]
    assert reached_after(curve, 4.0) == pytest.approx(7.0)  # half of the way from log 8 to log 2
    assert reached_after(curve, 9.0) == 2.0
    assert reached_after(curve, 2.0) == 12.0
    assert reached_after(curve, 1.0) == math.inf


def test_the_floor_of_a_layer_is_the_longer_of_arithmetic_and_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    floor_seconds = benchmark("floor", monkeypatch).floor_seconds
    arithmetic = floor_seconds((16, 16), 2, rate=10, gram_rate=5, bandwidth=math.inf)
    memory = floor_seconds((16, 16), 2, rate=math.inf, gram_rate=math.inf, bandwidth=10)
    once = 2 * 27 * 64 * 256
    moved = 2 * (3 * 256 + 64 * 256 + 27 * 64 + 64)
    assert arithmetic["conv1_1"] == pytest.approx(2 * once / 10)
    assert memory["conv1_1"] == pytest.approx(2 * moved / 10)
    assert arithmetic["pool1"] == 0
    assert memory["pool1"] == pytest.approx(2 * 2 * 64 * (256 + 64) / 10)
    assert arithmetic["Gram of relu1_1"] == pytest.approx(2 * 64**2 * 256 * (1 / 5 + 1 / 10))
    assert list(arithmetic)[-1] == "Gram of relu5_1"
    both = floor_seconds((16, 16), 2, rate=10, gram_rate=5, bandwidth=10)
    assert both["conv1_1"] == max(arithmetic["conv1_1"], memory["conv1_1"])


@pytest.mark.real_weights
def test_all_programs_minimise_one_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    peers, objective = (benchmark(name, monkeypatch) for name in ("peers", "objective"))
    generator = torch.Generator().manual_seed(0)
    content, style, image = (
        to_image(to_picture(torch.rand((1, 3, 32, 40), generator=generator))) for _ in range(3)
    )
    weights = (2.0, (1.0, 2.0, 3.0, 4.0, 5.0))
    independent = objective.Objective(content, style, *weights)(image)

    options = stylecap.StyleOptions(
        objective="gatys", content_weight=2.0, style_weight=1.0, layer_weights=weights[1]
    )
    backbone = stylecap.load_backbone(runtime=stylecap.Runtime.choose("cpu", "float32"))
    target = StyleTarget(style_grams(backbone, style, options))
    ours = Objective(backbone, content, [target], options)(image)
    assert float(ours.total) == pytest.approx(independent, rel=1e-4)

    seen: list[torch.Tensor] = []
    network = peers.torchvision_vgg16()
    peers.plain_lbfgs(
        network, content, style, 4, *weights, on_step=lambda x: seen.append(x.clone())
    )
    values = [objective.Objective(content, style, *weights)(x) for x in seen]
    assert len(values) == 4 and torch.equal(seen[0], content) and values[-1] < values[0]

    # neural-style shows its network the pixel times 256 in BGR, less Caffe's mean.
    peers.save_peer_weights(tmp_path / "peer.pth")
    theirs = torch.load(tmp_path / "peer.pth", weights_only=True)
    shown = image.flip(1) * 256 - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    found = functional.conv2d(shown, theirs["features.0.weight"], theirs["features.0.bias"])
    expected = backbone.features(image, ["conv1_1"])["conv1_1"][..., 1:-1, 1:-1]
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
