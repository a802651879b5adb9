"""The built-in styles: pictures painted by our own code, so that no file is needed.

Each style is a function of its name, the size and a seed, and of nothing else:
the same three give the same bytes. Positions and widths are in units of the
picture's side, so that a large and a small picture show the same painting.

Importing this package is cheap; numpy and Pillow are loaded by the first
picture painted. Painting takes up to some seconds, so that what is used as a
style is kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from stylecap.errors import OptionError, OutputError
from stylecap.files import cache_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from stylecap.style.builtin.canvas import Array, Canvas

__all__ = ["STYLES", "paint_sheet", "paint_style", "style_picture"]

STYLES: dict[str, str] = {
    "night-swirls": "thick strokes of night blue and gold that swirl around lights",
    "autumn-strokes": "short flowing strokes in rust, amber, moss and plum",
    "palette-knife": "slabs of thick oil paint laid with a knife",
    "pointillism": "dots of pure colour that mix in the eye",
    "stained-glass": "jewel-coloured panes between lead lines",
    "mosaic": "small stones set in rings, with grout between them",
    "cubist-facets": "shaded planes in ochre, grey and blue, seen from many sides",
    "woodcut-waves": "carved indigo waves with cream foam",
    "linocut-leaves": "a block print of leaves, cut with a gouge",
    "crosshatch": "pen strokes in sepia and indigo ink on cream paper",
    "watercolor": "transparent washes with wet edges, blooms and granulation",
    "marbled-paper": "combed and veined bands of floating ink",
}
"""Name of every built-in style, and what it looks like in one line."""

_MODULES = {
    "night-swirls": "strokes",
    "autumn-strokes": "strokes",
    "palette-knife": "strokes",
    "pointillism": "strokes",
    "stained-glass": "tiles",
    "mosaic": "tiles",
    "cubist-facets": "tiles",
    "woodcut-waves": "prints",
    "linocut-leaves": "prints",
    "crosshatch": "prints",
    "watercolor": "washes",
    "marbled-paper": "washes",
}
_MAX_SIDE_PX = 16_384
#: Side of a style on a sheet.
TILE_PX = 256


def paint_style(name: str, size: tuple[int, int] = (512, 512), seed: int = 0) -> Image:
    """Paint one built-in style.

    Args:
        name: one of ``STYLES``.
        size: (height, width) in pixels, each from 1 to 16384.
        seed: another seed is another picture of the same style; 0 or more.
    Returns:
        An RGB picture; the same arguments give the same bytes.
    Raises:
        OptionError: the name, the size or the seed is none of these.
    """
    if name not in STYLES:
        raise OptionError(f"style: {name!r} is not a built-in style; choose from {_names()}")
    height, width = size
    if not (1 <= height <= _MAX_SIDE_PX and 1 <= width <= _MAX_SIDE_PX):
        raise OptionError(
            f"size: got {height}x{width}, expected a height and a width"
            f" from 1 to {_MAX_SIDE_PX} pixels"
        )
    if seed < 0:
        raise OptionError(f"seed: got {seed}, expected 0 or more")
    canvas_module = import_module("stylecap.style.builtin.canvas")
    painters = import_module(f"stylecap.style.builtin.{_MODULES[name]}")
    canvas: Canvas = canvas_module.Canvas(size, seed)
    paint: Callable[[Canvas], Array] = getattr(painters, name.replace("-", "_"))
    return canvas.finish(paint(canvas))


def style_picture(name: str, seed: int = 0) -> Image:
    """`paint_style` of its usual size, painted once and then read from the cache folder.

    A file there is found by the name, the seed and the code that paints. One that cannot be read
    or written only means that the style is painted.
    """
    from PIL import Image

    kept = _kept(name, seed)
    if kept is not None:
        with suppress(OSError, ValueError, SyntaxError), Image.open(kept, formats=["PNG"]) as file:
            return file.convert("RGB")
    picture = paint_style(name, seed=seed)
    if kept is not None:
        written = io.BytesIO()
        picture.save(written, "PNG", compress_level=1)
        with suppress(OSError, OutputError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, written.getvalue())
            for other in kept.parent.glob(f"{name}-{seed}-*.png"):
                if other != kept:  # by other code
                    other.unlink()
    return picture


def _kept(name: str, seed: int) -> Path | None:
    """Where a style is kept; None where there is no folder for it."""
    from pathlib import Path

    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    with suppress(RuntimeError):
        return cache_folder() / "styles" / f"{name}-{seed}-{digest.hexdigest()[:16]}.png"
    return None


def paint_sheet(names: Sequence[str] | None = None, tile_px: int = TILE_PX) -> Image:
    """Paint a contact sheet: every style small, with its name below.

    Args:
        names: the styles to show, in order; all of ``STYLES`` unless given.
        tile_px: side of one style on the sheet, in pixels, from 32 to 1024.
    Returns:
        An RGB picture of up to four columns.
    Raises:
        OptionError: a name is unknown, there is none, or the tile is out of range.
    """
    from PIL import Image, ImageDraw, ImageFont

    shown = list(STYLES if names is None else names)
    if not shown:
        raise OptionError(f"names: got none, expected at least one of {_names()}")
    if not 32 <= tile_px <= 1024:
        raise OptionError(f"tile_px: got {tile_px}, expected 32 to 1024")
    columns = min(4, len(shown))
    gap, text_px = max(4, tile_px // 16), max(10, tile_px // 14)
    step_x, step_y = tile_px + gap, tile_px + gap + 2 * text_px
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (gap + columns * step_x, gap + rows * step_y), (246, 243, 236))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(text_px)
    for place, name in enumerate(shown):
        row, column = divmod(place, columns)
        left, top = gap + column * step_x, gap + row * step_y
        sheet.paste(paint_style(name, (tile_px, tile_px)), (left, top))
        middle = (left + tile_px / 2, top + tile_px + text_px)
        draw.text(middle, name, fill=(40, 38, 36), font=font, anchor="mm")
    return sheet


def _names() -> str:
    return ", ".join(STYLES)
