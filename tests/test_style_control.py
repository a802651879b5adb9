"""Colour and space control of Gatys et al. 2017, each with its bound."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylecap.backbone import Backbone, load_backbone
from stylecap.errors import InputError, OptionError
from stylecap.images import load_picture, resize_image, to_image
from stylecap.runtime import Runtime
from stylecap.style.builtin import paint_style
from stylecap.style.control import (
    carry_guides,
    join_luminance,
    luminance,
    match_color,
    match_luminance,
    regions_of,
)
from stylecap.style.losses import gram_matrix, style_loss
from stylecap.style.options import COLOR_METHODS, DEFAULT_LAYERS, StyleOptions
from stylecap.style.transfer import mix_scales, transfer_style

from .small import photo, small_backbone

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def chroma(image: torch.Tensor) -> torch.Tensor:
    """I and Q of YIQ."""
    matrix = torch.tensor([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    return torch.einsum("kc,bchw->bkhw", matrix, image)


def moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = image[0].flatten(1).double()
    return pixels.mean(1), torch.cov(pixels, correction=0)


@pytest.mark.parametrize("method", COLOR_METHODS)
def test_color_matching_gives_the_contents_mean_and_covariance(method: str) -> None:
    style, content = photo(30, 1) * 0.5, photo(40, 2)
    found, wanted = moments(match_color(style, content, method)), moments(content)
    torch.testing.assert_close(found[0], wanted[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], wanted[1], atol=1e-3, rtol=0)


def test_color_matching_of_a_grey_style_is_finite() -> None:
    grey = torch.full((1, 3, 8, 8), 0.5)
    for method in COLOR_METHODS:
        assert match_color(grey, photo(20, 1), method).isfinite().all()


def test_optimal_transport_moves_colors_least() -> None:
    style, content = photo(30, 1), photo(40, 2)
    moved = {m: (match_color(style, content, m) - style).square().mean() for m in COLOR_METHODS}
    assert moved["optimal-transport"] == min(moved.values())


def test_color_matching_refuses_unknown_methods() -> None:
    with pytest.raises(OptionError, match="color_method: expected one of cholesky"):
        match_color(photo(20, 1), photo(20, 2), "magic")


@settings(max_examples=30)
@given(st.integers(0, 2**16))
def test_joined_luminance_keeps_the_chroma(seed: int) -> None:
    colored = photo(12, seed)
    brightness = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(seed))
    joined = join_luminance(brightness, colored)
    assert joined.min() >= 0
    assert joined.max() <= 1
    torch.testing.assert_close(chroma(joined), chroma(colored), atol=1e-4, rtol=0)


def test_luminance_matching_by_hand() -> None:
    style, content = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.4, 0.6]]]])
    torch.testing.assert_close(match_luminance(style, content), content)
    assert float(luminance(torch.ones(1, 3, 1, 1))) == pytest.approx(1)


def halves(side: int) -> torch.Tensor:
    regions = torch.zeros(2, 1, side, side)
    regions[0, :, :, : side // 2] = 1
    regions[1, :, :, side // 2 :] = 1
    return regions


def test_guides_lie_inside_their_regions_and_are_never_empty() -> None:
    regions = halves(64)
    regions[0], regions[1] = 0, 1
    regions[0, :, 40, 9], regions[1, :, 40, 9] = 1, 0  # a region of one pixel
    guides = carry_guides(regions, "vgg16", ("relu1_1", "relu3_1", "relu5_1"))
    for guide in guides.values():
        assert guide.shape[0] == 2
        assert (guide.sum(dim=(1, 2)) > 0).all()
        assert guide.isfinite().all()


def test_eroded_guide_stays_away_from_the_seam() -> None:
    left = carry_guides(halves(64), "vgg16", ("relu1_1",))["relu1_1"][0]
    assert left[:, :30].min() == 1
    assert left[:, 31:].max() == 0


def test_mask_colors_become_regions_that_add_up_to_one() -> None:
    labels = torch.zeros(1, 3, 4, 6)
    labels[..., :2] = 0.96  # not quite white, as after JPEG
    regions = regions_of(labels, ((255, 255, 255), (0, 0, 0)))
    assert regions.shape == (2, 1, 4, 6)
    assert torch.equal(regions.sum(0), torch.ones(1, 4, 6))
    assert regions[0].sum() == 8


def test_mask_without_a_colors_pixel_is_refused() -> None:
    with pytest.raises(InputError, match="no pixel has the colour #000000"):
        regions_of(torch.ones(1, 3, 4, 4), ((255, 255, 255), (0, 0, 0)))


def options(**changes: object) -> StyleOptions:
    return StyleOptions(**{"backbone": "alexnet", "steps": 30, "scales": 1, **changes})


def test_kept_luminance_keeps_the_chroma_of_the_content() -> None:
    content = photo(64, 1)
    done = transfer_style(
        content, [photo(64, 2)], options(color="keep-luminance"), small_backbone()
    )
    saved = (done.image * 255).round() / 255
    assert (chroma(saved) - chroma(content)).abs().max() <= 1 / 255
    assert (done.image - content).abs().mean() > 0.01


def test_each_region_goes_to_its_own_style() -> None:
    backbone, side = small_backbone(), 96
    content, styles = photo(side, 1), [photo(side, 2) * 0.3, 1 - 0.5 * photo(side, 3)]
    chosen = options(strength=1.0, style_layers=("relu1", "relu2"), steps=60)
    done = transfer_style(content, styles, chosen, backbone, regions=halves(side))
    for own in (0, 1):
        part = done.image[..., : side // 2 - 6] if own == 0 else done.image[..., side // 2 + 6 :]
        found = gram_matrix(backbone.features(part, ["relu1"])["relu1"])
        losses = [
            style_loss(found, gram_matrix(backbone.features(style, ["relu1"])["relu1"]))
            for style in styles
        ]
        assert losses[own] <= losses[1 - own] / 2


def gram_distances(one: torch.Tensor, other: torch.Tensor, backbone: Backbone) -> list[float]:
    """E_l of two images at AlexNet's style layers, from low to high."""
    layers = DEFAULT_LAYERS["alexnet"][1]
    found = [backbone.features(image, layers) for image in (one, other)]
    return [float(style_loss(*(gram_matrix(f[layer]) for f in found))) for layer in layers]


@pytest.mark.real_weights
@pytest.mark.parametrize(
    ("fine", "coarse"), [("crosshatch", "night-swirls"), ("mosaic", "watercolor")]
)
def test_mixed_scales_have_fine_low_and_coarse_high_layers(fine: str, coarse: str) -> None:
    backbone = load_backbone("alexnet", runtime=Runtime("cpu", "float32", 1))
    styles = [to_image(paint_style(name, (128, 128))) for name in (fine, coarse)]
    mixed = mix_scales(*styles, options(steps=40), backbone).image
    to_fine, to_coarse = (gram_distances(mixed, style, backbone) for style in styles)
    assert to_fine[0] < to_coarse[0] and to_fine[1] < to_coarse[1]
    assert to_fine[3] > to_coarse[3] and to_fine[4] > to_coarse[4]


@pytest.mark.real_weights
def test_each_half_of_a_real_picture_has_its_own_style() -> None:
    backbone = load_backbone("alexnet", runtime=Runtime("cpu", "float32", 1))
    styles = [
        to_image(paint_style(name, (160, 160))) for name in ("stained-glass", "woodcut-waves")
    ]
    content = resize_image(to_image(load_picture(SAMPLES / "coffee.jpg")), (160, 160))
    done = transfer_style(content, styles, options(steps=40), backbone, regions=halves(160))
    for own, part in enumerate((done.image[..., :80], done.image[..., 80:])):
        distances = [sum(gram_distances(part, style, backbone)) for style in styles]
        assert distances[own] <= distances[1 - own] / 2
