"""Numbers as pictures: maps in colour, maps over photos, sheets of labelled tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

PAPER, INK, FAINT = (246, 243, 236), (40, 38, 36), (120, 116, 110)
# Near black over violet and red to pale yellow. Brightness rises all the way, so that the order
# of values survives grey print and colour blindness.
_HEAT = np.array(
    [(10, 7, 34), (75, 15, 107), (153, 40, 98), (221, 81, 58), (251, 155, 34), (252, 253, 191)],
    np.float32,
)


def draw_map(
    values: Tensor, *, low: float | None = None, high: float | None = None, side_px: int = 160
) -> Image.Image:
    """A map as a picture, brighter where it is higher.

    Args:
        values: (H, W).
        low: value drawn darkest; the least one if None.
        high: value drawn brightest; the greatest one if None.
        side_px: least long side. A smaller map is enlarged by a whole factor, so that each
            position stays a square; a larger one is averaged down to it.
    Returns:
        An RGB picture.
    Raises:
        ValueError: ``values`` is not two-dimensional.
    """
    if values.ndim != 2:
        raise ValueError(f"values: expected (H, W), got {tuple(values.shape)}")
    numbers = values.detach().float().cpu().numpy()
    least = float(numbers.min()) if low is None else low
    greatest = float(numbers.max()) if high is None else high
    share = ((numbers - least) / max(greatest - least, 1e-9)).clip(0, 1)  # (H, W)
    picture = Image.fromarray(_heat(share))
    long_side = max(picture.size)
    if long_side > side_px:
        scale = side_px / long_side
        smaller = tuple(max(1, round(side * scale)) for side in picture.size)
        return picture.resize((smaller[0], smaller[1]), Image.Resampling.BOX)
    factor = -(-side_px // long_side)
    larger = (picture.width * factor, picture.height * factor)
    return picture.resize(larger, Image.Resampling.NEAREST)


def draw_over(picture: Image.Image, values: Tensor, *, high: float | None = None) -> Image.Image:
    """A picture darkened where a coarse map of it is low.

    Args:
        picture: RGB.
        values: (h, w), not negative, over the whole picture; enlarged smoothly.
        high: value that leaves the picture as bright as it is; the greatest one if None.
    Returns:
        RGB, of the picture's size.
    """
    numbers = values.detach().float().cpu().numpy()
    greatest = float(numbers.max()) if high is None else high
    coarse = Image.fromarray((numbers / max(greatest, 1e-9)).clip(0, 1).astype(np.float32))
    share = np.asarray(coarse.resize(picture.size, Image.Resampling.BICUBIC)).clip(0, 1)
    lit = np.asarray(picture.convert("RGB"), np.float32) * (0.2 + 0.8 * share[..., None])
    return Image.fromarray(np.rint(lit).astype(np.uint8))


def draw_sheet(
    tiles: Sequence[tuple[Image.Image, str]], *, title: str = "", columns: int = 6
) -> Image.Image:
    """Pictures in rows on paper, each with its label below.

    Args:
        tiles: pictures and labels, at least one; a label may have several lines.
        title: above them all.
        columns: at most so many in a row.
    Raises:
        ValueError: no tile.
    """
    if not tiles:
        raise ValueError("tiles: expected at least one, got none")
    columns = min(columns, len(tiles))
    width = max(picture.width for picture, _ in tiles)
    height = max(picture.height for picture, _ in tiles)
    lines = max(label.count("\n") + 1 for _, label in tiles)
    text_px = max(11, min(16, width // 11))
    gap, line_px = 14, text_px + 4
    below = lines * line_px + 4
    top = gap + (round(1.5 * text_px) + gap if title else 0)
    font, bold = (ImageFont.load_default(size) for size in (text_px, round(1.25 * text_px)))
    rows = -(-len(tiles) // columns)
    across = gap + columns * (width + gap)
    if title:
        across = max(across, 2 * gap + round(bold.getlength(title)))
    sheet = Image.new("RGB", (across, top + rows * (height + below + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), title, fill=INK, font=bold)
    for place, (picture, label) in enumerate(tiles):
        row, column = divmod(place, columns)
        left, upper = gap + column * (width + gap), top + row * (height + below + gap)
        sheet.paste(picture, (left + (width - picture.width) // 2, upper + height - picture.height))
        for number, line in enumerate(label.split("\n")):
            short = _fitted(line, font, width)
            middle = (left + width / 2, upper + height + 2 + (number + 0.5) * line_px)
            draw.text(middle, short, fill=INK if number == 0 else FAINT, font=font, anchor="mm")
    return sheet


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """A text shortened in its middle until it is at most ``width`` pixels wide."""
    kept = text
    while font.getlength(kept) > width and len(text) > 4:
        half = (len(text) - 1) // 2
        text = text[:half] + text[half + 1 :]
        kept = text[:half] + "\u2026" + text[half:]
    return kept


def _heat(share: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] to (H, W, 3) bytes."""
    place = share * (len(_HEAT) - 1)
    lower = np.floor(place).astype(int).clip(0, len(_HEAT) - 2)
    part = (place - lower)[..., None]
    colours = _HEAT[lower] * (1 - part) + _HEAT[lower + 1] * part
    heat: np.ndarray = np.rint(colours).astype(np.uint8)
    return heat
