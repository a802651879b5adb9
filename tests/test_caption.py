"""Captions of many pictures: from Python, and by `stylecap caption`."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stylecap
from stylecap.captioning.captioner_file import load_captioner, save_captioner
from stylecap.captioning.drawing import draw_attention
from stylecap.captioning.features import VIEWS, see
from stylecap.captioning.loading import map_ahead
from stylecap.captioning.options import CaptionOptions
from stylecap.cli.main import main
from stylecap.embedded import read_alt_text, write_alt_text
from stylecap.errors import InputError, OptionError
from stylecap.images import load_picture, to_picture
from stylecap.runtime import Runtime
from tests.small import photo, small_backbone, small_captioner

torch.set_num_threads(1)
FAST = ("--device", "cpu", "--precision", "float32", "--quiet")


@pytest.fixture(scope="module")
def captioner_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captioner") / "tiny.safetensors"
    save_captioner(small_captioner(), path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with five pictures, one of them below, one broken, and a file that is none."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for seed, name in enumerate(("b.png", "a.jpg", "below/c.webp", "d.tif")):
        to_picture(photo(96, seed)).save(folder / name)
    (folder / "e.png").write_bytes((folder / "b.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no picture")
    return folder


def captioned(
    capsys: pytest.CaptureFixture[str], captioner_file: Path, *argv: str | Path
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    code = main(["caption", *FAST, "--captioner", str(captioner_file), *map(str, argv)])
    told = capsys.readouterr()
    return code, told.out, told.err


# threads


def test_map_ahead_keeps_the_order_and_its_distance() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    def slow(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    for place, result in enumerate(map_ahead(slow, items(), ahead=4)):
        assert result == place**2
        assert len(taken) <= place + 4


def test_map_ahead_raises_in_place_and_ends_its_threads() -> None:
    before = threading.active_count()
    results = map_ahead(lambda item: 1 // item, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    left = map_ahead(lambda item: item, iter(int, 1), ahead=3)
    assert next(left) == 0
    left.close()
    assert threading.active_count() == before


# Python


def test_many_equal_one_by_one() -> None:
    """In any batch, of pictures of any kind, in the order given."""
    images = [photo(48 + 16 * seed, seed) for seed in range(5)]
    given = [to_picture(image) if place % 2 else image for place, image in enumerate(images)]
    captioner, backbone = small_captioner(), small_backbone()
    single = [stylecap.caption(g, captioner=captioner, backbone=backbone).text for g in given]
    assert len(set(single)) > 1
    for batch in (1, 2, 8):
        found = list(
            stylecap.caption_many(given, captioner=captioner, backbone=backbone, batch=batch)
        )
        assert all(source is g for (source, _), g in zip(found, given, strict=True))
        assert [caption.text for _, caption in found] == single


def test_an_unreadable_picture_stands_in_its_place(pictures: Path) -> None:
    given = [pictures / "e.png", pictures / "a.jpg", pictures / "nowhere.png", pictures / "b.png"]
    kinds = [
        type(found)
        for _, found in stylecap.caption_many(
            given, captioner=small_captioner(), backbone=small_backbone(), batch=2
        )
    ]
    assert kinds == [InputError, stylecap.Caption, InputError, stylecap.Caption]
    with pytest.raises(InputError, match=r"e\.png"):
        stylecap.caption(given[0], captioner=small_captioner(), backbone=small_backbone())


def test_what_is_wrong_with_all_is_said_at_once() -> None:
    captioner, backbone = small_captioner(), small_backbone()
    with pytest.raises(OptionError, match="zebra"):
        stylecap.caption_many(
            [], CaptionOptions(prefix="a zebra"), captioner=captioner, backbone=backbone
        )
    with pytest.raises(OptionError, match="batch"):
        stylecap.caption_many([], captioner=captioner, backbone=backbone, batch=0)
    other: Any = SimpleNamespace(name="vgg16")
    with pytest.raises(InputError, match="trained on alexnet, got vgg16"):
        stylecap.caption_many([], captioner=captioner, backbone=other)


def test_a_stop_ends_after_a_whole_batch() -> None:
    asked = iter([False, True])
    found = stylecap.caption_many(
        (photo(64, seed) for seed in range(9)),
        captioner=small_captioner(),
        backbone=small_backbone(),
        batch=3,
        should_stop=lambda: next(asked),
    )
    assert len(list(found)) == 3


def test_prefix_begins_every_caption() -> None:
    found = stylecap.caption(
        photo(64, 1),
        CaptionOptions(prefix="the red dog"),
        captioner=small_captioner(),
        backbone=small_backbone(),
    )
    assert all(text.startswith("the red dog") for text, _ in found.alternatives)


# seeing


def test_a_photo_is_squashed_as_the_training_pictures_were() -> None:
    """Whatever its shape, transparency over white; a picture of that size is left alone."""
    view = VIEWS["alexnet"]
    wide = to_picture(photo(300, 0)).resize((300, 200))
    squashed = np.asarray(wide.resize((224, 224), Image.Resampling.LANCZOS), np.float32) / 255
    seen = see(wide, view)
    assert seen.shape == (1, 3, 224, 224)
    assert np.array_equal(seen[0].permute(1, 2, 0).numpy(), squashed)
    exact = to_picture(photo(224, 1))
    assert np.array_equal(see(exact, view)[0].permute(1, 2, 0).numpy() * 255, np.asarray(exact))
    clear = wide.copy()
    clear.putalpha(0)
    assert (see(clear, view) == 1).all()
    palette = Image.new("P", (9, 9))
    palette.info["transparency"] = 0
    assert (see(palette, view) == 1).all()


# the command


def test_a_folder_line_by_line(
    pictures: Path, captioner_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = captioned(capsys, captioner_file, pictures)
    lines = [line.split("\t") for line in out.splitlines()]
    names = ["a.jpg", "b.png", "below/c.webp", "d.tif"]
    assert [line[0] for line in lines] == [str(pictures / name) for name in names]
    assert all(line[1] for line in lines)
    assert code == 3 and err.count("\n") == 1 and "e.png: damaged" in err


def test_json_lines_in_the_order_given(
    pictures: Path, captioner_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [pictures / "d.tif", pictures / "e.png", "nowhere.png", pictures / "*.jpg"]
    (pictures / "empty").mkdir()
    code, out, err = captioned(capsys, captioner_file, *given, pictures / "empty", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 3 and err == ""
    assert [Path(each["path"]).name for each in told] == [
        "d.tif", "e.png", "nowhere.png", "a.jpg", "empty",
    ]  # fmt: skip
    for each in told:
        if "error" in each:
            assert set(each) == {"path", "error"} and each["error"]
            continue
        assert set(each) == {"path", "caption", "log_prob", "words", "alternatives"}
        assert " ".join(word["word"] for word in each["words"]) == each["caption"]
        assert all(0 < word["prob"] <= 1 for word in each["words"])
        best, *others = each["alternatives"]
        assert best == {"caption": each["caption"], "log_prob": each["log_prob"]}
        assert len(others) == 4 and all(other["log_prob"] < 0 for other in others)
    assert ["error" in each for each in told] == [False, True, True, False, True]


def test_exit_codes(
    pictures: Path, captioner_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(pictures / "a.jpg")
    assert captioned(capsys, captioner_file, good)[0] == 0
    assert captioned(capsys, captioner_file, pictures / "e.png", "nowhere.png")[0] == 1
    assert captioned(capsys, captioner_file, good, "--prefix", "zebra")[0] == 2
    assert captioned(capsys, captioner_file, good, "--backbone", "vgg16")[0] == 2
    assert captioned(capsys, captioner_file, good, "--beam", "0")[0] == 2
    assert captioned(capsys, captioner_file, good, "--precision", "half")[0] == 2
    assert captioned(capsys, Path(good), good)[0] == 1
    assert captioned(capsys, pictures / "none.safetensors", good)[0] == 1


def test_a_table_as_csv(
    pictures: Path, captioner_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = captioned(capsys, captioner_file, pictures, "--csv", tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert code == 3 and len(rows) == 5
    assert [f"{row['path']}\t{row['caption']}" for row in rows if row["caption"]] == (
        out.splitlines()
    )
    assert [bool(row["error"]) for row in rows] == [False, False, False, False, True]
    refused, _, err = captioned(capsys, captioner_file, pictures, "--csv", tmp_path / "no" / "x")
    assert refused == 1 and "no/x" in err


def test_attention_is_drawn(
    pictures: Path, captioner_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, target = pictures / "a.jpg", tmp_path / "looked.png"
    assert captioned(capsys, captioner_file, picture, "--attention", target)[0] == 0
    assert load_picture(target).width > 224
    code, _, err = captioned(capsys, captioner_file, pictures, "--attention", target)
    assert code == 2 and "one PATH" in err
    code, _, err = captioned(capsys, captioner_file, picture, "--attention", picture)
    assert code == 2 and "name another" in err
    before = picture.read_bytes()
    assert captioned(capsys, captioner_file, pictures, "--csv", picture)[0] == 2
    assert picture.read_bytes() == before


def test_attention_is_brightest_where_it_looked() -> None:
    white = Image.new("RGB", (224, 112), "white")
    found = stylecap.caption(photo(64, 0), captioner=small_captioner(), backbone=small_backbone())
    word = found.words[0]
    attention = torch.zeros(6, 6)
    attention[1, 4] = 0.8
    looked = stylecap.CaptionWord(word.word, word.prob, attention, word.alternatives)
    sheet = draw_attention(white, stylecap.Caption("a", -1.0, (looked,), ()), tile_px=224)
    tile = np.asarray(sheet)[52:164, 252:476].mean(-1)
    y, x = np.unravel_index(tile.argmax(), tile.shape)
    assert (y * 6 // 112, x * 6 // 224) == (1, 4)
    assert tile[90, 20] < 80
    blind = small_captioner(kind="plain")
    once = stylecap.caption(photo(64, 0), captioner=blind, backbone=small_backbone())
    with pytest.raises(InputError, match="only once"):
        draw_attention(white, once)


def test_alt_text_leaves_the_pixels_alone(
    pictures: Path, captioner_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [pictures / name for name in ("a.jpg", "b.png", "below/c.webp", "d.tif")]
    before = [np.asarray(load_picture(path)) for path in paths]
    untouched = [path.read_bytes() for path in paths]
    captioned(capsys, captioner_file, *paths)
    assert [path.read_bytes() for path in paths] == untouched
    code, out, _ = captioned(capsys, captioner_file, *paths, "--write-alt-text")
    assert code == 0
    for path, pixels, line in zip(paths, before, out.splitlines(), strict=True):
        assert np.array_equal(np.asarray(load_picture(path)), pixels)
        with Image.open(path) as picture:
            stored = picture.info.get("Description") or picture.getexif().get(270)
        assert stored == line.split("\t")[1]


def test_a_description_by_hand_stays(
    pictures: Path, captioner_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pictures / "a.jpg"
    write_alt_text(path, "Oma im Garten")
    argv = ["caption", *FAST[:-1], "--captioner", captioner_file, path, "--write-alt-text"]
    assert main([*map(str, argv)]) == 0
    assert read_alt_text(path) == "Oma im Garten"
    told = capsys.readouterr().err
    assert "keeps its description, 'Oma im Garten'; --replace-alt-text replaces it" in told
    code, out, _ = captioned(capsys, captioner_file, path, "--replace-alt-text")
    assert code == 0 and read_alt_text(path) == out.strip().split("\t")[1]


def test_alt_text_that_has_no_place_fails_alone(
    pictures: Path, captioner_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to_picture(photo(64, 9)).save(pictures / "old.bmp")
    given = [pictures / "old.bmp", pictures / "a.jpg"]
    code, out, err = captioned(capsys, captioner_file, *given, "--write-alt-text")
    assert code == 3 and out.count("\n") == 2 and "old.bmp" in err


def test_names_with_line_breaks_stay_on_their_line(
    pictures: Path, captioner_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = pictures / "two\nlines\tand\x1b[31m.png"
    shutil.copy(pictures / "b.png", odd)
    _, out, _ = captioned(capsys, captioner_file, odd)
    assert out.count("\n") == 1 and out.count("\t") == 1 and "\x1b" not in out
    _, out, _ = captioned(capsys, captioner_file, odd, "--json")
    assert json.loads(out)["path"] == str(odd)


def test_interrupted_keeps_what_was_printed(
    pictures: Path, captioner_file: Path, tmp_path: Path
) -> None:
    """Ctrl-C after the first line: whole lines only, then 130."""
    for copy in range(1500):
        os.link(pictures / "b.png", pictures / f"copy{copy:04}.png")
    command = [
        *(sys.executable, "-m", "stylecap", "caption", str(pictures), "--json"),
        *("--captioner", str(captioner_file), "--device", "cpu", "--precision", "float32"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = tmp_path / "told.jsonl"
    with open(told, "w") as stdout:
        running = subprocess.Popen(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment
        )
        while not told.read_text() and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    assert running.returncode == 130
    assert 0 < len(lines) < 1000 and len(lines) % 16 == 0
    assert "what was printed is kept" in err


def test_a_captioner_is_the_same_after_saving(captioner_file: Path, tmp_path: Path) -> None:
    """Up to the rounding of weights to 127 steps a row, which does not happen twice."""
    loaded = load_captioner(captioner_file, runtime=Runtime("cpu", "float32", 1))
    image = loaded.see(to_picture(photo(80, 3)))
    features = loaded.features(small_backbone(), image)
    sentences = [["a", "dog", "runs"], ["cat"], ["the", "red", "ball", "sits"]]
    first, second = (c.read(features, sentences) for c in (small_captioner(), loaded))
    torch.testing.assert_close(first, second, atol=0.0, rtol=0.1)  # nothing was learned: worst
    save_captioner(loaded, tmp_path / "again.safetensors")
    again = load_captioner(tmp_path / "again.safetensors", runtime=loaded.runtime)
    torch.testing.assert_close(again.read(features, sentences), second)
