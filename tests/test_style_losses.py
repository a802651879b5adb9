"""The losses and the objective: numbers by hand, invariants, refusals, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylecap.backbone import Backbone
from stylecap.style.losses import content_loss, gram_matrix, style_loss, total_variation
from stylecap.style.objective import Objective, StyleTarget, style_grams
from stylecap.style.options import StyleOptions

from .small import RELU_LAYERS, photo, small_backbone


def test_gram_matrix_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1, 2, 1, 2)
    expected = torch.tensor([[[5.0, 11.0], [11.0, 25.0]]]) / 2
    assert torch.equal(gram_matrix(features), expected)


def test_guided_gram_is_that_of_the_region_alone() -> None:
    features = torch.randn(1, 4, 6, 8)
    guide = torch.zeros(6, 8)
    guide[:, :3] = 1
    torch.testing.assert_close(gram_matrix(features, guide), gram_matrix(features[..., :3]))


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**16))
def test_gram_matrix_ignores_where_things_are(channels: int, side: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, channels, side, side, generator=generator)
    order = torch.randperm(side * side, generator=generator)
    shuffled = features.flatten(2)[..., order].view_as(features)
    gram = gram_matrix(features)
    torch.testing.assert_close(gram, gram.mT)
    torch.testing.assert_close(gram, gram_matrix(shuffled))


def test_gram_matrix_does_not_depend_on_the_area() -> None:
    features = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(gram_matrix(features), gram_matrix(features.repeat(1, 1, 2, 3)))


def test_gram_matrix_widens_half_precision_and_keeps_double() -> None:
    assert gram_matrix(torch.ones(1, 2, 3, 3, dtype=torch.bfloat16)).dtype == torch.float32
    assert gram_matrix(torch.ones(1, 2, 3, 3, dtype=torch.float64)).dtype == torch.float64


def test_gram_matrix_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\), got \(2, 3\)"):
        gram_matrix(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="guide: expected"):
        gram_matrix(torch.zeros(1, 2, 4, 4), torch.ones(2, 2))


def test_losses_by_hand() -> None:
    assert content_loss(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[0.0, 1.0]]]])) == 2.5
    gram, target = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]]), torch.zeros(1, 2, 2)
    assert style_loss(gram, target) == 10 / 16
    image = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    assert total_variation(image) == 1.0


def test_total_variation_of_a_flat_image_is_zero() -> None:
    assert total_variation(torch.full((1, 3, 4, 4), 0.3)) == 0


@pytest.mark.parametrize("objective", ["gatys", "relative"])
@pytest.mark.parametrize("pooling", ["max", "average", "stochastic"])
def test_objective_gradient_agrees_with_differences(objective: str, pooling: str) -> None:
    options = StyleOptions(
        backbone="alexnet",
        objective=objective,
        pooling=pooling,
        tv_weight=0.1,
        content_layers=("relu2",),
        style_layers=("relu1", "relu2"),
        layer_weights=(1.0, 2.0),
    )
    backbone = small_backbone(torch.float64)
    content, style = photo(35, 1).double(), photo(35, 2).double()
    function = Objective(
        backbone, content, [StyleTarget(style_grams(backbone, style, options))], options
    )
    x = (0.5 * content + 0.5 * photo(35, 3).double()).requires_grad_()
    (gradient,) = torch.autograd.grad(function(x).total, x)
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    h = 1e-6
    with torch.no_grad():
        difference = (function(x + h * direction).total - function(x - h * direction).total) / 2 / h
    assert gradient.dtype == torch.float64
    torch.testing.assert_close((gradient * direction).sum()[None], difference, rtol=1e-5, atol=1e-9)


def targets_of(backbone: Backbone, options: StyleOptions) -> list[StyleTarget]:
    return [StyleTarget(style_grams(backbone, photo(40, 2), options))]


def test_relative_objective_is_the_strength_at_the_content() -> None:
    options = StyleOptions(backbone="alexnet", strength=0.7)
    backbone = small_backbone()
    content = photo(40, 1)
    losses = Objective(backbone, content, targets_of(backbone, options), options)(content)
    assert float(losses.total) == pytest.approx(0.7, rel=1e-4)
    assert float(losses.content) == 0


def test_gatys_objective_adds_up_its_parts() -> None:
    options = StyleOptions(
        backbone="alexnet", objective="gatys", content_weight=2, style_weight=5, tv_weight=3
    )
    backbone = small_backbone()
    losses = Objective(backbone, photo(40, 1), targets_of(backbone, options), options)(photo(40, 3))
    (parts,) = losses.numbers()
    expected = 2 * parts["content"] + 5 * sum(parts["style"].values()) + 3 * parts["tv"]
    assert parts["total"] == pytest.approx(expected, rel=1e-5)
    assert list(parts["style"]) == list(RELU_LAYERS)


def test_the_style_itself_has_no_style_loss() -> None:
    options = replace(StyleOptions(backbone="alexnet"), strength=1.0)
    backbone = small_backbone()
    function = Objective(backbone, photo(40, 1), targets_of(backbone, options), options)
    assert float(function(photo(40, 2)).total) == pytest.approx(0, abs=1e-8)
