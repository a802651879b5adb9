"""What people would write about a picture: how much of every n-gram is to be expected.

Kernel ridge regression, in closed form, from a picture to the TF-IDF of its captions. A sentence
is worth the product of its own TF-IDF with what is expected, which is what CIDEr rewards.
It steers the beam search of captioners.

Sources: Vedantam et al. 2015, "CIDEr" (the consensus of people); Devlin et al. 2015, "Exploring
Nearest Neighbor Approaches for Image Captioning" (that of similar pictures chooses a caption);
Saunders et al. 1998 (kernel ridge regression); Williams and Seeger 2001 (landmarks);
Deerwester et al. 1990 (topics of TF-IDF).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylecap.captioning.decode import State
from stylecap.captioning.features import View
from stylecap.captioning.metrics import CiderD, NGram, Words, ngrams
from stylecap.captioning.products import half_product
from stylecap.captioning.rounding import pack, unpack
from stylecap.captioning.vocabulary import EOS, PAD, Vocabulary
from stylecap.options import option, validate
from stylecap.progress import ShouldStop
from stylecap.tensorfile import under

_NAME = "consensus"  # in files
_LENGTHS = 4  # of n-grams
_SCALE = 10 / _LENGTHS  # of CIDEr
_ROWS = 2000  # pictures at a time
_ROUNDS = 10  # of the iteration that finds topics
_TINY = 1e-12
_NONE = -1  # instead of the key of an n-gram that would begin before the sentence
_HALF = ("weights",)  # are kept in float16: they nearly cancel, int8 costs a point of CIDEr-D


@dataclass(frozen=True)
class ConsensusOptions:
    """How the regression is made, chosen on Flickr8k; fewer of everything for fewer pictures."""

    least: int = option(10, "Pictures, also mirrored ones, that share an n-gram.", minimum=2)
    most: int = option(8200, "N-grams that are kept, the most frequent ones.", minimum=1)
    axes: int = option(384, "Principal axes of the pictures.", minimum=1)
    landmarks: int = option(6000, "Pictures that others are compared with.", minimum=1)
    topics: int = option(512, "Directions of TF-IDF that are predicted.", minimum=1)
    width: float = option(1.5, "Of the kernel exp(-d²/width) of the distance.", minimum=1e-3)
    ridge: float = option(0.1, "Added to the kernel's diagonal, a share of its mean.", minimum=1e-6)
    rare: float = option(6.0, "Pictures that an n-gram counts for which is not kept.", minimum=1)
    seed: int = option(0, "Chooses the landmarks.", minimum=0)

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)


class Consensus:
    """Tells how much of a sentence people would write about a picture.

    Letters of the shapes: B pictures, C channels, D axes, K landmarks, R topics, G n-grams.

    Args:
        tensors: ``centre`` and ``spread`` (2C) of summaries; ``axes`` (D, 2C) and ``origin`` (D)
            of principal components; ``landmarks`` (K, D); ``weights`` (K, R) and ``bias`` (R) of
            the regression; ``topics`` (G, R) and ``usual`` (G), directions and mean of TF-IDF;
            ``idf`` (G); ``ngrams`` (G, 4) the words' ids, padded.
        words: of the vocabulary that the ids are from.
        view: how it sees pictures; names the backbone.
        width: of the kernel.
        rare_idf: of n-grams that are not among the G.
        record: how it was made, kept in the file.
    Raises:
        ValueError: the tensors do not fit each other or the vocabulary.
        KeyError: one is missing.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        words: int,
        view: View,
        *,
        width: float,
        rare_idf: float,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self._tensors = dict(tensors)
        self.words, self.view = words, view
        self.width, self.rare_idf = width, rare_idf
        self.record = dict(record or {})
        self._check()
        self._squares = tensors["landmarks"].square().sum(1)  # (K,)
        self._maps = {
            name: half_product(weight)
            for name, weight in (
                ("axes", tensors["axes"]),
                ("landmarks", tensors["landmarks"]),
                ("weights", tensors["weights"].mT.contiguous()),
                ("topics", tensors["topics"]),
            )
        }

    def _check(self) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        axes, inputs = shapes["axes"]
        landmarks, topics = shapes["weights"]
        count, _ = shapes["ngrams"]
        expected = {
            "centre": (inputs,),
            "spread": (inputs,),
            "origin": (axes,),
            "landmarks": (landmarks, axes),
            "bias": (topics,),
            "topics": (count, topics),
            "usual": (count,),
            "idf": (count,),
            "ngrams": (count, _LENGTHS),
        }
        for name, shape in expected.items():
            if shapes[name] != shape:
                raise ValueError(f"{name}: expected {shape}, got {shapes[name]}")
        ids = self._tensors["ngrams"]
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.words:
            raise ValueError(
                f"ngrams: expected ids from 0 to {self.words - 1}, got {int(ids.min())} to "
                f"{int(ids.max())}"
            )

    def expected(self, summaries: Tensor, weight: float = 1.0) -> Expected:
        """What is expected of pictures, (B, 2C) of `matching.summary`, on whose device it lies.

        What sentences are worth is multiplied by the weight.
        """
        t, maps, device = self._tensors, self._maps, summaries.device
        with torch.inference_mode():
            places = maps["axes"](_directions(summaries.cpu(), t)) - t["origin"]  # (B, D)
            near = _kernel(places, self._squares, maps["landmarks"](places), self.width)  # (B, K)
            found = maps["weights"](near) + t["bias"]  # (B, R)
            rows = maps["topics"](found) + t["usual"]  # (B, G)
            kept = (each.to(device) for each in (weight * rows, t["ngrams"], t["idf"]))
            return Expected(*kept, words=self.words, rare_idf=self.rare_idf)

    def header(self) -> dict[str, Any]:
        """What is known of it beside the tensors, as the entry ``consensus`` of a file's header."""
        return {
            _NAME: {"width": self.width, "rare_idf": self.rare_idf, "record": self.record},
        }

    def tensors(self) -> dict[str, Tensor]:
        """The numbers, packed, by names that no captioner's weights have."""
        packed = pack(self._tensors, half=_HALF)
        return {f"{_NAME}/{name}": value for name, value in packed.items()}

    @classmethod
    def of(
        cls,
        header: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        words: int,
        view: View,
    ) -> Consensus | None:
        """The consensus in the file of a captioner, whose words and view it has; None if none.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: it is damaged or incomplete.
        """
        known = header.get(_NAME)
        if known is None:
            return None
        return cls(unpack(under(tensors, f"{_NAME}/")), words, view, **known)


class Expected:
    """What sentences are worth for some pictures: a `decode.Worth` that goes along with the steps.

    The product of the sentence's TF-IDF, of unit length for every length of n-grams, with that
    expected for the picture: CIDEr without its clipping, some 0.5 for a good caption. It grows
    with every word by the n-grams that the word completes.

    Args:
        rows: (B, G) what is expected of G n-grams for each picture.
        ngrams: (G, 4) the ids of their words, padded.
        idf: (G,).
        words: more than any id; its fourth power is a number of 63 bits.
        rare_idf: of all other n-grams.
    """

    def __init__(
        self, rows: Tensor, ngrams: Tensor, idf: Tensor, *, words: int, rare_idf: float
    ) -> None:
        self._words = words
        # Those that are not known stand behind the others.
        self._rows = F.pad(rows, (0, 1))  # (B, G+1)
        self._idf = F.pad(idf, (0, 1), value=rare_idf)  # (G+1,)
        # An n-gram's key is the number whose digits are its ids.
        keys = idf.new_zeros(len(ngrams) + 1, dtype=torch.long)
        for ids in ngrams.long().unbind(1):
            keys[:-1] = torch.where(ids == PAD, keys[:-1], keys[:-1] * words + ids)
        keys[-1] = words**_LENGTHS  # no n-gram's
        self._keys, self._places = keys.sort()

    def begin(self, rows: int) -> State:
        """What it keeps of rows, before ``<bos>``; of which ``image`` they are, others keep."""
        return {
            "keys": self._keys.new_full((rows, _LENGTHS, 1), _NONE),  # of the n-grams so far
            "sums": self._rows.new_zeros(rows, 2, _LENGTHS),
        }

    def step(self, tokens: Tensor, state: State) -> State:
        """One word further: (R,) ids, the first of them ``<bos>``."""
        keys, sums = self._grown(tokens, state)
        return {**state, "keys": torch.cat([state["keys"], keys], dim=2), "sums": sums}

    def __call__(self, state: State, rows: Tensor, words: Tensor) -> Tensor:
        """What sentences are worth, (M,), that go on with a word or end."""
        asked = {name: state[name][rows] for name in ("image", "keys", "sums")}
        products, squares = self._grown(words, asked)[1].unbind(1)  # (M, 4) each
        return _SCALE * (products / squares.sqrt().clamp_min(_TINY)).sum(1)

    def _grown(self, words: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """The n-grams that (R,) words complete, and the sums with them.

        Returns:
            (R, 4, 1) keys, of each length of n-grams one, and (R, 2, 4) the product with what is
            expected and the square of the own length.
        """
        before, words = state["keys"], words[:, None]  # (R, 4, T), (R, 1)
        keys = F.pad(before[:, :-1, -1], (1, 0)) * self._words + words  # (R, 4)
        keys = keys.where((keys >= 0) & (words > EOS), _NONE)
        found = torch.searchsorted(self._keys, keys)
        places = self._places[found].where(self._keys[found] == keys, len(self._idf) - 1)
        idf = self._idf[places] * (keys != _NONE)
        counts = (before == keys[..., None]).sum(2)  # (R, 4)
        grown = idf * self._rows[state["image"][:, None], places], idf.square() * (2 * counts + 1)
        return keys[..., None], state["sums"] + torch.stack(grown, dim=1)


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
        captions: what people wrote, or would have written, about each of each of them.
        vocabulary: n-grams with other words are left out.
        view: of the summaries.
        options: `ConsensusOptions()` if None.
        should_stop: asked between the parts of the work.
    Returns:
        None if it was stopped, or there is nothing to learn: no n-gram is frequent enough and
        yet tells pictures apart.
    """
    options = options or ConsensusOptions()
    rows = torch.cat(list(seen))  # (M, 2C)
    said = [group for each in captions for group in each]
    kept, idf, rare_idf, targets = _targets(said, vocabulary, options)
    if not len(targets.values()) or (should_stop is not None and should_stop()):
        return None
    random = torch.Generator().manual_seed(options.seed)
    tensors = _rounded({"centre": rows.mean(0), "spread": rows.std(0).clamp_min(1e-3)})
    directions = _directions(rows, tensors)  # (M, 2C)
    mean = directions.mean(0)
    axes = torch.linalg.eigh(torch.cov(directions.mT))[1][:, -options.axes :].mT  # (D, 2C)
    tensors |= _rounded({"axes": axes.contiguous(), "origin": axes @ mean})
    places = directions @ tensors["axes"].mT - tensors["origin"]  # (M, D)
    chosen = torch.randperm(len(seen[0]), generator=random)[: options.landmarks]
    tensors |= _rounded({"landmarks": places[chosen]})
    if should_stop is not None and should_stop():
        return None
    usual, topics, wanted = _topics(targets, options.topics, random)
    if should_stop is not None and should_stop():
        return None
    weights, near = _regress(places, tensors["landmarks"], wanted, options)
    tensors |= _rounded({"weights": weights, "topics": topics, "usual": usual})
    tensors |= _rounded({"bias": wanted.mean(0) - near @ tensors["weights"]})
    ids = torch.full((len(kept), _LENGTHS), PAD, dtype=torch.int32)
    for row, ngram in enumerate(kept):
        ids[row, : len(ngram)] = torch.tensor(vocabulary.encode(ngram))
    tensors |= _rounded({"idf": torch.tensor(idf), "ngrams": ids})
    return Consensus(
        tensors,
        len(vocabulary),
        view,
        width=options.width,
        rare_idf=rare_idf,
        record={"options": asdict(options), "pictures": len(seen[0]), "seen": len(rows)},
    )


def _directions(summaries: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """(B, 2C) standardised, of unit length: what deviates counts, not how much there is of all."""
    return F.normalize((summaries - tensors["centre"]) / tensors["spread"], dim=1)


def _kernel(places: Tensor, squares: Tensor, products: Tensor, width: float) -> Tensor:
    """The Gaussian kernel (B, K) of places and landmarks.

    Args:
        places: (B, D).
        squares: (K,) lengths of the landmarks.
        products: (B, K) of places with landmarks.
        width: of the kernel.
    """
    distances = places.square().sum(1, keepdim=True) + squares - 2 * products
    return distances.mul_(-1 / width).exp_()


def _targets(
    captions: Sequence[Sequence[Words]], vocabulary: Vocabulary, options: ConsensusOptions
) -> tuple[list[NGram], list[float], float, Tensor]:
    """The n-grams that are kept, their idf and that of others, and (N, G) TF-IDF, sparse.

    A picture's is the mean over its captions, each of unit length for every length of n-grams.
    """
    scorer = CiderD(captions)
    frequencies = Counter(
        ngram
        for group in captions
        for ngram in {each for words in group for counts in ngrams(words) for each in counts}
    )
    frequent = [
        ngram
        for ngram, count in frequencies.items()
        if count >= options.least and all(word in vocabulary for word in ngram)
    ]
    kept = sorted(frequent, key=lambda ngram: (-frequencies[ngram], ngram))[: options.most]
    place = {ngram: row for row, ngram in enumerate(kept)}
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for row, group in enumerate(captions):
        for vector in scorer.prepare(group):
            for weights, norm in zip(vector.weights, vector.norms, strict=True):
                for ngram, weight in weights.items():
                    if weight and ngram in place:
                        rows.append(row)
                        columns.append(place[ngram])
                        values.append(weight / norm / len(group))
    shape = (len(captions), len(kept))
    targets = torch.sparse_coo_tensor(
        torch.tensor([rows, columns]), torch.tensor(values), shape, check_invariants=True
    ).coalesce()
    idf = [scorer.idf(frequencies[ngram]) for ngram in kept]
    return kept, idf, scorer.idf(options.rare), targets


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
        near = _kernel(part, lengths, part @ landmarks.mT, options.width)  # (_ROWS, K)
        mean += near.sum(0)
        squares += near.mT @ near
        crossed += near.mT @ wanted
    mean /= count
    squares -= count * torch.outer(mean, mean)
    crossed -= torch.outer(mean, targets.sum(0).double())
    products = landmarks @ landmarks.mT
    among = _kernel(landmarks, lengths, products, options.width).double()  # (K, K)
    diagonal = 1 - float(among.mean())  # of the centred kernel
    squares += options.ridge * diagonal * among
    weights = torch.cholesky_solve(crossed, _cholesky(squares))  # (K, R)
    return weights.float(), mean.float()


def _cholesky(matrix: Tensor) -> Tensor:
    """The factor of a matrix that is positive semidefinite up to the rounding of its sums.

    As little is added to its diagonal as lets it be found: more where pictures hardly differ.
    """
    jitter = 1e-4  # a thousandth of the ridge
    while True:
        matrix.diagonal().add_(jitter)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            return factor
        jitter *= 10


def _rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As a file gives them back, so that what is fitted to them allows for their rounding."""
    return unpack(pack(tensors, half=_HALF))
