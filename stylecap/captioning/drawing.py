"""Pictures of captions: where the captioner looked for each word."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stylecap.captioning.captioner import Caption, CaptionWord
from stylecap.errors import InputError
from stylecap.images import fit_long_side, resize_picture, split_alpha

_DARK = 0.25  # what is left of the picture's brightness where it did not look
_GLOW = np.array([0.5, 0.25, 0.0])  # share of the way to full red, green and blue
_MARGIN, _LABEL, _FONT = 10, 26, 17  # pixels
_INK, _PAPER = "#202020", "white"


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
    opaque = split_alpha(picture)[0]
    height, width = fit_long_side((opaque.height, opaque.width), tile_px)
    tile = resize_picture(opaque, (height, width))
    brightest = max(float(each.max()) for each in maps)
    tiles = [tile, *(_lit(tile, each / brightest) for each in maps)]
    labels = ["", *(f"{word.word}  {word.prob:.2f}" for word in caption.words)]
    columns = min(len(tiles), max(2, round(math.sqrt(len(tiles) * 1.6 * height / width))))
    rows = math.ceil(len(tiles) / columns)
    step_x, step_y = width + _MARGIN, height + _LABEL + _MARGIN
    top = _MARGIN + _LABEL
    sheet = Image.new("RGB", (_MARGIN + columns * step_x, top + rows * step_y), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT)
    draw.text((_MARGIN, _MARGIN), caption.text, _INK, font)
    for place, (each, label) in enumerate(zip(tiles, labels, strict=True)):
        x = _MARGIN + place % columns * step_x
        y = top + _MARGIN + place // columns * step_y
        sheet.paste(each, (x, y))
        draw.text((x, y + height + 2), label, _INK, font)
    return sheet


def _attention(word: CaptionWord) -> np.ndarray:
    if word.attention is None:
        raise InputError("attention: this captioner looks at the picture only once, before words")
    return word.attention.numpy()


def _lit(tile: Image.Image, attention: np.ndarray) -> Image.Image:
    """The picture, dark where (h, w) attention in [0, 1] is low, with a warm glow where high."""
    heat = Image.fromarray(attention.astype(np.float32)).resize(tile.size, Image.Resampling.BICUBIC)
    light = np.asarray(heat).clip(0, 1)[..., None]  # (H, W, 1)
    shown = np.asarray(tile) * (_DARK + (1 - _DARK) * light)  # (H, W, 3)
    shown += _GLOW * light * (255 - shown)
    return Image.fromarray(shown.astype(np.uint8))
