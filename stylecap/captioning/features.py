"""Pictures as a captioner sees them, and their features, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
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
from stylecap.errors import InputError, OutputError
from stylecap.files import write_atomically
from stylecap.images import load_picture, resize_picture, split_alpha, to_image
from stylecap.progress import OnProgress, Progress, ShouldStop

_FORMAT = 1
_PART = 50  # pictures


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
    layers: tuple[str, ...] = ("relu5_3", "relu4_3", "relu3_3")
    grid: int = 7
    side_px: int = 224


#: How captioners and matchers see pictures: one reading of the network serves both.
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


def check_backbone(backbone: Backbone, view: View) -> None:
    """Refuse another backbone than that of a view.

    Raises:
        InputError: it is another one.
    """
    if backbone.name != view.backbone:
        raise InputError(
            f"backbone: this captioner was trained on {view.backbone}, got {backbone.name}"
        )


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
    check_backbone(backbone, view)
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


def in_parts(features: np.ndarray, count: int = _PART) -> Iterator[Tensor]:
    """Features (N, P, C), which may lie on disk, some pictures at a time."""
    for start in range(0, len(features), count):
        yield torch.from_numpy(np.array(features[start : start + count]))


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
            array: Any = np.load(array_path, mmap_mode="r+") if 0 < done < len(paths) else None
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
                            array = _opened(array_path, note_path, (len(paths), *rows.shape[1:]))
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


def _opened(array_path: Path, note_path: Path, shape: tuple[int, ...]) -> Any:
    """A file to fill from its first row on.

    One that fits is not made anew: another run may be filling it, with the same values.
    """
    with suppress(OSError, ValueError):
        array: Any = np.load(array_path, mmap_mode="r+")
        if array.shape == shape and array.dtype == np.float16:
            return array
    note_path.unlink(missing_ok=True)  # it may speak of a file that is gone
    return np.lib.format.open_memmap(array_path, "w+", np.float16, shape)


def _rows_done(note_path: Path, array_path: Path, rows: int) -> int:
    """Rows that an earlier run finished; 0 if its files are missing or broken."""
    try:
        note = json.loads(note_path.read_text(encoding="utf-8"))
        shape = np.load(array_path, mmap_mode="r").shape
        done = int(note["done"]) if shape[0] == rows == note["pictures"] else 0
    except (OSError, ValueError, TypeError, LookupError):
        return 0
    return done if 0 <= done <= rows else 0
