"""How well sentences fit pictures: both as points of one space, near where they belong together.

Captioners choose among the sentences of their beam by it, and the search by words finds pictures.

Source: Kiros et al. 2014 (the space), Faghri et al. 2018, "VSE++" (the hardest negative). Ours
reads convolutional features, mean and maximum over positions, instead of a classifier's layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from stylecap.captioning.features import View, in_parts
from stylecap.captioning.products import half_product
from stylecap.captioning.rounding import pack, unpack
from stylecap.captioning.vocabulary import PAD, UNK, Vocabulary, words_of
from stylecap.errors import InputError, OptionError, WeightsError
from stylecap.files import named
from stylecap.options import option, validate
from stylecap.tensorfile import load_tensors, save_tensors, under
from stylecap.weights import find_weights

#: Weights whose matcher the search by words takes.
SEARCH = "captioner-vgg16"
_FORMAT = 1
_NAME = "matcher"  # in files
_MAX_WORDS = 24  # longer sentences are cut here
_ROWS = 500  # sentences embedded at a time


@dataclass(frozen=True)
class EmbeddingShape:
    """What determines the weights."""

    words: int = option(..., "Entries of the vocabulary.", minimum=5)
    channels: int = option(..., "Channels of the picture's features.", minimum=1)
    units: int = option(512, "Width of the common space and of the GRU.", minimum=1)
    word_units: int = option(256, "Width of a word.", minimum=1)
    dropout: float = option(0.4, "Share of inputs dropped while training.", minimum=0, maximum=0.95)

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)


class JointEmbedding(nn.Module):
    """Maps features of pictures, and sentences, to unit vectors of one space.

    Letters of the shapes: B rows, P positions, C channels, T words, D units.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, shape: EmbeddingShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("centre", torch.zeros(2 * shape.channels))
        self.register_buffer("spread", torch.ones(2 * shape.channels))
        self.picture = nn.Linear(2 * shape.channels, shape.units)
        self.word = nn.Embedding(shape.words, shape.word_units, padding_idx=PAD)
        self.gru = nn.GRU(shape.word_units, shape.units, batch_first=True)
        self.sentence = nn.Linear(shape.units, shape.units)
        self.drop = nn.Dropout(shape.dropout)
        nn.init.xavier_uniform_(self.picture.weight)
        nn.init.zeros_(self.picture.bias)
        nn.init.normal_(self.word.weight, std=shape.word_units**-0.5)
        with torch.no_grad():
            self.word.weight[PAD].zero_()

    def fit_scale(self, summaries: Tensor) -> None:
        """Remember mean and deviation of the training pictures' `summary`, (N, 2C)."""
        self.centre.copy_(summaries.mean(0))
        self.spread.copy_(summaries.std(0).clamp_min(1e-3))

    def pictures(self, summaries: Tensor) -> Tensor:
        """(B, 2C) of `summary` to (B, D) of unit length."""
        standard = (summaries - self.centre) / self.spread  # (B, 2C)
        return F.normalize(self.picture(self.drop(standard)), dim=-1)  # (B, D)

    def sentences(self, tokens: Tensor) -> Tensor:
        """(B, T) ids, padded behind their end, at least one each, to (B, D) of unit length."""
        lengths = (tokens != PAD).sum(1)  # (B,)
        words = self.drop(self.word(tokens))  # (B, T, E)
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden = pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]  # (B, T, D)
        mean = hidden.sum(1) / lengths[:, None]  # (B, D); zeros stand behind the end
        return F.normalize(self.sentence(self.drop(mean)), dim=-1)  # (B, D)


class SentenceReader:
    """`JointEmbedding.sentences` of a trained one, arranged for few sentences at a time.

    What the GRU adds for each word of the vocabulary is tabulated once, and weights are read in
    float16 where that is fast. Later changes to the weights are not seen.
    """

    def __init__(self, model: JointEmbedding) -> None:
        from_input, from_hidden, input_bias, hidden_bias = (
            weight.detach().clone() for weight in model.gru.all_weights[0]
        )
        self._units = model.shape.units
        # The candidate's bias stands inside its product with the reset gate, the others' does not.
        bias = torch.cat([hidden_bias[: 2 * self._units], torch.zeros(self._units)])  # (3D,)
        self._table = F.linear(model.word.weight.detach(), from_input, input_bias + bias)  # (V, 3D)
        self._inside = hidden_bias[2 * self._units :]  # (D,)
        self._recurrent = half_product(from_hidden)  # D to 3D
        self._sentence = half_product(model.sentence.weight.detach().clone())  # D to D
        self._bias = model.sentence.bias.detach().clone()  # (D,)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, T) ids, padded behind their end, at least one each, to (B, D) of unit length."""
        lengths, order = (tokens != PAD).sum(1).sort(descending=True)  # (B,), the longest first
        tokens = tokens[order]
        hidden, total = tokens.new_zeros(2, len(tokens), self._units, dtype=torch.float32)
        for place in range(int(lengths[0])):
            going = int((lengths > place).sum())
            hidden = self._advance(tokens[:going, place], hidden[:going])  # (R, D)
            total[:going] += hidden
        points = self._sentence(total / lengths[:, None]) + self._bias  # (B, D)
        return F.normalize(points, dim=-1)[order.argsort()]

    def _advance(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """One word of the GRU: (R,) ids and (R, D) hidden outputs before them to those after."""
        said, heard = self._table[tokens], self._recurrent(hidden)  # (R, 3D) each
        both = 2 * self._units
        reset, keep = torch.sigmoid(said[:, :both] + heard[:, :both]).chunk(2, dim=1)
        candidate = torch.addcmul(said[:, both:], reset, heard[:, both:] + self._inside).tanh()
        return torch.lerp(candidate, hidden, keep)  # (R, D)


def summary(features: Tensor) -> Tensor:
    """A picture's features without their places: mean and maximum over positions.

    The square root evens out the few channels that answer very strongly.

    Args:
        features: (B, P, C) of `grid_features`, not negative.
    Returns:
        (B, 2C) float32.
    """
    precise = features.float()
    return torch.cat([precise.mean(1), precise.amax(1)], dim=-1).sqrt()  # (B, 2C)


def summaries(features: np.ndarray) -> Tensor:
    """`summary` of many pictures' features (N, P, C), which may lie on disk."""
    return torch.cat([summary(part) for part in in_parts(features)])


def ranking_loss(scores: Tensor, margin: float, *, hardest: bool = True) -> Tensor:
    """How far wrong partners come too near, in both directions.

    Args:
        scores: (B, B) similarity of picture i and sentence j; those of i = j belong together.
        margin: by which the right one must be ahead.
        hardest: count only the nearest wrong partner, instead of all.
    Returns:
        () mean over pairs of Σ max(0, margin - s(i, i) + s(i, j)) over j (or its greatest term),
        and the same over i.
    Raises:
        ValueError: ``scores`` is not square.
    Source: Faghri et al. 2018, equations 5 and 6.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores: expected (B, B), got {tuple(scores.shape)}")
    right = scores.diagonal()
    same = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    of_pictures = (margin + scores - right[:, None]).clamp_min(0).masked_fill(same, 0)  # (B, B)
    of_sentences = (margin + scores - right[None]).clamp_min(0).masked_fill(same, 0)  # (B, B)
    if hardest:
        return (of_pictures.amax(1) + of_sentences.amax(0)).mean()
    return (of_pictures.sum(1) + of_sentences.sum(0)).mean()


def pad_sentences(sentences: Sequence[Sequence[int]]) -> Tensor:
    """Ids of sentences as (B, T), cut and padded; an empty one becomes one unknown word."""
    cut = [list(ids[:_MAX_WORDS]) or [UNK] for ids in sentences]
    tokens = torch.full((len(cut), max(map(len, cut), default=1)), PAD)
    for row, ids in enumerate(cut):
        tokens[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    return tokens


class Matcher:
    """Tells how well sentences fit pictures, by trained embeddings; their file on disk.

    Several are an ensemble: their vectors stand one after another, scaled so that a cosine is the
    mean of theirs.

    Args:
        models: at least one, trained; put into evaluation mode.
        vocabulary: the words they know.
        view: how they see pictures; names the backbone.
        record: how they were trained, kept in the file.
    Raises:
        ValueError: the models do not fit each other or the vocabulary.
    """

    def __init__(
        self,
        models: Sequence[JointEmbedding],
        vocabulary: Vocabulary,
        view: View,
        *,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        sizes = {(model.shape.words, model.shape.channels) for model in models}
        if len(sizes) != 1 or next(iter(sizes))[0] != len(vocabulary):
            raise ValueError(
                f"models: expected one or more for {len(vocabulary)} words and the same pictures, "
                f"got (words, channels) {sorted(sizes)}"
            )
        self.models = [model.eval() for model in models]
        self._readers = [SentenceReader(model) for model in models]
        self.vocabulary = vocabulary
        self.view = view
        self.record = dict(record or {})

    def pictures(self, summaries: Tensor) -> Tensor:
        """(B, 2C) of `summary` to (B, D) of unit length."""
        with torch.inference_mode():
            return _joined([model.pictures(summaries) for model in self.models])

    def sentences(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """M lists of words to (M, D) of unit length."""
        ids = [self.vocabulary.encode(words) for words in sentences]
        with torch.inference_mode():
            return torch.cat(
                [
                    _joined([read(tokens) for read in self._readers])
                    for tokens in (
                        pad_sentences(ids[start : start + _ROWS])
                        for start in range(0, len(ids), _ROWS)
                    )
                ]
            )

    def embed_words(self, text: str) -> Tensor:
        """A sentence as (D,) of unit length.

        Raises:
            OptionError: it knows none of the words.
        """
        words = words_of(text)
        if not any(word in self.vocabulary for word in words):
            raise OptionError(
                f"words: none of {text!r} is known; the matcher knows {len(self.vocabulary) - 4} "
                "words, describe the scene with others"
            )
        return self.sentences([words])[0]

    def save(self, path: str | Path) -> None:
        """Write weights, rounded, and everything else as JSON into one safetensors file.

        Raises:
            OutputError: the file cannot be written.
        """
        save_tensors(path, {"format": _FORMAT, **self.header()}, self.tensors())

    def header(self) -> dict[str, Any]:
        """What is known of it beside the weights, as the entry ``matcher`` of a file's header."""
        known = {
            "view": asdict(self.view),
            "shapes": [asdict(model.shape) for model in self.models],
            "words": self.vocabulary.words,
            "record": self.record,
        }
        return {_NAME: known}

    def tensors(self) -> dict[str, Tensor]:
        """The weights, packed, by names that no captioner's weights have."""
        return pack(
            {
                f"{_NAME}/{index}/{name}": value
                for index, model in enumerate(self.models)
                for name, value in model.state_dict().items()
            }
        )

    @classmethod
    def of(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Matcher | None:
        """The matcher in a file, a captioner's perhaps; None if there is none.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: it is damaged or incomplete.
        """
        known = header.get(_NAME)
        if known is None:
            return None
        models = []
        for index, shape in enumerate(known["shapes"]):
            model = JointEmbedding(EmbeddingShape(**shape))
            model.load_state_dict(unpack(under(tensors, f"{_NAME}/{index}/")))
            models.append(model)
        view = View(**{**known["view"], "layers": tuple(known["view"]["layers"])})
        return cls(models, Vocabulary(known["words"]), view, record=known["record"])


def load_matcher(name: str | Path = SEARCH) -> Matcher:
    """Load the matcher of the search by words that comes with stylecap, or one of your own.

    Args:
        name: of shipped weights, or the path of a ``.safetensors`` file, a matcher's or that of a
            captioner that has one.
    Raises:
        WeightsError: there are no such weights, they are damaged, or hold no matcher.
        InputError: the path is not of this program and version.
    """
    if isinstance(name, Path) or name.endswith(".safetensors"):
        path = Path(name)
    else:
        path = find_weights(name)
    header, tensors = load_tensors(path, "matcher", _FORMAT, ())
    try:
        matcher = Matcher.of(header, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: the matcher is damaged or incomplete: {error}") from error
    if matcher is None:
        raise WeightsError(
            f"{named(path)}: there is no matcher in it; `stylecap train-search` makes one"
        )
    return matcher


def join_matchers(matchers: Sequence[Matcher]) -> Matcher:
    """An ensemble of matchers that were trained on the same data with other seeds or options.

    Raises:
        InputError: fewer than two, or they differ in their words or their view of the picture.
    """
    if len(matchers) < 2:
        raise InputError(f"matchers: expected two or more, got {len(matchers)}")
    first = matchers[0]
    for place, other in enumerate(matchers[1:], 2):
        if (other.view, other.vocabulary.words) != (first.view, first.vocabulary.words):
            raise InputError(
                f"matchers: 1 and {place} differ in their words or their view of pictures; join "
                "only those trained on the same data"
            )
    models = [model for each in matchers for model in each.models]
    record = {"ensemble": [each.record for each in matchers]}
    return Matcher(models, first.vocabulary, first.view, record=record)


def _joined(vectors: Sequence[Tensor]) -> Tensor:
    """(B, D) each, of unit length, to one after another, of unit length."""
    return torch.cat(list(vectors), dim=-1) / math.sqrt(len(vectors))
