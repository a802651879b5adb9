"""What people would write about a picture: how much of every n-gram is to be expected.

A regression (`consensus_fit`) goes from a picture to the TF-IDF of its captions. A sentence is
worth the product of its own TF-IDF with what is expected, which is what CIDEr rewards. It steers
the beam search of captioners.

Sources: Vedantam et al. 2015, "CIDEr" (the consensus of people); Devlin et al. 2015, "Exploring
Nearest Neighbor Approaches for Image Captioning" (that of similar pictures chooses a caption).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylecap.captioning.decode import State
from stylecap.captioning.features import View
from stylecap.captioning.products import half_product
from stylecap.captioning.rounding import pack, unpack
from stylecap.captioning.vocabulary import EOS, PAD
from stylecap.tensorfile import under

LENGTHS = 4  # of n-grams
MOST_WORDS = 55_108  # of a vocabulary: its fourth power, of n-grams, has 63 bits
_NAME = "consensus"  # in files
_SCALE = 10 / LENGTHS  # of CIDEr
_TINY = 1e-12
_NONE = -1  # instead of the key of an n-gram that would begin before the sentence
_HALF = ("weights",)  # are kept in float16: they nearly cancel, int8 costs a point of CIDEr-D


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
        self._ngrams = Ngrams(tensors["ngrams"], tensors["idf"], words=words, rare_idf=rare_idf)
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
            "ngrams": (count, LENGTHS),
        }
        for name, shape in expected.items():
            if shapes[name] != shape:
                raise ValueError(f"{name}: expected {shape}, got {shapes[name]}")
        if self.words > MOST_WORDS:
            raise ValueError(f"words: expected at most {MOST_WORDS}, got {self.words}")
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
        t, maps = self._tensors, self._maps
        with torch.inference_mode():
            places = maps["axes"](directions(summaries.cpu(), t)) - t["origin"]  # (B, D)
            near = kernel(places, self._squares, maps["landmarks"](places), self.width)  # (B, K)
            found = maps["weights"](near) + t["bias"]  # (B, R)
            rows = maps["topics"](found) + t["usual"]  # (B, G)
            return Expected((weight * rows).to(summaries.device), self._ngrams)

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


class Ngrams:
    """N-grams of up to four words that are known, found by the ids of their words.

    Args:
        ids: (G, 4), padded.
        idf: (G,).
        words: more than any id; at most 55,108.
        rare_idf: of all other n-grams.
    """

    def __init__(self, ids: Tensor, idf: Tensor, *, words: int, rare_idf: float) -> None:
        self._words = words
        # An n-gram's key is the number whose digits are its ids.
        keys = torch.zeros(len(ids), dtype=torch.long)
        for column in ids.long().unbind(1):
            keys = torch.where(column == PAD, keys, keys * words + column)
        # Those that are not known stand behind the others, with a key that none has.
        keys = F.pad(keys, (0, 1), value=words**LENGTHS)
        self._keys, self._places = keys.sort()
        self._idf = F.pad(idf, (0, 1), value=rare_idf)  # (G+1,)

    def to(self, device: torch.device) -> Ngrams:
        """The same on a device; itself if it is there already."""
        if self._keys.device == device:
            return self
        moved = copy(self)
        for name in ("_keys", "_places", "_idf"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def grown(self, before: Tensor, words: Tensor) -> Tensor:
        """Keys of the n-grams that words complete, one of each length.

        Args:
            before: (R, 4) keys that the words before completed, -1 for none.
            words: (R,) ids.
        Returns:
            (R, 4), likewise.
        """
        keys = F.pad(before[:, :-1], (1, 0)) * self._words + words[:, None]
        return keys.where((keys >= 0) & (words > EOS)[:, None], _NONE)

    def find(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Their places among the G, G if not known, and their IDF, 0 of no n-gram."""
        found = torch.searchsorted(self._keys, keys)
        places = self._places[found].where(self._keys[found] == keys, len(self._idf) - 1)
        return places, self._idf[places] * (keys != _NONE)


class Expected:
    """What sentences are worth for some pictures: a `decode.Worth`.

    The product of the sentence's TF-IDF, of unit length for every length of n-grams, with that
    expected for the picture: CIDEr without its clipping, some 0.5 for a good caption. It grows
    with every word by the n-grams that the word completes.

    Args:
        rows: (B, G) what is expected of G n-grams for each picture.
        ngrams: these.
    """

    def __init__(self, rows: Tensor, ngrams: Ngrams) -> None:
        self._rows = F.pad(rows, (0, 1))  # (B, G+1), nothing of others
        self._ngrams = ngrams.to(rows.device)

    def begin(self, rows: int) -> State:
        """What it keeps of rows without a word; of which ``image`` they are, others keep."""
        return {
            "keys": self._rows.new_full((rows, LENGTHS, 1), _NONE, dtype=torch.long),  # so far
            # the product with what is expected, and the square of the own length
            "sums": self._rows.new_zeros(rows, 2, LENGTHS),
        }

    def __call__(self, state: State, rows: Tensor, words: Tensor) -> tuple[Tensor, State]:
        """What sentences are worth, (M,), that go on with a word or end; what it keeps of them."""
        image, before = state["image"][rows], state["keys"][rows]  # (M,), (M, 4, T)
        keys = self._ngrams.grown(before[..., -1], words)  # (M, 4)
        places, idf = self._ngrams.find(keys)
        counts = (before == keys[..., None]).sum(2)  # (M, 4)
        grown = idf * self._rows[image[:, None], places], idf.square() * (2 * counts + 1)
        sums = state["sums"][rows] + torch.stack(grown, dim=1)  # (M, 2, 4)
        products, squares = sums.unbind(1)
        worth = _SCALE * (products / squares.sqrt().clamp_min(_TINY)).sum(1)
        return worth, {"keys": torch.cat([before, keys[..., None]], dim=2), "sums": sums}


def directions(summaries: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """(B, 2C) standardised, of unit length: what deviates counts, not how much there is of all."""
    return F.normalize((summaries - tensors["centre"]) / tensors["spread"], dim=1)


def kernel(places: Tensor, squares: Tensor, products: Tensor, width: float) -> Tensor:
    """The Gaussian kernel (B, K) of places and landmarks.

    Args:
        places: (B, D).
        squares: (K,) lengths of the landmarks.
        products: (B, K) of places with landmarks.
        width: of the kernel.
    """
    distances = places.square().sum(1, keepdim=True) + squares - 2 * products
    return distances.mul_(-1 / width).exp_()


def rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As a file gives them back, so that what is fitted to them allows for their rounding."""
    return unpack(pack(tensors, half=_HALF))
