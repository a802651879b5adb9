"""Trained decoders arranged for decoding word by word, several times as fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from stylecap.captioning.decode import State
from stylecap.captioning.model import CaptionDecoder, Scene, gated, places_of, spread
from stylecap.captioning.products import product
from stylecap.captioning.vocabulary import FIRST_PREDICTED


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
        fuse = weights["fuse.weight"]  # (E, D, 2D or D)
        asked = ("query", "sentinel") if self.attentive else ()
        mixing = [*(weights[f"{name}.weight"] for name in asked), fuse[..., : self.units]]
        mixing_bias = [weights[f"{name}.bias"] for name in (*asked, "fuse")]
        blocks = partial(_Blocks, dtype=dtype)
        self.table = words.transpose(0, 1).contiguous()  # (V, E, 4D)
        # The image comes as the second half of every input, or as the first input of all.
        self.from_glance = blocks(  # D to 4D
            from_input[..., -self.units :], None if self.attentive else bias
        )
        self.recurrent = blocks(weights["lstm.weight_hh_l0"])  # D to 4D
        self.from_hidden = blocks(torch.cat(mixing, 1), torch.cat(mixing_bias, 1))  # D to 3D or D
        self.from_context = blocks(fuse[..., -self.units :])  # D to D, if there is a context
        impossible = F.pad(weights["output_bias"], (FIRST_PREDICTED, 0), value=-math.inf)
        self.output = blocks(embedding, impossible)  # D to V

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
        return {**gated(scene.glance[image], zero), "image": image}

    def step(self, scene: Scene, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """One word further: (R,) ids to (R, V) log-probabilities."""
        state = self._advance(scene, tokens, state)
        hidden = state["hidden"]
        if len(scene.glance) == 1:
            return self.predict(scene, hidden[None])[0][0], state
        asked, image = torch.unique_consecutive(state["image"], return_inverse=True)
        if self.attentive and len(asked) < len(scene.glance):
            scene = Scene(*(each[asked] for each in scene))
        places, slots = places_of(image, len(asked))
        even = slots == len(hidden)  # all images have as many rows: these are the slots
        rows = hidden if even else spread(hidden, places, slots)
        log_probs = self.predict(scene, rows.view(len(asked), -1, *hidden.shape[1:]))[0]
        log_probs = log_probs.flatten(0, 1)
        return log_probs if even else log_probs[places], state

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
        gates = self.recurrent(state["hidden"])  # (R, E, 4D)
        gates += self.table[tokens]
        if self.attentive:
            gates += scene.glance[state["image"]]
        return {**state, **gated(gates, state["cell"])}

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
        logits = self.output(torch.tanh(mixed))  # (B, N, E, V)
        if logits.shape[2] == 1:
            return F.log_softmax(logits[:, :, 0], dim=-1), attention
        return F.softmax(logits, dim=-1).mean(2).log(), attention

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


class _Blocks:
    """E linear maps side by side, (..., E, I) to (..., E, O), float32.

    Args:
        weight: (E, O, I).
        bias: (E, O), or None.
        dtype: of the products.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, dtype: torch.dtype) -> None:
        self._products = [product(each, dtype) for each in weight]
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -3).unbind(1)  # (M, I) each
        found = [through(row) for row, through in zip(rows, self._products, strict=True)]
        # A single one is not copied.
        y = found[0][:, None] if len(found) == 1 else torch.stack(found, dim=1)  # (M, E, O)
        if self._bias is not None:
            y += self._bias
        return y.view(*x.shape[:-1], -1)  # (..., E, O)
