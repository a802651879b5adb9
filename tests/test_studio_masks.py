from __future__ import annotations

import json
import shlex
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stylecap.backbone import Backbone, load_backbone
from stylecap.cli.main import main
from stylecap.errors import InputError, OptionError
from stylecap.images import load_picture, save_picture, to_image, to_picture
from stylecap.runtime import Runtime
from stylecap.studio.masks import (
    COLORS,
    guided_filter,
    k_means,
    largest_rectangle,
    mask_picture,
    match_regions,
    region_swatch,
    segment,
)
from stylecap.style.control import regions_of

from .small import photo, small_backbone

torch.set_num_threads(1)


def textures(side: int) -> Tensor:
    """(4, 3, side, side): stripes, squares, slanted stripes and grain, all grey on the average."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    noise = torch.rand(side, side, generator=torch.Generator().manual_seed(0))
    waves = [
        ((y // 4) % 2).float(),
        ((x // 8 + y // 8) % 2).float(),
        (((x + y) // 5) % 2).float(),
        (noise > 0.5).float(),
    ]
    return torch.stack([0.5 + 0.3 * (2 * wave - 1) for wave in waves])[:, None].repeat(1, 3, 1, 1)


def quarters(side: int) -> Tensor:
    rows = torch.arange(side)[:, None] >= side * 0.45
    columns = torch.arange(side)[None] >= side * 0.55
    return 2 * rows + 1 * columns


def discs(side: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    labels = (y > 0.7 * side).long()
    labels[(x - 0.3 * side) ** 2 + (y - 0.35 * side) ** 2 < (0.22 * side) ** 2] = 2
    labels[(x - 0.75 * side) ** 2 + (y - 0.35 * side) ** 2 < (0.18 * side) ** 2] = 3
    return labels


def mean_iou(found: Tensor, true: Tensor) -> float:
    """Mean over regions, under the best naming of the regions found."""
    ious = torch.tensor(
        [
            [float(((found == f) & (true == t)).sum() / ((found == f) | (true == t)).sum())
             for t in range(4)]
            for f in range(4)
        ]
    )  # fmt: skip
    return max(float(ious[range(4), list(p)].mean()) for p in permutations(range(4)))


@pytest.fixture(scope="module")
def vgg() -> Backbone:
    return load_backbone("vgg16", runtime=Runtime("cpu", "float32", 1))


@pytest.mark.real_weights
@pytest.mark.parametrize("layout", [quarters, discs])
def test_textures_of_equal_mean_colour_are_told_apart(layout: object, vgg: Backbone) -> None:
    assert callable(layout)
    true = layout(256)
    image = textures(256).gather(0, true[None, None].expand(1, 3, -1, -1))
    means = [float(image[0, 0][true == region].mean()) for region in range(4)]
    assert max(means) - min(means) < 0.02
    found = segment(vgg, to_picture(image), 4)
    assert found.shape == true.shape
    assert mean_iou(found, true) >= 0.85


def test_regions_are_numbered_from_the_top_and_repeatable() -> None:
    picture = Image.new("RGB", (120, 90), (40, 90, 220))
    picture.paste((60, 140, 40), (0, 50, 120, 90))
    labels = segment(small_backbone(), picture, 2)
    assert labels.shape == (90, 120)
    assert int(labels[0, 0]) == 0 and int(labels[-1, 0]) == 1
    # Edges are kept: the change lies where the colour changes.
    assert int((labels[:48] == 0).sum()) == 48 * 120 and int((labels[52:] == 1).sum()) == 38 * 120
    assert torch.equal(labels, segment(small_backbone(), picture, 2))


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(OptionError, match="2 to 8, got 1"):
        segment(small_backbone(), to_picture(photo(96, 1)), 1)


def test_masks_come_back_from_the_colours() -> None:
    labels = quarters(40)
    mask = mask_picture(labels)
    colors = tuple((*bytes.fromhex(color[1:]),) for color in COLORS[:4])
    regions = regions_of(to_image(mask), colors)
    assert torch.equal(regions[:, 0].argmax(0), labels)
    with pytest.raises(ValueError, match="at most 1"):
        mask_picture(labels, COLORS[:1])


@pytest.mark.real_weights
def test_like_matches_like(vgg: Backbone) -> None:
    """The same four textures, laid out otherwise, find themselves again."""
    image = textures(256)
    one, other = quarters(256), quarters(256).flip(0).flip(1)
    pictures = [
        to_picture(image.gather(0, labels[None, None].expand(1, 3, -1, -1)))
        for labels in (one, other)
    ]
    match = match_regions(vgg, pictures[0], one, pictures[1], (other + 1) % 4)
    assert match.regions == (1, 2, 3, 0)
    assert min(match.likeness) > 0.3
    with pytest.raises(OptionError, match="the style has 2, the content 4"):
        match_regions(vgg, pictures[0], one, pictures[1], other // 2)


def test_the_largest_rectangle() -> None:
    inside = torch.zeros(60, 50, dtype=torch.bool)
    inside[10:40, 5:25] = True
    inside[20:30, 5:48] = True
    assert largest_rectangle(inside) == (10, 5, 40, 25)
    assert largest_rectangle(torch.zeros(5, 5, dtype=torch.bool)) == (0, 0, 0, 0)


def test_a_swatch_shows_one_region_only() -> None:
    picture = np.full((60, 50, 3), 200, np.uint8)
    picture[10:40, 5:25] = np.arange(30)[:, None, None]
    labels = torch.zeros(60, 50, dtype=torch.long)
    labels[10:40, 5:25] = 1
    swatch = np.asarray(region_swatch(Image.fromarray(picture), labels, 1))
    assert swatch.shape == (60, 50, 3)
    assert swatch[:, 0, 0].tolist() == [*range(30), *range(29, -1, -1)]
    with pytest.raises(InputError, match="fewer regions"):
        region_swatch(Image.fromarray(picture), (labels == 5).long() + 2, 1)


def test_k_means_finds_the_clumps() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    points = centres.repeat_interleave(20, 0) + torch.randn(60, 2, generator=generator)
    found = k_means(points, 3).argmin(1).view(3, 20)
    assert (found == found[:, :1]).all() and len(set(found[:, 0].tolist())) == 3
    with pytest.raises(InputError, match="not 3 different"):
        k_means(torch.zeros(9, 2), 3)


def test_the_guided_filter_smooths_but_keeps_edges() -> None:
    guide = torch.zeros(1, 3, 20, 40)
    guide[..., 20:] = 0.8
    step = (guide[:, :1] > 0).float()
    noise = torch.rand(1, 1, 20, 40, generator=torch.Generator().manual_seed(0)) - 0.5
    filtered = guided_filter(guide, step + noise, 4, 1e-3)
    assert float((filtered - step).abs().max()) < 0.3
    constant = guided_filter(guide, torch.full((1, 2, 20, 40), 0.7), 4, 1e-3)
    assert torch.allclose(constant, torch.full((1, 2, 20, 40), 0.7), atol=1e-4)


@pytest.mark.real_weights
def test_the_command_says_how_to_paint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    image = textures(96).gather(0, quarters(96)[None, None].expand(1, 3, -1, -1))
    save_picture(to_picture(image), "photo.png")
    save_picture(to_picture(image.flip(3)), "painting.png")
    argv = ["masks", "photo.png", "--regions", "3", "--backbone", "alexnet"]
    assert main([*argv, "--match", "painting.png", "--preview", "p.png"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(line)
    assert words[:3] == ["stylecap", "stylize", "photo.png"]
    assert words[3:6] == [f"mask-style-{number}.png" for number in (1, 2, 3)]
    assert words[6:] == ["--mask", "mask.png", "--mask-styles", ",".join(COLORS[:3])]
    assert load_picture("p.png").size == load_picture("mask-style-2.png").size == (96, 96)
    assert main([*argv, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(told["shares"]) == pytest.approx(1) and told["colors"] == list(COLORS[:3])
    assert main([*argv, "-o", "mask.jpg"]) == 2
    assert "choose .png" in capsys.readouterr().err
