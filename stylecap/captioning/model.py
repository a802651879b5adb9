"""The decoder: image features in, a distribution over the next word out.

Two kinds share one module. The plain one (Vinyals et al. 2015, "Show and Tell") reads the
image once, as if it were the first word. The attentive one looks at the picture again for
every word, with a sentinel beside the picture's positions for words that need no look (Lu et
al. 2017, "Knowing When to Look"). Its attention comes after the LSTM and is not fed back into
it, so that a whole sentence runs through the LSTM in one call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from stylecap.captioning.decode import State
from stylecap.captioning.options import DECODERS
from stylecap.captioning.vocabulary import FIRST_PREDICTED, PAD
from stylecap.options import option, validate


@dataclass(frozen=True)
class DecoderShape:
    """What determines the decoder's weights."""

    words: int = option(..., "Entries of the vocabulary.", minimum=5)
    channels: int = option(..., "Channels of the image features.", minimum=1)
    positions: int = option(..., "Positions of the image features, height times width.", minimum=1)
    kind: str = option("attentive", "How the decoder sees the image.", choices=DECODERS)
    units: int = option(512, "Width of the LSTM, the embedding and the attention.", minimum=1)
    heads: int = option(8, "Attention heads; they divide units.", minimum=1)
    dropout: float = option(0.5, "Share of units dropped while training.", minimum=0, maximum=0.95)
    position_dropout: float = option(
        0.0, "Share of positions hidden while training.", minimum=0, maximum=0.95
    )

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)
        if self.units % self.heads:
            raise ValueError(f"heads: expected a divisor of units={self.units}, got {self.heads}")

    @property
    def trained(self) -> DecoderShape:
        """Without what only training drops: equal where weights of one could be another's."""
        return replace(self, dropout=0.0, position_dropout=0.0)


class Scene(NamedTuple):
    """An image as the decoder sees it, computed once for all its captions and beams.

    Attributes:
        keys: (B, H, D/H, P) what each position offers to each attention head.
        values: (B, H, P, D/H) what each position tells.
        glance: (B, D) the whole image in one vector.
    """

    keys: Tensor
    values: Tensor
    glance: Tensor


class CaptionDecoder(nn.Module):
    """Predict the next word from an image and the words so far.

    Letters of the shapes: B images, N captions or beams of each, T words, V vocabulary,
    C channels, P positions, D units, H attention heads.

    Deviations from Lu et al. 2017: scaled dot products in several heads instead of one
    additive attention; the sentinel is a
    projection of the LSTM's output instead of its gated cell; the
    embedding is tied to the output; positions have a learned offset.
    """

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        units = shape.units
        attentive = shape.kind == "attentive"
        self.embedding = nn.Embedding(shape.words, units, padding_idx=PAD)
        self.output_bias = nn.Parameter(torch.zeros(shape.words - FIRST_PREDICTED))
        self.project = nn.Linear(shape.channels, units)
        self.offsets = nn.Parameter(torch.zeros(shape.positions, units))
        self.glance = nn.Linear(units, units)
        self.lstm = nn.LSTM(2 * units if attentive else units, units, batch_first=True)
        if attentive:
            self.key = nn.Linear(units, units, bias=False)
            self.value = nn.Linear(units, units, bias=False)
            self.query = nn.Linear(units, units)
            self.sentinel = nn.Linear(units, units)
            self.fuse = nn.Linear(2 * units, units)
        else:
            self.fuse = nn.Linear(units, units)
        self.drop = nn.Dropout(shape.dropout)
        self.hide = nn.Dropout(shape.position_dropout)
        self._initialise()

    def _initialise(self) -> None:
        for name, weight in self.named_parameters():
            if name == "embedding.weight":
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
                with torch.no_grad():
                    weight[PAD].zero_()
            elif name == "offsets":
                nn.init.normal_(weight, std=0.02)
            elif weight.ndim == 2:
                nn.init.xavier_uniform_(weight)
            else:
                nn.init.zeros_(weight)
        _, _, input_bias, _ = self.lstm.all_weights[0]
        with torch.no_grad():
            input_bias[self.shape.units : 2 * self.shape.units] = 1.0  # forget gate

    def look(self, features: Tensor) -> Scene:
        """Project image features, once for all captions of an image.

        Args:
            features: (B, P, C) of the backbone; only their direction at each position counts.
        Raises:
            ValueError: the features have another number of positions or channels.
        """
        expected = (self.shape.positions, self.shape.channels)
        if features.ndim != 3 or features.shape[1:] != expected:
            raise ValueError(
                f"features: expected (B, {expected[0]}, {expected[1]}), got {tuple(features.shape)}"
            )
        features = features.to(self.project.weight.dtype)
        directions = F.normalize(features, dim=-1) * math.sqrt(features.shape[-1])
        seen = F.relu(self.project(directions) + self.offsets)  # (B, P, D)
        seen = seen * self.hide(seen.new_ones(*seen.shape[:2], 1))  # whole positions at a time
        glance = torch.tanh(self.glance(seen.mean(1)))  # (B, D)
        if self.shape.kind == "plain":
            nothing = seen.new_empty(0)
            return Scene(nothing, nothing, glance)
        seen = self.drop(seen)
        keys = self._heads(self.key(seen)).mT  # (B, H, D/H, P)
        values = self._heads(self.value(seen))  # (B, H, P, D/H)
        return Scene(keys, values, glance)

    def forward(
        self, scene: Scene, tokens: Tensor, *, with_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Teacher forcing: the hidden output after every word of given captions.

        Args:
            scene: of B images.
            tokens: (B, N, T) ids, ``<bos>`` first, padded with ``<pad>`` at the end.
            with_attention: also give the attention over positions, mean of the heads.
        Returns:
            (B, N, T, D) for `logits`, zero behind the end, and (B, N, T, P) or None. Rows of
            attention sum to one minus the sentinel's share. Outputs at a position depend only
            on words up to it.
        """
        captions, length = tokens.shape[1:]
        lengths = (tokens != PAD).sum(-1).flatten().clamp_min(1).cpu()  # (BN,)
        numbers = torch.arange(tokens.numel(), device=tokens.device).view(-1, length)  # (BN, T)
        packed = pack_padded_sequence(numbers, lengths, batch_first=True, enforce_sorted=False)
        places = packed.data  # (M,) where the M words that are no padding stand
        embedded = self.drop(self.embedding(tokens.flatten()[places]))  # (M, D)
        glance = scene.glance[places // (captions * length)]  # (M, D)
        memory = None
        if self.shape.kind == "plain":
            first = self.begin(scene, captions)
            memory = (first["hidden"][None], first["cell"][None])
        else:
            embedded = torch.cat([embedded, glance], dim=-1)  # (M, 2D)
        hidden = self.lstm(packed._replace(data=embedded), memory)[0].data  # (M, D)
        output, attention = self._attend(scene, hidden, places, tokens.numel())
        output = spread(output, places, tokens.numel()).view(*tokens.shape, -1)  # (B, N, T, D)
        if attention is None or not with_attention:
            return output, None
        return output, attention.view(*tokens.shape, -1)  # (B, N, T, P)

    def logits(self, output: Tensor) -> Tensor:
        """(..., D) to (..., V-2): scores of every word but ``<pad>`` and ``<bos>``."""
        scores = F.linear(output, self.embedding.weight)  # (..., V)
        return scores[..., FIRST_PREDICTED:] + self.output_bias

    def log_probs(self, output: Tensor) -> Tensor:
        """(..., D) to (..., V), float32; ``<pad>`` and ``<bos>`` have minus infinity."""
        log_probs = F.log_softmax(self.logits(output).float(), dim=-1)  # (..., V-2)
        return F.pad(log_probs, (FIRST_PREDICTED, 0), value=-math.inf)  # (..., V)

    def begin(self, scene: Scene, captions: int) -> State:
        """The state before ``<bos>`` of ``captions`` rows for each image.

        Its entry ``image`` (R,) says of which image each row is; with it, rows may be dropped.
        """
        images = torch.arange(len(scene.glance), device=scene.glance.device)
        image = images.repeat_interleave(captions)  # (R,)
        zero = scene.glance.new_zeros(len(image), self.shape.units)
        state = {"hidden": zero, "cell": zero, "image": image}
        if self.shape.kind == "plain":
            state = self._advance(scene.glance[image], state)
        return state

    def step(self, scene: Scene, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """One word further: (R,) ids to (R, V) log-probabilities."""
        embedded, image = self.drop(self.embedding(tokens)), state["image"]  # (R, D)
        if self.shape.kind == "attentive":
            embedded = torch.cat([embedded, scene.glance[image]], dim=-1)  # (R, 2D)
        state = self._advance(embedded, state)
        output, _ = self._attend(scene, state["hidden"], *places_of(image, len(scene.glance)))
        return self.log_probs(output), state

    def _advance(self, inputs: Tensor, state: State) -> State:
        """One step of the LSTM, which torch's own module makes twice as slow."""
        from_input, from_hidden, input_bias, hidden_bias = self.lstm.all_weights[0]
        gates = F.linear(inputs, from_input, input_bias)
        gates = gates + F.linear(state["hidden"], from_hidden, hidden_bias)  # (R, 4D)
        return {**state, **gated(gates.float(), state["cell"])}

    def _attend(
        self, scene: Scene, hidden: Tensor, places: Tensor, slots: int
    ) -> tuple[Tensor, Tensor | None]:
        """What is said after each word.

        Args:
            scene: of B images.
            hidden: (M, D) LSTM outputs.
            places: (M,) slots in which they stand.
            slots: in all, the same number for every image; those of an image side by side.
        Returns:
            (M, D) outputs and, for the attentive kind, (slots, P) attention, mean of the heads.
        """
        hidden = self.drop(hidden)
        if self.shape.kind == "plain":
            return self.drop(torch.tanh(self.fuse(hidden))), None
        query, sentinel = (  # (B, H, S, D/H) each, S slots of an image
            self._heads(
                spread(projected, places, slots).view(len(scene.keys), -1, self.shape.units)
            )
            for projected in (self.query(hidden), self.sentinel(hidden))
        )
        scores = torch.cat(
            [query @ scene.keys, (query * sentinel).sum(-1, keepdim=True)], dim=-1
        )  # (B, H, S, P+1)
        weights = F.softmax(scores * query.shape[-1] ** -0.5, dim=-1)  # (B, H, S, P+1)
        context = weights[..., :-1] @ scene.values + weights[..., -1:] * sentinel
        context = context.transpose(1, 2).reshape(slots, -1)[places]  # (M, D)
        output = torch.tanh(self.fuse(torch.cat([hidden, context], dim=-1)))  # (M, D)
        return self.drop(output), weights[..., :-1].mean(1).flatten(0, 1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.shape.heads, -1).transpose(1, 2)  # (B, H, S, D/H)


def gated(gates: Tensor, cell: Tensor) -> State:
    """Hidden output and cell after an LSTM's gates (..., 4D), in torch's order of the four."""
    write, forget, candidate, show = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * cell
    cell = torch.addcmul(cell, torch.sigmoid(write), torch.tanh(candidate))  # (..., D)
    return {"hidden": torch.sigmoid(show) * torch.tanh(cell), "cell": cell}


def places_of(image: Tensor, images: int) -> tuple[Tensor, int]:
    """Slots for rows whose image is given, (R,) ascending, and how many slots there are.

    Every image has as many slots, so that attention is one product for all of them.
    """
    counts = torch.bincount(image, minlength=images)  # (B,)
    width = int(counts.max())
    before = counts.cumsum(0) - counts  # (B,)
    rank = torch.arange(len(image), device=image.device) - before[image]
    return image * width + rank, images * width


def spread(rows: Tensor, places: Tensor, slots: int) -> Tensor:
    """(M, ...) rows to (slots, ...), each at its place and zeros elsewhere."""
    return rows.new_zeros(slots, *rows.shape[1:]).index_copy(0, places, rows)
