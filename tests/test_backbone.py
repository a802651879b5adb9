"""The backbone: torchvision's numbers, no layer too many, three poolings, the layer table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torchvision.models import vgg
from torchvision.models.alexnet import AlexNet

from stylecap import backbone as module
from stylecap.backbone import (
    BACKBONES,
    Backbone,
    Layer,
    architecture,
    layer_table,
    layers_needed,
    load_backbone,
    pool,
    smallest_side,
)
from stylecap.errors import InputError, OptionError
from stylecap.runtime import Runtime
from stylecap.style.options import DEFAULT_LAYERS
from stylecap.weights import load_weights

from .small import photo, small_backbone

RUNTIME = Runtime("cpu", "float32", 1)
TORCHVISION: dict[str, Callable[[], nn.Module]] = {
    "vgg16": lambda: vgg.make_layers(vgg.cfgs["D"]),
    "vgg19": lambda: vgg.make_layers(vgg.cfgs["E"]),
    "alexnet": lambda: AlexNet().features,
}


class Convolutions(TorchFunctionMode):
    """Counts the convolutions that are computed within its block."""

    count = 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += function is functional.conv2d
        return function(*args, **(kwargs or {}))


def test_layers_have_the_names_of_the_field() -> None:
    names = {name: [layer.name for layer in architecture(name)] for name in BACKBONES}
    assert names["vgg16"][:5] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"]
    assert names["alexnet"][:4] == ["conv1", "relu1", "pool1", "conv2"]
    for name, last in (("vgg16", "conv5_3"), ("vgg19", "conv5_4"), ("alexnet", "conv5")):
        assert names[name][-3:] == [last, last.replace("conv", "relu"), "pool5"]
    assert {name: sum(n.startswith("conv") for n in layers) for name, layers in names.items()} == {
        "vgg16": 13,
        "vgg19": 16,
        "alexnet": 5,
    }


@pytest.mark.parametrize("name", BACKBONES)
def test_every_layer_equals_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    theirs = TORCHVISION[name]().eval()
    weights = {f"features.{key}": value for key, value in theirs.state_dict().items()}
    ours = Backbone(name, weights, RUNTIME)
    image = torch.cat([photo(64, 1), photo(64, 2)])
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), module.IMAGENET_STD)
    )
    x = (image - mean) / std
    with torch.no_grad():
        found = ours.features(image, ours.layers)
        assert list(found) == list(ours.layers)
        for layer, step in zip(architecture(name), theirs, strict=True):
            assert layer.kind in type(step).__name__.lower()
            x = step(x.clone())  # theirs rectify in place
            torch.testing.assert_close(found[layer.name], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_default_layers_exist(name: str) -> None:
    content, style = DEFAULT_LAYERS[name]
    assert {*content, *style} <= {layer.name for layer in architecture(name)}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(["relu1"], 1), (["conv2"], 2), (["relu4", "relu1"], 4), (["pool2", "relu3"], 3)],
)
def test_nothing_above_the_deepest_layer_is_computed(layers: list[str], expected: int) -> None:
    with Convolutions() as computed:
        found = small_backbone().features(photo(64, 1), layers)
    assert computed.count == expected
    assert list(found) == layers


def test_what_is_asked_for_is_not_overwritten_by_its_rectifier() -> None:
    backbone = small_backbone()
    both = backbone.features(photo(64, 1), ["conv2", "relu2"])
    assert (both["conv2"] < 0).any()
    assert torch.equal(both["conv2"].relu(), both["relu2"])
    assert torch.equal(backbone.features(photo(64, 1), ["conv2"])["conv2"], both["conv2"])


def test_the_backbone_is_frozen_and_gradients_reach_the_image() -> None:
    backbone = small_backbone()
    image = photo(64, 1).requires_grad_()
    backbone.features(image, ["relu5"])["relu5"].sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    again = backbone.features(photo(64, 1), ["relu5"])["relu5"]
    assert not again.requires_grad  # no weight asks for a gradient
    assert torch.equal(again, backbone.features(photo(64, 1), ["relu5"])["relu5"])


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    backbone = small_backbone()
    one, two = photo(64, 1), photo(64, 2)
    together = backbone.features(torch.cat([one, two]), ["relu4"])["relu4"]
    torch.testing.assert_close(together[1:], backbone.features(two, ["relu4"])["relu4"])


def test_features_come_in_the_precision_of_the_runtime() -> None:
    weights = {
        f"features.{layer.index}.{part}": torch.zeros(shape)
        for layer, incoming in zip(
            (conv for conv in architecture("alexnet") if conv.kind == "conv"),
            (3, 64, 192, 384, 256),
            strict=True,
        )
        for part, shape in (
            ("weight", (layer.channels, incoming, layer.kernel, layer.kernel)),
            ("bias", (layer.channels,)),
        )
    }
    backbone = Backbone("alexnet", weights, Runtime("cpu", "bfloat16", 1))
    assert backbone.features(photo(64, 1), ["relu3"])["relu3"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("size", "layers", "pooling", "error", "message"),
    [
        (64, ["relu9"], "max", OptionError, "alexnet has no layer 'relu9'; it has conv1, relu1"),
        (64, [], "max", OptionError, "expected a list of layer names"),
        (64, "relu1", "max", OptionError, "expected a list of layer names"),
        (64, ["relu1"], "min", OptionError, "pooling: expected one of max, average, stochastic"),
        (30, ["relu5"], "max", InputError, "relu5 of alexnet needs at least 31x31 pixels"),
    ],
)
def test_refusals(
    size: int, layers: list[str], pooling: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        small_backbone().features(photo(size, 1), layers, pooling=pooling)


def test_other_shapes_weights_and_names_are_refused() -> None:
    for shape in ((3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64)):
        with pytest.raises(InputError, match=r"expected \(B, 3, H, W\)"):
            small_backbone().features(torch.zeros(shape), ["relu1"])
    with pytest.raises(OptionError, match="expected one of vgg16, vgg19, alexnet, got 'resnet'"):
        load_backbone("resnet")
    with pytest.raises(InputError, match=r"features.0 should have shape \(64, 3, 3, 3\)"):
        Backbone("vgg16", {"features.0.weight": torch.zeros(64, 3, 11, 11)}, RUNTIME)
    with pytest.raises(InputError, match="weights are of another network"):
        Backbone("vgg16", load_weights("alexnet"), RUNTIME)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_smallest_side_is_the_smallest(name: str) -> None:
    for layer in ("relu1", "pool5") if name == "alexnet" else ("relu1_1", "pool5"):
        side = smallest_side(name, layer)
        rows = {row.name: row.output for row in layer_table(name, (side, side))}
        assert rows[layer][1:] == (1, 1)
        if side > 1 and layer == "pool5":
            assert layer not in {row.name for row in layer_table(name, (side - 1, side - 1))}


WINDOW = torch.tensor([[[[1.0, 3.0], [0.0, 4.0]]]])


def test_poolings_by_hand() -> None:
    assert pool(WINDOW, "max", 2, 2).item() == 4
    assert pool(WINDOW, "average", 2, 2).item() == 2
    assert pool(WINDOW, "stochastic", 2, 2).item() == (1 + 9 + 16) / 8


def test_sampled_pooling_picks_each_activation_by_its_share() -> None:
    windows = 8000
    many = WINDOW.repeat(1, 1, windows, 1)
    picked = pool(many, "stochastic", 2, 2, generator=torch.Generator().manual_seed(0)).flatten()
    assert len(picked) == windows
    for value in (0.0, 1.0, 3.0, 4.0):
        share = float((picked == value).float().mean())
        assert share == pytest.approx(value / 8, abs=4 * (0.25 / windows) ** 0.5)
    again = pool(many, "stochastic", 2, 2, generator=torch.Generator().manual_seed(0)).flatten()
    assert torch.equal(picked, again)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_regions_are_zero_and_have_gradients(seed: int | None, dtype: torch.dtype) -> None:
    features = torch.zeros(1, 2, 6, 6, dtype=dtype)
    features[0, 0, :3, :3] = 1e-30  # the square of it vanishes
    features[0, 1, 4, 4] = 5
    features.requires_grad_()
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    pooled = pool(features, "stochastic", 3, 2, generator=generator)
    assert pooled.dtype == dtype
    assert pooled.isfinite().all()
    assert pooled[0, 1, 0, 0] == 0
    assert pooled[0, 1, 1, 1].item() == pytest.approx(5)
    pooled.sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()


@given(st.integers(0, 2**16), st.integers(2, 3), st.integers(1, 3), st.integers(3, 9))
def test_expected_pooling_lies_between_average_and_max(
    seed: int, kernel: int, stride: int, side: int
) -> None:
    features = torch.rand(1, 2, side, side, generator=torch.Generator().manual_seed(seed)).relu()
    low, middle, high = (
        pool(features, pooling, kernel, stride) for pooling in ("average", "stochastic", "max")
    )
    assert low.shape == middle.shape == high.shape
    assert (low <= middle + 1e-5).all() and (middle <= high + 1e-5).all()


def test_sampled_pooling_has_the_expected_mean() -> None:
    features = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    many = features.expand(4000, 1, 7, 7)
    mean = pool(many, "stochastic", 3, 2, generator=generator).mean(0, keepdim=True)
    torch.testing.assert_close(mean, pool(features, "stochastic", 3, 2), atol=0.02, rtol=0)


def test_poolings_change_what_lies_above_them() -> None:
    image = photo(64, 1)
    below, above = {}, {}
    for pooling in module.POOLINGS:
        found = small_backbone().features(image, ["relu1", "relu3"], pooling=pooling)
        below[pooling], above[pooling] = found["relu1"], found["relu3"]
    assert torch.equal(below["max"], below["stochastic"])
    assert not torch.allclose(above["max"], above["average"])
    assert not torch.allclose(above["max"], above["stochastic"])
    generator = torch.Generator().manual_seed(0)
    sampled = small_backbone().features(
        image, ["relu3"], pooling="stochastic", generator=generator
    )["relu3"]
    assert not torch.allclose(sampled, above["stochastic"])


def test_the_lectures_exercise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten 5x5x3 filters with bias on 32x32x3, stride 1, padding 2."""
    filters = Layer("conv1", "conv", 10, 5, 1, 2, 0)
    monkeypatch.setitem(module.ARCHITECTURES, "lecture", (filters,))
    (row,) = layer_table("lecture", (32, 32))
    assert row.output == (10, 32, 32)
    assert row.parameters == 760
    assert row.multiply_adds == 5 * 5 * 3 * 10 * 32 * 32


def test_output_sizes_follow_the_formula() -> None:
    assert Layer("conv", "conv", 1, 3, 1, 0, 0).output_size(7) == 5
    assert Layer("conv", "conv", 1, 3, 2, 0, 0).output_size(7) == 3
    assert Layer("conv", "conv", 1, 11, 4, 2, 0).output_size(224) == 55
    assert Layer("conv", "conv", 1, 2, 2, 0, 0).output_size(7) == 3  # rounded down


@pytest.mark.parametrize(
    ("name", "layer", "output", "field", "stride"),
    [
        ("vgg16", "conv1_1", (64, 224, 224), 3, 1),
        ("vgg16", "conv1_2", (64, 224, 224), 5, 1),
        ("vgg16", "pool1", (64, 112, 112), 6, 2),
        ("vgg16", "relu4_2", (512, 28, 28), 76, 8),
        ("vgg16", "conv5_3", (512, 14, 14), 196, 16),
        ("vgg16", "pool5", (512, 7, 7), 212, 32),
        ("vgg19", "pool5", (512, 7, 7), 268, 32),
        ("alexnet", "conv1", (64, 55, 55), 11, 4),
        ("alexnet", "pool1", (64, 27, 27), 19, 8),
        ("alexnet", "conv2", (192, 27, 27), 51, 8),
        ("alexnet", "pool5", (256, 6, 6), 195, 32),
    ],
)
def test_layer_table(
    name: str, layer: str, output: tuple[int, int, int], field: int, stride: int
) -> None:
    row = next(row for row in layer_table(name, (224, 224)) if row.name == layer)
    assert (row.output, row.receptive_field_px, row.stride_px) == (output, field, stride)


@pytest.mark.parametrize(
    ("name", "parameters"), [("vgg16", 14_714_688), ("vgg19", 20_024_384), ("alexnet", 2_469_696)]
)
def test_parameters_are_those_of_torchvision(name: str, parameters: int) -> None:
    assert sum(row.parameters for row in layer_table(name)) == parameters
    with torch.device("meta"):
        assert sum(p.numel() for p in TORCHVISION[name]().parameters()) == parameters


def test_table_sizes_are_those_of_the_features() -> None:
    backbone = small_backbone()
    image = torch.rand(1, 3, 70, 91)
    found = backbone.features(image, backbone.layers)
    assert {row.name: row.output for row in layer_table("alexnet", (70, 91))} == {
        name: tuple(features.shape[1:]) for name, features in found.items()
    }


def test_layers_of_another_network_are_refused() -> None:
    for wanted in (["relu1_1"], ["relu1", "relu4_2"]):
        with pytest.raises(OptionError, match="relu"):
            layers_needed("alexnet", wanted, "max")


def test_rectifying_behind_a_maximum_gives_the_same() -> None:
    assert [layer.name for layer in layers_needed("alexnet", ["relu2"], "max")] == [
        *("conv1", "pool1", "relu1", "conv2", "relu2")
    ]
    ordered = ["conv1", "relu1", "pool1", "conv2", "relu2"]
    for wanted, pooling in ((["relu1", "relu2"], "max"), (["relu2"], "average")):
        assert [layer.name for layer in layers_needed("alexnet", wanted, pooling)] == ordered
    backbone = small_backbone()
    image = torch.rand(1, 3, 70, 91, requires_grad=True)
    shown = [
        backbone.features(image, [*also, "relu5"])["relu5"]
        for also in ((), ("relu1", "relu2"), ("pool1", "pool2"))
    ]
    slopes = [torch.autograd.grad(each.square().sum(), image)[0] for each in shown]
    for each, slope in zip(shown[1:], slopes[1:], strict=True):
        assert torch.equal(each, shown[0])
        torch.testing.assert_close(slope, slopes[0])


@pytest.mark.parametrize("layer", ["conv1", "pool1", "conv2", "conv3"])
def test_a_position_sees_exactly_its_receptive_field(layer: str) -> None:
    backbone = small_backbone()
    row = next(row for row in layer_table("alexnet", (255, 255)) if row.name == layer)
    image = torch.rand(1, 3, 255, 255, requires_grad=True)
    found = backbone.features(image, [layer], pooling="average")[layer]
    (gradient,) = torch.autograd.grad(
        found[0, :, row.output[1] // 2, row.output[2] // 2].sum(), image
    )
    seen = gradient.abs().sum((0, 1)).nonzero()
    extent = seen.max(0).values - seen.min(0).values + 1
    assert extent.tolist() == [row.receptive_field_px] * 2


def test_layer_table_refuses() -> None:
    with pytest.raises(OptionError, match="alexnet needs at least 7x7 pixels, got 6x90"):
        layer_table("alexnet", (6, 90))
    assert layer_table("vgg16", (2, 2))[-1].name == "relu2_2"  # pool2 would have no position


@pytest.mark.real_weights
def test_weights_are_torchvisions() -> None:
    vgg16, alexnet = load_weights("vgg16"), load_weights("alexnet")
    torch.testing.assert_close(
        vgg16["features.0.weight"][0, 0].float(),
        torch.tensor(
            [[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]]
        ),
        atol=3e-4,
        rtol=0,
    )
    torch.testing.assert_close(
        vgg16["features.0.bias"][:3].float(),
        torch.tensor([0.4034, 0.3778, 0.4644]),
        atol=2e-4,
        rtol=0,
    )
    torch.testing.assert_close(
        alexnet["features.0.weight"][0, 0, 0, :4].float(),
        torch.tensor([0.1186, 0.0941, 0.0954, 0.1052]),
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.real_weights
@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_rounding_to_float16_keeps_the_features(name: str) -> None:
    """Half a unit in the last place is all that rounding can do to a weight.

    Here every weight is moved by a random share of it: what the float32 weights, which are not
    at hand, may have been. benchmarks/half_weights.py measures with them.
    """
    stored = load_weights(name)
    generator = torch.Generator().manual_seed(0)
    moved = {}
    for key, half in stored.items():
        assert half.dtype == torch.float16
        value = half.float()
        step = 2.0 ** (value.abs().clamp_min(2.0**-14).log2().floor() - 10)
        assert (value / step == (value / step).round()).all()
        moved[key] = value + step * (torch.rand(value.shape, generator=generator) - 0.5)
    one, other = (Backbone(name, weights, RUNTIME) for weights in (stored, moved))
    layers = [layer for layer in one.layers if layer.startswith("conv")]
    with torch.no_grad():
        found, expected = (network.features(photo(96, 4), layers) for network in (one, other))
    for layer in layers:
        error = (found[layer] - expected[layer]).abs()
        assert error.max() < 1e-3 * expected[layer].abs().max()
        assert error.norm() < 1e-3 * expected[layer].norm()
        assert error.max() > 0
