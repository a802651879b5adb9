from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from stylecap.backbone import Backbone, load_backbone
from stylecap.batch import BatchOptions, Job, run, write_report
from stylecap.batch.report import CARD
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.features import View
from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.vocabulary import SPECIALS, Vocabulary
from stylecap.cli.main import main
from stylecap.cli.show_record import record_of
from stylecap.errors import InputError, OptionError
from stylecap.images import save_picture, to_picture
from stylecap.runtime import Runtime
from stylecap.studio.quality import (
    caption_drift,
    color_distance,
    judge_of,
    load_judge,
    lpips,
    quality_card,
    style_reached,
    to_lab,
)
from stylecap.style.options import StyleOptions

from .small import photo, small_backbone

torch.set_num_threads(1)


def waves(phase: float) -> Tensor:
    """(1, 3, 80, 96), smooth, the same on every machine."""
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(96.0), indexing="ij")
    channels = [
        0.5 + 0.5 * torch.sin(x / (3 + c) + y * (c + 1) / 17 + phase * (c + 1)) for c in range(3)
    ]
    return torch.stack(channels)[None]


@pytest.fixture(scope="module")
def alexnet() -> Backbone:
    return load_judge("vgg16")


@pytest.mark.real_weights
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", (0.035134781152009964, 0.14755430817604065)),
        ("vgg16", (0.14200645685195923, 0.556016206741333)),
    ],
)
def test_lpips_agrees_with_the_lpips_package(name: str, expected: tuple[float, ...]) -> None:
    """Of PyPI's lpips 0.1.4: its code and heads, with our convolutions put into its trunk.

    LPIPS(net=..., pnet_rand=True), slices' weights from weights/*.safetensors in float32, then
    metric(waves(0), waves(p), normalize=True) for p = 0.3 and 1.
    """
    judge = load_backbone(name, runtime=Runtime("cpu", "float32", 1))
    for phase, figure in zip((0.3, 1.0), expected, strict=True):
        assert lpips(judge, waves(0), waves(phase)) == pytest.approx(figure, abs=1e-5)


@pytest.mark.real_weights
def test_lpips_is_a_distance(alexnet: Backbone) -> None:
    one, other = photo(72, 1), photo(72, 2)
    assert lpips(alexnet, one, one) == 0
    assert lpips(alexnet, one, other) == pytest.approx(lpips(alexnet, other, one), rel=1e-5)
    assert 0 < lpips(alexnet, one, (one + 0.05).clamp(0, 1)) < lpips(alexnet, one, other)
    with pytest.raises(ValueError, match="equal shapes"):
        lpips(alexnet, one, photo(80, 1))
    with pytest.raises(InputError, match="larger size"):
        lpips(alexnet, photo(24, 1), photo(24, 1))


def test_another_network_judges() -> None:
    assert (judge_of("vgg16"), judge_of("vgg19"), judge_of("alexnet")) == (
        "alexnet",
        "alexnet",
        "vgg16",
    )
    with pytest.raises(OptionError, match="heads for alexnet, vgg16"):
        lpips(_named("vgg19"), photo(64, 1), photo(64, 2))


def _named(name: str) -> Any:
    class Named:
        pass

    named = Named()
    named.name = name
    return named


def test_style_is_reached_by_the_style_and_not_by_the_content() -> None:
    judge = small_backbone()
    content, style = photo(72, 1), 1 - photo(72, 5)
    nothing = style_reached(judge, content, content, style)
    all_of_it = style_reached(judge, style, content, style)
    between = style_reached(judge, (content + style) / 2, content, style)
    assert list(nothing) == ["relu1", "relu2", "relu3", "relu4", "relu5"]
    for layer in nothing:
        assert nothing[layer] == pytest.approx(0, abs=1e-6)
        assert all_of_it[layer] == pytest.approx(1, abs=1e-6)
    assert 0 < between["relu1"] < 1


def test_lab_of_known_colours() -> None:
    """sRGB red, green, blue and white in CIELAB (D65), from the CIE's formulas."""
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]])
    lab = to_lab(colors.T.reshape(1, 3, 1, 5))[0, :, 0].T
    expected = torch.tensor(
        [
            [53.24, 80.09, 67.20],
            [87.73, -86.18, 83.18],
            [32.30, 79.19, -107.86],
            [100, 0, 0],
            [0, 0, 0],
        ]
    )
    assert torch.allclose(lab, expected, atol=0.02)


def test_colour_distance_of_flat_colours_is_their_distance() -> None:
    red, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 4, 4)
    red[:, 0] = 1
    by_hand = ((53.24 - 100) ** 2 + 80.09**2 + 67.20**2) ** 0.5
    assert color_distance(red, white) == pytest.approx(by_hand, abs=0.05)
    one = photo(40, 3)
    shuffled = one.flatten(2)[:, :, torch.randperm(1600)].view_as(one)
    assert color_distance(one, shuffled) == pytest.approx(0, abs=1e-3)
    assert color_distance(one, white) == pytest.approx(color_distance(white, one), rel=1e-6)


@pytest.mark.real_weights
def test_the_card_sees_what_was_done(alexnet: Backbone) -> None:
    content, style = to_picture(photo(96, 1)), to_picture(waves(0.5))
    same = quality_card(content, content, style, alexnet)
    assert same.content_lpips == 0 and same.color_to_content == pytest.approx(0, abs=1e-3)
    assert same.style == pytest.approx(0, abs=1e-6)
    assert same.border == pytest.approx(1) and same.clipped == 0 and same.caption is None
    noisy = photo(96, 1) + 0.3 * torch.randn(1, 3, 96, 96, generator=torch.Generator())
    noisy[..., :2] = torch.rand(1, 3, 96, 2, generator=torch.Generator().manual_seed(1))
    spoilt = quality_card(content, to_picture(noisy), style, alexnet)
    assert spoilt.content_lpips > 0.1
    assert spoilt.roughness > 2 > same.roughness
    assert spoilt.clipped > 0.05
    framed = photo(96, 1)
    framed[..., :3] = torch.rand(1, 3, 96, 3, generator=torch.Generator().manual_seed(1))
    assert quality_card(content, to_picture(framed), style, alexnet).border > 1.5
    margin = torch.nn.functional.pad(photo(80, 1), (8, 8, 8, 8), value=1.0)  # nothing happens in it
    grain = margin + 0.01 * torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    assert quality_card(to_picture(margin), to_picture(grain), style, alexnet).border < 2


def captioner() -> Captioner:
    torch.manual_seed(0)
    words = Vocabulary([*SPECIALS, "a", "cat", "dog", "sleeps"])
    view = View("alexnet", ("relu2",), 2, 64)
    shape = DecoderShape(len(words), 192, 4, units=16, heads=2)
    return Captioner([CaptionDecoder(shape)], words, view)


def test_captions_do_not_drift_from_the_same_picture() -> None:
    content, other = to_picture(photo(64, 1)), to_picture(1 - photo(64, 9))
    same = caption_drift(content, content, captioner(), small_backbone())
    assert same.content == same.result and same.nats_per_word == pytest.approx(0, abs=1e-6)
    drift = caption_drift(content, other, captioner(), small_backbone())
    assert drift.content == same.content and abs(drift.nats_per_word) > 1e-4


@pytest.mark.real_weights
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(tmp_path / f"{name}.png") for name in ("content", "result")]
    style = str(tmp_path / "style.png")
    save_picture(to_picture(photo(80, 1)), paths[0])
    save_picture(to_picture(photo(72, 2)), paths[1])
    save_picture(to_picture(waves(0)), style)
    assert main(["quality", *paths, style, "--no-caption"]) == 0
    printed = capsys.readouterr()
    assert "LPIPS 0." in printed.out and "alexnet" in printed.out
    assert "holds no record" in printed.err
    assert main(["quality", *paths, style, "--no-caption", "--json", "--painter", "vgg19"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["judge"] == "alexnet" and set(card["style_reached"]) >= {"relu1", "relu5"}
    assert card["style"] == pytest.approx(sum(card["style_reached"].values()) / 5)
    assert main(["quality", *paths, "nothing"]) == 1
    assert "neither a file nor a built-in style" in capsys.readouterr().err
    assert main(["quality", *paths, style, "--painter", "resnet"]) == 2
    Image.new("RGB", (20, 20)).save(paths[1])
    assert main(["quality", *paths, style, "--no-caption"]) == 1
    assert "larger size" in capsys.readouterr().err


@pytest.mark.real_weights
def test_a_painting_carries_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The card of the record is that of the files, up to their 8 bits; others have none."""
    photo, style, out = (tmp_path / name for name in ("photo.png", "style.png", "out.png"))
    save_picture(to_picture(waves(0.0)), photo)
    save_picture(to_picture(waves(2.0)), style)
    argv = ["stylize", str(photo), str(style), "-o", str(out), "--backbone", "alexnet"]
    argv += ["--size", "96", "--steps", "3", "--scales", "1", "--precision", "float32", "--quiet"]
    assert main([*argv, "--card", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["card"]
    record = record_of(out)
    assert record.result["card"] == told and told["judge"] == "vgg16"
    assert main(["quality", str(photo), str(out), str(style), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["content_lpips"] == pytest.approx(told["content_lpips"], rel=1e-3)
    assert again["style_reached"] == pytest.approx(told["style_reached"], abs=1e-3)
    assert again["caption"]["result"] == told["caption"]["result"]
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"] is None
    assert "card" not in record_of(out).result
    assert main([*argv[:2], str(photo), *argv[2:], "--card"]) == 2
    assert "--card judges paintings of a single style" in capsys.readouterr().err


@pytest.mark.real_weights
def test_a_batch_judges_what_it_can(tmp_path: Path) -> None:
    """One job of one style, one of two: the report has the first one's figures."""
    for number in range(3):
        save_picture(to_picture(waves(number)), tmp_path / f"{number}.png")
    options = StyleOptions(backbone="alexnet", size=64, steps=2, scales=1, precision="float32")
    names = [str(tmp_path / f"{number}.png") for number in range(3)]
    jobs = [
        Job(names[0], tuple(names[1:2]), options, "one.png"),
        Job(names[0], tuple(names[1:]), options, "two.png"),
    ]
    notes: list[str] = []
    out = tmp_path / "out"
    one, two = run(
        jobs, out, BatchOptions(card=True), on_event=lambda event: notes.append(event.message)
    )
    assert one.card["content_lpips"] > 0 and set(one.card) == set(CARD)
    assert two.card == {} and any("not judged" in note for note in notes)
    page, table = write_report(out)
    with table.open(newline="") as lines:
        rows = {row["output"]: row for row in csv.DictReader(lines)}
    assert float(rows["one.png"]["content_lpips"]) == one.card["content_lpips"]
    assert rows["two.png"]["style"] == ""
    assert page.read_text().count("<button type=button>") == 3 + len(CARD)
    (kept, _) = run(jobs, out, BatchOptions(card=True))
    assert kept.status == "kept" and kept.card == one.card
