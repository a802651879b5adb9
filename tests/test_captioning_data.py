"""Captions in the forms people have them, and the features of their pictures on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stylecap.backbone import Backbone
from stylecap.captioning import features
from stylecap.captioning.data import (
    CaptionedPicture,
    check_pictures,
    halves,
    read_all,
    read_captions,
)
from stylecap.captioning.features import VIEWS, FeatureCache, grid_features, see
from stylecap.errors import InputError
from stylecap.images import load_picture, to_picture
from stylecap.progress import Progress
from tests.small import photo, small_backbone

torch.set_num_threads(1)


def told(read: list[CaptionedPicture]) -> list[tuple[str, str, list[str]]]:
    """Name, split and captions of each picture."""
    return [(each.path.name, each.split, [" ".join(c) for c in each.captions]) for each in read]


EXPECTED = [
    ("one.jpg", "train", ["a dog runs", "the dog 's ball"]),
    ("two.jpg", "dev", ["two men sit"]),
]


def flickr8k(folder: Path) -> Path:
    (folder / "Images").mkdir()
    (folder / "Flickr8k.token.txt").write_text(
        "one.jpg#0\tA dog runs .\none.jpg#1\tThe dog 's ball !\n\ntwo.jpg#0\tTwo men sit .\n"
        "three.jpg#0\tIn no list .\n"
    )
    (folder / "Flickr_8k.trainImages.txt").write_text("one.jpg\n")
    (folder / "Flickr_8k.devImages.txt").write_text("two.jpg\r\n")
    return folder


def karpathy(folder: Path) -> Path:
    images = [
        {"filename": "one.jpg", "split": "restval",
         "sentences": [{"raw": "A dog runs."}, {"raw": "The dog's ball"}]},
        {"filename": "two.jpg", "split": "val", "sentences": [{"raw": "Two men sit"}]},
        {"filename": "mute.jpg", "split": "test", "sentences": []},
    ]  # fmt: skip
    path = folder / "dataset_own.json"
    path.write_text(json.dumps({"images": images}))
    return path


def coco(folder: Path) -> list[Path]:
    """Two files, as published, each with its folder of pictures one level up."""
    (folder / "annotations").mkdir()
    parts = {
        "train2014": ("one.jpg", ["A dog runs.", "The dog's ball"]),
        "val2014": ("two.jpg", ["Two men sit"]),
    }
    paths = []
    for name, (file, captions) in parts.items():
        (folder / name).mkdir()
        content = {
            "images": [{"id": 7, "file_name": file}, {"id": 8, "file_name": "mute.jpg"}],
            "annotations": [{"image_id": 7, "caption": caption} for caption in captions],
        }
        paths.append(folder / "annotations" / f"captions_{name}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


def table(folder: Path) -> Path:
    path = folder / "captions.csv"
    path.write_bytes(
        b"\xef\xbb\xbfcaption,picture,split,by\r\n"
        b'"A dog, runs",one.jpg,train,me\r\n"The\ndog\'s ball",one.jpg,Train,me\r\n'
        b"Two men sit,two.jpg,val,you\r\n"
    )
    return path


@pytest.mark.parametrize("form", [flickr8k, karpathy, coco, table])
def test_four_forms_give_the_same(form: Any, tmp_path: Path) -> None:
    assert told(read_all(form(tmp_path))) == EXPECTED


def test_pictures_are_found_where_each_form_keeps_them(tmp_path: Path) -> None:
    read = read_all(flickr8k(tmp_path))
    assert read[0].path == tmp_path / "Images" / "one.jpg"
    assert read_captions(table(tmp_path))[0].path == tmp_path / "one.jpg"
    elsewhere = tmp_path / "elsewhere"
    assert read_captions(table(tmp_path), elsewhere)[0].path == elsewhere / "one.jpg"
    sources, given = coco(tmp_path), tmp_path / "small"
    assert read_all(sources)[1].path == tmp_path / "val2014" / "two.jpg"
    assert read_captions(sources[0], given)[0].path.parent == given


def test_the_split_of_coco_is_a_word_of_the_name(tmp_path: Path) -> None:
    (source, *_) = coco(tmp_path)
    for name, split in (
        ("Captions_Val2014", "dev"),
        ("captions_train2014", "train"),
        ("retrieval", "train"),
        ("latest", "train"),
    ):
        named = source.with_name(f"{name}.json")
        named.write_bytes(source.read_bytes())
        assert {each.split for each in read_captions(named)} == {split}, name
    (tmp_path / "images").mkdir()
    assert read_captions(karpathy(tmp_path))[0].path.parent.name in ("Images", "images")


def test_a_folder_with_one_table_is_enough(tmp_path: Path) -> None:
    table(tmp_path)
    assert told(read_captions(tmp_path)) == EXPECTED


@pytest.mark.parametrize("count", range(2, 9))
def test_a_small_table_without_splits_keeps_one(count: int, tmp_path: Path) -> None:
    for start in range(5):
        names = "".join(f"p{start}{n}.jpg,a dog\n" for n in range(count))
        (tmp_path / "a.csv").write_text(f"picture,caption\n{names}")
        splits = [each.split for each in read_captions(tmp_path)]
        assert "dev" in splits


def test_a_table_without_splits_keeps_one_in_ten(tmp_path: Path) -> None:
    rows = "".join(f"p{n}.jpg,a dog\n" for n in range(400))
    (tmp_path / "a.csv").write_text(f"picture,caption\n{rows}")
    read = read_captions(tmp_path)
    kept = {each.path.name for each in read if each.split == "dev"}
    assert 15 < len(kept) < 80
    (tmp_path / "a.csv").write_text(f"picture,caption\n{rows[:2000]}")
    again = {each.path.name for each in read_captions(tmp_path) if each.split == "dev"}
    assert again < kept


HOSTILE: dict[str, tuple[str, str | bytes, str]] = {
    "not json": ("a.json", "{", "JSON"),
    "deep json": ("a.json", "[" * 100_000, "JSON"),
    "json list": ("a.json", "[1, 2]", "Karpathy"),
    "json null": ("a.json", "null", "Karpathy"),
    "no sentences": ("a.json", '{"images": [{"filename": "a", "split": "train"}]}', "sentences"),
    "unknown split": (
        "a.json",
        '{"images": [{"filename": "a", "split": "x", "sentences": [{"raw": "a"}]}]}',
        "expected train, dev or test",
    ),
    "number as caption": ("a.json", '{"images": [], "annotations": [{"image_id": 1}]}', "COCO"),
    "null caption": (
        "a.json",
        '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, '
        '"caption": null}]}',
        "COCO",
    ),
    "no image": ("a.json", '{"images": [], "annotations": []}', "no picture"),
    "other columns": ("a.csv", "file,text\na,b\n", "picture, caption"),
    "no columns": ("a.csv", "", "got none"),
    "no caption": ("a.csv", "picture,caption\na.jpg,\n", "line 2"),
    "short row": ("a.csv", "picture,caption\na.jpg\n", "line 2"),
    "bad split": ("a.csv", "picture,caption,split\na.jpg,a dog,\n", "split"),
    "no words": ("a.csv", "picture,caption\na.jpg,!!!\n", "no picture with a caption"),
    "not utf-8": ("a.csv", b"picture,caption\na.jpg,caf\xe9\n", "UTF-8"),
    "long field": ("a.csv", "picture,caption\na.jpg," + "a" * 200_000, "CSV"),
    "other file": ("a.txt", "a dog", "expected a folder"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_captions_are_refused(case: str, tmp_path: Path) -> None:
    name, content, reason = HOSTILE[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=reason) as caught:
        read_captions(path)
    assert str(path) in str(caught.value)


def test_hostile_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 0 CSV"):
        read_captions(tmp_path)
    with pytest.raises(InputError, match=r"none\.json.*No such file"):
        read_captions(tmp_path / "none.json")
    flickr8k(tmp_path)
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("unknown.jpg\n")
    with pytest.raises(InputError, match=r"unknown\.jpg has no caption"):
        read_captions(tmp_path)
    (tmp_path / "Flickr8k.token.txt").write_text("no tab here\n")
    with pytest.raises(InputError, match="line 1"):
        read_captions(tmp_path)


def test_missing_pictures_are_counted(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "two.jpg")
    with pytest.raises(InputError, match=r"one\.jpg.*1 of 2 pictures are missing.*--pictures"):
        check_pictures(read_captions(table(tmp_path)))


def test_halves_share_nothing() -> None:
    first, second = halves(list(range(7)))
    assert sorted(first + second) == list(range(7)) and len(first) == 4
    assert halves(np.arange(4))[1].tolist() == [1, 3]


# the feature cache

VIEW = VIEWS["alexnet"]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = []
    for seed in range(5):
        found.append(tmp_path / f"{seed}.png")
        to_picture(photo(48, seed)).save(found[-1])
    return found


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.npy")}


def test_features_are_those_of_the_picture_and_of_its_mirror(
    paths: list[Path], tmp_path: Path
) -> None:
    cache, backbone = FeatureCache(tmp_path / "cache"), small_backbone()
    plain = cache.features(backbone, VIEW, paths, batch=2)
    mirrored = cache.features(backbone, VIEW, paths, batch=2, mirrored=True)
    assert plain is not None and mirrored is not None
    assert plain.shape == (5, VIEW.grid**2, 256 + 256 + 384) and plain.dtype == np.float16
    image = see(load_picture(paths[3]), VIEW)
    for found, expected in ((plain, image), (mirrored, image.flip(3))):
        direct = grid_features(backbone, expected, VIEW)[0]
        np.testing.assert_allclose(found[3], direct.numpy(), atol=2e-3)
    for layer in (slice(0, 256), slice(256, 512), slice(512, None)):
        lengths = np.linalg.norm(plain[..., layer].astype(float), axis=-1)
        np.testing.assert_allclose(lengths, 1, atol=0.01)


def test_what_is_there_is_not_computed_again(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    first = cache.features(small_backbone(), VIEW, paths)
    monkeypatch.setattr(Backbone, "features", None)
    second = cache.features(small_backbone(), VIEW, paths)
    assert np.array_equal(first, second)
    assert isinstance(second, np.memmap) and not second.flags.writeable


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_work_goes_on_where_it_was_interrupted(
    how: str, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to stop, or ended by an error in the middle: rows that are done stay done."""
    cache, backbone = FeatureCache(tmp_path / "cache"), small_backbone()
    real, calls = Backbone.features, []

    def counted(self: Backbone, image: torch.Tensor, layers: Any) -> Any:
        calls.append(len(image))
        if calls == [1, 1, 1] and how == "failed":
            raise MemoryError
        return real(self, image, layers)

    monkeypatch.setattr(Backbone, "features", counted)
    if how == "stopped":
        stop = iter([False, False, True]).__next__
        assert cache.features(backbone, VIEW, paths, batch=1, should_stop=stop) is None
    else:
        with pytest.raises(MemoryError):
            cache.features(backbone, VIEW, paths, batch=1)
    monkeypatch.setattr(Backbone, "features", real)
    steps: list[tuple[int, int]] = []
    resumed = cache.features(
        backbone, VIEW, paths, batch=1, on_progress=lambda p: steps.append((p.step, p.steps))
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    whole = FeatureCache(tmp_path / "other").features(backbone, VIEW, paths, batch=1)
    assert np.array_equal(resumed, whole)


def test_a_killed_run_trusts_only_what_was_noted(paths: list[Path], tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    whole = np.array(cache.features(small_backbone(), VIEW, paths))
    (note,) = (tmp_path / "cache").glob("*.json")
    (array,) = (tmp_path / "cache").glob("*.npy")
    noted = json.loads(note.read_text())
    for done in (2, -1, 99, None, "x"):
        note.write_text(json.dumps({**noted, "done": done}))
        stored = np.load(array, mmap_mode="r+")
        stored[2:] = 0  # what a kill may leave behind the rows that count
        stored.flush()
        assert np.array_equal(cache.features(small_backbone(), VIEW, paths), whole), done
    for broken in ("", "[]", "{}"):
        note.write_text(broken)
        assert np.array_equal(cache.features(small_backbone(), VIEW, paths), whole), broken
    array.write_bytes(array.read_bytes()[:50])
    assert np.array_equal(cache.features(small_backbone(), VIEW, paths), whole)


def test_two_runs_fill_one_cache_and_neither_empties_it(paths: list[Path], tmp_path: Path) -> None:
    cache, backbone = FeatureCache(tmp_path / "cache"), small_backbone()
    whole = np.array(FeatureCache(tmp_path / "other").features(backbone, VIEW, paths, batch=1))

    def other_begins(progress: Progress) -> None:
        if progress.step == 3:  # before anything was noted
            stop = iter([False, True]).__next__
            assert cache.features(backbone, VIEW, paths, batch=1, should_stop=stop) is None

    found = cache.features(backbone, VIEW, paths, batch=1, on_progress=other_begins)
    assert np.array_equal(found, whole)
    assert np.array_equal(cache.features(backbone, VIEW, paths, batch=1), whole)


def test_a_note_without_its_file_is_not_believed(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    whole = np.array(cache.features(small_backbone(), VIEW, paths, batch=1))
    (array,) = (tmp_path / "cache").glob("*.npy")
    array.unlink()
    with monkeypatch.context() as patch:  # killed before it notes anything
        patch.setattr(features, "write_atomically", lambda path, data: None)
        stop = iter([False, True]).__next__
        assert cache.features(small_backbone(), VIEW, paths, batch=1, should_stop=stop) is None
    assert np.array_equal(cache.features(small_backbone(), VIEW, paths, batch=1), whole)


def test_everything_that_changes_the_numbers_changes_the_file(
    paths: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    cache, backbone = FeatureCache(folder), small_backbone()
    other = Backbone.__new__(Backbone)
    other.__dict__.update(backbone.__dict__)
    other.weights_sha256 = "another"
    seen: list[set[str]] = []

    def computed(backbone: Backbone = backbone, view: Any = VIEW, **how: Any) -> None:
        before = files(folder)
        cache.features(backbone, view, paths[:2], **how)
        seen.append(files(folder) - before)

    computed()
    computed(other)
    computed(mirrored=True)
    computed(view=replace(VIEW, grid=3))
    computed(view=replace(VIEW, side_px=96))
    computed(view=replace(VIEW, layers=("relu5",)))
    to_picture(photo(50, 9)).save(paths[0])
    computed()
    assert all(len(new) == 1 for new in seen)
    computed()
    assert seen[-1] == set()


def test_a_broken_picture_is_named(paths: list[Path], tmp_path: Path) -> None:
    paths[2].write_bytes(paths[2].read_bytes()[:60])
    with pytest.raises(InputError, match=r"2\.png"):
        FeatureCache(tmp_path / "cache").features(small_backbone(), VIEW, paths)
