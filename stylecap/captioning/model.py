"""The decoder: image features in, a distribution over the next word out.

Two kinds share one module. The plain one (Vinyals et al. 2015, "Show and Tell") reads the
image once, as if it were the first word. The attentive one looks at the picture again for
every word, with a sentinel beside the picture's positions for words that need no look (Lu et
al. 2017, "Knowing When to Look"). Its attention comes after the LSTM and is not fed back into
it, so that a whole sentence runs through the LSTM in one call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from stylecap.captioning.vocabulary import FIRST_PREDICTED, PAD
from stylecap.options import option, validate

KINDS = ("attentive", "plain")


@dataclass(frozen=True)
class DecoderShape:
    """What determines the decoder's weights."""

    words: int = option(..., "Entries of the vocabulary.", minimum=5)
    channels: int = option(..., "Channels of the image features.", minimum=1)
    positions: int = option(..., "Positions of the image features, height times width.", minimum=1)
    kind: str = option("attentive", "How the decoder sees the image.", choices=KINDS)
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


State = dict[str, Tensor]

_STEPS = 127  # of int8, on each side of zero
_TINY = 1e-12


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
        output = _spread(output, places, tokens.numel()).view(*tokens.shape, -1)  # (B, N, T, D)
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
        output, _ = self._attend(scene, state["hidden"], *_places(image, len(scene.glance)))
        return self.log_probs(output), state

    def _advance(self, inputs: Tensor, state: State) -> State:
        """One step of the LSTM, which torch's own module makes twice as slow."""
        from_input, from_hidden, input_bias, hidden_bias = self.lstm.all_weights[0]
        gates = F.linear(inputs, from_input, input_bias)
        gates = gates + F.linear(state["hidden"], from_hidden, hidden_bias)  # (R, 4D)
        return {**state, **_gated(gates.float(), state["cell"])}

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
                _spread(projected, places, slots).view(len(scene.keys), -1, self.shape.units)
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


class Stepper:
    """Trained decoders arranged for decoding word by word, several times as fast.

    What the LSTM adds for each word of the vocabulary is tabulated once, what it adds for the
    image once an image, and products that share an input are one. Same numbers as
    `CaptionDecoder.step`, up to the rounding of ``dtype``.

    Several decoders are an ensemble: their probabilities are averaged word by word. Side by side
    they are one decoder with the heads of all and with matrices of E blocks, so that E of them
    take as many operations as one.

    Args:
        decoders: at least one, in evaluation mode, all of one `DecoderShape.trained`; later
            changes to their weights are not seen.
        dtype: of the weights in matrix products. Decoding one image reads all weights for every
            word, so that fewer bytes are more speed; everything else stays float32.
    """

    def __init__(
        self, decoders: Sequence[CaptionDecoder], dtype: torch.dtype = torch.float32
    ) -> None:
        shape = decoders[0].shape
        self.units, self.heads = shape.units, shape.heads * len(decoders)
        self.attentive = shape.kind == "attentive"
        self._decoders = list(decoders)
        weights = {
            name: torch.stack([each.get_parameter(name).detach() for each in decoders])
            for name, _ in decoders[0].named_parameters()
        }
        embedding = weights["embedding.weight"]  # (E, V, D)
        from_input = weights["lstm.weight_ih_l0"]  # (E, 4D, 2D or D)
        bias = weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]  # (E, 4D)
        words = embedding @ from_input[..., : self.units].mT + bias[:, None]  # (E, V, 4D)
        self.table = words.transpose(0, 1).contiguous()  # (V, E, 4D)
        self.recurrent = _Blocks(weights["lstm.weight_hh_l0"], None, dtype, 1.0)  # D to 4D
        self.output = _Blocks(
            embedding[:, FIRST_PREDICTED:], weights["output_bias"], dtype, 1.0
        )  # D to V-2
        # The image comes as the second half of every input, or as the first input of all.
        glance_bias = None if self.attentive else bias
        self.from_glance = _Blocks(
            from_input[..., -self.units :], glance_bias, dtype, 1.0
        )  # D to 4D
        fuse = weights["fuse.weight"]  # (E, D, 2D or D)
        self.from_context = _Blocks(fuse[..., -self.units :], None, dtype)  # D to D, if any
        asked = ("query", "sentinel") if self.attentive else ()
        mixing = [*(weights[f"{name}.weight"] for name in asked), fuse[..., : self.units]]
        biases = [weights[f"{name}.bias"] for name in (*asked, "fuse")]
        self.from_hidden = _Blocks(
            torch.cat(mixing, dim=1), torch.cat(biases, dim=1), dtype, 1.0
        )  # D to 3D or D

    def look(self, features: Tensor) -> Scene:
        """(B, P, C) features to what the decoders see.

        The heads are those of all; ``glance`` is what it adds to the gates, (B, E, 4D).

        Raises:
            ValueError: as `CaptionDecoder.look`.
        """
        scenes = [decoder.look(features) for decoder in self._decoders]
        keys, values, glances = zip(*scenes, strict=True)
        return Scene(
            torch.cat(keys, dim=1) if self.attentive else keys[0],
            torch.cat(values, dim=1) if self.attentive else values[0],
            self.from_glance(torch.stack(glances, dim=1)),
        )

    def begin(self, scene: Scene, captions: int) -> State:
        """The state before ``<bos>`` of ``captions`` rows for each image.

        Its entry ``image`` (R,) says of which image each row is; with it, rows may be dropped.
        """
        images = torch.arange(len(scene.glance), device=scene.glance.device)
        image = images.repeat_interleave(captions)  # (R,)
        zero = scene.glance.new_zeros(len(image), len(self._decoders), self.units)  # (R, E, D)
        if self.attentive:
            return {"hidden": zero, "cell": zero, "image": image}
        return {**_gated(scene.glance[image], zero), "image": image}

    def step(self, scene: Scene, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """One word further: (R,) ids to (R, V) log-probabilities."""
        state = self._advance(scene, tokens, state)
        hidden, images = state["hidden"], len(scene.glance)
        if images == 1:
            return self.predict(scene, hidden[None])[0][0], state
        places, slots = _places(state["image"], images)
        rows = _spread(hidden, places, slots).view(images, -1, *hidden.shape[1:])
        return self.predict(scene, rows)[0].flatten(0, 1)[places], state

    def read(self, scene: Scene, tokens: Tensor) -> Tensor:
        """Teacher forcing: what is predicted after every word of N captions an image.

        Args:
            scene: of B images.
            tokens: (BN, T) ids, ``<bos>`` first, those of an image side by side.
        Returns:
            (BN, T, V) log-probabilities.
        """
        images = len(scene.glance)
        state = self.begin(scene, len(tokens) // images)
        hidden = []
        for words in tokens.T:
            state = self._advance(scene, words, state)
            hidden.append(state["hidden"])
        rows = torch.stack(hidden, dim=1).view(images, -1, *hidden[0].shape[1:])  # (B, NT, E, D)
        log_probs, _ = self.predict(scene, rows)
        return log_probs.view(*tokens.shape, -1)

    def _advance(self, scene: Scene, tokens: Tensor, state: State) -> State:
        """One step of the LSTM: (R,) ids to (R, E, D) hidden outputs and cells."""
        gates = self.table[tokens] + self.recurrent(state["hidden"])  # (R, E, 4D)
        if self.attentive:
            one = len(scene.glance) == 1
            gates = gates + (scene.glance if one else scene.glance[state["image"]])
        return {**state, **_gated(gates, state["cell"])}

    def predict(self, scene: Scene, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """What comes next after N words of each image.

        Args:
            scene: of B images.
            hidden: (B, N, E, D) outputs of the LSTM, ``hidden`` of the state.
        Returns:
            (B, N, V) log-probabilities, and (B, N, P) attention over positions, mean of the
            heads, or None for the plain kind.
        """
        mixed = self.from_hidden(hidden)  # (B, N, E, 3D or D)
        attention = None
        if self.attentive:
            mixed, attention = self._attend(scene, mixed)  # (B, N, E, D), (B, N, P)
        logits = self.output(torch.tanh(mixed))  # (B, N, E, V-2)
        mean = F.softmax(logits, dim=-1).mean(-2).log()  # (B, N, V-2)
        return F.pad(mean, (FIRST_PREDICTED, 0), value=-math.inf), attention

    def _attend(self, scene: Scene, mixed: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, E, 3D) query, sentinel and hidden part of the output to the whole output."""
        query, sentinel = (  # (B, H, N, D/H) each, H the heads of all decoders
            part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2)
            for part in mixed[..., : 2 * self.units].chunk(2, dim=-1)
        )
        scores = torch.cat([query @ scene.keys, (query * sentinel).sum(-1, keepdim=True)], -1)
        weights = F.softmax(scores * query.shape[-1] ** -0.5, dim=-1)  # (B, H, N, P+1)
        context = torch.addcmul(weights[..., :-1] @ scene.values, weights[..., -1:], sentinel)
        context = context.transpose(1, 2).reshape(*mixed.shape[:3], -1)  # (B, N, E, D)
        mixed = mixed[..., 2 * self.units :] + self.from_context(context)
        return mixed, weights[..., :-1].mean(1)


def _gated(gates: Tensor, cell: Tensor) -> State:
    """Hidden output and cell after an LSTM's gates (..., 4D), in torch's order of the four."""
    write, forget, candidate, show = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * cell
    cell = torch.addcmul(cell, torch.sigmoid(write), torch.tanh(candidate))  # (..., D)
    return {"hidden": torch.sigmoid(show) * torch.tanh(cell), "cell": cell}


class _Blocks:
    """E linear maps side by side, (..., E, I) to (..., E, O), float32.

    Args:
        weight: (E, O, I).
        bias: (E, O), or None.
        dtype: of the products. With int8 each row of the weight is rounded to 127 steps of its
            own on each side of zero, and so is each input.
        bound: of the inputs' absolute values; None if it has to be looked for.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        bound: float | None = None,
    ) -> None:
        self._dtype, self._bias = dtype, bias
        self._bound = None if bound is None else weight.new_tensor(bound)
        self._step = (weight.abs().amax(-1) / _STEPS).clamp_min(_TINY)  # (E, O)
        if dtype == torch.int8:
            weight = (weight / self._step[..., None]).round()
        self._weights = weight.to(dtype).mT.unbind()  # (I, O) each

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -3)  # (M, E, I)
        if self._dtype == torch.int8:
            bound = self._bound
            if bound is None:
                bound = rows.abs().amax(-1, keepdim=True).clamp_min(_TINY)  # (M, E, 1)
            step = bound / _STEPS
            found = self._products((rows / step).round_().to(torch.int8)) * (step * self._step)
        else:
            found = self._products(rows.to(self._dtype)).float()
        if self._bias is not None:
            found = found + self._bias
        return found.view(*x.shape[:-1], -1)  # (..., E, O)

    def _products(self, rows: Tensor) -> Tensor:
        """(M, E, I) to (M, E, O): each part by its own matrix; int32 of int8."""
        multiply = torch._int_mm if self._dtype == torch.int8 else torch.mm
        return torch.stack(
            [multiply(rows[:, block], weight) for block, weight in enumerate(self._weights)], dim=1
        )


def _places(image: Tensor, images: int) -> tuple[Tensor, int]:
    """Slots for rows whose image is given, (R,) ascending, and how many slots there are.

    Every image has as many slots, so that attention is one product for all of them.
    """
    if images == 1:
        return torch.arange(len(image), device=image.device), len(image)
    counts = torch.bincount(image, minlength=images)  # (B,)
    width = int(counts.max())
    before = counts.cumsum(0) - counts  # (B,)
    rank = torch.arange(len(image), device=image.device) - before[image]
    return image * width + rank, images * width


def _spread(rows: Tensor, places: Tensor, slots: int) -> Tensor:
    """(M, ...) rows to (slots, ...), each at its place and zeros elsewhere."""
    return rows.new_zeros(slots, *rows.shape[1:]).index_copy(0, places, rows)
