from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models

from stylecap.cli.main import main
from stylecap.errors import InputError, OptionError, WeightsError
from stylecap.images import load_picture, save_picture, to_picture
from stylecap.studio import recognition
from stylecap.studio.masks import mask_picture
from stylecap.studio.recognition import Classifier, Detection, Detector, box_picture, box_regions
from stylecap.weights import fetch
from tests.small import photo

torch.set_num_threads(1)
DOG, PERSON = 18, 1  # of COCO's categories


@pytest.fixture(autouse=True)
def empty_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights but those that a test brings."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_classifier_in_torchvisions_format_is_fetched_and_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights of zero but for one bias: that label has e² over all, whatever the picture."""
    path, page = tmp_path / "mine.safetensors", tmp_path / "photo.png"
    save_picture(to_picture(photo(64, 0)), page)
    assert main(["classify", str(page), "--network", "alexnet"]) == 1
    assert "`stylecap weights fetch alexnet-classifier` brings it" in capsys.readouterr().err
    with torch.device("meta"):
        shapes = models.alexnet().state_dict()
    tensors = {k: torch.zeros(v.shape, dtype=torch.float16) for k, v in shapes.items()}
    tensors["classifier.6.bias"][281] = 2.0
    save_file(tensors, path)
    fetch("alexnet-classifier", path)
    guesses = Classifier("alexnet").classify(load_picture(page), 3)
    assert guesses[0].label == "tabby" and len(guesses) == 3
    e2 = float(torch.tensor(2.0).exp())
    assert guesses[0].prob == pytest.approx(e2 / (e2 + 999), rel=1e-5)
    assert main(["classify", str(page), "--network", "alexnet", "--json", "--count", "1"]) == 0
    assert [each["label"] for each in json.loads(capsys.readouterr().out)["guesses"]] == ["tabby"]
    with pytest.raises(OptionError, match="count: expected at least 1, got 0"):
        Classifier("alexnet").classify(load_picture(page), 0)
    del tensors["classifier.6.bias"]
    save_file({k: v for k, v in tensors.items() if k.startswith("features.")}, path)
    fetch("alexnet-classifier", path)
    with pytest.raises(WeightsError, match=r"not torchvision's.*classifier\.6\.bias"):
        Classifier("alexnet")
    with pytest.raises(OptionError, match=r"expected one of alexnet, vgg16, vgg19, got 'resnet'"):
        Classifier("resnet")


class Seen(torch.nn.Module):
    """A detector that always sees the same: a person, a smaller dog before it, and a doubt."""

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        assert images[0].shape == (3, 40, 80)
        boxes = torch.tensor([[40.0, 20, 60, 40], [20, 0, 80, 40], [0, 0, 4, 4]])
        return [
            {
                "boxes": boxes,
                "labels": torch.tensor([DOG, PERSON, DOG]),
                "scores": torch.tensor([0.8, 0.9, 0.1]),
            }
        ]


PICTURE = Image.new("RGB", (80, 40), "#336699")


def test_things_are_sorted_and_measured_in_shares() -> None:
    things = Detector(Seen()).detect(PICTURE, 0.5)
    assert [(thing.label, round(thing.score, 1)) for thing in things] == [
        ("person", 0.9),
        ("dog", 0.8),
    ]
    assert things[1].box == (0.5, 0.5, 1.0, 0.75)
    assert len(Detector(Seen()).detect(PICTURE, 0.0)) == 3
    with pytest.raises(OptionError, match="threshold: expected 0 to 1, got 2"):
        Detector(Seen()).detect(PICTURE, 2)


def test_boxes_become_regions() -> None:
    """The dog stands before the person, whose box is larger; the rest is the first region."""
    things = Detector(Seen()).detect(PICTURE, 0.5)
    regions, names = box_regions(things, (40, 80))
    assert names == ("the rest", "person", "dog")
    assert regions.flatten().bincount().tolist() == [40 * 20, 40 * 60 - 400, 400]
    assert int(regions[30, 50]) == 2 and int(regions[10, 50]) == 1 and int(regions[0, 0]) == 0
    mask = mask_picture(regions)
    assert len({mask.getpixel(place) for place in ((0, 0), (50, 30), (50, 10))}) == 3
    # What lies behind another box altogether is no region.
    hidden = [Detection("cat", 0.7, (0.5, 0.5, 1.0, 0.75)), *things]
    assert "cat" not in box_regions([*things, *hidden[:1]], (40, 80))[1] or (
        "dog" not in box_regions([*things, *hidden[:1]], (40, 80))[1]
    )
    many = [Detection(str(n), 0.5, (0.1 * n, 0, 0.1 * n + 0.05, 1)) for n in range(9)]
    assert box_regions(many, (100, 10))[1] == ("the rest", *map(str, range(7)))
    with pytest.raises(InputError, match="nothing was found"):
        box_regions([], (40, 80))
    with pytest.raises(InputError, match="cover the whole photo"):
        box_regions([Detection("sky", 1.0, (0, 0, 1, 1))], (40, 80))
    tiny = [Detection("ball", 1.0, (0.5, 0.5, 0.501, 0.501))]
    assert box_regions(tiny, (40, 80))[0].sum() == 1


def test_the_boxes_are_drawn() -> None:
    things = Detector(Seen()).detect(PICTURE, 0.5)
    drawn = box_picture(PICTURE, things)
    assert drawn.size == PICTURE.size and drawn.tobytes() != PICTURE.tobytes()
    assert drawn.getpixel((2, 2)) == PICTURE.getpixel((2, 2))
    assert drawn.getpixel((79, 20)) == (0x00, 0x72, 0xB2)  # the person's right side


def test_the_command_writes_a_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, mask, preview = (str(tmp_path / name) for name in ("a.png", "mask.png", "boxes.jpg"))
    save_picture(PICTURE, page)
    assert main(["detect", page]) == 1
    assert "`stylecap weights fetch faster-rcnn` brings it" in capsys.readouterr().err
    monkeypatch.setattr(recognition, "_filled", lambda network, name: Seen())
    assert main(["detect", page, "-o", mask, "--preview", preview]) == 0
    out = capsys.readouterr().out
    assert "0.90" in out and "person" in out
    assert f"stylize {page} STYLE STYLE STYLE --mask {mask} --mask-styles '#0072b2," in out
    assert len(load_picture(mask).getcolors() or []) == 3
    assert load_picture(preview).size == PICTURE.size
    assert main(["detect", page, "-o", mask, "--only", "dog", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["regions"] == ["the rest", "dog"] and told["command"][-1] == "#0072b2,#e69f00"
    assert main(["detect", page, "--only", "cow"]) == 1
    assert "none of cow was found, but dog, person" in capsys.readouterr().err
    assert main(["detect", page, "-o", str(tmp_path / "mask.jpg")]) == 2
    assert "choose .png" in capsys.readouterr().err


@pytest.mark.slow
def test_a_detector_in_torchvisions_format_is_fetched_and_asked(tmp_path: Path) -> None:
    """Torchvision's own network, built in its way with random weights, says the same."""
    torch.manual_seed(0)
    theirs = models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    tensors = {k: v for k, v in theirs.state_dict().items() if "num_batches_tracked" not in k}
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    save_file(tensors, tmp_path / "mine.safetensors")
    fetch("faster-rcnn", tmp_path / "mine.safetensors")
    picture = to_picture(photo(96, 0))
    found = Detector().detect(picture, 0.0)
    with torch.inference_mode():
        (expected,) = theirs([torch.as_tensor(photo(96, 0)[0].mul(255).round() / 255)])
    assert len(found) == len(expected["scores"]) > 0
    assert [thing.score for thing in found] == pytest.approx(expected["scores"].tolist(), abs=1e-4)
