"""Captioned pictures as published, and their features, computed once and kept on disk."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stylecap.backbone import Backbone
from stylecap.captioning.loading import map_ahead
from stylecap.captioning.vocabulary import words_of
from stylecap.errors import InputError, OutputError
from stylecap.files import write_atomically
from stylecap.images import load_picture, resize_picture, split_alpha, to_image
from stylecap.progress import OnProgress, Progress, ShouldStop

SPLITS = ("train", "dev", "test")
_FORMAT = 1
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


# reading captions


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


def read_karpathy(path: Path, pictures: Path | None = None) -> list[CaptionedPicture]:
    """Karpathy's ``dataset_flickr8k.json`` and its sisters; ``restval`` counts as training."""
    return _karpathy(path, _json(path), pictures)


def _karpathy(path: Path, content: Any, pictures: Path | None) -> list[CaptionedPicture]:
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


def read_coco(path: Path, pictures: Path | None = None) -> list[CaptionedPicture]:
    """A COCO captions JSON; its split is read from the file's name (``captions_val2014.json``).

    The pictures may lie in a folder of that name (``val2014``) beside the file or one level up.
    """
    return _coco(path, _json(path), pictures)


def _coco(path: Path, content: Any, pictures: Path | None) -> list[CaptionedPicture]:
    own = path.stem.removeprefix("captions_")  # such as val2014, which is its folder's name, too
    near = (pictures or path.parent, path.parent.parent)
    place = next((p / own for p in near if (p / own).is_dir()), pictures or _beside(path))
    split = next((known for name, known in _SPLIT_NAMES.items() if name in path.stem), "train")
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
    in ten is kept for validation, chosen by a hash of its name, the same every time.
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
            if "split" in columns:
                split = _split((row["split"] or "").lower(), path)
            else:
                split = "dev" if hashlib.sha256(name.encode()).digest()[0] % 10 == 0 else "train"
            captions.setdefault((name, split), []).append(tuple(words_of(text)))
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error
    read = [
        CaptionedPicture(place / name, tuple(each), split)
        for (name, split), each in captions.items()
    ]
    return _checked(path, read)


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


# features


@dataclass(frozen=True, slots=True)
class View:
    """How a captioner sees a picture: preprocessing and layers, a part of its weights.

    Attributes:
        backbone: name of the network.
        layers: whose features are read, one after another along the channels.
        grid: positions along each side that they are averaged to.
        side_px: height and width that every picture is squashed to, whatever its shape.
    """

    backbone: str = "vgg16"
    layers: tuple[str, ...] = ("relu5_3",)
    grid: int = 7
    side_px: int = 224


VIEWS = {
    "vgg16": View(),
    "alexnet": View("alexnet", ("relu5", "relu4", "relu3"), 6),
}


def squash(picture: Image.Image, view: View) -> Image.Image:
    """A picture squashed to a square, as the training pictures were; alpha lies over white."""
    return resize_picture(split_alpha(picture)[0], (view.side_px, view.side_px))


def see(picture: Image.Image, view: View) -> Tensor:
    """A squashed picture as the image that the captioner was trained on.

    Returns:
        (1, 3, side, side), float32 in [0, 1].
    """
    return to_image(squash(picture, view))


def grid_features(backbone: Backbone, image: Tensor, view: View) -> Tensor:
    """Features of images on a small grid, each layer of unit length at every position.

    Args:
        backbone: the one that the view names.
        image: (B, 3, side, side) as `see` makes it.
        view: layers and grid.
    Returns:
        (B, grid * grid, C) float16, C the sum of the layers' channels.
    Raises:
        InputError: the backbone is another one.
    """
    if backbone.name != view.backbone:
        raise InputError(
            f"backbone: this captioner was trained on {view.backbone}, got {backbone.name}"
        )
    # A processor's caches hold the features of one picture, not those of many.
    at_once = 1 if backbone.runtime.device == "cpu" else max(1, len(image))
    with torch.inference_mode():
        return torch.cat([_grid_rows(backbone, part, view) for part in torch.split(image, at_once)])


def _grid_rows(backbone: Backbone, image: Tensor, view: View) -> Tensor:
    """As `grid_features`, of images that go through the network together."""
    found = backbone.features(image, view.layers)
    parts = []
    for layer in view.layers:
        averaged = F.adaptive_avg_pool2d(found[layer].float(), view.grid)  # (B, C, g, g)
        parts.append(F.normalize(averaged.flatten(2).mT, dim=-1))  # (B, g*g, C)
    return torch.cat(parts, dim=-1).half()


class FeatureCache:
    """Features of many pictures in memory-mapped files, computed once, resumable.

    A file's name is a hash of everything that its numbers depend on: weights, precision,
    preprocessing, layers, mirroring, and name, size and time of every picture. Rows that are
    done are counted in a JSON beside it, so that work goes on where it was interrupted.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def features(
        self,
        backbone: Backbone,
        view: View,
        paths: Sequence[Path],
        *,
        mirrored: bool = False,
        batch: int = 16,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> np.ndarray | None:
        """Features of pictures, from disk as far as they are there.

        Args:
            backbone: computes what is missing.
            view: preprocessing, layers and grid.
            paths: of the pictures, in the order of the rows.
            mirrored: left and right exchanged before the network.
            batch: pictures at a time.
            on_progress: told after every batch.
            should_stop: asked before every batch.
        Returns:
            (N, P, C) float16, memory-mapped and read-only; None if it was stopped.
        Raises:
            InputError: a picture cannot be read.
            OutputError: the folder cannot be written.
        """
        key = self._key(backbone, view, paths, mirrored)
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        array_path, note_path = self.folder / f"{name}.npy", self.folder / f"{name}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            done = _rows_done(note_path, array_path, len(paths))
            array: Any = np.load(array_path, mmap_mode="r+") if done else None
            began, start = time.monotonic(), done

            def save() -> None:
                if array is not None and done > start:  # others may be reading what is whole
                    array.flush()
                    note = {"done": done, "pictures": len(paths), "key": key}
                    write_atomically(note_path, json.dumps(note, indent=1).encode())

            def load(path: Path) -> Image.Image:
                return squash(load_picture(path), view)

            try:
                with closing(map_ahead(load, paths[done:], ahead=2 * batch)) as seen:
                    while chosen := list(islice(seen, batch)):
                        if should_stop is not None and should_stop():
                            return None
                        image = torch.cat([to_image(picture) for picture in chosen])
                        rows = grid_features(backbone, image.flip(3) if mirrored else image, view)
                        if array is None:
                            array = np.lib.format.open_memmap(
                                array_path, "w+", np.float16, (len(paths), *rows.shape[1:])
                            )
                        array[done : done + len(chosen)] = rows.cpu().numpy()
                        done += len(chosen)
                        if (done // batch) % 16 == 0:
                            save()
                        if on_progress is not None:
                            steps, seconds = len(paths) - start, time.monotonic() - began
                            on_progress(Progress(done - start, steps, seconds, "features"))
            finally:
                save()
            finished: np.ndarray = np.load(array_path, mmap_mode="r")
            return finished
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot write the features: {error}") from error

    @staticmethod
    def _key(
        backbone: Backbone, view: View, paths: Sequence[Path], mirrored: bool
    ) -> dict[str, Any]:
        digest = hashlib.sha256()
        for path in paths:
            try:
                status = path.stat()
            except OSError as error:
                raise InputError(f"{path}: cannot be read: {error.strerror}") from error
            digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return {
            "format": _FORMAT,
            "view": asdict(view),
            "weights": backbone.weights_sha256,
            "precision": backbone.runtime.precision,
            "mirrored": mirrored,
            "pictures": digest.hexdigest(),
        }


def _rows_done(note_path: Path, array_path: Path, rows: int) -> int:
    """Rows that an earlier run finished; 0 if its files are missing or broken."""
    try:
        note = json.loads(note_path.read_text(encoding="utf-8"))
        shape = np.load(array_path, mmap_mode="r").shape
        done = int(note["done"]) if shape[0] == rows == note["pictures"] else 0
    except (OSError, ValueError, TypeError, LookupError):
        return 0
    return done if 0 <= done <= rows else 0
