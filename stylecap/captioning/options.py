"""What can be chosen about captions and about training a captioner. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from stylecap.errors import OptionError
from stylecap.options import MAX_SEED, option, validate

METHODS = ("beam", "greedy", "sample")
DECODERS = ("attentive", "plain")
BACKBONES = ("vgg16", "alexnet")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class CaptionOptions:
    """How a picture is described."""

    backbone: str = option("vgg16", "Network that sees the picture.", choices=BACKBONES)
    method: str = option("beam", "How words are chosen.", choices=METHODS)
    beam: int | None = option(
        None,
        "Candidates that beam search keeps; the captioner's own number if unset, mostly 5 or 10.",
        minimum=1,
        maximum=100,
    )
    alternatives: int = option(
        5,
        "Whole captions to give, best first: at most as many as the beam keeps; of those that "
        "method sample draws, all, and the most probable is the caption.",
        minimum=1,
        maximum=100,
    )
    length_penalty: float | None = option(
        None,
        "Ranks by log-probability divided by length to this power; the captioner's own if unset.",
        minimum=0,
        maximum=2,
        advanced=True,
    )
    match_weight: float | None = option(
        None,
        "How much the likeness of sentence and picture counts in the beam's ranking; the "
        "captioner's own if unset, 0 for none.",
        minimum=0,
        maximum=100,
        advanced=True,
    )
    consensus_weight: float | None = option(
        None,
        "How much it counts in beam search what people wrote about similar pictures; the "
        "captioner's own if unset, 0 for nothing.",
        minimum=0,
        maximum=100,
        advanced=True,
    )
    temperature: float = option(
        1.0, "Below 1 samples safer words, above 1 bolder ones.", minimum=0.01, maximum=10
    )
    top_k: int = option(0, "Sample among this many words; 0 for all.", minimum=0, advanced=True)
    top_p: float = option(
        1.0,
        "Sample among the most probable words that reach this probability together.",
        minimum=0.01,
        maximum=1,
        advanced=True,
    )
    seed: int = option(0, "Start of the random numbers of sampling.", minimum=0, maximum=MAX_SEED)
    prefix: str = option("", "Words that the caption begins with.")
    max_words: int = option(24, "Longest caption.", minimum=1, maximum=100, advanced=True)

    def __post_init__(self) -> None:
        """Check every field; a greedy search has one alternative."""
        validate(self)
        if self.method == "greedy" and self.alternatives > 1:
            object.__setattr__(self, "alternatives", 1)


@dataclass(frozen=True)
class TrainOptions:
    """How a captioner is trained."""

    backbone: str = option("vgg16", "Network that sees the pictures.", choices=BACKBONES)
    decoder: str = option("attentive", "Kind of decoder.", choices=DECODERS)
    units: int = option(512, "Width of the decoder.", minimum=8, maximum=4096)
    heads: int = option(8, "Attention heads.", minimum=1, maximum=64, advanced=True)
    dropout: float = option(0.5, "Share of units dropped.", minimum=0, maximum=0.95)
    position_dropout: float = option(
        0.0, "Share of the picture's positions hidden.", minimum=0, maximum=0.95
    )
    min_count: int = option(5, "Words rarer than this are unknown.", minimum=1)
    max_words: int = option(20, "Longer captions are cut here.", minimum=1, advanced=True)
    mirrored: bool = option(True, "Train on mirrored pictures, too.")
    epochs: int = option(10, "Passes with cross-entropy.", minimum=0)
    batch: int = option(8, "Pictures a step, over all processes.", minimum=1)
    learning_rate: float = option(1e-3, "Highest step size of Adam.", minimum=0)
    warmup: int = option(200, "Steps until the highest step size.", minimum=0, advanced=True)
    label_smoothing: float = option(
        0.1, "Probability given to all other words.", minimum=0, maximum=0.9, advanced=True
    )
    average: float = option(
        0.998,
        "Decay of the averaged weights; 0 for none.",
        minimum=0,
        maximum=0.99999,
        advanced=True,
    )
    clip: float = option(1.0, "Longest gradient.", minimum=0.001, advanced=True)
    reward_epochs: int = option(
        12,
        "Passes with CIDEr-D as reward; then means of the weights before and after are tried.",
        minimum=0,
    )
    reward_batch: int = option(16, "Pictures a step of these passes.", minimum=1)
    reward_samples: int = option(5, "Captions drawn for a picture.", minimum=2)
    reward_top_k: int = option(
        8,
        "They are drawn among this many words at each place; 0 for all.",
        minimum=0,
        advanced=True,
    )
    reward_learning_rate: float = option(1e-4, "Their step size.", minimum=0)
    patience: int = option(5, "Passes without a better CIDEr-D until it stops.", minimum=1)
    beam: int = option(3, "Beam of the validation.", minimum=1, advanced=True)
    length_penalty: float = option(
        0.7, "Length penalty of the validation.", minimum=0, maximum=2, advanced=True
    )
    save_every: int = option(100, "Steps between checkpoints.", minimum=1, advanced=True)
    precision: str = option("float32", "Of the matrix products.", choices=PRECISIONS)
    seed: int = option(0, "Start of the random numbers.", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        """Check every field, and that the heads divide the units."""
        validate(self)
        if self.units % self.heads:
            raise OptionError(f"heads: expected a divisor of units={self.units}, got {self.heads}")
