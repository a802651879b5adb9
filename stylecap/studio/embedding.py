"""Pictures and sentences as points of one space, near where they belong together.

Source: Kiros et al. 2014 (the space), Faghri et al. 2018, "VSE++" (the hardest negative). Ours
reads convolutional features, mean and maximum over positions, instead of a classifier's layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from stylecap.backbone import Backbone
from stylecap.captioning.data import View, grid_features, see
from stylecap.captioning.vocabulary import PAD, UNK, Vocabulary, words_of
from stylecap.errors import OptionError, WeightsError
from stylecap.options import option, validate
from stylecap.tensorfile import load_tensors, save_tensors
from stylecap.weights import find_weights

#: How the shipped embedding sees pictures: what, how, and which textures are there.
SEARCH_VIEW = View("vgg16", ("relu5_3", "relu4_3", "relu3_3"), 7)
WEIGHTS = "search-vgg16"
_FORMAT = 1


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


def recalls(
    pictures: Tensor, sentences: Tensor, owners: Tensor, at: Sequence[int] = (1, 5, 10)
) -> tuple[list[float], list[float]]:
    """Share of queries with a right answer among the first K.

    Args:
        pictures: (N, D) of unit length.
        sentences: (M, D) of unit length.
        owners: (M,) number of the picture that each sentence belongs to.
        at: the Ks.
    Returns:
        Image to text (any of the picture's sentences counts), text to image; in percent.
    """
    scores = pictures @ sentences.mT  # (N, M)
    right = owners[None] == torch.arange(len(pictures), device=owners.device)[:, None]  # (N, M)
    best = scores.masked_fill(~right, -math.inf).amax(1)  # (N,)
    image_ranks = (scores.masked_fill(right, -math.inf) > best[:, None]).sum(1)  # (N,)
    own = scores.gather(0, owners[None])[0]  # (M,)
    text_ranks = (scores > own[None]).sum(0)  # (M,)
    return (
        [100 * float((image_ranks < k).float().mean()) for k in at],
        [100 * float((text_ranks < k).float().mean()) for k in at],
    )


def pad_sentences(sentences: Sequence[Sequence[int]], max_words: int) -> Tensor:
    """Ids of sentences as (B, T), cut and padded; an empty one becomes one unknown word."""
    cut = [list(ids[:max_words]) or [UNK] for ids in sentences]
    tokens = torch.full((len(cut), max(map(len, cut), default=1)), PAD)
    for row, ids in enumerate(cut):
        tokens[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    return tokens


class WordSearch:
    """A trained embedding with its vocabulary and its view of pictures; its file on disk.

    Attributes:
        model: in evaluation mode.
        vocabulary: the words it knows.
        view: how it sees pictures; names the backbone.
        record: how it was trained.
    """

    def __init__(
        self,
        model: JointEmbedding,
        vocabulary: Vocabulary,
        view: View = SEARCH_VIEW,
        *,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        if model.shape.words != len(vocabulary):
            raise ValueError(
                f"model: expected one for {len(vocabulary)} words, got {model.shape.words}"
            )
        self.model = model.eval()
        self.vocabulary = vocabulary
        self.view = view
        self.record = dict(record or {})

    def embed_picture(self, backbone: Backbone, picture: Any) -> Tensor:
        """A PIL picture as (D,) of unit length, float32 on the CPU.

        Raises:
            InputError: the backbone is another one.
        """
        features = grid_features(backbone, see(picture, self.view), self.view).cpu()
        with torch.no_grad():
            return self.model.pictures(summary(features))[0]

    def embed_words(self, text: str) -> Tensor:
        """A sentence as (D,) of unit length.

        Raises:
            OptionError: it knows none of the words.
        """
        ids = self.vocabulary.encode(words_of(text))
        if all(token == UNK for token in ids):
            raise OptionError(
                f"words: none of {text!r} is known; the search knows {len(self.vocabulary) - 4} "
                "English words, describe the scene with others"
            )
        with torch.no_grad():
            return self.model.sentences(torch.tensor([ids]))[0]

    def save(self, path: str | Path) -> None:
        """Write weights as float16 and everything else as JSON into one safetensors file.

        Raises:
            OutputError: the file cannot be written.
        """
        header = {
            "format": _FORMAT,
            "kind": "search",
            "view": asdict(self.view),
            "shape": asdict(self.model.shape),
            "words": self.vocabulary.words,
            "record": self.record,
        }
        tensors = {name: value.half() for name, value in self.model.state_dict().items()}
        save_tensors(path, header, tensors)


def load_word_search(name: str | Path = WEIGHTS) -> WordSearch:
    """Load the embedding that comes with stylecap, or one of your own.

    Args:
        name: of shipped weights, or the path of a ``.safetensors`` file.
    Raises:
        WeightsError: there are no such weights, or they are damaged.
        InputError: the path is not an embedding of this program and version.
    """
    path = Path(name) if str(name).endswith(".safetensors") else find_weights(str(name))
    header, tensors = load_tensors(path, "search", _FORMAT, ("view", "shape"))
    try:
        model = JointEmbedding(EmbeddingShape(**header["shape"]))
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        view = header["view"]
        return WordSearch(
            model,
            Vocabulary(header["words"]),
            View(**{**view, "layers": tuple(view["layers"])}),
            record=header["record"],
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: the search is damaged or incomplete: {error}") from error
