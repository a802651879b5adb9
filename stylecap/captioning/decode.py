"""Turn a next-word distribution into sentences: greedy, beam search, sampling.

Nothing here knows the model. A `Step` takes the last token of every row and the state of
every row, and gives log-probabilities and the new state. Rows are grouped by image: at first,
with N rows an image, row r belongs to image r // N. Rows that have ended may be dropped, from
all tensors of the state alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_CHOICE = 3  # ways to go on among which a `Worth` chooses, in beams

State = dict[str, Tensor]
Step = Callable[[Tensor, State], tuple[Tensor, State]]
Begin = Callable[[int], State]
#: What sentences so far are worth: the state, (M,) rows of it, and (M,) words after them, which
#: may be the end, to (M,), and to the entries of the state, (M, ...), that are its own.
Worth = Callable[[State, Tensor, Tensor], tuple[Tensor, State]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What every decoder obeys.

    Attributes:
        bos, eos: ids that begin and end a sentence.
        banned: ids that are never produced.
        max_words: longest sentence, ``<eos>`` not counted.
        min_words: shortest sentence.
        prefix: ids that every sentence begins with; they count as words.
        no_repeat: no run of this many words occurs twice in a sentence; 0 allows it.
    """

    bos: int
    eos: int
    banned: Sequence[int] = ()
    max_words: int = 24
    min_words: int = 1
    prefix: tuple[int, ...] = ()
    no_repeat: int = 3

    def __post_init__(self) -> None:
        """Check the numbers against each other."""
        if self.max_words < max(1, self.min_words, len(self.prefix)):
            raise ValueError(
                f"max_words: expected at least min_words={self.min_words} and the "
                f"{len(self.prefix)} words of the prefix, got {self.max_words}"
            )


@dataclass(frozen=True, slots=True)
class Sentence:
    """A finished sentence.

    Attributes:
        tokens: its ids, prefix included, ``<eos>`` not.
        log_prob: natural logarithm of its probability, prefix and ``<eos>`` included; without
            ``<eos>`` if it was cut at ``max_words``.
        score: what it was ranked by.
        rows: of each step, prefix included, the row after which the next word or the end came.
    """

    tokens: tuple[int, ...]
    log_prob: float
    score: float
    rows: tuple[int, ...] = field(default=(), compare=False)


def beam_search(
    begin: Begin,
    step: Step,
    images: int,
    rules: Rules,
    *,
    beam: int = 5,
    length_penalty: float = 0.7,
    worth: Worth | None = None,
) -> list[list[Sentence]]:
    """The best sentences found with ``beam`` candidates kept at every word.

    A sentence's score is its log-probability divided by (words + 1) ** length_penalty; 0 ranks
    by probability alone, 1 by the mean per word. What it is worth is added, asked of the most
    probable ways to go on, three times ``beam``. A sentence ends where its end is among the
    ``beam`` best of them; an image is done, and its rows are dropped, when it has ``beam``
    sentences and no open candidate has a better score than the worst of them. (A longer one might
    still get there where the penalty is above 0; waiting for it doubles the time and changes few
    captions.)

    Args:
        begin: gives the state of ``images * n`` rows before ``<bos>``, n as asked.
        step: one word further.
        images: how many images are decoded together.
        rules: what may be produced.
        beam: candidates and results an image, at least 1.
        length_penalty: at least 0.
        worth: of sentences and of their beginnings, on the scale of scores; if None, nothing is
            added.
    Returns:
        For each image up to ``beam`` sentences, best first, at least one.
    Raises:
        ValueError: ``beam`` or ``length_penalty`` out of range.
    """
    if beam < 1:
        raise ValueError(f"beam: expected at least 1, got {beam}")
    if length_penalty < 0:
        raise ValueError(f"length_penalty: expected at least 0, got {length_penalty}")
    tokens, paths, totals, log_probs, state = _start(begin, step, images, rules, worth)
    totals = totals[:, None]  # (B, N), N = 1 at first
    finished: list[list[Sentence]] = [[] for _ in range(images)]
    going = list(range(images))  # the B images that are not done
    while True:
        length = tokens.shape[1]
        norm = float((length + 1) ** length_penalty)
        joint = _forbid(totals.view(-1, 1) + log_probs, tokens, rules)  # (B*N, V)
        rows, vocabulary = totals.shape[1], joint.shape[1]
        flat = joint.view(len(going), -1)  # (B, N*V)
        count = (2 if worth is None else _CHOICE) * beam  # at most one beam of them ends
        scores, picks = flat.topk(min(count, flat.shape[1]))  # (B, M)
        order = torch.arange(len(going), device=picks.device)[:, None]  # (B, 1)
        words = picks % vocabulary
        origins = picks.div(vocabulary, rounding_mode="floor") + rows * order  # of B*N rows
        ranks = scores / norm
        grown: State = {}  # of the B*M ways to go on
        if worth is not None:
            found, grown = worth(state, origins.flatten(), words.flatten())
            ranks = ranks + found.view_as(ranks)
        width = min(beam, ranks.shape[1])
        ends = words == rules.eos
        ended = ranks.where(ends & (ranks >= ranks.topk(width).values[:, -1:]), -math.inf)
        searched = [finished[image] for image in going]
        _collect(searched, ended, scores, origins, tokens, paths, beam)
        if length == rules.max_words:
            for place, sentences in enumerate(searched):
                if not sentences:
                    sentences.append(_cut(place, totals, tokens, paths, norm))
            return _checked(finished)
        best, places = ranks.masked_fill(ends, -math.inf).topk(width)  # (B, K)
        totals = scores.masked_fill(ends, -math.inf).gather(1, places)
        open_ = [
            place
            for place, (sentences, rank) in enumerate(
                zip(searched, best[:, 0].tolist(), strict=True)
            )
            if rank > (sentences[-1].score if len(sentences) == beam else -math.inf)
        ]
        going = [going[place] for place in open_]
        if not going:
            return _checked(finished)
        left = torch.tensor(open_, device=picks.device)  # (B,), fewer from here on
        totals = totals[left]  # (B, K)
        taken = (places + ranks.shape[1] * order)[left].flatten()  # (B*K,) of B*M
        kept, chosen = origins.flatten()[taken], words.flatten()[taken]
        tokens = torch.cat([tokens[kept], chosen[:, None]], dim=1)  # (B*K, T+1)
        paths = torch.cat([paths[kept], kept[:, None]], dim=1)  # (B*K, T+1)
        state = {name: value[kept] for name, value in state.items() if name not in grown}
        state |= {name: value[taken] for name, value in grown.items()}
        log_probs, state = step(chosen, state)


def greedy_search(begin: Begin, step: Step, images: int, rules: Rules) -> list[list[Sentence]]:
    """Take the most probable word every time; one sentence an image."""
    return _walk(begin, step, images, 1, rules, lambda log_probs: log_probs.argmax(-1))


def sample(
    begin: Begin,
    step: Step,
    images: int,
    rules: Rules,
    *,
    count: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[list[Sentence]]:
    """Draw ``count`` sentences an image, in the order drawn.

    Args:
        begin: gives the state of ``images * n`` rows before ``<bos>``, n as asked.
        step: one word further.
        images: how many images are decoded together.
        rules: what may be produced.
        count: sentences an image.
        temperature: above 0; below 1 sharpens the distribution, above 1 flattens it.
        top_k: draw among this many most probable words; 0 means all.
        top_p: draw among the most probable words that together reach this probability.
        generator: source of randomness, on the step's device.
    Raises:
        ValueError: an argument out of range.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    if not temperature > 0:
        raise ValueError(f"temperature: expected above 0, got {temperature}")
    if top_k < 0:
        raise ValueError(f"top_k: expected at least 0, got {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected above 0 and at most 1, got {top_p}")

    def draw(log_probs: Tensor) -> Tensor:
        probs, words = nucleus(log_probs / temperature, top_k=top_k, top_p=top_p)
        places = torch.multinomial(probs, 1, generator=generator)  # (R, 1)
        return words.gather(1, places).squeeze(1)

    return _walk(begin, step, images, count, rules, draw)


def nucleus(log_probs: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cut the tail off a distribution: first all but ``top_k`` words, then what top_p leaves.

    The most probable word always stays, so does the one that crosses ``top_p``.
    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.

    Args:
        log_probs: (R, V) log-scores.
        top_k: words to keep; 0 means all, K = V.
        top_p: probability that the words kept reach together.
    Returns:
        (R, K) probabilities that sum to one, highest first, and the words they belong to.
    """
    size = log_probs.shape[-1]
    scores, words = log_probs.topk(min(top_k or size, size))  # (R, K)
    probs = scores.softmax(-1)
    if top_p < 1:
        before = probs.cumsum(-1) - probs
        probs = probs.where(before < top_p, 0.0)
    return probs / probs.sum(-1, keepdim=True), words


def repeats(tokens: Tensor, run: int) -> tuple[Tensor, Tensor]:
    """Which next words would repeat a run of words.

    Args:
        tokens: (R, T) words so far.
        run: length of the runs that may not occur twice, at least 1.
    Returns:
        Rows and words, as two equally long vectors of indices.
    """
    length = tokens.shape[1]
    if length < run:
        nothing = tokens.new_zeros(0)
        return nothing, nothing
    if run == 1:
        rows = torch.arange(tokens.shape[0], device=tokens.device).repeat_interleave(length)
        return rows, tokens.flatten()
    windows = tokens.unfold(1, run, 1)  # (R, T-run+1, run)
    last = tokens[:, length - run + 1 :]  # (R, run-1)
    rows, places = (windows[..., :-1] == last[:, None]).all(-1).nonzero(as_tuple=True)
    return rows, windows[rows, places, -1]


def _start(
    begin: Begin, step: Step, rows: int, rules: Rules, worth: Worth | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, State]:
    """Feed ``<bos>`` and the prefix.

    Returns:
        (R, T) tokens so far and the rows they came from, (R,) their log-probability, (R, V) that
        of the next, the state.
    """
    state = begin(rows)
    device = next(iter(state.values())).device if state else torch.device("cpu")
    log_probs, state = step(torch.full((rows,), rules.bos, device=device), state)
    totals = log_probs.new_zeros(rows)
    every = torch.arange(rows, device=device)
    for token in rules.prefix:
        totals = totals + log_probs[:, token]
        words = torch.full((rows,), token, device=device)
        if worth is not None:
            state = {**state, **worth(state, every, words)[1]}
        log_probs, state = step(words, state)
    prefix = torch.tensor(rules.prefix, dtype=torch.long, device=device)
    paths = every[:, None].expand(-1, len(prefix))
    return prefix.expand(rows, -1), paths, totals, log_probs, state


def _forbid(scores: Tensor, tokens: Tensor, rules: Rules) -> Tensor:
    """Put minus infinity where the rules forbid the word, also all but the end after the last."""
    for word in rules.banned:
        scores[:, word] = -math.inf
    if tokens.shape[1] < rules.min_words:
        scores[:, rules.eos] = -math.inf
    if rules.no_repeat:
        scores[repeats(tokens, rules.no_repeat)] = -math.inf
    if tokens.shape[1] == rules.max_words:
        scores[:, : rules.eos] = scores[:, rules.eos + 1 :] = -math.inf
    return scores


def _collect(
    finished: list[list[Sentence]],
    ended: Tensor,
    scores: Tensor,
    origins: Tensor,
    tokens: Tensor,
    paths: Tensor,
    beam: int,
) -> None:
    """File the sentences that end here, by their ranks (B, M); keep each image's best."""
    for image, place in torch.isfinite(ended).nonzero().tolist():
        at = int(origins[image, place])
        words, path = tuple(tokens[at].tolist()), (*paths[at].tolist(), at)
        log_prob, score = float(scores[image, place]), float(ended[image, place])
        finished[image].append(Sentence(words, log_prob, score, path))
    for sentences in finished:
        sentences.sort(key=lambda sentence: -sentence.score)
        del sentences[beam:]


def _checked(finished: list[list[Sentence]]) -> list[list[Sentence]]:
    """The sentences of all images, if each has one."""
    for image, sentences in enumerate(finished):
        if not sentences:
            raise ValueError(
                f"rules: no sentence is possible for image {image}; every next word is banned"
            )
    return finished


def _cut(image: int, totals: Tensor, tokens: Tensor, paths: Tensor, norm: float) -> Sentence:
    """The most probable open candidate, ended by force, without what it is worth."""
    row = int(totals[image].argmax())
    log_prob = float(totals[image, row])
    at = image * totals.shape[1] + row
    words, path = tuple(tokens[at].tolist()), (*paths[at].tolist(), at)
    return Sentence(words, log_prob, log_prob / norm, path)


def _walk(
    begin: Begin,
    step: Step,
    images: int,
    count: int,
    rules: Rules,
    choose: Callable[[Tensor], Tensor],
) -> list[list[Sentence]]:
    """Choose one word after another in ``count`` independent rows an image; drop those that end."""
    rows = images * count
    tokens, paths, totals, log_probs, state = _start(begin, step, rows, rules)
    going = torch.arange(rows, device=log_probs.device)  # the rows that are left
    found: dict[int, Sentence] = {}

    def finish(ended: Tensor) -> None:
        for row, words, total, path, at in zip(
            going[ended].tolist(),
            tokens[ended].tolist(),
            totals[ended].tolist(),
            paths[ended].tolist(),
            ended.nonzero()[:, 0].tolist(),
            strict=True,
        ):
            found[row] = Sentence(tuple(words), total, total, (*path, at))

    while True:
        allowed = _forbid(log_probs.clone(), tokens, rules)
        if tokens.shape[1] == rules.max_words:
            ends = allowed[:, rules.eos]
            totals = totals + ends.where(torch.isfinite(ends), 0.0)
            finish(torch.ones_like(going, dtype=torch.bool))
            break
        allowed[allowed.isneginf().all(-1), rules.eos] = 0.0  # stuck
        words = choose(allowed)
        totals = totals + log_probs.gather(1, words[:, None]).squeeze(1)
        ended = words == rules.eos
        finish(ended)
        if bool(ended.all()):
            break
        kept = (~ended).nonzero()[:, 0]  # (R,)
        going, totals, words = going[kept], totals[kept], words[kept]
        tokens = torch.cat([tokens[kept], words[:, None]], dim=1)
        paths = torch.cat([paths[kept], kept[:, None]], dim=1)
        log_probs, state = step(words, {name: value[kept] for name, value in state.items()})
    return [[found[image * count + row] for row in range(count)] for image in range(images)]
