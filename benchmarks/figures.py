"""Paint the figures of the README from the sample photos and the built-in styles.

    python benchmarks/figures.py                  all of them
    python benchmarks/figures.py color scale      some

Each painting is kept in out/figures/ and used again if it is there: delete it to paint it anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import stylecap
from stylecap.images import load_picture, resize_picture, save_picture, to_picture
from stylecap.studio.masks import (
    mask_picture,
    match_regions,
    preview_picture,
    region_swatch,
    segment,
)

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "out" / "figures"
CAMERA, CHELSEA, COFFEE, ROCKET = (
    ROOT / "samples" / f"{name}.jpg" for name in ("camera", "chelsea", "coffee", "rocket")
)
MASK = ROOT / "samples" / "coffee-mask.png"
GALLERY = {"size": 384, "steps": 150}
SMALLER = {"size": 224, "steps": 45}  # enough to see what a flag does
SKY = {"size": 208, "steps": 80, "strength": 0.96}
LARGEST_BYTES = 200_000  # of a figure
Tile = tuple[str, Image.Image]


@cache
def backbone() -> stylecap.Backbone:
    return stylecap.load_backbone()


def painted(
    content: Path, styles: Sequence[str | Path], mask: Path | None = None, **changes: object
) -> Image.Image:
    """The painting by these options, from out/figures/ if it is there."""
    words = [
        content.stem,
        *(Path(s).stem for s in styles),
        *(f"{k}={v}" for k, v in changes.items()),
    ]
    path = KEPT / ("-".join([*words, "mask"] if mask else words) + ".png")
    if not path.exists():
        options = stylecap.StyleOptions(**{**SMALLER, **changes})
        result = stylecap.stylize(content, list(styles), options, backbone=backbone(), mask=mask)
        result.save(path)
        print(f"{path.name}: {result.steps} steps in {result.seconds:.0f} s", flush=True)
    return load_picture(path)


def style(name: str) -> Image.Image:
    return stylecap.paint_style(name, (512, 512))


def sheet(rows: Sequence[Sequence[Tile]], height: int, width: int | None = None) -> Image.Image:
    """Rows of captioned tiles on paper; all get the height, and the width if one is given."""
    margin, text = 8, 22
    font = ImageFont.load_default(15)
    ready: list[list[Tile]] = []
    for row in rows:
        ready.append([])
        for caption, picture in row:
            size = (height, width or round(height * picture.width / picture.height))
            ready[-1].append((caption, resize_picture(cropped(picture, size), size)))
    across = max(sum(tile.width + margin for _, tile in row) for row in ready) + margin
    below = [text if any(caption for caption, _ in row) else 0 for row in ready]
    page = Image.new("RGB", (across, sum(height + margin + b for b in below) + margin), "#f5f2ea")
    draw = ImageDraw.Draw(page)
    top = margin
    for row, space in zip(ready, below, strict=True):
        left = margin
        for caption, tile in row:
            page.paste(tile, (left, top))
            middle = (left + tile.width // 2, top + height + 12)
            draw.text(middle, caption, fill="#282624", font=font, anchor="mm")
            left += tile.width + margin
        top += height + space + margin
    return page


def cropped(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest middle part with the aspect of (height, width)."""
    height = min(picture.height, picture.width * size[0] // size[1])
    width = min(picture.width, picture.height * size[1] // size[0])
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def gallery() -> Image.Image:
    names = ("night-swirls", "woodcut-waves", "stained-glass")
    rows = [
        [("", load_picture(photo)), *(("", painted(photo, [name], **GALLERY)) for name in names)]
        for photo in (CHELSEA, COFFEE, ROCKET)
    ]
    return sheet(
        [[("", Image.new("RGB", (9, 6), "#f5f2ea")), *(("", style(n)) for n in names)], *rows],
        132,
        195,
    )


def strength() -> Image.Image:
    values = (0.5, 0.7, 0.85, 0.95)
    return sheet(
        [[(f"--strength {s}", painted(CHELSEA, ["night-swirls"], strength=s)) for s in values]], 170
    )


def color() -> Image.Image:
    kinds = ("style", "keep-luminance", "match")
    paintings = [
        (f"--color {kind}", painted(CHELSEA, ["woodcut-waves"], color=kind)) for kind in kinds
    ]
    return sheet([[("photo", load_picture(CHELSEA)), *paintings]], 170)


def space() -> Image.Image:
    names = ["stained-glass", "woodcut-waves"]
    parts = [("photo", load_picture(COFFEE)), ("--mask", load_picture(MASK))]
    done = painted(COFFEE, names, mask=MASK)
    return sheet([[*parts, (" / ".join(names), done)]], 220)


def scale() -> Image.Image:
    sizes = [
        (f"--style-scale {s}", painted(CHELSEA, ["mosaic"], style_scale=s)) for s in (0.6, 1.0, 1.6)
    ]
    fine, coarse = "crosshatch", "night-swirls"
    path = KEPT / f"{fine}+{coarse}.png"
    options = stylecap.StyleOptions(**SMALLER)
    if not path.exists():
        mixed = stylecap.mix_styles(fine, coarse, options, backbone=backbone())
        save_picture(to_picture(mixed), path)
    again = KEPT / f"chelsea-{fine}+{coarse}.png"
    if not again.exists():
        stylecap.stylize(CHELSEA, path, options, backbone=backbone()).save(again)
    mixing = [
        (f"--fine-style {fine}", style(fine)),
        (f"--coarse-style {coarse}", style(coarse)),
        ("the mixed style", load_picture(path)),
        ("painted with it", load_picture(again)),
    ]
    return sheet([sizes, mixing], 200)


def sky() -> Image.Image:
    rows = [matched(photo, landscape()) for photo in (CAMERA, ROCKET)]
    return sheet(rows, 170, 200)


def landscape() -> Path:
    """A painting with a sky above and autumn below, of two built-in styles."""
    path = KEPT / "landscape.png"
    if not path.exists():
        above, below = (np.asarray(style(name)) for name in ("night-swirls", "autumn-strokes"))
        height, width = above.shape[:2]
        x = np.arange(width) / width
        horizon = height * (0.55 + 0.05 * np.sin(9 * x) + 0.02 * np.sin(31 * x + 1))
        is_sky = np.arange(height)[:, None] < horizon
        save_picture(Image.fromarray(np.where(is_sky[..., None], above, below)), path)
    return path


def matched(photo: Path, painting: Path) -> list[Tile]:
    """A photo painted plainly, and each of its regions by the painting's region that is like it."""
    pictures = load_picture(photo), load_picture(painting)
    ours, theirs = (segment(backbone(), picture, 2) for picture in pictures)
    match = match_regions(backbone(), pictures[0], ours, pictures[1], theirs)
    mask = KEPT / f"{photo.stem}-regions.png"
    save_picture(mask_picture(ours, ("#ffffff", "#000000")), mask)
    swatches = []
    for number, region in enumerate(match.regions):
        swatches.append(KEPT / f"{photo.stem}-swatch{number}.png")
        save_picture(region_swatch(pictures[1], theirs, region), swatches[-1])
    return [
        ("photo", pictures[0]),
        ("painting", pictures[1]),
        ("regions", preview_picture(pictures[0], ours)),
        ("plain", painted(photo, [painting], **SKY)),
        ("--match", painted(photo, swatches, mask=mask, **SKY)),
    ]


def styles() -> Image.Image:
    from stylecap.style.builtin import paint_sheet

    return paint_sheet(tile_px=148)


FIGURES: dict[str, Callable[[], Image.Image]] = {
    figure.__name__: figure for figure in (gallery, strength, color, space, scale, sky, styles)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", metavar="FIGURE", nargs="*", help=", ".join(FIGURES))
    names = parser.parse_args().names or list(FIGURES)
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in names:
        page = FIGURES[name]()
        path = ROOT / "docs" / f"{name}.jpg"
        for quality in range(85, 45, -5):
            save_picture(page, path, quality=quality)
            if path.stat().st_size < LARGEST_BYTES:
                break
        size = f"{page.width}x{page.height}, {path.stat().st_size // 1000} kB"
        print(f"{path}: {size} at quality {quality}", flush=True)


if __name__ == "__main__":
    main()
