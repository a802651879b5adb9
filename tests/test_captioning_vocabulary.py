from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylecap.captioning.vocabulary import (
    BOS,
    EOS,
    PAD,
    SPECIALS,
    UNK,
    Vocabulary,
    mirrored_words,
    text_of,
    words_of,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog runs .", ["a", "dog", "runs"]),
        ('He said , " Go ! "', ["he", "said", "go"]),
        ("a man 's T-shirt", ["a", "man", "'s", "t-shirt"]),
        ("a man's T-shirt", ["a", "man", "'s", "t-shirt"]),
        ("it isn\u2019t 3 feet", ["it", "is", "n't", "3", "feet"]),
        (" ... ", []),
    ],
)
def test_words_of_drops_punctuation_and_case(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text())
def test_text_of_is_undone_by_words_of(text: str) -> None:
    words = words_of(text)
    assert words_of(text_of(words)) == words


def test_text_joins_clitics() -> None:
    assert text_of(["a", "man", "'s", "hat", "is", "n't", "red"]) == "a man's hat isn't red"


def test_mirroring_twice_changes_nothing() -> None:
    words = ["left", "of", "the", "right", "dog"]
    assert mirrored_words(words) == ["right", "of", "the", "left", "dog"]
    assert mirrored_words(mirrored_words(words)) == words


def test_build_keeps_frequent_words_in_a_fixed_order() -> None:
    captions = [["a", "dog"], ["a", "cat"], ["a", "dog"], ["zebra"]]
    vocabulary = Vocabulary.build(captions, min_count=2)
    assert vocabulary.words == (*SPECIALS, "a", "dog")
    assert len(vocabulary) == 6
    assert "dog" in vocabulary and "zebra" not in vocabulary


def test_encode_and_decode() -> None:
    vocabulary = Vocabulary([*SPECIALS, "a", "dog"])
    assert vocabulary.encode(["a", "zebra", "dog"]) == [4, UNK, 5]
    assert vocabulary.decode([BOS, 4, PAD, 5, EOS, 4]) == ["a", "dog"]


@pytest.mark.parametrize("words", [["a"], [*SPECIALS, "a", "a"]])
def test_refuses_missing_specials_and_doubles(words: list[str]) -> None:
    with pytest.raises(ValueError, match="words"):
        Vocabulary(words)
