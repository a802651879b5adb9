"""Which part of a picture a word of its caption belongs to.

Karpathy & Fei-Fei 2015 ("Deep Visual-Semantic Alignments") align words with regions by a model
of their own; here the captioner's attention tells where it looked for each word.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from stylecap.backbone import Backbone
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.options import CaptionOptions
from stylecap.captioning.vocabulary import words_of
from stylecap.drawing import draw_over, draw_sheet
from stylecap.errors import OptionError
from stylecap.images import scale_picture, split_alpha

_FINE = 8  # positions along a side that each position of the attention is enlarged to
_BOX_COLOR = (255, 210, 60)


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """A word and its place.

    Attributes:
        word: as in the vocabulary.
        prob: its probability after the words before it.
        looked: share of its attention that went to the picture, 0 to 1; the rest needed none.
            Low for words such as "of".
        heat: (h, w) where it looked more than the caption's other words, sums to one.
        box: (top, left, bottom, right) around the hottest part, in shares of the picture's
            height and width.
    """

    word: str
    prob: float
    looked: float
    heat: Tensor
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Alignment:
    """A caption and where its words belong.

    Attributes:
        text: the caption.
        words: in order.
    """

    text: str
    words: tuple[AlignedWord, ...]


def align(
    captioner: Captioner, backbone: Backbone, picture: Image.Image, caption: str | None = None
) -> Alignment:
    """Place the words of a caption in a picture.

    Args:
        captioner: an attentive one.
        backbone: the captioner's.
        picture: what is described.
        caption: a sentence of yours; the captioner's own if None.
    Raises:
        OptionError: the caption is empty or holds a word that the captioner does not know, or
            the captioner has no attention.
        InputError: the backbone is not the captioner's.
    """
    options = CaptionOptions()
    if caption is not None:
        words = words_of(caption)
        if not words:
            raise OptionError(f"caption: expected a sentence, got {caption!r}")
        unknown = [word for word in words if word not in captioner.vocabulary]
        if unknown:
            raise OptionError(
                f"caption: the captioner does not know {', '.join(unknown)}; choose other words"
            )
        # Greedy search that has no word left to choose reads the sentence as it is.
        options = CaptionOptions(method="greedy", prefix=" ".join(words), max_words=len(words))
    features = captioner.features(backbone, captioner.see(picture))
    (described,) = captioner.describe(features, options)
    maps = [word.attention for word in described.words]
    looked = [each for each in maps if each is not None]
    if not looked or len(looked) != len(maps):
        raise OptionError(
            "captioner: a plain one looks only once, at the whole picture; choose an attentive one"
        )
    shares = torch.stack(looked)  # (T, h, w)
    sums = shares.sum((1, 2))  # (T,)
    heats = contrast(shares / sums.clamp_min(1e-9)[:, None, None])  # (T, h, w)
    return Alignment(
        described.text,
        tuple(
            AlignedWord(word.word, word.prob, float(total), heat, hottest_box(heat))
            for word, total, heat in zip(described.words, sums, heats, strict=True)
        ),
    )


def contrast(maps: Tensor) -> Tensor:
    """Where each word looked more than all words on the average.

    Every caption looks at the middle most of the time; what is common to its words tells nothing
    of one of them.

    Args:
        maps: (T, h, w), each of which sums to one.
    Returns:
        (T, h, w), not negative, each of which sums to one; a map like all others stays as it is.
    """
    excess = (maps - maps.mean(0)).clamp_min(0)  # (T, h, w)
    total = excess.sum((1, 2), keepdim=True)  # (T, 1, 1)
    return torch.where(total > 1e-6, excess / total.clamp_min(1e-9), maps)


def hottest_box(heat: Tensor) -> tuple[float, float, float, float]:
    """The box around the part of a map that hangs together with its maximum.

    Args:
        heat: (h, w), not negative.
    Returns:
        (top, left, bottom, right) in shares of height and width: everything connected with the
        maximum that has at least half its heat.
    """
    height, width = (_FINE * side for side in heat.shape)
    fine = functional.interpolate(
        heat[None, None].float(), (height, width), mode="bicubic", align_corners=False
    )[0, 0]  # (8h, 8w)
    hot = (fine >= fine.max() / 2).float()[None, None]
    found = torch.zeros_like(hot)
    found.view(-1)[int(fine.argmax())] = 1
    while True:  # flood from the maximum
        grown = functional.max_pool2d(found, 3, 1, 1) * hot
        if torch.equal(grown, found):
            break
        found = grown
    rows, columns = found[0, 0].nonzero().unbind(1)
    return (
        int(rows.min()) / height,
        int(columns.min()) / width,
        (int(rows.max()) + 1) / height,
        (int(columns.max()) + 1) / width,
    )


def word_pictures(
    alignment: Alignment, picture: Image.Image, long_side_px: int = 240
) -> list[Image.Image]:
    """For each word the picture, bright where the word belongs, with its box."""
    opaque = split_alpha(picture)[0]
    small = scale_picture(opaque, long_side_px)
    drawn = []
    for word in alignment.words:
        tile = draw_over(small, word.heat)
        top, left, bottom, right = word.box
        corners = (
            left * (tile.width - 1),
            top * (tile.height - 1),
            right * (tile.width - 1),
            bottom * (tile.height - 1),
        )
        ImageDraw.Draw(tile).rectangle(corners, outline=_BOX_COLOR, width=2)
        drawn.append(tile)
    return drawn


def word_sheet(alignment: Alignment, picture: Image.Image) -> Image.Image:
    """All words as one picture, each labelled with its probability and how much it looked."""
    tiles = [
        (drawn, f"{word.word}\np {word.prob:.2f}, looked {word.looked:.0%}")
        for drawn, word in zip(word_pictures(alignment, picture), alignment.words, strict=True)
    ]
    return draw_sheet(tiles, title=alignment.text, columns=5)
