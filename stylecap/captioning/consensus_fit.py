"""Learn what people would write about a picture, from pictures that they described.

Kernel ridge regression, in closed form, from principal axes of the pictures to topics of the
TF-IDF of their captions.

Sources: Saunders et al. 1998 (kernel ridge regression); Williams and Seeger 2001 (landmarks);
Deerwester et al. 1990 (topics of TF-IDF).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from stylecap.captioning.consensus import (
    LENGTHS,
    MOST_WORDS,
    Consensus,
    directions,
    kernel,
    rounded,
)
from stylecap.captioning.features import View
from stylecap.captioning.metrics import CiderD, NGram, Words, ngrams
from stylecap.captioning.vocabulary import PAD, Vocabulary
from stylecap.options import MAX_SEED, option, validate
from stylecap.progress import ShouldStop

_ROWS = 2000  # pictures at a time
_ROUNDS = 10  # of the iteration that finds topics


@dataclass(frozen=True)
class ConsensusOptions:
    """How the regression is made, chosen on Flickr8k; fewer of everything for fewer pictures."""

    least: int = option(10, "Pictures whose captions share an n-gram that is kept.", minimum=2)
    most: int = option(8200, "N-grams that are kept, the most frequent ones.", minimum=1)
    axes: int = option(384, "Principal axes of the pictures.", minimum=1)
    landmarks: int = option(6000, "Pictures that others are compared with.", minimum=1)
    topics: int = option(512, "Directions of TF-IDF that are predicted.", minimum=1)
    width: float = option(1.5, "Of the kernel exp(-d²/width) of the distance.", minimum=1e-3)
    ridge: float = option(0.1, "Added to the kernel's diagonal, a share of its mean.", minimum=1e-6)
    rare: float = option(3.0, "Pictures that an n-gram counts for which is not kept.", minimum=1)
    seed: int = option(0, "Chooses the landmarks.", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)


def fit_consensus(
    seen: Sequence[Tensor],
    captions: Sequence[Sequence[Sequence[Words]]],
    vocabulary: Vocabulary,
    view: View,
    options: ConsensusOptions | None = None,
    *,
    should_stop: ShouldStop | None = None,
) -> Consensus | None:
    """Learn what to expect from pictures that people described; two minutes, for 6,000.

    Args:
        seen: (N, 2C) of `matching.summaries`, of N pictures, then perhaps of their mirror images.
        captions: for each of these, what people wrote, or would have written, about every picture.
        vocabulary: n-grams with other words are left out.
        view: of the summaries.
        options: `ConsensusOptions()` if None.
        should_stop: asked between the parts of the work.
    Returns:
        None if it was stopped, or there is nothing to learn: no n-gram is frequent enough and
        yet tells pictures apart, or there are more than 55,108 words.
    Raises:
        ValueError: the summaries are not finite.
    """
    options = options or ConsensusOptions()
    if len(vocabulary) > MOST_WORDS:
        return None
    rows = torch.cat(list(seen))  # (M, 2C)
    kept, idf, rare_idf, targets = _targets(captions, vocabulary, options)
    if not len(targets.values()) or (should_stop is not None and should_stop()):
        return None
    random = torch.Generator().manual_seed(options.seed)
    tensors = rounded({"centre": rows.mean(0), "spread": rows.std(0).clamp_min(1e-3)})
    pointing = directions(rows, tensors)  # (M, 2C)
    mean = pointing.mean(0)
    axes = torch.linalg.eigh(torch.cov(pointing.mT))[1][:, -options.axes :].mT  # (D, 2C)
    tensors |= rounded({"axes": axes.contiguous(), "origin": axes @ mean})
    places = pointing @ tensors["axes"].mT - tensors["origin"]  # (M, D)
    chosen = torch.randperm(len(seen[0]), generator=random)[: options.landmarks]
    tensors |= rounded({"landmarks": places[chosen]})
    if should_stop is not None and should_stop():
        return None
    usual, topics, wanted = _topics(targets, options.topics, random)
    if should_stop is not None and should_stop():
        return None
    weights, near = _regress(places, tensors["landmarks"], wanted, options)
    tensors |= rounded({"weights": weights, "topics": topics, "usual": usual})
    tensors |= rounded({"bias": wanted.mean(0) - near @ tensors["weights"]})
    ids = torch.full((len(kept), LENGTHS), PAD, dtype=torch.int32)
    for row, ngram in enumerate(kept):
        ids[row, : len(ngram)] = torch.tensor(vocabulary.encode(ngram))
    tensors |= rounded({"idf": torch.tensor(idf), "ngrams": ids})
    return Consensus(
        tensors,
        len(vocabulary),
        view,
        width=options.width,
        rare_idf=rare_idf,
        record={"options": asdict(options), "pictures": len(seen[0]), "seen": len(rows)},
    )


def _targets(
    captions: Sequence[Sequence[Sequence[Words]]],
    vocabulary: Vocabulary,
    options: ConsensusOptions,
) -> tuple[list[NGram], list[float], float, Tensor]:
    """The n-grams that are kept, their idf and that of others, and (M, G) TF-IDF, sparse.

    A picture's is the mean over its captions, each of unit length for every length of n-grams.
    """
    times = len(captions)  # that each picture was seen
    said = [group for each in captions for group in each]
    scorer = CiderD(said)
    frequencies = Counter(
        ngram
        for group in said
        for ngram in {each for words in group for counts in ngrams(words) for each in counts}
    )
    frequent = [
        ngram
        for ngram, count in frequencies.items()
        if count >= times * options.least and all(word in vocabulary for word in ngram)
    ]
    kept = sorted(frequent, key=lambda ngram: (-frequencies[ngram], ngram))[: options.most]
    place = {ngram: row for row, ngram in enumerate(kept)}
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for row, group in enumerate(said):
        for vector in scorer.prepare(group):
            for weights, norm in zip(vector.weights, vector.norms, strict=True):
                for ngram, weight in weights.items():
                    if weight and ngram in place:
                        rows.append(row)
                        columns.append(place[ngram])
                        values.append(weight / norm / len(group))
    shape = (len(said), len(kept))
    targets = torch.sparse_coo_tensor(
        torch.tensor([rows, columns]), torch.tensor(values), shape, check_invariants=True
    ).coalesce()
    idf = [scorer.idf(frequencies[ngram]) for ngram in kept]
    return kept, idf, scorer.idf(times * options.rare), targets


def _topics(targets: Tensor, count: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Main directions of sparse (N, G): their mean (G), (G, R) directions, (N, R) coordinates.

    Source: Halko et al. 2011, algorithm 4.4.
    """
    pictures, ngrams_ = targets.shape
    mean = torch.sparse.sum(targets, 0).to_dense() / pictures  # (G,)
    count = min(count, pictures, ngrams_)
    back = targets.mT.coalesce()
    found = torch.randn(ngrams_, min(count + 16, pictures, ngrams_), generator=random)
    for _ in range(_ROUNDS):
        left = torch.linalg.qr(targets @ found - mean @ found)[0]  # (N, R)
        found = torch.linalg.qr(back @ left - torch.outer(mean, left.sum(0)))[0]  # (G, R)
    coordinates = targets @ found - mean @ found  # (N, R)
    turn = torch.linalg.svd(coordinates, full_matrices=False)[2][:count].mT  # (R+, R)
    return mean, found @ turn, coordinates @ turn


def _regress(
    places: Tensor, landmarks: Tensor, targets: Tensor, options: ConsensusOptions
) -> tuple[Tensor, Tensor]:
    """Ridge regression from the kernel to targets: (K, R) weights, and (K) the kernel's mean.

    Args:
        places: (M, D).
        landmarks: (K, D).
        targets: (M, R).
        options: width and ridge.
    """
    count, size = len(places), len(landmarks)
    lengths = landmarks.square().sum(1)  # (K,)
    mean = torch.zeros(size, dtype=torch.float64)
    squares = torch.zeros(size, size, dtype=torch.float64)
    crossed = torch.zeros(size, targets.shape[1], dtype=torch.float64)
    for part, wanted in zip(torch.split(places, _ROWS), torch.split(targets, _ROWS), strict=True):
        near = kernel(part, lengths, part @ landmarks.mT, options.width)  # (_ROWS, K)
        mean += near.sum(0)
        squares += near.mT @ near
        crossed += near.mT @ wanted
    mean /= count
    squares -= count * torch.outer(mean, mean)
    crossed -= torch.outer(mean, targets.sum(0).double())
    products = landmarks @ landmarks.mT
    among = kernel(landmarks, lengths, products, options.width).double()  # (K, K)
    diagonal = 1 - float(among.mean())  # of the centred kernel
    squares += options.ridge * diagonal * among
    weights = torch.cholesky_solve(crossed, _cholesky(squares))  # (K, R)
    return weights.float(), mean.float()


def _cholesky(matrix: Tensor) -> Tensor:
    """The factor of a matrix that is positive semidefinite up to the rounding of its sums.

    As little is added to its diagonal as lets it be found: more where pictures hardly differ.

    Raises:
        ValueError: there is none, since it is not finite.
    """
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("seen: expected finite summaries of pictures, got others among them")
    jitter = 1e-4  # a thousandth of the ridge
    while True:
        matrix.diagonal().add_(jitter)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            return factor
        jitter *= 10
