from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylecap.backbone import Backbone, architecture, smallest_side
from stylecap.cli.main import main
from stylecap.cli.terminal import Interruption
from stylecap.drawing import draw_map, draw_over, draw_sheet
from stylecap.errors import InputError, OptionError
from stylecap.images import save_picture, to_picture
from stylecap.runtime import Runtime
from stylecap.studio.explore import (
    compare_poolings,
    exciting_patches,
    feature_maps,
    feature_sheet,
    layer_rows,
    patch_sheet,
    picture_for,
    pooling_sheet,
    receptive_box,
)

from .small import photo, small_backbone

DOCS = Path(__file__).parent.parent / "docs"


def test_the_worked_examples_come_out_as_written() -> None:
    failed, tried = doctest.testfile(str(DOCS / "convolution.md"), module_relative=False)
    assert failed == 0 and tried > 30


def test_the_strongest_channels_come_first() -> None:
    backbone = small_backbone()
    image = photo(96, 1)
    maps = feature_maps(backbone, image, "conv2", 5)
    features = backbone.features(image, ["relu2"])["relu2"][0]
    strength = features.mean((1, 2))
    assert [each.channel for each in maps] == strength.argsort(descending=True)[:5].tolist()
    assert maps[0].strength == pytest.approx(float(strength.max()), rel=1e-5)
    assert maps[0].peak == pytest.approx(float(features[maps[0].channel].max()), rel=1e-5)
    assert len(feature_maps(backbone, image, "conv1", 1000)) == 64
    assert feature_sheet(maps, "title").width > 5 * 160
    with pytest.raises(OptionError, match="at least 1"):
        feature_maps(backbone, image, "conv2", 0)


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_receptive_boxes_are_what_a_position_sees(name: str) -> None:
    """With positive weights, exactly the pixels of the box have a gradient."""
    layer = {"vgg16": "conv3_1", "alexnet": "conv2"}[name]
    side = smallest_side(name, layer) + 60
    image = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    x = image
    for each in architecture(name):
        if each.kind != "relu":  # sums stand for convolutions and poolings alike
            kernel = torch.ones(1, 1, each.kernel, each.kernel, dtype=torch.float64)
            x = torch.nn.functional.conv2d(x, kernel, None, each.stride, each.padding)
        if each.name == layer:
            break
    middle = (x.shape[2] // 2, x.shape[3] // 2)
    for row, column in (middle, (0, x.shape[3] - 1)):
        (gradient,) = torch.autograd.grad(x[0, 0, row, column], image, retain_graph=True)
        seen = gradient[0, 0] != 0
        top, left, bottom, right = receptive_box(name, layer, row, column)
        box = torch.zeros(side, side, dtype=torch.bool)
        box[max(top, 0) : bottom, max(left, 0) : right] = True
        if (row, column) == middle:
            assert min(top, left) >= 0 and torch.equal(seen, box)
        else:  # at the border, zeros stand for some of the box
            assert seen.any() and not (seen & ~box).any()


def bright_weights() -> dict[str, torch.Tensor]:
    """AlexNet, all zeros but for channel 3 of conv1: how bright its window is."""
    weights, incoming = {}, 3
    for each in architecture("alexnet"):
        if each.kind == "conv":
            shape = (each.channels, incoming, each.kernel, each.kernel)
            weights[f"features.{each.index}.weight"] = torch.zeros(shape)
            weights[f"features.{each.index}.bias"] = torch.zeros(each.channels)
            incoming = each.channels
    weights["features.0.weight"][3] = 1.0
    weights["features.0.bias"][3] = 800.0
    return weights


def test_exciting_patches_hold_what_excites(tmp_path: Path) -> None:
    """A channel that answers to brightness finds the only bright spot, best picture first."""
    backbone = Backbone("alexnet", bright_weights(), Runtime("cpu", "float32", 1))
    paths = []
    for order, brightness in enumerate((60, 250, 130)):
        picture = np.full((96, 96, 3), 10, np.uint8)
        picture[64:72, 40:48] = brightness
        paths.append(tmp_path / f"{order}.png")
        save_picture(Image.fromarray(picture), paths[-1])
    seen: list[int] = []
    (best, second) = exciting_patches(
        backbone, paths, "relu1", 3, 2, long_side_px=96, on_progress=lambda p: seen.append(p.step)
    )
    assert [best.path.name, second.path.name] == ["1.png", "2.png"]
    assert best.activation > second.activation > 0
    top, left, bottom, right = best.box
    assert top < 72 and bottom > 64 and left < 48 and right > 40
    assert best.picture.size == (11, 11) and np.asarray(best.picture).max() == 250
    assert seen == [1, 2, 3]
    assert patch_sheet([best, second]).width >= 2 * 160
    assert (
        exciting_patches(backbone, paths, "relu1", 3, 9, long_side_px=96, should_stop=lambda: True)
        == []
    )
    with pytest.raises(OptionError, match="0 to 63, got 64"):
        exciting_patches(backbone, paths, "relu1", 64, 9, long_side_px=96)
    with pytest.raises(InputError, match=r"0\.png: image"):
        exciting_patches(backbone, paths, "pool5", 0, 9, long_side_px=20)


def test_the_three_poolings_lie_in_order() -> None:
    pooled = {
        each.pooling: each for each in compare_poolings(small_backbone(), photo(96, 2), "conv1")
    }
    assert list(pooled) == ["none", "max", "average", "stochastic", "sampled"]
    assert pooled["max"].mean > pooled["stochastic"].mean > pooled["average"].mean > 0
    assert pooled["sampled"].mean == pytest.approx(pooled["stochastic"].mean, rel=0.1)
    assert pooled["none"].size == (23, 23) and pooled["max"].size == (11, 11)
    assert len({each.picture.size for each in pooled.values()}) == 1
    assert pooling_sheet(list(pooled.values())).width > 5 * 200
    with pytest.raises(OptionError, match="no pooling above pool5"):
        compare_poolings(small_backbone(), photo(96, 2), "pool5")
    with pytest.raises(OptionError, match="0 to 63"):
        compare_poolings(small_backbone(), photo(96, 2), "conv1", channel=-1)
    with pytest.raises(InputError, match="larger size"):
        compare_poolings(small_backbone(), photo(40, 2), "conv5")


def test_layer_rows_add_up() -> None:
    rows = layer_rows("vgg16", (224, 224))
    assert rows[0][1] == "224x224x3" and rows[-1][2] == "14,714,688"
    assert rows[1] == ("conv1_1", "224x224x64", "1,792", "86,704,128", "3", "1")


def test_maps_are_drawn_brighter_where_higher() -> None:
    drawn = np.asarray(draw_map(torch.tensor([[0.0, 0.5], [1.0, 0.25]])).convert("L"), int)
    assert drawn.shape == (160, 160)
    low, middle, high, quarter = drawn[0, 0], drawn[0, -1], drawn[-1, 0], drawn[-1, -1]
    assert low < quarter < middle < high
    assert draw_map(torch.rand(10, 400)).size == (160, 4)
    assert draw_map(torch.zeros(3, 3)).getpixel((0, 0)) == (10, 7, 34)
    with pytest.raises(ValueError, match="H, W"):
        draw_map(torch.zeros(1, 3, 3))


def test_a_picture_stays_bright_where_a_map_is_high() -> None:
    white = Image.new("RGB", (40, 20), "white")
    lit = np.asarray(draw_over(white, torch.tensor([[0.0, 1.0]])))
    assert lit.shape == (20, 40, 3)
    assert lit[10, 39].tolist() == [255] * 3 and lit[10, 0].max() <= 51


def test_sheets_have_room_for_every_tile() -> None:
    tile = Image.new("RGB", (100, 50), "red")
    sheet = draw_sheet([(tile, "a long label that does not fit\nsecond")] * 7, columns=3)
    reds = (np.asarray(sheet) == (255, 0, 0)).all(-1).sum()
    assert reds == 7 * 100 * 50
    with pytest.raises(ValueError, match="at least one"):
        draw_sheet([])


def test_a_picture_is_seen_at_its_size() -> None:
    assert picture_for(Image.new("RGBA", (30, 60)), 20).shape == (1, 3, 20, 10)


@pytest.mark.real_weights
def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_picture(to_picture(photo(80, 3)), "photo.png")
    network = ["--backbone", "alexnet", "--size", "80"]
    assert main(["features", "photo.png", "--layer", "conv2", "--count", "7", *network]) == 0
    assert capsys.readouterr().out.endswith(", 7 channels\n")
    assert Path("features.png").is_file()
    assert (
        main(["features", "photo.png", "--layer", "conv1", "--poolings", "--json", *network]) == 0
    )
    assert len(json.loads(capsys.readouterr().out)["poolings"]) == 5
    Path("folder").mkdir()
    save_picture(to_picture(photo(80, 4)), "folder/a.png")
    argv = ["features", "--layer", "conv1", "--channel", "9", "--folder", "folder", "-o", "p.png"]
    assert main([*argv, *network, "--json", "--quiet"]) == 0
    (patch,) = json.loads(capsys.readouterr().out)["patches"]
    assert patch["path"] == str(Path("folder/a.png")) and patch["activation"] > 0
    monkeypatch.setattr(Interruption, "__enter__", _pressed)
    monkeypatch.setattr(Interruption, "__call__", lambda self: False)
    assert main([*argv, *network, "--quiet"]) == 130
    assert Path("p.png").is_file()


def _pressed(interruption: Interruption) -> Interruption:
    interruption.requested = True
    return interruption


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ("features photo.png", "--layer"),
        ("features --layer conv1", "PHOTO"),
        ("features photo.png --layer conv9_9", "no layer"),
        ("features photo.png --layer conv1_1 --channel 3", "belongs to"),
        ("features photo.png --layer conv1_1 --size 9", "16 to 4096"),
        ("features photo.png --layer conv1_1 --backbone resnet", "expected one of"),
        ("features --layer conv1_1 --folder x", "--channel"),
        ("features photo.png --layer conv1_1 --folder x --channel 2", "only one"),
    ],
)
def test_wrong_usage(argv: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv.split()) == 2
    assert reason in capsys.readouterr().err
