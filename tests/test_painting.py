"""`stylecap.stylize` and its friends: what goes in, what comes out, what is written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import stylecap
from stylecap import painting
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.features import View
from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.vocabulary import SPECIALS, Vocabulary
from stylecap.embedded import read_embedded
from stylecap.errors import DeviceError, InputError, OptionError, RecordError
from stylecap.files import file_sha256
from stylecap.images import load_picture, to_image, to_picture
from stylecap.inputs import inputs_from_record
from stylecap.painting import StyleResult, mix_styles, stylize
from stylecap.progress import Progress
from stylecap.record import RunRecord
from stylecap.studio.quality import Judge
from stylecap.style.options import StyleOptions

from .small import photo, small_backbone


def tiny(**changes: Any) -> StyleOptions:
    return StyleOptions(**{"backbone": "alexnet", "size": 64, "steps": 4, "scales": 1, **changes})


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    return to_picture(photo(max(width, height), seed)).crop((0, 0, width, height))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("content", "style", "other")):
        picture(seed).save(tmp_path / f"{name}.png")
    mask = Image.new("RGB", (64, 48), "white")
    mask.paste("black", (32, 0, 64, 48))
    mask.save(tmp_path / "mask.png")
    return tmp_path


def painted(content: Any, style: Any, **given: Any) -> StyleResult:
    changes = given.pop("options", {})
    return stylize(content, style, tiny(**changes), backbone=small_backbone(), **given)


@pytest.mark.parametrize(
    "form",
    [str, Path, Image.open, load_picture, lambda path: to_image(load_picture(path))],
    ids=["text", "path", "opened picture", "picture", "tensor"],
)
def test_paths_pictures_and_tensors_give_the_same(folder: Path, form: Callable[[Any], Any]) -> None:
    expected = painted(folder / "content.png", folder / "style.png")
    found = painted(form(folder / "content.png"), form(folder / "style.png"))
    assert torch.equal(found.image, expected.image)
    assert found.image.shape == (1, 3, 48, 64)
    assert found.loss == expected.loss


def test_one_style_alone_equals_a_list_of_it(folder: Path) -> None:
    paths = [folder / "content.png", folder / "style.png"]
    alone, listed = painted(paths[0], paths[1]), painted(paths[0], [paths[1]])
    assert torch.equal(alone.image, listed.image)


def test_a_result_says_what_it_is(folder: Path) -> None:
    result = painted(folder / "content.png", folder / "style.png", options={"seed": 3})
    assert (result.device, result.precision, result.options.seed) == ("cpu", "float32", 3)
    assert (result.steps, result.stopped, result.messages) == (4, False, ())
    assert result.seconds > 0
    assert list(result.loss) == ["content", "style", "tv", "total"]
    assert list(result.loss["style"]) == list(result.options.resolved_style_layers)
    assert result.image.dtype == torch.float32
    assert 0 <= result.image.min() < result.image.max() <= 1
    assert result.picture.mode == "RGB" and result.picture.size == (64, 48)


def test_transparency_is_set_aside_and_put_back(folder: Path) -> None:
    content = load_picture(folder / "content.png")
    content.putalpha(Image.linear_gradient("L").resize(content.size))
    result = painted(content, folder / "style.png", options={"size": 48})
    assert result.alpha is not None and result.picture.mode == "RGBA"
    path = result.save(folder / "o.png")
    with Image.open(path) as saved:
        shown = saved.getchannel("A")
        assert saved.size == shown.size == (48, 36)
        assert shown.getpixel((16, 0)) < 20 and shown.getpixel((16, 35)) > 235


def test_larger_and_smaller_than_the_content(folder: Path) -> None:
    for size, expected in ((96, (72, 96)), (48, (36, 48))):
        result = painted(folder / "content.png", folder / "style.png", options={"size": size})
        assert tuple(result.image.shape[-2:]) == expected


def test_a_stop_is_a_normal_return(folder: Path) -> None:
    seen: list[Progress] = []
    result = painted(
        folder / "content.png",
        folder / "style.png",
        options={"steps": 50},
        on_progress=seen.append,
        should_stop=lambda: len(seen) == 3,
    )
    assert result.stopped and result.steps == 3 and len(seen) == 3
    assert [event.step for event in seen] == [1, 2, 3] and seen[0].steps == 50
    assert result.record.result["stopped"] is True
    again = painted(folder / "content.png", folder / "style.png", should_stop=lambda: True)
    assert again.stopped and again.steps == 0
    content = to_image(load_picture(folder / "content.png"))
    torch.testing.assert_close(again.image, content, atol=1e-6, rtol=0)


def test_the_record_holds_names_and_hashes_but_no_path(folder: Path) -> None:
    result = painted(folder / "content.png", ["mosaic", folder / "style.png"])
    inputs = [(entry.role, entry.name, entry.sha256) for entry in result.record.inputs]
    assert inputs == [
        ("content", "content.png", file_sha256(folder / "content.png")),
        ("style", "builtin:mosaic", ""),
        ("style", "style.png", file_sha256(folder / "style.png")),
    ]
    assert result.record.kind == "stylize"
    assert result.record.options["device"] == "cpu"
    assert result.record.options["precision"] == "float32"
    assert result.record.threads == 1
    assert set(result.record.versions) == {"stylecap", "torch", "python"}
    for name in ("o.png", "o.jpg", "o.webp"):
        text = read_embedded(result.save(folder / name))
        assert text is not None and RunRecord.from_json(text) == result.record
        assert str(folder) not in text and "/" not in text
    assert json.loads(result.record.to_json())["options"]["steps"] == 4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"init": "noise", "seed": 5},
        {"color": "keep-luminance", "optimizer": "adam"},
        {"color": "match", "objective": "gatys", "pooling": "average", "tv_weight": 0.1},
        {"layer_weights": (1, 2), "style_layers": ("relu1", "relu2"), "strength": 0.5},
    ],
)
def test_a_record_repeats_its_run_bit_for_bit(folder: Path, changes: dict[str, Any]) -> None:
    first = painted(folder / "content.png", "mosaic", options=changes)
    text = read_embedded(first.save(folder / "first.png"))
    assert text is not None
    record = RunRecord.from_json(text)
    options = StyleOptions(**record.options)
    assert options == first.options
    again = stylize(
        **inputs_from_record(record, beside=folder), options=options, backbone=small_backbone()
    )
    assert torch.equal(again.image, first.image)
    assert again.record.options == record.options and again.record.inputs == record.inputs


def test_a_record_brings_back_mask_and_start(folder: Path) -> None:
    first = painted(
        folder / "content.png",
        [folder / "style.png", folder / "other.png"],
        init_image=folder / "other.png",
        mask=folder / "mask.png",
        mask_colors=("#000000", "#ffffff"),
    )
    assert first.options.init == "image"
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    for name in ("content", "style", "other", "mask"):
        (folder / f"{name}.png").rename(elsewhere / f"renamed-{name}.png")
    record = first.record
    recorded = dict(record.options)
    assert recorded.pop("mask_colors") == ["#000000", "#ffffff"]
    inputs = inputs_from_record(record, given=sorted(elsewhere.iterdir()), beside=folder)
    assert inputs["mask"].name == "renamed-mask.png"
    again = stylize(**inputs, options=StyleOptions(**recorded), backbone=small_backbone())
    assert torch.equal(again.image, first.image)
    with pytest.raises(RecordError) as refusal:
        inputs_from_record(record, beside=folder)
    for role in ("content content.png", "style style.png", "init other.png", "mask mask.png"):
        assert role in str(refusal.value)


def test_a_changed_input_is_not_taken(folder: Path) -> None:
    record = painted(folder / "content.png", folder / "style.png").record
    picture(9).save(folder / "style.png")
    with pytest.raises(RecordError, match=r"cannot find style style\.png \(sha256 [0-9a-f]{16}"):
        inputs_from_record(record, beside=folder)


def test_pictures_from_memory_are_written_down_by_hash(folder: Path) -> None:
    first, same, other = (painted(picture(seed), picture(7)).record.inputs for seed in (1, 1, 2))
    assert first == same
    assert first[0].name == "picture" and first[0].sha256 != other[0].sha256
    assert first[1] == other[1]


def test_each_mask_colour_has_the_style_in_its_place(folder: Path) -> None:
    one, two = folder / "style.png", "mosaic"

    def by(styles: list[Any], *colors: str) -> torch.Tensor:
        mask = folder / "mask.png"
        return painted(folder / "content.png", styles, mask=mask, mask_colors=colors).image

    usual = by([one, two])  # white, black
    torch.testing.assert_close(usual, by([one, two], "#ffffff", "#000000"))
    torch.testing.assert_close(usual, by([two, one], "#000000", "#ffffff"), atol=1e-3, rtol=0)
    torch.testing.assert_close(usual, by([one, two], "#FFEEEE", "221111"))  # the nearest colour
    assert (usual - by([two, one])).abs().mean() > 0.01


def test_mixed_styles_are_an_image_that_paints(folder: Path) -> None:
    mixed = mix_styles(
        folder / "style.png", folder / "other.png", tiny(), backbone=small_backbone()
    )
    assert mixed.shape == (1, 3, 48, 64)
    assert painted(folder / "content.png", mixed).image.isfinite().all()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"style": "van-gogh"}, InputError, "'van-gogh' is neither a file nor a built-in style"),
        ({"style": []}, OptionError, "style: expected at least one"),
        ({"content": "none.png"}, InputError, r"none\.png"),
        (
            {"content": torch.zeros(2, 3, 64, 64)},
            InputError,
            r"content image: expected \(1, 3, H, W",
        ),
        ({"style": torch.full((1, 3, 64, 64), torch.nan)}, InputError, "style image: .* finite"),
        ({"options": {"init": "image"}}, OptionError, "belong together"),
        ({"mask": "mask.png", "mask_colors": ("red",)}, OptionError, "a colour such as #ff8800"),
        ({"mask": "mask.png"}, OptionError, "1 styles and 2 colours"),
        ({"options": {"backbone": "vgg16"}}, OptionError, "vgg16, but alexnet was given"),
    ],
)
def test_refusals(
    folder: Path,
    given: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=message):
        painted(**{"content": "content.png", "style": "style.png", **given})


def test_too_little_memory_is_said_with_a_smaller_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(painting, "transfer_together", full)
    with pytest.raises(DeviceError, match="out of memory on cpu at --size 64; choose a smaller"):
        painted(folder / "content.png", folder / "style.png")


def test_a_painting_is_kept_where_it_cannot_be_judged(folder: Path) -> None:
    class Failing(Judge):
        def __init__(self) -> None: ...

        def __call__(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("too small")

    content, style = folder / "content.png", folder / "style.png"
    result = painted(content, style, judge=Failing())
    assert result.card is None and "card" not in result.record.result
    assert "not judged: too small" in result.messages
    result = painted(content, style, judge=Failing(), should_stop=lambda: True)
    assert "not judged: it was stopped before its end" in result.messages


def small_captioner() -> Captioner:
    """Random weights; it says something all the same."""
    torch.manual_seed(0)
    words = [*SPECIALS, "a", "cat", "dog", "on", "the", "grass", "runs"]
    shape = DecoderShape(len(words), 256, 9, units=16, heads=2)
    return Captioner([CaptionDecoder(shape)], Vocabulary(words), View("alexnet", ("relu5",), 3, 96))


def test_one_backbone_loaded_once_serves_painting_and_caption(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sentence of what this program is for."""
    loaded: list[str] = []
    monkeypatch.setattr(painting, "load_backbone", lambda name, **_: loaded.append(name))
    backbone, captioner = small_backbone(), small_captioner()
    served: list[int] = []
    compute = type(backbone).compute

    def watched(self: Any, layer: Any, x: torch.Tensor, **given: Any) -> Any:
        assert self is backbone
        if layer.name == "conv1":
            served.append(max(x.shape[2:]))
        return compute(self, layer, x, **given)

    monkeypatch.setattr(type(backbone), "compute", watched)
    before = {name: kernel.clone() for name, (kernel, _) in backbone._kernels.items()}
    described = stylecap.caption(folder / "content.png", captioner=captioner, backbone=backbone)
    result = painted(folder / "content.png", folder / "style.png")
    again = stylecap.caption(folder / "content.png", captioner=captioner, backbone=backbone)
    assert loaded == []
    assert served[0] == served[-1] == 96  # the captioner's pictures
    assert max(result.image.shape[2:]) == 64
    assert served.count(64) > 4  # the steps
    assert result.steps == 4
    assert described.text == again.text and described.log_prob == again.log_prob
    assert described.log_prob < 0 and described.words
    assert all(torch.equal(backbone._kernels[name][0], before[name]) for name in before)
