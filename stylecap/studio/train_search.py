"""Teach pictures and sentences to meet: the loop of `captioning.matching`."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from stylecap.captioning.matching import (
    EmbeddingShape,
    JointEmbedding,
    pad_sentences,
    ranking_loss,
)
from stylecap.captioning.vocabulary import PAD, Vocabulary, mirrored_words
from stylecap.errors import InputError
from stylecap.progress import OnProgress, Progress, ShouldStop
from stylecap.studio.options import SearchTrainOptions
from stylecap.studio.retrieval import Recalls, ranks


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pictures and what was said of them.

    Attributes:
        summaries: (N, 2C) of `matching.summary`.
        captions: for each picture its captions, as lists of words.
        mirrored: (N, 2C) of the mirrored pictures, or None.
    """

    summaries: Tensor
    captions: Sequence[Sequence[Sequence[str]]]
    mirrored: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if len(self.summaries) != len(self.captions):
            raise ValueError(
                f"captions: expected those of {len(self.summaries)} pictures, got "
                f"{len(self.captions)}"
            )


def train_search(
    training: Pairs,
    validation: Pairs,
    options: SearchTrainOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> tuple[JointEmbedding, Vocabulary, dict[str, Any]]:
    """Train on one set of pairs, keep the epoch that is best on another.

    Args:
        training: at least two pictures.
        validation: chooses the epoch.
        options: `SearchTrainOptions()` if None.
        on_progress: told after every step; an epoch's recalls are its message.
        should_stop: asked before every step; the best epoch so far is given then.
    Returns:
        The model in evaluation mode, its words, and what a record should hold: options, the
        chosen epoch and its recalls.
    Raises:
        InputError: fewer than two training pictures.
    """
    options = options or SearchTrainOptions()
    if len(training.captions) < 2:
        raise InputError(f"pairs: expected at least two pictures, got {len(training.captions)}")
    words = Vocabulary.build(
        (caption for each in training.captions for caption in each), options.min_count
    )
    sentences = _Sentences(training, words)
    steps = len(_batches(sentences.owners, options.batch)) * options.epochs
    torch.manual_seed(options.seed)
    shape = EmbeddingShape(
        len(words),
        training.summaries.shape[1] // 2,
        options.units,
        options.word_units,
        options.dropout,
    )
    model = JointEmbedding(shape)
    model.fit_scale(training.summaries)
    average = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    best, kept, chosen = -1.0, copy.deepcopy(average.state_dict()), 0
    reached = Recalls((0.0,) * 3, (0.0,) * 3)
    begin, step = time.perf_counter(), 0
    for epoch in range(1, options.epochs + 1):
        model.train()
        for batch in _batches(sentences.owners, options.batch):
            if should_stop is not None and should_stop():
                break
            flipped = training.mirrored is not None and bool(torch.rand(()) < 0.5)
            seen = training.mirrored if flipped else training.summaries
            assert seen is not None
            loss = ranking_loss(
                model.pictures(seen[sentences.owners[batch]])
                @ model.sentences(sentences.tokens(batch, flipped)).mT,
                options.margin,
                hardest=epoch > options.gentle_epochs,
            )
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * _schedule(step, steps)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            optimizer.step()
            step += 1
            _follow(average, model, min(options.average, step / (step + 10)))
            if on_progress is not None:
                seconds = time.perf_counter() - begin
                on_progress(Progress(step, steps, seconds, f"epoch {epoch}", float(loss.detach())))
        else:
            found = evaluate(average, words, validation)
            if found.total > best:
                best, chosen, reached = found.total, epoch, found
                kept = copy.deepcopy(average.state_dict())
            if on_progress is not None:
                seconds = time.perf_counter() - begin
                message = f"epoch {epoch}: {found}"
                on_progress(Progress(step, steps, seconds, f"epoch {epoch}", message=message))
            continue
        break
    average.load_state_dict(kept)
    record = {"options": asdict(options), "epoch": chosen, "validation": asdict(reached)}
    return average.eval(), words, record


def evaluate(model: JointEmbedding, words: Vocabulary, pairs: Pairs) -> Recalls:
    """Search the pairs' pictures by their sentences and the other way round."""
    sentences = _Sentences(pairs, words)
    model.eval()
    with torch.inference_mode():
        pictures = model.pictures(pairs.summaries)  # (N, D)
        spoken = torch.cat(
            [
                model.sentences(sentences.tokens(slice(start, start + 500), False))
                for start in range(0, sentences.count, 500)
            ]
        )  # (M, D)
    return Recalls.of(*ranks(pictures @ spoken.mT, sentences.owners))


class _Sentences:
    """All captions as ids, and whose they are."""

    def __init__(self, pairs: Pairs, words: Vocabulary) -> None:
        captions = [caption for each in pairs.captions for caption in each]
        self.owners = torch.tensor(
            [index for index, each in enumerate(pairs.captions) for _ in each]
        )  # (M,)
        self._plain = pad_sentences([words.encode(c) for c in captions])  # (M, T)
        self._mirrored = pad_sentences([words.encode(mirrored_words(c)) for c in captions])
        self.count = len(captions)

    def tokens(self, rows: Tensor | slice, mirrored: bool) -> Tensor:
        """(B, T) of the longest among them."""
        tokens = (self._mirrored if mirrored else self._plain)[rows]
        longest = int((tokens != PAD).sum(1).max())
        return tokens[:, :longest]


def _batches(owners: Tensor, size: int) -> list[Tensor]:
    """Every sentence once, in random order; sentences of one picture fall into different batches.

    Two captions of one picture in a batch would each be taken for the other's wrong answer.
    """
    order = torch.randperm(len(owners))
    # The k-th caption met of each picture belongs to round k.
    rounds: list[list[int]] = []
    met: dict[int, int] = {}
    for row, owner in zip(order.tolist(), owners[order].tolist(), strict=True):
        turn = met[owner] = met.get(owner, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(row)
    parts = [
        torch.tensor(turn[start : start + size])
        for turn in rounds
        for start in range(0, len(turn), size)
        if len(turn) - start > 1  # a pair alone has nothing to be told apart from
    ]
    return [parts[index] for index in torch.randperm(len(parts)).tolist()]


def _schedule(step: int, steps: int) -> float:
    """Share of the step size: rises over the first fiftieth, falls as a cosine to a fiftieth."""
    warm = max(1, steps // 50)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _follow(average: JointEmbedding, model: JointEmbedding, decay: float) -> None:
    with torch.no_grad():
        for own, new in zip(average.parameters(), model.parameters(), strict=True):
            own.lerp_(new, 1 - decay)
