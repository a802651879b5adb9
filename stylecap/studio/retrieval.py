"""Pictures found by sentences and sentences by pictures: how well, and the captioner's word on it.

The embedding knows a picture and a sentence only as two points. The captioner reads the sentence
word by word with the picture before it; it is too slow for all, so it reads the nearest again.

Source: Karpathy & Fei-Fei 2015 (the task and its measure). Mao et al. 2015 for taking away what is
probable of a sentence without the picture.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylecap.backbone import Backbone, load_backbone
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.data import CaptionedPicture, check_pictures, halves, read_all
from stylecap.captioning.features import FeatureCache, View
from stylecap.captioning.matching import Matcher, summaries
from stylecap.captioning.vocabulary import words_of
from stylecap.errors import InputError, StylecapError
from stylecap.images import load_picture
from stylecap.progress import OnProgress, Progress, ShouldStop
from stylecap.record import current_versions
from stylecap.studio.options import RerankOptions
from stylecap.studio.search import Hit

_AT = (1, 5, 10)
_OTHERS = 8  # pictures on which a sentence's usual probability is measured
_WEIGHTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
PARTS = ("first half", "second half", "whole")


@dataclass(frozen=True, slots=True)
class Recalls:
    """Percent of queries answered among the first 1, 5 and 10.

    Attributes:
        image_to_text: a picture asks for one of its sentences.
        text_to_image: a sentence asks for its picture.
    """

    image_to_text: tuple[float, ...]
    text_to_image: tuple[float, ...]

    @classmethod
    def of(cls, image_ranks: Tensor, text_ranks: Tensor) -> Recalls:
        """From `ranks`."""
        return cls(within(image_ranks), within(text_ranks))

    @property
    def total(self) -> float:
        """Their sum, by which training and weights are chosen."""
        return sum(self.image_to_text) + sum(self.text_to_image)

    def __str__(self) -> str:
        """Both as ``22.3/48.7/59.8``."""
        sides = (self.image_to_text, self.text_to_image)
        found = ["/".join(f"{value:.1f}" for value in side) for side in sides]
        return f"image to text {found[0]}, text to image {found[1]}"


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How well a search finds, on one split of a data set.

    Attributes:
        split: its name.
        pictures, sentences: how many there are.
        plain: by the embedding alone; for the queries of each of `PARTS`, every other picture
            with its sentences, the rest, and all; they are searched for among all.
        reranked: with the nearest read again by the captioner; None without one.
        candidates: how many of the nearest were read.
        weights: of what was read, for pictures that ask and for sentences that ask.
        tried: for both, weight -> sum of the recalls of the first half, where it was chosen there.
        about: how the search was trained, and versions.
    """

    split: str
    pictures: int
    sentences: int
    plain: Mapping[str, Recalls]
    reranked: Mapping[str, Recalls] | None
    candidates: int
    weights: tuple[float, ...]
    tried: tuple[Mapping[float, float], ...]
    about: Mapping[str, Any]

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1)


def within(ranks: Tensor) -> tuple[float, ...]:
    """Percent of queries answered among the first 1, 5 and 10."""
    return tuple(100 * float((ranks < k).float().mean()) for k in _AT)


def ranks(scores: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """How many wrong answers come before the first right one.

    Args:
        scores: (N, M) of picture i and sentence j, the higher the nearer.
        owners: (M,) number of the picture that each sentence belongs to.
    Returns:
        (N,) of pictures, which ask for any of their sentences, and (M,) of sentences.
    """
    right = owners[None] == torch.arange(len(scores), device=owners.device)[:, None]  # (N, M)
    best = scores.masked_fill(~right, -math.inf).amax(1)  # (N,)
    before = (scores > best[:, None]) & ~right
    own = scores.gather(0, owners[None])[0]  # (M,)
    return before.sum(1), (scores > own).sum(0)


def nearest(scores: Tensor, count: int, dim: int) -> Tensor:
    """(N, M), bool: the ``count`` highest of each row (``dim`` 1) or column (0)."""
    found = scores.topk(min(count, scores.shape[dim]), dim).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(dim, found, True)


def reranked(cosines: Tensor, evidence: Tensor, near: Tensor, weight: float) -> Tensor:
    """Scores that put each query's nearest in a new order; all others are out of the race.

    Args:
        cosines: (N, M).
        evidence: (N, M) log-probability a word, beyond the sentence's usual one.
        near: (N, M), bool, of `nearest`.
        weight: of the evidence.
    """
    return (cosines + weight * evidence).masked_fill(~near, -math.inf)


def rerank_hits(
    hits: Sequence[Hit],
    text: str,
    captioner: Captioner,
    backbone: Backbone,
    options: RerankOptions | None = None,
) -> list[Hit]:
    """Put the nearest pictures of a sentence in a new order, by how well each explains it.

    Their features are computed anew, which takes about as long as captioning them.

    Args:
        hits: of `PictureIndex.search`, at least as many as should be read again.
        text: what was asked for.
        captioner: reads it.
        backbone: the captioner's.
        options: `RerankOptions()` if None.
    Returns:
        The same hits; those that were read come first and have their ``log_prob``.
    Raises:
        InputError: the backbone is not the captioner's.
    """
    options = options or RerankOptions()
    seen, unread = [], []
    for hit in hits[: options.candidates]:
        try:
            image = captioner.see(load_picture(hit.path))
        except StylecapError:
            unread.append(hit)
        else:
            seen.append((hit, captioner.features(backbone, image)))
    read: list[Hit] = []
    if seen:
        log_probs = captioner.read(torch.cat([each for _, each in seen]), [words_of(text)])[:, 0]
        order = log_probs * options.weight + torch.tensor([hit.score for hit, _ in seen])
        read = [
            Hit(seen[row][0].path, seen[row][0].score, float(log_probs[row]))
            for row in order.argsort(descending=True).tolist()
        ]
    return [*read, *unread, *hits[options.candidates :]]


def evaluate_search(
    search: Matcher,
    data: str | Path | Sequence[str | Path],
    split: str = "dev",
    *,
    captioner: Captioner | None = None,
    candidates: int | None = None,
    weight: float | None = None,
    pictures: str | Path | None = None,
    cache: str | Path | None = None,
    backbone: Backbone | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Retrieval | None:
    """Let pictures find their sentences, and sentences their pictures.

    Args:
        search: to be judged.
        data: as in `train_captioner`.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        captioner: reads the nearest again; not done if None.
        candidates: how many; as in `RerankOptions` if None.
        weight: of what it reads; for each direction chosen on the first half if None.
        pictures: folder of the pictures, if they lie elsewhere than beside the captions.
        cache: folder that keeps the pictures' features; they are not kept if None.
        backbone: the one of search and captioner, loaded before; else loaded for each.
        on_progress: told of every batch of features, and of the captioner's reading.
        should_stop: asked on the way.
    Returns:
        The figures, or None if it was stopped.
    Raises:
        InputError: the split is not in the data or has fewer than two pictures, something cannot
            be read, or the backbone is another one.
        OptionError: candidates or weight are out of their range.
    """
    options = RerankOptions()
    if candidates is not None:
        options = replace(options, candidates=candidates)
    if weight is not None:
        options = replace(options, weight=weight)
    chosen = [each for each in read_all(data, pictures) if each.split == split]
    if len(chosen) < 2:
        raise InputError(f"split {split}: expected at least two pictures, got {len(chosen)}")
    check_pictures(chosen)
    features = _features(search.view, chosen, backbone, cache, on_progress, should_stop)
    if features is None:
        return None
    sentences = [words for each in chosen for words in each.captions]
    owners = torch.tensor([row for row, each in enumerate(chosen) for _ in each.captions])  # (M,)
    cosines = search.pictures(summaries(features)) @ search.sentences(sentences).mT  # (N, M)
    parts = {name: (rows, torch.isin(owners, rows)) for name, rows in _parts(len(chosen)).items()}

    def measured(of_pictures: Tensor, of_sentences: Tensor) -> dict[str, Recalls]:
        return {n: Recalls.of(of_pictures[r], of_sentences[s]) for n, (r, s) in parts.items()}

    found: dict[str, Recalls] | None = None
    weights: list[float] = []
    tried: list[dict[float, float]] = []
    if captioner is not None:
        seen: np.ndarray | None = features
        if captioner.view != search.view:
            seen = _features(captioner.view, chosen, backbone, cache, on_progress, should_stop)
        if seen is None:
            return None
        near = [nearest(cosines, options.candidates, dim) for dim in (1, 0)]
        wanted = near[0] | near[1]
        evidence = _evidence(captioner, seen, sentences, owners, wanted, on_progress, should_stop)
        if evidence is None:
            return None
        best = []
        for side, some in enumerate(near):
            by_weight = {
                each: ranks(reranked(cosines, evidence, some, each), owners)[side]
                for each in (_WEIGHTS if weight is None else (weight,))
            }
            first = parts[PARTS[0]][side]
            tried.append({each: sum(within(rank[first])) for each, rank in by_weight.items()})
            weights.append(max(tried[side], key=tried[side].__getitem__))
            best.append(by_weight[weights[side]])
        found = measured(*best)
    return Retrieval(
        split,
        len(chosen),
        len(sentences),
        measured(*ranks(cosines, owners)),
        found,
        options.candidates,
        tuple(weights),
        tuple(tried) if weight is None else (),
        {"search": search.record, "versions": current_versions()},
    )


def _parts(count: int) -> dict[str, Tensor]:
    everything = torch.arange(count)
    return dict(zip(PARTS, (*halves(everything), everything), strict=True))


def _features(
    view: View,
    pictures: Sequence[CaptionedPicture],
    backbone: Backbone | None,
    cache: str | Path | None,
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
) -> np.ndarray | None:
    """(N, P, C) of the pictures; None if it was stopped."""
    with tempfile.TemporaryDirectory(prefix="stylecap-") as passing:
        found = FeatureCache(cache or passing).features(
            backbone or load_backbone(view.backbone),
            view,
            [each.path for each in pictures],
            on_progress=on_progress,
            should_stop=should_stop,
        )
        return np.array(found) if found is not None and cache is None else found


def _evidence(
    captioner: Captioner,
    features: np.ndarray,
    sentences: Sequence[Sequence[str]],
    owners: Tensor,
    wanted: Tensor,
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
) -> Tensor | None:
    """(N, M) how much more probable sentences are by a picture than usually; 0 where unwanted.

    What is usual is the mean over other pictures, so that common sentences do not win.
    """
    begin = time.perf_counter()
    others = sorted({int(row) for row in np.linspace(0, len(features) - 1, _OTHERS)})
    steps = len(features) + len(others)
    found = torch.zeros(wanted.shape)
    usual, counts = torch.zeros(len(sentences)), torch.zeros(len(sentences))
    for step, row in enumerate([*others, *range(len(features))]):
        if should_stop is not None and should_stop():
            return None
        scene = torch.from_numpy(np.array(features[row : row + 1]))  # (1, P, C)
        asked = owners != row if step < len(others) else wanted[row]  # (M,)
        columns = asked.nonzero()[:, 0]
        log_probs = captioner.read(scene, [sentences[column] for column in columns])[0]
        if step < len(others):
            usual[columns] += log_probs
            counts[columns] += 1
        else:
            found[row, columns] = log_probs - (usual / counts)[columns]
        if on_progress is not None:
            on_progress(Progress(step + 1, steps, time.perf_counter() - begin, "reading again"))
    return found
