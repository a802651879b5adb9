"""An index of pictures on disk: find those that show the same, look alike, or fit some words.

Vectors are computed once a picture and kept in small files, each written whole or not at all, so
that a kill loses at most the pictures of one file. FAISS searches them.

Source: Krizhevsky et al. 2012, figure 4 (pictures with near features show the same).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from stylecap.backbone import Backbone
from stylecap.captioning.features import VIEWS, grid_features, see
from stylecap.captioning.matching import Matcher, summary
from stylecap.errors import InputError, OptionError, OutputError, StylecapError
from stylecap.files import write_atomically
from stylecap.images import load_picture
from stylecap.progress import OnProgress, Progress, ShouldStop

SPACES = ("content", "style", "words")
#: How an index sees pictures.
VIEW = VIEWS["vgg16"]
_FORMAT = 1
_STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
_STYLE_UNITS = 256
_PART_ROWS = 64  # pictures in a file: what a kill may cost
_MANY_PARTS = 32  # more than these are joined into one


class Embedder(Protocol):
    """Gives a picture's vectors.

    Attributes:
        key: of everything that the vectors depend on.
    """

    key: str

    def __call__(self, picture: Image.Image) -> Mapping[str, np.ndarray]:
        """Space -> (D,) float32 of unit length."""


class PictureEmbedder:
    """Vectors of pictures from VGG-16 and from the joint embedding.

    ``content``: the root of relu5_3's mean over positions, what is there.
    ``style``: mean and deviation of each channel of four layers, how it is painted, mapped to
    fewer numbers by a fixed random projection, which keeps distances (Johnson & Lindenstrauss).
    ``words``: the picture in the space it shares with sentences.
    """

    def __init__(self, backbone: Backbone, words: Matcher) -> None:
        """Prepare.

        Args:
            backbone: VGG-16.
            words: maps pictures to where sentences are.
        Raises:
            OptionError: another backbone, or a matcher that sees pictures in another way.
        """
        if backbone.name != VIEW.backbone:
            raise OptionError(
                f"backbone: the index is made with {VIEW.backbone}, got {backbone.name}"
            )
        check_matcher(words)
        self._backbone, self._words = backbone, words
        trained = json.dumps(words.record, sort_keys=True)
        self.key = f"{_FORMAT} {backbone.weights_sha256} {trained}"
        generator = torch.Generator().manual_seed(0)
        self._projection = torch.randn(2 * 960, _STYLE_UNITS, generator=generator)

    def __call__(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """Space -> (D,) float32 of unit length."""
        image = see(picture, VIEW)
        with torch.inference_mode():
            features = grid_features(self._backbone, image, VIEW).cpu()  # (1, P, C)
            known = summary(features)  # (1, 2C)
            found = self._backbone.features(image, _STYLE_LAYERS)
            moments = style_moments([found[layer].float().cpu() for layer in _STYLE_LAYERS])
            vectors = {
                "content": F.normalize(known[0, :512], dim=0),
                "style": F.normalize(moments @ self._projection, dim=0),
                "words": self._words.pictures(known)[0],
            }
        return {space: vector.numpy() for space, vector in vectors.items()}


def check_matcher(matcher: Matcher) -> None:
    """Refuse a matcher whose space is not that of an index's pictures.

    Raises:
        OptionError: it sees pictures in another way.
    """
    if matcher.view != VIEW:
        raise OptionError(
            f"matcher: an index is made with {VIEW}, this one sees {matcher.view}; train one with "
            f"--backbone {VIEW.backbone}"
        )


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture found.

    Attributes:
        path: of the picture.
        score: cosine of its vector and the query's; 1 is the same.
        log_prob: log-probability a word of the query, if a captioner read it; see `retrieval`.
    """

    path: Path
    score: float
    log_prob: float | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """What an update of an index did.

    Attributes:
        added: pictures whose vectors were computed.
        kept: pictures that were there already, unchanged.
        removed: pictures in it that are no longer among those given, or cannot be read any more.
        failed: pictures that cannot be read, with the reason.
        stopped: it was asked to stop; the next update goes on from there.
    """

    added: int
    kept: int
    removed: int
    failed: tuple[tuple[Path, str], ...]
    stopped: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """One file of an index: rows of pictures, and the names of those that are gone."""

    path: Path
    names: list[str]
    stamps: list[list[int]]
    gone: list[str]
    vectors: dict[str, np.ndarray]


class PictureIndex:
    """Vectors of a folder's pictures, on disk.

    Later files win over earlier ones, so that nothing is ever changed in place.

    Args:
        folder: of the index; made by the first `update`.
        root: folder that the pictures' names are relative to.
    """

    def __init__(self, folder: str | Path, root: str | Path) -> None:
        self.folder, self.root = Path(folder), Path(root)
        self._searchers: dict[str, tuple[Any, list[str]]] = {}

    def update(
        self,
        paths: Sequence[Path],
        embedder: Embedder,
        *,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Update:
        """Bring the index up to date with these pictures.

        A picture is taken as unchanged while its size and time are. Pictures that cannot be
        read are left out and named.

        Args:
            paths: all pictures that should be in it, below the root.
            embedder: computes what is missing; vectors of another one are dropped.
            on_progress: told after every picture.
            should_stop: asked before every picture.
        Raises:
            InputError: a file of the index is damaged.
            OutputError: the index cannot be written.
        """
        self._searchers.clear()
        known = self._rows(embedder.key)
        wanted = {self._name(path): path for path in paths}
        gone = [name for name in known if name not in wanted]
        todo = []
        for name, path in wanted.items():
            stamp = _stamp(path)
            if name not in known or known[name] != stamp:
                todo.append((name, path, stamp))
        failed: list[tuple[Path, str]] = []
        names: list[str] = []
        stamps: list[list[int]] = []
        rows: list[Mapping[str, np.ndarray]] = []
        added, stopped, begin = 0, False, time.perf_counter()

        def write() -> None:
            if names:
                vectors = {space: np.stack([row[space] for row in rows]) for space in rows[0]}
                self._write(embedder.key, names, stamps, [], vectors)
                names.clear()
                stamps.clear()
                rows.clear()

        try:
            for number, (name, path, stamp) in enumerate(todo):
                if should_stop is not None and should_stop():
                    stopped = True
                    break
                try:
                    rows.append(embedder(load_picture(path)))
                except StylecapError as error:
                    failed.append((path, str(error)))
                    gone += [name] if name in known else []  # what it showed before
                else:
                    names.append(name)
                    stamps.append(stamp)
                    added += 1
                if len(names) == _PART_ROWS:
                    write()
                if on_progress is not None:
                    seconds = time.perf_counter() - begin
                    on_progress(Progress(number + 1, len(todo), seconds, "indexing"))
        finally:
            write()
            if gone:
                self._write(embedder.key, [], [], gone, {})
        self._join(embedder.key)
        return Update(added, len(wanted) - len(todo), len(gone), tuple(failed), stopped)

    def __len__(self) -> int:
        """Pictures in it, whatever embedder made them."""
        return len(self._rows(None))

    def search(self, space: str, query: np.ndarray, count: int = 12) -> list[Hit]:
        """The nearest pictures, the nearest first.

        Args:
            space: one of `SPACES`.
            query: (D,) of unit length, in that space.
            count: how many at most.
        Raises:
            OptionError: unknown space, or one that this index does not have.
            InputError: the index is empty or damaged, or FAISS is not installed.
        """
        if space not in SPACES:
            raise OptionError(f"space: expected one of {', '.join(SPACES)}, got {space!r}")
        if count < 1:
            raise OptionError(f"count: expected at least 1, got {count}")
        if space not in self._searchers:
            self._searchers[space] = self._searcher(space)
        searcher, names = self._searchers[space]
        scores, rows = searcher.search(query[None].astype(np.float32), min(count, len(names)))
        return [
            Hit(self.root / names[row], float(score))
            for score, row in zip(scores[0], rows[0], strict=True)
        ]

    def _searcher(self, space: str) -> tuple[Any, list[str]]:
        vectors: dict[str, np.ndarray] = {}
        parts = self._parts(None)
        for part in parts:
            for name in part.gone:
                vectors.pop(name, None)
            for row, name in enumerate(part.names):
                vectors.pop(name, None)
                if space in part.vectors:
                    vectors[name] = part.vectors[space][row]
        if not vectors:
            if any(part.names for part in parts):
                raise OptionError(
                    f"space: the index has no vectors for {space!r}; they need weights that were "
                    "not here when it was made: run `stylecap index` again"
                )
            raise InputError(f"{self.folder}: there is no picture in the index; make it first")
        matrix = np.stack(list(vectors.values())).astype(np.float32)  # (N, D)
        faiss = _faiss()
        # As they are in the files: half the memory, which is what limits the time.
        half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        searcher = faiss.IndexScalarQuantizer(matrix.shape[1], half, product)
        searcher.train(matrix)
        searcher.add(matrix)
        return searcher, list(vectors)

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self.root)

    def _rows(self, key: str | None) -> dict[str, list[int]]:
        """Name -> stamp of every picture whose vectors are there."""
        rows: dict[str, list[int]] = {}
        for part in self._parts(key):
            for name in part.gone:
                rows.pop(name, None)
            rows.update(zip(part.names, part.stamps, strict=True))
        return rows

    def _parts(self, key: str | None) -> list[_Part]:
        """All files in their order, or those made with one key."""
        parts = []
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="numpy") as file:
                    note = json.loads((file.metadata() or {})["stylecap"])
                    if note["format"] != _FORMAT or key not in (None, note["key"]):
                        continue
                    there = set(file.keys())
                    vectors = {space: file.get_tensor(space) for space in SPACES if space in there}
                    parts.append(_Part(path, note["names"], note["stamps"], note["gone"], vectors))
            except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
                raise InputError(
                    f"{path}: is not a part of an index ({error}); remove it, and run "
                    "`stylecap index` again"
                ) from error
        return parts

    def _write(
        self,
        key: str,
        names: list[str],
        stamps: list[list[int]],
        gone: list[str],
        vectors: dict[str, np.ndarray],
    ) -> Path:
        """Write a file behind all others; it appears whole or not at all."""
        note = {"format": _FORMAT, "key": key, "names": names, "stamps": stamps, "gone": gone}
        tensors = {space: rows.astype(np.float16) for space, rows in vectors.items()}
        tensors = tensors or {"none": np.zeros(0, np.float16)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            taken = [int(path.stem) for path in self.folder.glob("*.safetensors")]
            path = self.folder / f"{max(taken, default=0) + 1:08}.safetensors"
            write_atomically(path, save(tensors, {"stylecap": json.dumps(note)}))
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.folder}: cannot write the index: {error}") from error
        return path

    def _join(self, key: str) -> None:
        """Join many small files into one, and drop those of other embedders.

        The joined file comes last and says the same, so that a kill before the old ones are
        removed changes nothing.
        """
        everything = self._parts(None)
        parts = self._parts(key)
        foreign = len(everything) - len(parts)
        if len(parts) <= _MANY_PARTS and not foreign:
            return
        rows: dict[str, tuple[list[int], dict[str, np.ndarray]]] = {}
        for part in parts:
            for name in part.gone:
                rows.pop(name, None)
            for row, (name, stamp) in enumerate(zip(part.names, part.stamps, strict=True)):
                rows[name] = (stamp, {space: each[row] for space, each in part.vectors.items()})
        if rows:
            first = next(iter(rows.values()))[1]
            vectors = {space: np.stack([row[space] for _, row in rows.values()]) for space in first}
            self._write(key, list(rows), [stamp for stamp, _ in rows.values()], [], vectors)
        for part in everything:
            part.path.unlink(missing_ok=True)


def style_moments(features: Sequence[Tensor]) -> Tensor:
    """Mean and deviation of every channel, each layer of unit length.

    Args:
        features: (1, C, H, W) of each layer, not negative.
    Returns:
        (2 Σ C,) of unit length; the square root evens out the strongest channels.
    """
    parts = []
    for each in features:
        positions = each[0].flatten(1)  # (C, H*W)
        moments = torch.cat([positions.mean(1), positions.std(1, correction=0)])
        parts.append(F.normalize(moments.sqrt(), dim=0))
    return F.normalize(torch.cat(parts), dim=0)


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError:
        raise InputError(
            "the search needs FAISS, which is not installed; pip install 'stylecap[search]'"
        ) from None
