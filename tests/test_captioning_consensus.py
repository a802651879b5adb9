"""The consensus: regression, worth of sentences, their part in the beam; rounding in files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stylecap.captioning.captioner import Captioner
from stylecap.captioning.captioner_file import load_captioner, save_captioner
from stylecap.captioning.consensus import Consensus, Expected, Ngrams
from stylecap.captioning.consensus_fit import ConsensusOptions, fit_consensus
from stylecap.captioning.decode import Rules, Sentence, State, beam_search
from stylecap.captioning.features import VIEWS, View
from stylecap.captioning.matching import summary
from stylecap.captioning.metrics import CiderD
from stylecap.captioning.options import CaptionOptions
from stylecap.captioning.rounding import pack, round_rows, unpack
from stylecap.captioning.tuning import choose_search
from stylecap.captioning.vocabulary import EOS, PAD, Vocabulary
from stylecap.errors import OptionError, WeightsError
from stylecap.tensorfile import load_tensors, save_tensors, under
from tests.small import photo, small_backbone, small_captioner

WORDS = small_captioner().vocabulary
VIEW = VIEWS["alexnet"]
#: What is said of three kinds of pictures.
KINDS = ("a dog runs", "the red ball", "a cat sits")
SMALL = ConsensusOptions(least=2, axes=8, landmarks=60, topics=12)


def seen(count: int = 60) -> tuple[Tensor, list[list[list[str]]]]:
    """Summaries (N, 2C) of pictures of the kinds in turn, and two captions of each."""
    noise = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 32, generator=noise)
    rows = torch.stack([kinds[n % 3] for n in range(count)])
    captions = [[KINDS[n % 3].split(), [*KINDS[n % 3].split(), "water"]] for n in range(count)]
    return rows + 0.3 * torch.randn(count, 32, generator=noise), captions


@pytest.fixture(scope="module")
def consensus() -> Consensus:
    found = fit_consensus([seen()[0]], [seen()[1]], WORDS, VIEW, SMALL)
    assert found is not None
    return found


def worth_of(expected: Expected, row: int, tokens: Sequence[int]) -> float:
    """What a whole sentence is worth for a picture."""
    worth, _ = expected(after(expected, [row], tokens), torch.tensor([0]), torch.tensor([EOS]))
    return float(worth)


def after(expected: Expected, images: list[int], tokens: Sequence[int]) -> State:
    """The state of a row for each of some images, with the same words."""
    rows, state = torch.arange(len(images)), expected.begin(len(images))
    for token in tokens:
        _, state = expected({**state, "image": torch.tensor(images)}, rows, rows * 0 + token)
    return {**state, "image": torch.tensor(images)}


def said_worth(expected: Expected, row: int, text: str) -> float:
    return worth_of(expected, row, WORDS.encode(text.split()))


# the regression


def test_each_kind_is_worth_its_own_sentence_most(consensus: Consensus) -> None:
    fresh = seen(66)[0][60:]  # were not learned from
    expected = consensus.expected(fresh)
    for row in range(6):
        worths = [said_worth(expected, row, text) for text in KINDS]
        assert worths.index(max(worths)) == row % 3
        assert max(worths) > 1 + sorted(worths)[1]


def test_it_is_kernel_ridge_regression() -> None:
    """With all pictures as landmarks, all axes and all topics: what the dual form gives."""
    summaries, captions = seen(40)
    options = ConsensusOptions(least=2, axes=32, landmarks=40, topics=99, ridge=0.3, width=1.0)
    found = fit_consensus([summaries], [captions], WORDS, VIEW, options)
    assert found is not None
    asked = seen(50)[0][40:]

    def directions(rows: Tensor) -> Tensor:
        standard = (rows - summaries.mean(0)) / summaries.std(0)
        return (standard / standard.norm(dim=1, keepdim=True)).double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-torch.cdist(a, b).square()).exp()

    known, new = directions(summaries), directions(asked)
    centring = torch.eye(40, dtype=torch.float64) - 1 / 40
    among = kernel(known, known)
    across = kernel(new, known) - among.mean(0)
    diagonal = 1 - among.mean()
    solved = centring @ among @ centring + 0.3 * diagonal * torch.eye(40)
    scorer = CiderD(captions)
    sentence = ["a", "dog", "runs"]
    (own,) = scorer.prepare([sentence])
    worth = torch.zeros(40, dtype=torch.float64)  # of the sentence for every known picture
    for row, group in enumerate(captions):
        for theirs in scorer.prepare(group):
            for n, weights in enumerate(own.weights):
                norm = own.norms[n] * theirs.norms[n]
                if norm:
                    dot = sum(w * theirs.weights[n].get(gram, 0) for gram, w in weights.items())
                    worth[row] += 10 / 4 * dot / norm / len(group)
    wanted = worth.mean() + across @ centring @ torch.linalg.solve(solved, centring @ worth)
    expected = found.expected(asked)
    given_ = torch.tensor([said_worth(expected, row, "a dog runs") for row in range(10)]).double()
    torch.testing.assert_close(given_, wanted, atol=0.05, rtol=0.02)
    assert wanted.max() - wanted.min() > 1


def test_mirrored_pictures_are_learned_from_with_their_own_captions() -> None:
    summaries, captions = seen(30)
    mirrored = torch.randn(30, 32, generator=torch.Generator().manual_seed(1))
    others = [captions[(n + 1) % 3] for n in range(30)]
    alone = fit_consensus([summaries], [captions], WORDS, VIEW, SMALL)
    both = fit_consensus([summaries, mirrored], [captions, others], WORDS, VIEW, SMALL)
    assert alone is not None and both is not None and both.record["seen"] == 60
    row = mirrored[:1]
    (of_first, of_second), (_, before) = (
        [said_worth(each.expected(row), 0, kind) for kind in KINDS[:2]] for each in (both, alone)
    )
    assert of_second > before + 0.3 and of_second > of_first + 0.3
    assert len(both.tensors()["consensus/landmarks"]) == 30  # pictures as they are


def test_without_frequent_ngrams_there_is_none() -> None:
    summaries, captions = seen(8)
    assert fit_consensus([summaries], [captions], WORDS, VIEW) is None
    assert (
        fit_consensus([summaries], [captions], WORDS, VIEW, SMALL, should_stop=lambda: True) is None
    )


def test_of_too_many_words_there_is_none(consensus: Consensus) -> None:
    many = Vocabulary([*WORDS.words, *(f"w{n}" for n in range(55_109 - len(WORDS)))])
    assert len(many) ** 4 > 2**63 > (len(many) - 1) ** 4
    assert fit_consensus([seen()[0]], [seen()[1]], many, VIEW, SMALL) is None
    tensors = unpack(under(consensus.tensors(), "consensus/"))
    with pytest.raises(ValueError, match="at most 55108, got 55109"):
        Consensus(tensors, len(many), VIEW, width=1.0, rare_idf=1.0)
    Consensus(tensors, len(many) - 1, VIEW, width=1.0, rare_idf=1.0)


def test_no_more_than_the_most_frequent_are_kept_and_always_the_same() -> None:
    summaries, captions = seen(30)
    captions[0].append(["a", "dog", "sits"])
    few = ConsensusOptions(least=2, most=5, axes=8, landmarks=9, topics=4)
    found, again = (fit_consensus([summaries], [captions], WORDS, VIEW, few) for _ in range(2))
    assert found is not None and again is not None
    kept = found.tensors()["consensus/ngrams"].tolist()
    assert kept == again.tensors()["consensus/ngrams"].tolist() and len(kept) == 5
    assert kept[0][:2] == [*WORDS.encode(["water"]), PAD]  # everybody says it
    assert kept[1] == [*WORDS.encode(["a"]), PAD, PAD, PAD]  # two kinds of three


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_pictures_that_hardly_differ_are_no_error(noise: float) -> None:
    rows = torch.ones(300, 16) + noise * torch.randn(300, 1)
    found = fit_consensus([rows], [seen(300)[1]], WORDS, VIEW, SMALL)
    assert found is not None
    assert math.isfinite(said_worth(found.expected(rows[:1]), 0, "a dog"))


def test_what_everybody_says_of_everything_is_nothing() -> None:
    said = [[["a", "dog"]]] * 20
    assert fit_consensus([seen(20)[0]], [said], WORDS, VIEW) is None


# the worth of sentences


@given(st.lists(st.integers(3, len(WORDS) - 1), min_size=1, max_size=9))
def test_worth_is_the_product_of_unit_tfidf_with_what_is_expected(tokens: list[int]) -> None:
    """Of what was said, and of what could be said next; with words that come again."""
    grams = [(4,), (5,), (4, 5), (5, 4), (4, 4), (4, 5, 6), (4, 5, 4, 5)]
    known = {gram: (place, 1.0 + place / 3) for place, gram in enumerate(grams)}
    row = [0.3, -0.1, 0.5, 0.2, 0.7, 0.9, 0.4]
    wanted = 0.0
    for n in range(1, 5):
        runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        weights = {g: runs.count(g) * known.get(g, (0, 5.0))[1] for g in runs}
        norm = math.sqrt(sum(w * w for w in weights.values()))
        wanted += sum(w * row[known[g][0]] / norm for g, w in weights.items() if g in known)
    ngrams = Ngrams(
        torch.tensor([[*gram, *[PAD] * (4 - len(gram))] for gram in grams]),
        torch.tensor([known[gram][1] for gram in grams]),
        words=len(WORDS),
        rare_idf=5.0,
    )
    expected = Expected(torch.tensor([[0.0] * len(row), row]), ngrams)
    assert worth_of(expected, 1, tokens) == pytest.approx(2.5 * wanted, abs=1e-5)
    assert worth_of(expected, 1, ()) == worth_of(expected, 0, tokens) == 0
    state, last = after(expected, [0, 1], tokens[:-1]), tokens[-1]
    asked, _ = expected(state, torch.tensor([1, 0, 1]), torch.tensor([last, last, EOS]))
    assert asked.tolist() == pytest.approx(
        [2.5 * wanted, 0, worth_of(expected, 1, tokens[:-1])], abs=1e-5
    )


# in the beam


@pytest.mark.parametrize("prefix", [(), (3, 4)])
def test_the_beam_finds_what_is_worth_most(prefix: tuple[int, ...]) -> None:
    """Beams that keep everything find what trying all sentences finds, small ones what steers."""
    random = torch.Generator().manual_seed(3)
    table = torch.randn(6, 6, generator=random).log_softmax(-1)
    weights = torch.tensor([0.0, 0.0, 0.0, 0.4, 0.3, 0.9])

    def begin(rows: int) -> State:
        return {"sum": torch.zeros(rows)}

    def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        return table[tokens], state

    def worth(state: State, rows: Tensor, words: Tensor) -> tuple[Tensor, State]:
        total = state["sum"][rows] + weights[words]
        return total, {"sum": total}

    rules = Rules(1, 2, banned=(0, 1), max_words=4, no_repeat=0, prefix=prefix)

    def score(tokens: tuple[int, ...]) -> float:
        path = [1, *tokens, 2]
        total = sum(float(table[a, b]) for a, b in pairwise(path))
        return total / (len(tokens) + 1) ** 0.7 + float(weights[list(tokens)].sum())

    every = [
        (*prefix, *rest)
        for n in range(not prefix, 5 - len(prefix))
        for rest in product((3, 4, 5), repeat=n)
    ]
    best = max(every, key=score)
    plain = beam_search(begin, step, 1, rules, beam=200)[0][0].tokens
    assert best != plain
    (found,) = beam_search(begin, step, 1, rules, beam=200, worth=worth)
    assert found[0].tokens == best and found[0].score == pytest.approx(score(best), abs=1e-5)
    assert [each.score for each in found] == sorted((e.score for e in found), reverse=True)
    narrow = beam_search(begin, step, 2, rules, beam=2, worth=worth)
    assert score(narrow[0][0].tokens) > score(plain) and narrow[0] == narrow[1]


@pytest.mark.parametrize("beam", [1, 3])
def test_what_sentences_are_worth_stays_with_their_image(beam: int) -> None:
    """Images whose sentences end at different words are searched as if each were alone."""
    random = torch.Generator().manual_seed(5)
    table = (2 * torch.randn(4, 6, 6, generator=random)).log_softmax(-1)  # of four images
    weights = 0.3 * torch.randn(4, 6, generator=random)
    rules = Rules(1, 2, banned=(0, 1), max_words=9, no_repeat=0)

    def search(images: list[int]) -> list[list[Sentence]]:
        def begin(rows: int) -> State:
            image = torch.tensor(images).repeat_interleave(rows // len(images))
            return {"image": image, "sum": torch.zeros(rows)}

        def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
            return table[state["image"], tokens], state

        def worth(state: State, rows: Tensor, words: Tensor) -> tuple[Tensor, State]:
            total = state["sum"][rows] + weights[state["image"][rows], words]
            return total, {"sum": total}

        return beam_search(begin, step, len(images), rules, beam=beam, worth=worth)

    together = search([0, 1, 2, 3])
    assert len({len(each[0].tokens) for each in together}) > 1
    for image, found in enumerate(together):
        (alone,) = search([image])
        assert [each.tokens for each in found] == [each.tokens for each in alone]
        assert [each.score for each in found] == pytest.approx([each.score for each in alone])


def judged(consensus: Consensus, weight: float) -> Captioner:
    plain = small_captioner()
    return Captioner(
        plain.decoders,
        plain.vocabulary,
        plain.view,
        consensus=consensus,
        consensus_weight=weight,
    )


@pytest.fixture(scope="module")
def features() -> Tensor:
    """Of three pictures."""
    captioner = small_captioner()
    return captioner.features(small_backbone(), torch.cat([photo(224, n) for n in range(3)]))


@pytest.fixture(scope="module")
def fitted(features: Tensor) -> Consensus:
    """That expects another kind of each of the three pictures."""
    rows = summary(features).repeat(10, 1)
    rows = rows + 0.01 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    found = fit_consensus([rows], [seen(30)[1]], WORDS, VIEW, SMALL)
    assert found is not None
    return found


def test_captions_say_what_people_would(features: Tensor, fitted: Consensus) -> None:
    plain = small_captioner().describe(features)
    steered = judged(fitted, 50.0).describe(features, CaptionOptions(beam=10))
    expected = fitted.expected(summary(features))
    for row, (mine, before) in enumerate(zip(steered, plain, strict=True)):
        said = [said_worth(expected, row, each.text) for each in (mine, before)]
        assert said[0] > said[1] + 0.3
    off = judged(fitted, 50.0).describe(features, CaptionOptions(consensus_weight=0.0))
    assert [each.text for each in off] == [each.text for each in plain]


def test_a_picture_is_described_alone_as_among_others(features: Tensor, fitted: Consensus) -> None:
    captioner = judged(fitted, 4.0)
    for row, each in enumerate(captioner.describe(features)):
        (alone,) = captioner.describe(features[row : row + 1])
        assert alone.text == each.text


def test_its_weight_is_chosen_by_what_it_brings(features: Tensor, fitted: Consensus) -> None:
    said = [[text.split()] for text in KINDS]
    captioner = judged(fitted, 0.0)
    array = np.asarray(features)
    assert choose_search(captioner, array, said, said)
    tried = captioner.record["search"]["tried"]
    assert captioner.consensus_weight > 0 and captioner.match_weight == 0
    assert {each["consensus_weight"] for each in tried} == {0.0, 1.0, 2.0, 3.0, 4.0}
    without = max(each["cider"] for each in tried if not each["consensus_weight"])
    assert captioner.record["search"]["best"]["cider"] > without + 0.3


# in files


def test_it_is_kept_in_the_file(features: Tensor, fitted: Consensus, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    captioner = judged(fitted, 4.0)
    save_captioner(captioner, path)
    again = load_captioner(path, runtime=captioner.runtime)
    assert again.consensus is not None and again.consensus_weight == 4.0
    assert again.settled().consensus_weight == 4.0
    assert again.consensus.record == fitted.record
    ours, theirs = (each.expected(summary(features)) for each in (fitted, again.consensus))
    for text, row in product(KINDS, range(3)):  # it was fitted to the numbers that files keep
        there, here = (said_worth(each, row, text) for each in (theirs, ours))
        assert there == pytest.approx(here, abs=1e-3)
    header, tensors = load_tensors(path, "captioner", 1, ())
    for name in ("consensus/landmarks", "consensus/idf", "consensus/ngrams"):
        save_tensors(path, header, {k: v for k, v in tensors.items() if k != name})
        with pytest.raises(WeightsError, match="damaged or incomplete"):
            load_captioner(path)
    save_tensors(path, header, {**tensors, "consensus/ngrams": tensors["consensus/ngrams"] + 99})
    with pytest.raises(WeightsError, match=f"ngrams: expected ids from 0 to {len(WORDS) - 1}"):
        load_captioner(path)
    for name in ("0/embedding.weight", "consensus/topics"):  # are numbers of steps
        save_tensors(path, header, {k: v for k, v in tensors.items() if k != f"{name}/step"})
        with pytest.raises(WeightsError, match=f"damaged or incomplete: .*{name.split('/')[1]}"):
            load_captioner(path)


def test_one_for_others_is_refused(consensus: Consensus) -> None:
    with pytest.raises(OptionError, match="no consensus, expected 0, got 2"):
        small_captioner().check(CaptionOptions(consensus_weight=2.0))
    plain = small_captioner()
    with pytest.raises(ValueError, match="consensus: expected a weight of 0 without one"):
        Captioner(plain.decoders, plain.vocabulary, plain.view, consensus_weight=1.0)
    few = Vocabulary(plain.vocabulary.words[:-1])
    for words, view, message in (
        (plain.vocabulary, View("alexnet", ("relu5",), 6), "sees pictures as the decoders do"),
        (few, VIEW, f"expected one for {len(WORDS)} words, got {len(few)}"),
    ):
        other = fit_consensus([seen()[0]], [seen()[1]], words, view, SMALL)
        with pytest.raises(ValueError, match=message):
            Captioner(plain.decoders, plain.vocabulary, plain.view, consensus=other)


@given(st.integers(1, 5), st.integers(1, 9), st.floats(1e-6, 1e6))
def test_rounding_keeps_rows_and_happens_once(rows: int, columns: int, size: float) -> None:
    matrix = size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    whole, step = round_rows(matrix)
    assert whole.abs().max() == 127
    assert ((whole * step - matrix).abs() <= step * 0.501).all()
    given_ = {"a": matrix, "b": matrix[0] / size, "c": torch.arange(3)}
    kept = unpack(pack(given_))
    torch.testing.assert_close(kept["a"], whole * step)
    assert kept.keys() == given_.keys() and torch.equal(kept["c"], given_["c"])
    torch.testing.assert_close(unpack(pack(kept)), kept)


def test_files_of_half_precision_are_still_read() -> None:
    weights = {"a": torch.randn(3, 4), "b": torch.randn(5)}
    kept = unpack({name: weight.half() for name, weight in weights.items()})
    for name, weight in weights.items():
        torch.testing.assert_close(kept[name], weight, atol=2e-3, rtol=2e-3)
