"""Words and their ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
FIRST_PREDICTED = EOS  # <pad> and <bos> are read but never predicted

_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_CLITIC = re.compile(r"(?<=\w)(?='(?:s|re|ve|ll|d|m)\b|n't\b)")
_SWAPPED = {"left": "right", "right": "left"}


def words_of(text: str) -> list[str]:
    """The words of a caption: lower case, punctuation dropped, ``t-shirt`` kept whole.

    A possessive or contraction is split off as the data sets write it: ``man's`` and
    ``man 's`` both give ``man`` and ``'s``.
    """
    words: list[str] = []
    for piece in _CLITIC.sub(" ", text.lower().replace("\u2019", "'")).split():
        found = _WORD.search(piece)
        if found is None:
            continue
        clitic = piece.startswith("'") and piece[1:] in {"s", "re", "ve", "ll", "d", "m"}
        words.extend([piece] if clitic else _WORD.findall(piece))
    return words


def text_of(words: Iterable[str]) -> str:
    """Words as one line of text; ``'s`` is joined to the word before it."""
    return re.sub(r" (?='\w|n't\b)", "", " ".join(words))


def mirrored_words(words: Sequence[str]) -> list[str]:
    """The caption of the mirrored picture: left and right change places."""
    return [_SWAPPED.get(word, word) for word in words]


class Vocabulary:
    """The words a captioner knows; ids 0 to 3 are ``<pad> <bos> <eos> <unk>``.

    Args:
        words: all entries in the order of their ids, the four special ones first.
    Raises:
        ValueError: the special entries are missing, or an entry occurs twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        if tuple(words[:4]) != SPECIALS:
            raise ValueError(
                f"words: expected to begin with {' '.join(SPECIALS)}, got {' '.join(words[:4])!r}"
            )
        self.words = tuple(words)
        self._ids = {word: index for index, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"words: every entry must be unique, {twice!r} occurs twice")

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_count: int = 5) -> Vocabulary:
        """Keep the words that occur at least ``min_count`` times, most frequent first."""
        counts = Counter(word for caption in captions for word in caption)
        kept = [word for word, count in counts.items() if count >= min_count]
        return cls([*SPECIALS, *sorted(kept, key=lambda word: (-counts[word], word))])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def encode(self, words: Iterable[str]) -> list[int]:
        """Ids of words, without ``<bos>`` and ``<eos>``; unknown words become ``<unk>``."""
        return [self._ids.get(word, UNK) for word in words]

    def decode(self, tokens: Iterable[int]) -> list[str]:
        """Words of ids up to ``<eos>``; ``<bos>`` and ``<pad>`` are skipped."""
        words = []
        for token in tokens:
            if token == EOS:
                break
            if token not in (PAD, BOS):
                words.append(self.words[token])
        return words
