from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu

from stylecap.captioning.metrics import (
    CiderD,
    bleu,
    cider_d,
    constant_floor,
    evaluate,
    human_ceiling,
    meteor_nltk,
    ngrams,
    rouge_l,
)

WORDS = ("a", "the", "dog", "cat", "man", "runs", "jumps", "over", "red", "ball", "grass", "snow")


def made_up(
    images: int = 30, seed: int = 0, shortest: int = 1
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Captions and five references an image that share words with them."""
    draw = random.Random(seed)
    captions, references = [], []
    for _ in range(images):
        captions.append(draw.choices(WORDS, k=draw.randint(shortest, 12)))
        group = []
        for _ in range(5):
            words = [w if draw.random() < 0.7 else draw.choice(WORDS) for w in captions[-1]]
            group.append(words + draw.choices(WORDS, k=draw.randint(0, 4)))
        references.append(group)
    return captions, references


def test_ngrams_by_hand() -> None:
    ones, twos, threes, fours = ngrams(["a", "b", "a", "b"])
    assert ones == {("a",): 2, ("b",): 2}
    assert twos == {("a", "b"): 2, ("b", "a"): 1}
    assert len(threes) == 2 and len(fours) == 1


def test_agree_with_pycocoevalcap() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    captions, references = made_up()
    theirs = {i: [" ".join(words) for words in group] for i, group in enumerate(references)}
    ours = {i: [" ".join(words)] for i, words in enumerate(captions)}
    assert cider_d(captions, references) == pytest.approx(
        Cider().compute_score(theirs, ours)[1], abs=1e-6
    )
    rouge = [rouge_l(w, r) for w, r in zip(captions, references, strict=True)]
    assert rouge == pytest.approx(Rouge().compute_score(theirs, ours)[1], abs=1e-6)
    # nltk, whose BLEU is ours, counts a caption shorter than n words as one missed n-gram
    captions, references = made_up(shortest=4)
    theirs = {i: [" ".join(words) for words in group] for i, group in enumerate(references)}
    ours = {i: [" ".join(words)] for i, words in enumerate(captions)}
    expected = Bleu(4).compute_score(theirs, ours, verbose=0)[0]
    assert bleu(captions, references) == pytest.approx(expected, abs=1e-3)


def test_bleu_equals_nltk_corpus_bleu() -> None:
    captions, references = made_up(seed=1)
    found = bleu(captions, references)
    for n in range(1, 5):
        weights = [1 / n] * n
        assert found[n - 1] == pytest.approx(corpus_bleu(references, captions, weights=weights))


def test_cider_by_hand() -> None:
    """Two images, two words each: idf is log 2 for all, so one shared word of two gives 1/2."""
    corpus = [[["red", "dog"]], [["blue", "cat"]]]
    scorer = CiderD(corpus)
    one = scorer.prepare(corpus[0])
    assert scorer.score(["red", "dog"], one) == pytest.approx(10 * (1 + 1) / 4)
    assert scorer.score(["red", "cat"], one) == pytest.approx(10 * 0.5 / 4)
    longer = scorer.score(["red", "dog", "dog"], one)  # clipped, and one word too long
    cosine = math.log(2) ** 2 * 2 / (math.hypot(1, 1) * math.hypot(1, 2) * math.log(2) ** 2)
    unseen = math.log(2)
    norm = math.hypot(math.log(2), unseen)
    pairs = math.log(2) / norm
    assert longer == pytest.approx(10 * math.exp(-1 / 72) * (cosine + pairs) / 4)


def test_cider_of_the_truth_is_highest() -> None:
    _, references = made_up(seed=2)
    references = [[group[0]] for group in references if len(group[0]) >= 4]
    truth = [group[0] for group in references]
    perfect = cider_d(truth, references)
    shifted = cider_d(truth[1:] + truth[:1], references)
    assert np.mean(shifted) < np.mean(perfect)
    assert all(score == pytest.approx(10, abs=2.6) for score in perfect)


def test_rouge_by_hand() -> None:
    # common subsequence "a dog" of 3 words against 4: precision 2/3, recall 1/2, beta 1.2
    expected = (1 + 1.44) * (2 / 3) * 0.5 / (0.5 + 1.44 * 2 / 3)
    assert rouge_l(["a", "dog", "x"], [["a", "red", "dog", "runs"]]) == pytest.approx(expected)
    assert rouge_l([], [["a"]]) == 0
    assert rouge_l(["x"], [["a"]]) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=10))
def test_a_caption_equal_to_a_reference_scores_one(words: list[str]) -> None:
    assert rouge_l(words, [words, ["other"]]) == pytest.approx(1)
    assert bleu([words], [[words]])[0] == pytest.approx(1)
    assert meteor_nltk(words, [words]) > 0.49


def test_evaluate_reports_every_figure_with_an_interval() -> None:
    captions, references = made_up(images=20)
    report = evaluate(captions, references, training_captions=captions[:5], samples=200)
    assert set(report) == {
        "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR (nltk)", "ROUGE-L", "CIDEr-D",
        "length ratio", "novel", "words used",
    }  # fmt: skip
    for name, measure in report.items():
        assert measure.low <= measure.value <= measure.high, name
    assert report["novel"].value == pytest.approx(0.75, abs=0.1)
    assert report["CIDEr-D"].value == pytest.approx(np.mean(cider_d(captions, references)))
    assert report["BLEU-4"].value == pytest.approx(bleu(captions, references)[3])


def test_evaluate_is_repeatable() -> None:
    captions, references = made_up(images=8)
    first = evaluate(captions, references, meteor=False, samples=50)
    assert first == evaluate(captions, references, meteor=False, samples=50)


def test_ceiling_and_floor() -> None:
    _, references = made_up(images=10)
    ceiling = human_ceiling(references)
    training = [words for group in references[:5] for words in group]
    sentence, floor = constant_floor(training, references)
    assert list(sentence) in training
    assert floor["CIDEr-D"].value < ceiling["CIDEr-D"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="captions"):
        bleu([["a"]], [])
    with pytest.raises(ValueError, match="corpus"):
        CiderD([])
    with pytest.raises(ValueError, match="references"):
        rouge_l(["a"], [])
    with pytest.raises(ValueError, match="at least two"):
        human_ceiling([[["a"]]])
    with pytest.raises(ValueError, match="training_captions"):
        constant_floor([], [[["a"]]])
