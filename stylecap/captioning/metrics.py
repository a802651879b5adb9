"""How good captions are, measured against what people wrote.

Everything takes captions as lists of words and gives shares, 0.62 for what papers print as
62; CIDEr-D may exceed 1. Corpus figures come with bootstrap intervals over images.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Words = Sequence[str]
References = Sequence[Sequence[str]]
NGram = tuple[str, ...]


def ngrams(words: Words, longest: int = 4) -> list[Counter[NGram]]:
    """How often every run of 1, 2, ... ``longest`` words occurs, one counter a length."""
    return [
        Counter(zip(*(words[start:] for start in range(n)), strict=False))
        for n in range(1, longest + 1)
    ]


@dataclass(frozen=True, slots=True)
class _Vector:
    """TF-IDF of a caption: a mapping and its norm for each n-gram length, and its length."""

    weights: tuple[dict[NGram, float], ...]
    norms: tuple[float, ...]
    length: int


class CiderD:
    """CIDEr-D: agreement of n-grams, rare ones counting more.

    Document frequencies come from ``corpus``, one group of references for every image; an
    n-gram's frequency is the number of groups in which it occurs. A caption that repeats words
    gains nothing, and one of another length than the reference loses (sigma 6).

    Source: Vedantam et al. 2015, section 3 and "CIDEr-D"; as in the coco-caption tool, whose
    length is the number of word pairs.

    Args:
        corpus: references of each image.
    Raises:
        ValueError: the corpus is empty.
    """

    def __init__(self, corpus: Sequence[References], *, sigma: float = 6.0) -> None:
        if not corpus:
            raise ValueError("corpus: expected the references of at least one image, got none")
        self._frequencies: Counter[NGram] = Counter()
        for references in corpus:
            groups = [ngrams(words) for words in references]
            self._frequencies.update({gram for group in groups for n in group for gram in n})
        self._log_images = math.log(len(corpus))
        self._sigma = sigma
        self._logs = [0.0] + [math.log(count) for count in range(1, len(corpus) + 1)]

    def prepare(self, references: References) -> list[_Vector]:
        """References in the form that `score` takes; do it once, score many captions."""
        return [self._vector(words) for words in references]

    def score(self, words: Words, references: Sequence[_Vector]) -> float:
        """CIDEr-D of one caption, from 0 to 10 for a caption equal to its references."""
        if not references:
            raise ValueError("references: expected at least one, got none")
        mine = self._vector(words)
        total = 0.0
        for theirs in references:
            difference = mine.length - theirs.length
            penalty = math.exp(-(difference**2) / (2 * self._sigma**2))
            for n, weights in enumerate(mine.weights):
                norm = mine.norms[n] * theirs.norms[n]
                if norm > 0:
                    other = theirs.weights[n]
                    shared = 0.0
                    for gram, weight in weights.items():
                        reference = other.get(gram)
                        if reference is not None:
                            shared += (weight if weight < reference else reference) * reference
                    total += penalty * shared / norm
        return 10.0 * total / (4 * len(references))

    def idf(self, images: float) -> float:
        """Inverse document frequency of an n-gram that occurs with so many images."""
        return self._log_images - math.log(max(1.0, images))

    def _vector(self, words: Words) -> _Vector:
        frequencies, logs, log_images = self._frequencies, self._logs, self._log_images
        weights = tuple(
            {gram: count * (log_images - logs[frequencies[gram]]) for gram, count in n.items()}
            for n in ngrams(words)
        )
        norms = tuple(math.sqrt(sum(value * value for value in n.values())) for n in weights)
        return _Vector(weights, norms, max(0, len(words) - 1))


def cider_d(captions: Sequence[Words], references: Sequence[References]) -> list[float]:
    """CIDEr-D of each caption, document frequencies from these references."""
    _check_lengths(captions, references)
    scorer = CiderD(references)
    return [
        scorer.score(words, scorer.prepare(group))
        for words, group in zip(captions, references, strict=True)
    ]


def rouge_l(words: Words, references: References, *, beta: float = 1.2) -> float:
    """ROUGE-L: F-measure of the longest common subsequence.

    The best precision and the best recall over the references, which may come from two
    different ones, as in the coco-caption tool. Source: Lin 2004, section 3.
    """
    if not references:
        raise ValueError("references: expected at least one, got none")
    if not words:
        return 0.0
    common = [_longest_common(words, reference) for reference in references]
    precision = max(common) / len(words)
    recall = max(
        (c / len(reference) for c, reference in zip(common, references, strict=True) if reference),
        default=0.0,
    )
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def _longest_common(a: Words, b: Words) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            diagonal, row[j] = (
                row[j],
                diagonal + 1 if word == other else max(row[j], row[j - 1]),
            )
    return row[-1]


@dataclass(frozen=True, slots=True)
class _BleuCounts:
    """What corpus BLEU sums over images: matches and totals of n = 1..4, two lengths."""

    matches: tuple[int, ...]
    totals: tuple[int, ...]
    length: int
    reference: int


def _bleu_counts(words: Words, references: References) -> _BleuCounts:
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    fractions = [modified_precision(references, words, n) for n in range(1, 5)]
    return _BleuCounts(
        tuple(fraction.numerator for fraction in fractions),
        tuple(fraction.denominator for fraction in fractions),
        len(words),
        closest_ref_length(references, len(words)),
    )


def _bleu_of(counts: np.ndarray) -> np.ndarray:
    """(..., 10) summed counts to (..., 4) BLEU-1 to BLEU-4 with the brevity penalty."""
    matches, totals = counts[..., :4], counts[..., 4:8]
    length, reference = counts[..., 8:9], counts[..., 9:]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(matches / np.maximum(totals, 1))
        means = np.cumsum(logs, axis=-1) / np.arange(1, 5)
        penalty = np.minimum(0.0, 1 - reference / np.maximum(length, 1))
        result: np.ndarray = np.nan_to_num(np.exp(means + penalty))
    return result


def bleu(captions: Sequence[Words], references: Sequence[References]) -> tuple[float, ...]:
    """BLEU-1 to BLEU-4 of the whole corpus, brevity penalty on, no smoothing.

    The counts are nltk's `modified_precision`, summed as its `corpus_bleu` does, so that
    bootstrap samples need no recount. Source: Papineni et al. 2002.
    """
    _check_lengths(captions, references)
    return tuple(_bleu_of(_bleu_table(captions, references).sum(0)).tolist())


def _bleu_table(captions: Sequence[Words], references: Sequence[References]) -> np.ndarray:
    rows = [_bleu_counts(w, r) for w, r in zip(captions, references, strict=True)]
    return np.array([(*r.matches, *r.totals, r.length, r.reference) for r in rows], float)


class _NoSynonyms:
    """Stands in for WordNet where its data are not installed."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def meteor_nltk(words: Words, references: References) -> float:
    """METEOR as nltk computes it: exact and stem matches, synonyms if WordNet is installed.

    Another measure than METEOR 1.5 of the coco-caption tool, and higher: never compare them.
    """
    from nltk.translate.meteor_score import meteor_score

    return float(meteor_score(references, words, wordnet=_wordnet()))


def has_wordnet() -> bool:
    """Whether nltk finds WordNet's data, so that METEOR counts synonyms."""
    return not isinstance(_wordnet(), _NoSynonyms)


def _wordnet() -> Any:
    import nltk

    try:
        nltk.data.find("corpora/wordnet")
    except LookupError:
        try:
            nltk.data.find("corpora/wordnet.zip")
        except LookupError:
            return _NoSynonyms()
    from nltk.corpus import wordnet

    return wordnet


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure and the interval that holds it in 95 % of bootstrap samples of the images."""

    value: float
    low: float
    high: float


def evaluate(
    captions: Sequence[Words],
    references: Sequence[References],
    *,
    document_frequencies: Sequence[References] | None = None,
    training_captions: Sequence[Words] = (),
    meteor: bool = True,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Measure]:
    """Every figure of a report.

    Args:
        captions: one for each image.
        references: what people wrote, for each image.
        document_frequencies: references that CIDEr-D weighs words by; default these.
        training_captions: to say how many captions were not copied from them.
        meteor: whether to compute METEOR, the slowest.
        samples: bootstrap samples.
        seed: of the bootstrap.
    Returns:
        ``BLEU-1`` to ``BLEU-4``, ``METEOR (nltk)``, ``ROUGE-L``, ``CIDEr-D``, ``length ratio``
        (to the closest reference), ``novel`` (share of captions not in the training set) and
        ``words used`` (different words; it has no interval).
    Raises:
        ValueError: captions and references differ in number, or are none.
    """
    _check_lengths(captions, references)
    scorer = CiderD(document_frequencies or references)
    per_image: dict[str, list[float]] = {}
    pairs = list(zip(captions, references, strict=True))
    if meteor:
        per_image["METEOR (nltk)"] = [meteor_nltk(w, r) for w, r in pairs]
    per_image["ROUGE-L"] = [rouge_l(w, r) for w, r in pairs]
    per_image["CIDEr-D"] = [scorer.score(w, scorer.prepare(r)) for w, r in pairs]
    if training_captions:
        known = {tuple(words) for words in training_captions}
        per_image["novel"] = [float(tuple(w) not in known) for w in captions]

    counts = _bleu_table(captions, references)
    picks = np.random.default_rng(seed).integers(len(captions), size=(samples, len(captions)))
    sampled = np.stack([counts[pick].sum(0) for pick in picks])
    report: dict[str, Measure] = {}
    values, ranges = _bleu_of(counts.sum(0)), _interval(_bleu_of(sampled))
    for n in range(4):
        report[f"BLEU-{n + 1}"] = Measure(values[n].item(), ranges[0][n], ranges[1][n])
    for name, scores in per_image.items():
        array = np.array(scores)
        low, high = _interval(array[picks].mean(1))
        report[name] = Measure(array.mean().item(), float(low), float(high))
    low, high = _interval(sampled[:, 8] / sampled[:, 9])
    ratio = counts[:, 8].sum() / counts[:, 9].sum()
    report["length ratio"] = Measure(float(ratio), float(low), float(high))
    used = float(len({word for words in captions for word in words}))
    report["words used"] = Measure(used, used, used)
    return report


def _interval(sampled: np.ndarray) -> Any:
    return np.percentile(sampled, (2.5, 97.5), axis=0).tolist()


def human_ceiling(
    references: Sequence[References], measure: Callable[..., Mapping[str, Measure]] = evaluate
) -> dict[str, float]:
    """What people score: each reference in turn against the others of its image, averaged.

    Every image needs two references or more; the fewest of any image sets the rounds.
    """
    rounds = min((len(group) for group in references), default=0)
    if rounds < 2:
        raise ValueError("references: expected at least two for every image to compare people")
    reports = []
    for turn in range(rounds):
        captions = [group[turn] for group in references]
        others = [[w for i, w in enumerate(group) if i != turn] for group in references]
        reports.append(measure(captions, others, samples=1))
    return {name: sum(report[name].value for report in reports) / rounds for name in reports[0]}


def constant_floor(
    training_captions: Sequence[Words],
    references: Sequence[References],
    measure: Callable[..., dict[str, Measure]] = evaluate,
    *,
    candidates: int = 50,
) -> tuple[Words, dict[str, Measure]]:
    """The best that one sentence for every image scores: what a blind captioner would say.

    The sentence is the one among the ``candidates`` most frequent training captions with the
    highest CIDEr-D here, which is generous to the floor.
    """
    if not training_captions:
        raise ValueError("training_captions: expected at least one, got none")
    frequent = Counter(tuple(words) for words in training_captions).most_common(candidates)
    scorer = CiderD(references)
    prepared = [scorer.prepare(group) for group in references]

    def total(words: Words) -> float:
        return sum(scorer.score(words, group) for group in prepared)

    best = max((words for words, _ in frequent), key=total)
    return best, measure([best] * len(references), references)


def _check_lengths(captions: Sequence[Words], references: Sequence[References]) -> None:
    if len(captions) != len(references) or not captions:
        raise ValueError(
            f"captions: expected one for each of the {len(references)} groups of references, "
            f"got {len(captions)}"
        )
