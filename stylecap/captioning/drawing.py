"""Pictures of captions: where the captioner looked for each word."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from stylecap.captioning.captioner import Caption, CaptionWord
from stylecap.drawing import draw_over, draw_sheet
from stylecap.errors import InputError
from stylecap.images import scale_picture, split_alpha


def draw_attention(picture: Image.Image, caption: Caption, *, tile_px: int = 224) -> Image.Image:
    """One tile a word: the picture lit where the captioner looked, word and probability below.

    All words share one scale, so that a word that needed the picture little stays dark.

    Args:
        picture: that was described, of any size; its shape is kept.
        caption: of it.
        tile_px: long side of a tile, in pixels.
    Returns:
        RGB; the first tile is the picture itself.
    Raises:
        InputError: the captioner looks only once, so that there is nothing to draw.
    """
    maps = [_attention(word) for word in caption.words]
    brightest = max(float(each.max()) for each in maps)
    tile = scale_picture(split_alpha(picture)[0], tile_px)
    tiles = [(tile, "")]
    for word, attention in zip(caption.words, maps, strict=True):
        tiles.append((draw_over(tile, attention, high=brightest), f"{word.word}  {word.prob:.2f}"))
    return draw_sheet(tiles, title=caption.text, columns=5)


def _attention(word: CaptionWord) -> Tensor:
    if word.attention is None:
        raise InputError("attention: this captioner looks at the picture only once, before words")
    return word.attention
