"""Built-in styles made of brush strokes, knife strokes and dots."""

from __future__ import annotations

import math

import numpy as np

from stylecap.style.builtin.canvas import Array, Canvas, Paint, over, palette, ramp, unit_flow


def night_swirls(canvas: Canvas) -> Array:
    """Blue strokes that run around glowing lights."""
    rng = canvas.rng
    y, x = canvas.grid()
    blues = palette("0c1a3f", "16306b", "1f4f96", "3f7fb8", "7fb2c9", "c9dcc8")
    golds = palette("e0902a", "f2c14a", "fbe9a9")
    drift = canvas.fractal(2.2, 2)
    potential = drift * 0.055 + y * 0.35 + 0.02 * np.sin(x * 9.0 + drift)
    glow = np.zeros_like(drift)
    rings = np.zeros_like(drift)
    for left, top in canvas.scatter(9, margin=0.12).tolist():
        radius = rng.uniform(0.07, 0.17)
        away = np.hypot(x - left, y - top) / radius
        pull = np.exp(-((away / 1.15) ** 2))
        turn = 1.0 if rng.random() < 0.6 else -1.0
        potential = potential + turn * radius * 1.35 * pull
        lamp = rng.random() < 0.62
        if lamp:
            glow = np.maximum(glow, np.exp(-((away / 0.62) ** 2)))
        rings = rings + pull * np.cos(away * 6.5)
    along = unit_flow(potential)
    bands = 0.5 + 0.5 * np.sin(potential * 58.0 + drift * 1.1)
    tone = np.clip(0.13 + 0.38 * bands + 0.22 * rings + 0.10 * drift, 0.0, 1.0)
    paint = Paint.over(canvas, ramp(blues, tone * 0.7))
    for count, width, length, hairs in ((900, 0.030, 0.15, 10), (2300, 0.019, 0.105, 7)):
        places = canvas.scatter(count)
        size = len(places)
        paths = canvas.trace(along, places, rng.uniform(0.6, 1.3, size) * length, 9)
        value = canvas.at(tone, places) + rng.normal(0, 0.11, size)
        color = ramp(blues, value)
        light = np.clip(canvas.at(glow, places) * 1.25 + rng.normal(0, 0.13, size), 0, 1)
        color = over(color, ramp(golds, light), np.clip(light * 2.6 - 0.75, 0, 1))
        spark = rng.random(size) < 0.055
        color[spark] = ramp(golds, rng.uniform(0, 0.9, size))[spark]
        widths = width * rng.uniform(0.7, 1.25, size)
        paint.strokes(paths, widths, color, hairs=hairs, mixing=12)
    return paint.lit(1.0, 0.30)


def autumn_strokes(canvas: Canvas) -> Array:
    """Warm strokes that drift like leaves in the wind."""
    rng = canvas.rng
    warm = palette("3a1a24", "6e1f1e", "a8321c", "d5611d", "eb9a2b", "f5cf6b", "fbeec2")
    cool = palette("1f2a26", "3d4d2c", "6d7f37", "a7ab58")
    plum = palette("2c1b35", "5a3157", "8d5a78")
    hills = canvas.fractal(2.6, 3)
    along = unit_flow(canvas.fractal(2.8, 2) * 0.6 + canvas.grid()[0] * 2.2)
    shade = canvas.fractal(5.5, 3)
    kind = canvas.fractal(3.4, 2)
    tone = np.clip(0.5 + 0.19 * hills + 0.13 * shade, 0.0, 1.0)
    paint = Paint.over(canvas, ramp(warm, tone * 0.8))
    for count, width, length, hairs in ((900, 0.031, 0.085, 10), (2900, 0.020, 0.062, 7)):
        places = canvas.scatter(count)
        size = len(places)
        turned = canvas.trace(along, places, rng.uniform(0.6, 1.3, size) * length, 7)
        tilt = rng.normal(0, 0.38, size)
        spin = np.stack(
            [np.stack([np.cos(tilt), -np.sin(tilt)], 1), np.stack([np.sin(tilt), np.cos(tilt)], 1)],
            axis=1,
        )
        paths = places[:, None] + np.einsum("nij,nsj->nsi", spin, turned - places[:, None])
        value = canvas.at(tone, places) + rng.normal(0, 0.13, size)
        color = ramp(warm, value)
        which = canvas.at(kind, places) + rng.normal(0, 0.5, size)
        color = np.where((which > 0.95)[:, None], ramp(cool, value), color)
        color = np.where((which < -1.05)[:, None], ramp(plum, value), color)
        widths = width * rng.uniform(0.7, 1.3, size)
        paint.strokes(paths, widths, color, hairs=hairs, mixing=13)
    return paint.lit(1.0, 0.30)


def palette_knife(canvas: Canvas) -> Array:
    """Slabs of paint, two colours on one blade, with sharp ridges."""
    rng = canvas.rng
    colors = palette("14262e", "1f5a66", "4a9c9a", "d8d3bd", "f4ecd8", "e0a63a", "c8472b", "6b2338")
    tone = np.clip(0.5 + 0.24 * canvas.fractal(2.6, 3), 0.0, 1.0)
    quarter = canvas.cells(4.0, warp=0.05)
    paint = Paint.over(canvas, ramp(colors, tone))
    turn = quarter.random[:, 0] * math.pi
    for count, width, length, hairs in (
        (420, 0.078, 0.15, 22),
        (760, 0.052, 0.095, 16),
        (300, 0.034, 0.060, 11),
    ):
        places = canvas.scatter(count)
        size = len(places)
        angle = turn[canvas.at(quarter.id.astype(np.float32), places).astype(np.intp)]
        angle = angle + rng.normal(0, 0.30, size)
        heading = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        lengths = length * rng.uniform(0.55, 1.3, size)
        way = np.linspace(-0.5, 0.5, 12)
        bend = rng.normal(0, 0.10, size)[:, None] * (way**2)[None]
        side = np.stack([-heading[:, 1], heading[:, 0]], axis=1)
        paths = places[:, None] + lengths[:, None, None] * (
            way[None, :, None] * heading[:, None] + bend[..., None] * side[:, None]
        )
        value = canvas.at(tone, places)
        color = ramp(colors, np.rint((value + rng.normal(0, 0.11, size)) * 7) / 7)
        edges = ramp(colors, np.rint((value + rng.normal(0, 0.18, size)) * 7) / 7)
        widths = width * rng.uniform(0.6, 1.3, size)
        paint.strokes(
            paths,
            widths,
            color,
            hairs=hairs,
            mixing=6,
            ragged=0,
            edges=edges,
            square=True,
            relief=18,
        )
    return paint.lit(1.15, 0.34)


def pointillism(canvas: Canvas) -> Array:
    """Dots of pure colour: each place mixes neighbours and a little of the complement."""
    rng = canvas.rng
    y, _ = canvas.grid()
    colors = palette("1d2a6b", "2f6db5", "49a7a0", "7fb551", "f3dd6a", "f2a03c", "e0563f", "8c3a7c")
    hills = canvas.fractal(2.3, 3)
    tone = np.clip(0.48 + 0.22 * hills + 0.20 * np.sin(y * 13.0 + hills * 1.6), 0.0, 1.0)
    value = np.clip(0.47 + 0.27 * canvas.fractal(4.8, 3), 0.0, 1.0)
    paint = Paint.over(canvas, ramp(colors, tone) * 0.40 + 120.0)
    dark, light = palette("141a45")[0], palette("fff6d8")[0]
    px = canvas.px
    for count, radius in ((4200, 0.0105), (7500, 0.0078), (6500, 0.0058)):
        places = canvas.scatter(count, margin=0.03)
        size = len(places)
        here = canvas.at(tone, places) + rng.normal(0, 0.085, size)
        contrary = rng.random(size) < 0.13
        here = np.where(contrary, (here + 0.5) % 1.0, here)
        color = ramp(colors, np.rint(np.clip(here, 0, 1) * 14) / 14)
        shade = canvas.at(value, places) + rng.normal(0, 0.16, size)
        color = over(color, light, np.clip(shade * 1.7 - 0.95, 0, 0.8))
        color = over(color, dark, np.clip(0.72 - shade * 1.7, 0, 0.80))
        reach = radius * rng.uniform(0.75, 1.2, (size, 1)) * px
        squash = rng.uniform(0.85, 1.15, (size, 1))
        size_xy = np.concatenate([reach * squash, reach / squash], axis=1)
        boxes = np.concatenate([places * px - size_xy, places * px + size_xy], axis=1).tolist()
        thick = rng.uniform(90, 220, (size, 1))
        fills = np.clip(np.rint(np.concatenate([color, thick], 1)), 0, 255).astype(int).tolist()
        for box, fill in zip(boxes, fills, strict=True):
            paint.draw.ellipse(box, fill=tuple(fill))
    return paint.lit(0.55, 0.22)
