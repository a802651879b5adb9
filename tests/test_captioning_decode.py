from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stylecap.captioning.decode import (
    Rules,
    State,
    beam_search,
    greedy_search,
    nucleus,
    repeats,
    sample,
)

PAD, BOS, EOS, UNK = 0, 1, 2, 3
WORDS = (4, 5, 6)
VOCABULARY = 7


class Toy:
    """A second-order chain over seven ids, another for each image; its state is two tokens."""

    def __init__(self, seed: int, images: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (images, VOCABULARY, VOCABULARY, VOCABULARY)
        scores = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        scores[..., [PAD, BOS]] = -math.inf
        self.table = scores.log_softmax(-1)
        self.images = images

    def begin(self, rows: int) -> State:
        return {"last": torch.zeros(rows, dtype=torch.long), "image": self._image(rows)}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        assert len(tokens) == len(state["image"]) and bool((state["image"].diff() >= 0).all())
        return self.table[state["image"], state["last"], tokens], {**state, "last": tokens}

    def _image(self, rows: int) -> Tensor:
        return torch.arange(rows) // (rows // self.images)

    def log_prob(self, image: int, words: tuple[int, ...]) -> float:
        total, before, last = 0.0, 0, BOS
        for word in (*words, EOS):
            total += float(self.table[image, before, last, word])
            before, last = last, word
        return total


def repeats_trigram(words: tuple[int, ...]) -> bool:
    runs = [words[i : i + 3] for i in range(len(words) - 2)]
    return len(set(runs)) < len(runs)


def enumerate_all(toy: Toy, image: int, rules: Rules, penalty: float) -> list[tuple[float, tuple]]:
    found = []
    for length in range(rules.min_words, rules.max_words + 1):
        for words in itertools.product(WORDS, repeat=length):
            if words[: len(rules.prefix)] != rules.prefix or repeats_trigram(words):
                continue
            found.append((toy.log_prob(image, words) / (length + 1) ** penalty, words))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("prefix", [(), (5,), (5, 4)])
def test_wide_beam_equals_exhaustive_enumeration(penalty: float, prefix: tuple) -> None:
    toy = Toy(seed=3, images=2)
    rules = Rules(
        BOS, EOS, banned=(UNK,), max_words=5, min_words=max(1, len(prefix)), prefix=prefix
    )
    found = beam_search(toy.begin, toy.step, 2, rules, beam=400, length_penalty=penalty)
    for image in range(2):
        expected = enumerate_all(toy, image, rules, penalty)[:400]
        assert [s.tokens for s in found[image]] == [words for _, words in expected]
        for sentence, (score, words) in zip(found[image], expected, strict=True):
            assert sentence.score == pytest.approx(score)
            assert sentence.log_prob == pytest.approx(toy.log_prob(image, words))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), beam=st.integers(1, 6), penalty=st.sampled_from([0.0, 0.7]))
def test_every_beam_gives_valid_sentences_with_true_scores(
    seed: int, beam: int, penalty: float
) -> None:
    toy = Toy(seed)
    rules = Rules(BOS, EOS, banned=(UNK,), max_words=8, min_words=2)
    (found,) = beam_search(toy.begin, toy.step, 1, rules, beam=beam, length_penalty=penalty)
    assert 1 <= len(found) <= beam
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
    assert len({s.tokens for s in found}) == len(found)
    for sentence in found:
        assert 2 <= len(sentence.tokens) <= 8
        assert set(sentence.tokens) <= set(WORDS)
        assert not repeats_trigram(sentence.tokens)
        assert sentence.log_prob == pytest.approx(toy.log_prob(0, sentence.tokens))
        words = len(sentence.tokens) + 1
        assert sentence.score == pytest.approx(sentence.log_prob / words**penalty)


@pytest.mark.parametrize("seed", range(5))
def test_images_do_not_influence_each_other(seed: int) -> None:
    """Nor does one that is done go on for the others' sake."""
    toy, asked = Toy(seed=seed, images=6), []

    def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        asked.append(len(tokens))
        return toy.step(tokens, state)

    rules = Rules(BOS, EOS, banned=(UNK,), max_words=12)
    together = beam_search(toy.begin, step, 6, rules, beam=2, length_penalty=1.0)
    separately = 0
    for image in range(6):
        alone = Toy(seed=seed, images=6)
        alone.table, alone.images = toy.table[image : image + 1], 1
        counted = len(asked)
        found = beam_search(
            alone.begin,
            lambda tokens, state, alone=alone: (
                asked.append(len(tokens)) or alone.step(tokens, state)
            ),
            1,
            rules,
            beam=2,
            length_penalty=1.0,
        )[0]
        assert found == together[image]
        separately += sum(asked[counted:])
        del asked[counted:]
    assert sum(asked) == separately


def test_greedy_is_the_beam_of_one_without_length_penalty() -> None:
    toy = Toy(seed=8)
    rules = Rules(BOS, EOS, banned=(UNK,), max_words=6)
    (greedy,) = greedy_search(toy.begin, toy.step, 1, rules)
    state, tokens = toy.begin(1), torch.tensor([BOS])
    words: list[int] = []
    while len(words) < 6:
        log_probs, state = toy.step(tokens, state)
        log_probs[:, UNK] = -math.inf
        tokens = log_probs.argmax(-1)
        if int(tokens) == EOS:
            break
        words.append(int(tokens))
    assert list(greedy[0].tokens) == words


def test_sampling_follows_the_distribution() -> None:
    toy = Toy(seed=1)
    rules = Rules(BOS, EOS, banned=(UNK,), max_words=1)
    generator = torch.Generator().manual_seed(0)
    (drawn,) = sample(toy.begin, toy.step, 1, rules, count=4000, generator=generator)
    weights = toy.table[0, 0, BOS].exp()
    weights[[UNK, EOS]] = 0
    expected = weights / weights.sum()
    for word in WORDS:
        share = sum(s.tokens == (word,) for s in drawn) / len(drawn)
        assert share == pytest.approx(float(expected[word]), abs=0.03)


def test_sampling_is_repeatable_and_sharpens_to_greedy() -> None:
    toy = Toy(seed=8)
    rules = Rules(BOS, EOS, banned=(UNK,), max_words=6)
    greedy = greedy_search(toy.begin, toy.step, 1, rules)[0][0].tokens
    draws = [
        sample(
            toy.begin, toy.step, 1, rules, count=3, temperature=t, top_k=k,
            generator=torch.Generator().manual_seed(4),
        )
        for t, k in ((1.0, 0), (1.0, 0), (0.01, 0), (1.0, 1))
    ]  # fmt: skip
    assert draws[0] == draws[1]
    assert {s.tokens for s in draws[2][0]} == {s.tokens for s in draws[3][0]} == {greedy}


def test_nucleus_by_hand() -> None:
    log_probs = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()
    for limits, expected in (
        ({"top_k": 2}, [0.625, 0.375]),
        ({"top_p": 0.6}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.1}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.6}, [0.625, 0.375, 0]),
        ({}, [0.5, 0.3, 0.15, 0.05]),
    ):
        probs, words = nucleus(log_probs, **limits)
        assert probs[0].tolist() == pytest.approx(expected)
        assert words[0].tolist() == [1, 3, 0, 2][: len(expected)]


def test_repeats_by_hand() -> None:
    rows, words = repeats(torch.tensor([[4, 5, 6, 4, 5], [4, 5, 6, 5, 4]]), 3)
    assert (rows.tolist(), words.tolist()) == ([0], [6])
    rows, words = repeats(torch.tensor([[4, 5]]), 3)
    assert rows.numel() == words.numel() == 0
    rows, words = repeats(torch.tensor([[4, 5]]), 1)
    assert words.tolist() == [4, 5]


def test_refusals() -> None:
    toy = Toy(seed=0)
    rules = Rules(BOS, EOS, banned=(UNK,), max_words=3)
    with pytest.raises(ValueError, match="beam"):
        beam_search(toy.begin, toy.step, 1, rules, beam=0)
    with pytest.raises(ValueError, match="length_penalty"):
        beam_search(toy.begin, toy.step, 1, rules, length_penalty=-1)
    with pytest.raises(ValueError, match="max_words"):
        Rules(BOS, EOS, max_words=1, prefix=(4, 5))
    with pytest.raises(ValueError, match="no sentence is possible"):
        beam_search(toy.begin, toy.step, 1, Rules(BOS, EOS, banned=(UNK, EOS, *WORDS)))
    silent = Toy(seed=0, images=2)
    silent.table[0] = -math.inf  # nothing follows anything, of the first image
    with pytest.raises(ValueError, match="no sentence is possible for image 0"):
        beam_search(silent.begin, silent.step, 2, rules)
    for wrong in ({"count": 0}, {"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            sample(toy.begin, toy.step, 1, rules, **wrong)


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
@pytest.mark.parametrize("prefix", [(), (5,)])
def test_rows_say_from_which_row_of_each_step_a_word_came(method: str, prefix: tuple) -> None:
    toy = Toy(seed=7, images=2)
    rules = Rules(BOS, EOS, banned=(UNK,), max_words=4, prefix=prefix)
    told: list[Tensor] = []

    def begin(rows: int) -> State:
        return toy.begin(rows)

    def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        told.append(toy.table[state["image"], state["last"], tokens])
        return told[-1], {**state, "last": tokens}

    if method == "beam":
        found = beam_search(begin, step, 2, rules, beam=3)
    elif method == "greedy":
        found = greedy_search(begin, step, 2, rules)
    else:
        found = sample(begin, step, 2, rules, count=4)
    for image, sentences in enumerate(found):
        for sentence in sentences:
            words = (*sentence.tokens, EOS)
            assert len(sentence.rows) == len(words)
            read = sum(
                float(log_probs[row, word])
                for log_probs, row, word in zip(told, sentence.rows, words, strict=False)
            )
            assert read == pytest.approx(toy.log_prob(image, sentence.tokens))
