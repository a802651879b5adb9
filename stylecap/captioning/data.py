"""Captioned pictures as published, in four forms."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylecap.captioning.vocabulary import words_of
from stylecap.errors import InputError

SPLITS = ("train", "dev", "test")
_SPLIT_NAMES = {
    "train": "train",
    "restval": "train",
    "dev": "dev",
    "val": "dev",
    "validation": "dev",
    "test": "test",
}


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """A picture file and what people wrote about it.

    Attributes:
        path: of the picture.
        captions: at least one, as lists of words.
        split: ``"train"``, ``"dev"`` or ``"test"``.
    """

    path: Path
    captions: tuple[tuple[str, ...], ...]
    split: str


def read_captions(source: str | Path, pictures: str | Path | None = None) -> list[CaptionedPicture]:
    """Read captioned pictures in any of four forms, told apart by what is there.

    - a folder with ``Flickr8k.token.txt`` and the lists ``Flickr_8k.trainImages.txt`` ...,
    - Karpathy's ``dataset_*.json``,
    - a COCO captions JSON,
    - a CSV with the columns ``picture``, ``caption`` and perhaps ``split``, or a folder with
      one such file.

    Args:
        source: file or folder.
        pictures: folder of the pictures, if they lie elsewhere than beside ``source``.
    Raises:
        InputError: nothing of the kind is there, or a file is malformed.
    """
    path = Path(source)
    folder = Path(pictures) if pictures is not None else None
    if path.is_dir():
        if (path / "Flickr8k.token.txt").is_file():
            return read_flickr8k(path, folder)
        tables = sorted(path.glob("*.csv"))
        if len(tables) == 1:
            return read_table(tables[0], folder)
        raise InputError(
            f"{path}: expected Flickr8k.token.txt or exactly one CSV file in this folder, found "
            f"{len(tables)} CSV files"
        )
    if path.suffix.lower() == ".csv":
        return read_table(path, folder)
    if path.suffix.lower() == ".json":
        content = _json(path)
        if isinstance(content, dict) and "annotations" in content:
            return _coco(path, content, folder)
        return _karpathy(path, content, folder)
    raise InputError(f"{path}: expected a folder, a .json or a .csv file with captions")


def read_all(
    sources: str | Path | Sequence[str | Path], pictures: str | Path | None = None
) -> list[CaptionedPicture]:
    """Read one or several sources with `read_captions`, one after another."""
    listed = [sources] if isinstance(sources, str | Path) else sources
    return [each for source in listed for each in read_captions(source, pictures)]


def check_pictures(captioned: Sequence[CaptionedPicture]) -> None:
    """Refuse captions whose pictures are not there, before work starts.

    Raises:
        InputError: naming the first one and how many are missing.
    """
    missing = [each.path for each in captioned if not each.path.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: is not there; {len(missing)} of {len(captioned)} pictures are missing, "
            "name their folder with --pictures (Python: pictures=...)"
        )


def halves(items: Any) -> tuple[Any, Any]:
    """Every other one of a sequence or array, and the rest.

    Of the validation pictures, the first half chooses weights and search settings; the second
    is only reported on.
    """
    return items[::2], items[1::2]


def read_flickr8k(folder: Path, pictures: Path | None = None) -> list[CaptionedPicture]:
    """Flickr8k as published: ``Images/``, ``Flickr8k.token.txt`` and the split lists.

    A list that is not there leaves its split empty; pictures in no list are left out.
    """
    names = ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset")
    folders = [folder / name for name in names if (folder / name).is_dir()]
    place = pictures or (folders[0] if folders else folder / names[0])
    captions: dict[str, list[tuple[str, ...]]] = {}
    token_file = folder / "Flickr8k.token.txt"
    for number, line in enumerate(_lines(token_file), 1):
        name, tab, text = line.partition("\t")
        if not tab or "#" not in name:
            raise InputError(
                f"{token_file}, line {number}: expected NAME#K<tab>CAPTION, got {line[:60]!r}"
            )
        captions.setdefault(name.rpartition("#")[0], []).append(tuple(words_of(text)))
    read = []
    for split in SPLITS:
        listing = folder / f"Flickr_8k.{split}Images.txt"
        if not listing.is_file():
            continue
        for name in _lines(listing):
            if name not in captions:
                raise InputError(f"{listing}: {name} has no caption in {token_file.name}")
            read.append(CaptionedPicture(place / name, tuple(captions[name]), split))
    return _checked(folder, read)


def _karpathy(path: Path, content: Any, pictures: Path | None) -> list[CaptionedPicture]:
    """Karpathy's ``dataset_flickr8k.json`` and its sisters; ``restval`` counts as training."""
    place = pictures or _beside(path)
    read = []
    try:
        for entry in content["images"]:
            name = Path(entry.get("filepath", "")) / entry["filename"]
            captions = tuple(tuple(words_of(s["raw"])) for s in entry["sentences"])
            file = place / name if (place / name).is_file() else place / entry["filename"]
            read.append(CaptionedPicture(file, captions, _split(entry["split"], path)))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected Karpathy's form, images with filename, split and sentences; "
            f"{error!r} went wrong"
        ) from error
    return _checked(path, read)


def _coco(path: Path, content: Any, pictures: Path | None) -> list[CaptionedPicture]:
    """A COCO captions JSON; its split is read from the file's name (``captions_val2014.json``).

    The pictures may lie in a folder of that name (``val2014``) beside the file or one level up.
    """
    own = path.stem.removeprefix("captions_")  # such as val2014, which is its folder's name, too
    near = (pictures,) if pictures else (path.parent, path.parent.parent)
    place = next((p / own for p in near if (p / own).is_dir()), pictures or _beside(path))
    words = re.findall("[a-z]+", path.stem.lower())
    split = next((known for name, known in _SPLIT_NAMES.items() if name in words), "train")
    try:
        captions: dict[Any, list[tuple[str, ...]]] = {}
        for entry in content["annotations"]:
            captions.setdefault(entry["image_id"], []).append(tuple(words_of(entry["caption"])))
        read = [
            CaptionedPicture(place / entry["file_name"], tuple(captions[entry["id"]]), split)
            for entry in content["images"]
            if entry["id"] in captions
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected COCO's form, images with id and file_name, annotations with "
            f"image_id and caption; {error!r} went wrong"
        ) from error
    return _checked(path, read)


def read_table(path: Path, pictures: Path | None = None) -> list[CaptionedPicture]:
    """A CSV with the columns ``picture``, ``caption`` and perhaps ``split``.

    One row a caption. Paths are relative to the file. Without a ``split`` column one picture
    in ten, at least one of two, is kept for validation, chosen by a hash of its name, the same
    every time.
    """
    place = pictures or path.parent
    captions: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    try:
        rows = csv.DictReader(io.StringIO(_text(path), newline=""))
        columns = set(rows.fieldnames or ())
        if not {"picture", "caption"} <= columns:
            raise InputError(
                f"{path}: expected the columns picture, caption and perhaps split, got "
                f"{', '.join(sorted(columns)) or 'none'}"
            )
        for row in rows:
            name, text = row["picture"], row["caption"]
            if not name or not text:
                raise InputError(
                    f"{path}, line {rows.line_num}: picture and caption are both needed"
                )
            split = _split((row["split"] or "").lower(), path) if "split" in columns else ""
            captions.setdefault((name, split), []).append(tuple(words_of(text)))
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error
    kept = _validation({name for name, _ in captions})
    read = [
        CaptionedPicture(place / name, tuple(each), split or ("dev" if name in kept else "train"))
        for (name, split), each in captions.items()
    ]
    return _checked(path, read)


def _validation(names: Collection[str]) -> set[str]:
    """One name in ten, at least one of two, by its hash."""
    digests = {hashlib.sha256(name.encode()).digest(): name for name in names}
    kept = {name for digest, name in digests.items() if digest[0] % 10 == 0}
    return kept or ({digests[min(digests)]} if len(names) > 1 else set())


def _checked(source: Path, read: list[CaptionedPicture]) -> list[CaptionedPicture]:
    """Drop captions without a word, and pictures without a caption; refuse if none is left."""
    kept = [
        CaptionedPicture(picture.path, captions, picture.split)
        for picture in read
        if (captions := tuple(words for words in picture.captions if words))
    ]
    if not kept:
        raise InputError(f"{source}: there is no picture with a caption in it")
    return kept


def _split(name: str, path: Path) -> str:
    if name not in _SPLIT_NAMES:
        raise InputError(f"{path}: split: expected train, dev or test, got {name!r}")
    return _SPLIT_NAMES[name]


def _beside(path: Path) -> Path:
    for name in ("Images", "images"):
        if (path.parent / name).is_dir():
            return path.parent / name
    return path.parent


def _lines(path: Path) -> list[str]:
    return [line for line in _text(path).split("\n") if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
