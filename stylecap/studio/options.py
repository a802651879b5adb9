"""What can be chosen about the search by words and its training. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from stylecap.captioning.options import BACKBONES
from stylecap.options import MAX_SEED, option, validate


@dataclass(frozen=True)
class RerankOptions:
    """How the captioner reads the nearest again."""

    candidates: int = option(
        20, "How many of the nearest the captioner reads again.", minimum=10, maximum=1000
    )
    weight: float = option(
        0.3, "Of its log-probability a word, beside the cosine.", minimum=0, maximum=10
    )

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)


@dataclass(frozen=True)
class SearchTrainOptions:
    """How pictures and sentences are taught to meet in one space."""

    backbone: str = option(
        "vgg16",
        "Network that sees the pictures; the search needs vgg16, a captioner its own.",
        choices=BACKBONES,
    )
    units: int = option(512, "Width of the common space and of the GRU.", minimum=8, maximum=4096)
    word_units: int = option(256, "Width of a word.", minimum=8, maximum=1024)
    dropout: float = option(0.4, "Share of inputs dropped.", minimum=0, maximum=0.95)
    min_count: int = option(5, "Words rarer than this are unknown.", minimum=1)
    mirrored: bool = option(True, "Train on mirrored pictures, too.")
    epochs: int = option(14, "Passes over all sentences.", minimum=1)
    gentle_epochs: int = option(
        2, "Of them, so many with all negatives before only the hardest counts.", minimum=0
    )
    batch: int = option(128, "Pairs a step; their others are the negatives.", minimum=2)
    margin: float = option(
        0.2, "By how much the right one must be nearer than a wrong one.", minimum=0, maximum=2
    )
    learning_rate: float = option(1e-3, "Highest step size of Adam.", minimum=0)
    average: float = option(
        0.995, "Decay of the averaged weights; 0 for none.", minimum=0, maximum=0.99999
    )
    clip: float = option(2.0, "Longest gradient.", minimum=0.001, advanced=True)
    seed: int = option(0, "Start of the random numbers.", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)
