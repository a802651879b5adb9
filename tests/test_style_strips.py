"""Strips and memory: the same sums and gradients in less room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stylecap.backbone import Backbone, Layer, architecture
from stylecap.errors import DeviceError, OptionError
from stylecap.runtime import Runtime
from stylecap.style import memory, transfer
from stylecap.style.adjoint import bits_remembered, pull_back, remember
from stylecap.style.control import carry_guides
from stylecap.style.descent import Transfer
from stylecap.style.memory import check_memory, estimate_bytes, memory_budget, plan_memory
from stylecap.style.objective import Losses, Objective, StyleTarget, style_grams
from stylecap.style.options import StyleOptions
from stylecap.style.strips import Strips, measure, split_stages
from stylecap.style.transfer import transfer_style

from .small import RELU_LAYERS, DoubleRuntime, photo, small_backbone

OPTIONS = StyleOptions(backbone="alexnet", tv_weight=0.1)
CPU = Runtime("cpu", "float32", 1)


def random_vgg() -> Backbone:
    """VGG-16 in float64, where a rounding seldom changes which value is the greatest."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    incoming = 3
    for layer in architecture("vgg16"):
        if layer.kind == "conv":
            shape = (layer.channels, incoming, 3, 3)
            weights[f"features.{layer.index}.weight"] = (2 / incoming / 9) ** 0.5 * torch.randn(
                shape, generator=generator
            )
            weights[f"features.{layer.index}.bias"] = torch.zeros(layer.channels)
            incoming = layer.channels
    return Backbone("vgg16", weights, DoubleRuntime("cpu", "float32", 1))


def image(height: int, width: int, seed: int) -> Tensor:
    return photo(max(height, width), seed)[:, :, :height, :width].contiguous()


def slope(function: Objective, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    losses = function(x)
    return losses.total.detach(), torch.autograd.grad(losses.total, x)[0]


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@settings(max_examples=30)
@given(
    st.integers(64, 99),
    st.integers(64, 80),
    st.integers(1, 5),
    st.sampled_from([1, 3_000, 40_000]),
    st.sampled_from(["max", "average", "stochastic"]),
    st.sampled_from([(), ("relu5",), ("conv2", "relu4"), ("relu1", "pool2")]),
)
def test_strips_give_the_objective_and_its_gradient(
    height: int, width: int, stages: int, values: int, pooling: str, layers: tuple[str, ...]
) -> None:
    chosen = replace(OPTIONS, pooling=pooling, style_layers=layers)
    backbone = small_backbone()
    content, style = image(height, width, 1), photo(70, 2)
    whole = style_grams(backbone, style, chosen)
    cut = style_grams(backbone, style, chosen, Strips(stages, values))
    for layer, gram in whole.items():
        torch.testing.assert_close(cut[layer], gram, rtol=1e-4, atol=1e-5)
    at = image(height, width, 3)
    targets = [StyleTarget(whole)]
    expected = slope(Objective(backbone, content, targets, chosen), at)
    found = slope(Objective(backbone, content, targets, chosen, Strips(stages, values)), at)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-7)
    assert distance(found[1], expected[1]) < 1e-4


@given(
    st.sampled_from([each for each in architecture("alexnet") if each.index < 6]),
    st.sampled_from(["max", "average"]),
    st.integers(11, 20),
    st.integers(11, 20),
    st.sampled_from([(0, 0), (1, 0), (0, 2), (2, 2)]),
)
def test_a_layer_is_passed_by_signs_and_places_alone(
    layer: Layer, pooling: str, height: int, width: int, padded_rows: tuple[int, int]
) -> None:
    random = torch.Generator().manual_seed(height * width)
    backbone = small_backbone(torch.float64)
    channels = {"conv1": 3, "conv2": 64}.get(layer.name, layer.channels)
    x = torch.randn(2, channels, height, width, generator=random, dtype=torch.float64)
    x = x.round(decimals=1).contiguous(memory_format=torch.channels_last).requires_grad_()  # ties
    y = backbone.compute(layer, x, pooling=pooling, padded_rows=padded_rows)
    gradient = torch.randn(y.shape, generator=random, dtype=torch.float64)
    known = remember(layer, x.detach(), y.detach(), pooling)
    bits = bits_remembered(layer, pooling)
    assert (0 if known is None else len(known)) == -(-y.numel() * bits // 8)
    found = pull_back(backbone, layer, gradient, known, (height, width), padded_rows)
    torch.testing.assert_close(found, torch.autograd.grad(y, x, gradient)[0])


def test_strips_of_every_vgg_stage_and_of_regions() -> None:
    chosen = StyleOptions(content_layers=("relu2_2", "relu4_2"), precision="float32")
    backbone, size = random_vgg(), (54, 38)
    content, at = image(*size, 1).double(), image(*size, 3).double()
    layers = chosen.resolved_style_layers
    regions = torch.zeros(2, 1, *size)
    regions[0, :, :, :20], regions[1, :, :, 20:] = 1, 1
    guides = carry_guides(regions, "vgg16", layers)
    targets = [
        StyleTarget(
            style_grams(backbone, photo(64, 4 + region).double(), chosen),
            {layer: guides[layer][region] for layer in layers},
        )
        for region in range(2)
    ]
    expected = slope(Objective(backbone, content, targets, chosen), at)
    for stages in (1, 5):
        found = slope(Objective(backbone, content, targets, chosen, Strips(stages, 20_000)), at)
        assert distance(found[1], expected[1]) < 1e-10


def test_strips_in_bfloat16_are_as_near_to_float32() -> None:
    generator = torch.Generator().manual_seed(1)
    wide = small_backbone()
    weights = {}
    for layer in architecture("alexnet"):
        if layer.kind == "conv":
            kernel, bias = wide._kernels[layer.name]
            weights[f"features.{layer.index}.weight"] = kernel
            weights[f"features.{layer.index}.bias"] = bias
    half = Backbone("alexnet", weights, Runtime("cpu", "bfloat16", 1))
    content, at = image(96, 80, 1), torch.rand(1, 3, 96, 80, generator=generator)
    targets = [StyleTarget(style_grams(wide, photo(70, 2), OPTIONS))]
    exact = slope(Objective(wide, content, targets, OPTIONS), at)[1]
    whole = slope(Objective(half, content, targets, OPTIONS), at)[1]
    cut = slope(Objective(half, content, targets, OPTIONS, Strips(3, 5_000)), at)[1]
    assert distance(whole, exact) > 1e-4  # bfloat16 is at work
    assert distance(cut, exact) < 1.1 * distance(whole, exact)


def test_every_row_belongs_to_one_strip() -> None:
    """Rows are counted: with a term that adds up ones, each layer gives its height."""

    class Count:
        def __call__(self, features: Tensor, rows: slice) -> Tensor:
            assert rows.stop - rows.start == features.shape[2]
            return torch.tensor(float(features.shape[2]))

        def slope(self, features: Tensor, rows: slice, gradient: Tensor) -> Tensor:
            raise AssertionError("nobody asked for a gradient")

    backbone = small_backbone()
    for height in (63, 64, 77, 98):
        x = image(height, 64, 1)
        names = list(backbone.layers[:-1])
        whole = backbone.features(x, names)
        with torch.no_grad():
            found = measure(backbone, x, {n: [Count()] for n in names}, strips=Strips(9, 1))
        assert {n: float(total) for n, (total,) in found.items()} == {
            n: float(whole[n].shape[2]) for n in names
        }


def test_stages_end_behind_a_pooling_or_with_the_deepest_layer() -> None:
    stages = split_stages("vgg16", ["relu1_1", "relu4_2"])
    assert [stage[-1].name for stage in stages] == ["relu1_2", "relu2_2", "relu3_3", "relu4_2"]
    kept = split_stages("vgg16", ["relu1_2", "pool2", "conv3_1"], "max")
    assert [stage[-1].name for stage in kept] == ["pool1", "pool2", "conv3_1"]
    assert split_stages("alexnet", ["relu2"], "average")[0][-1].name == "pool1"
    assert stages[0][0].name == "conv1_1"


def test_a_tighter_budget_cuts_lower_stages_first_and_then_history() -> None:
    size = (1536, 2048)
    free = plan_memory(size, StyleOptions(), CPU, None)
    assert not free.spares and free.bytes == estimate_bytes(size, StyleOptions(), CPU)
    plans, budget = [free], free.bytes - 1
    while (plan := plan_memory(size, StyleOptions(), CPU, budget)) != plans[-1]:
        assert plan.bytes < plans[-1].bytes
        if plan.bytes > budget:
            break
        plans.append(plan)
        budget = plan.bytes - 1
    assert all(plan.spares for plan in plans[1:])
    ways = [(-plan.history, plan.strips.stages) for plan in plans]
    assert ways == sorted(ways) and ways[1][1] >= 1
    assert {history for history, _ in ways} == {-20, -10, -5}


def test_what_cannot_fit_is_refused_with_a_size_that_would() -> None:
    with pytest.raises(DeviceError, match=r"--size \d+ would fit") as refusal:
        check_memory((12000, 18000), StyleOptions(), CPU, 2 * 10**9)
    fits = int(str(refusal.value).split("--size ")[1].split()[0])
    check_memory((fits * 2 // 3, fits), StyleOptions(), CPU, 2 * 10**9)
    assert fits > 1_500


def test_a_budget_is_what_is_allowed_or_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "free_bytes", lambda self: 10 * 10**9)
    assert memory_budget(StyleOptions(), CPU) == 9 * 10**9
    allowed = memory_budget(StyleOptions(memory="4GB"), CPU)
    assert allowed == 4 * 10**9 - memory._PROGRAM
    assert memory_budget(StyleOptions(memory="4000 mb"), CPU) == allowed
    assert memory_budget(StyleOptions(memory="64GB"), CPU) == 9 * 10**9
    with pytest.raises(OptionError, match="memory: 100MB is less than the program needs"):
        memory_budget(StyleOptions(memory="100MB"), CPU)
    for wrong in ("4", "much", "-1GB", "1e9GB", ""):
        with pytest.raises(OptionError, match="memory: expected auto or an amount such as 4GB"):
            StyleOptions(memory=wrong)


def paint(**changes: object) -> Transfer:
    chosen = replace(OPTIONS, steps=6, scales=1, **changes)
    return transfer_style(photo(96, 1), [photo(64, 2)], chosen, small_backbone())


def test_a_painting_in_strips_is_the_same_and_says_how_much_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = paint()
    least = plan_memory((96, 96), OPTIONS, CPU, 1).bytes
    allowed = f"{(memory._PROGRAM + least) // 10**6 + 1}MB"
    strips = Strips(values=20_000)
    monkeypatch.setattr(memory, "Strips", lambda stages: replace(strips, stages=stages))
    cut = paint(memory=allowed)
    assert whole.memory == "auto" and cut.memory == allowed
    assert float((cut.image - whole.image).abs().max()) < 0.02


def test_a_style_larger_than_the_painting_is_measured_in_strips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A budget that suffices for the painting may be too little for its style."""
    real, seen = transfer.style_grams, []

    def watched(backbone: Any, style: Tensor, options: Any, strips: Strips) -> Any:
        seen.append((style.shape[-1], strips.stages))
        return real(backbone, style, options, strips)

    small = Strips(values=20_000)
    monkeypatch.setattr(memory, "Strips", lambda stages: replace(small, stages=stages))
    monkeypatch.setattr(transfer, "style_grams", watched)
    enough = plan_memory((96, 96), OPTIONS, CPU, None).bytes
    allowed = f"{(memory._PROGRAM + enough) // 10**6 + 1}MB"
    paint(memory=allowed)
    paint(memory=allowed, style_scale=3.0)
    (same, none), (larger, some) = seen
    assert (same, none) == (96, 0) and larger == 288 and some > 0


def test_out_of_memory_leads_to_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = Objective.__call__, []

    def scarce(self: Objective, x: Tensor) -> Losses:
        taken.append(self._strips.stages)
        if self._strips.stages < 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, x)

    monkeypatch.setattr(Objective, "__call__", scarce)
    done = paint()
    assert taken[:4] == [0, 1, 2, 2]
    assert done.messages == ("step 1: out of memory; more of it in strips",) * 2
    assert done.steps == 6


def test_out_of_memory_in_strips_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(self: Objective, x: Tensor) -> Losses:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Objective, "__call__", scarce)
    with pytest.raises(torch.OutOfMemoryError):
        paint()


def test_layers_are_named_in_the_order_of_the_network() -> None:
    assert tuple(style_grams(small_backbone(), photo(64, 1), OPTIONS)) == RELU_LAYERS
