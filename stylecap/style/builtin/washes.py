"""Built-in styles made of water: transparent washes and floating ink."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from stylecap.style.builtin.canvas import Array, Canvas, over, palette, ramp, smooth


def watercolor(canvas: Canvas) -> Array:
    """Washes over washes: dark wet edges, blooms, and pigment in the tooth of the paper."""
    rng = canvas.rng
    ys, xs = canvas.grid()
    pigments = palette(
        "23468c", "2f86a8", "3f8f78", "a9b04a", "e0a83a", "d2603f", "a83a6a", "4b3f86"
    )
    tooth = canvas.noise(150) * 0.5 + canvas.noise(300) * 0.5
    ragged = canvas.noise(7) * 0.50 + canvas.noise(18) * 0.32 + canvas.noise(48) * 0.16
    ragged = ragged + canvas.noise(110) * 0.08
    flow = canvas.fractal(6, 3)
    place_hue = canvas.fractal(2.0, 2)
    density = np.zeros((canvas.rows, canvas.cols, 3), dtype=np.float32)
    for count, size, strength in ((26, 0.20, 0.50), (64, 0.105, 0.52), (230, 0.046, 0.60)):
        for place in canvas.scatter(count, margin=size * 0.6):
            reach = size * rng.uniform(0.6, 1.3)
            squash, turn = rng.uniform(0.7, 1.4), rng.uniform(0, math.pi)
            hue = 0.5 + 0.27 * float(canvas.at(place_hue, place)) + rng.normal(0, 0.07)
            stain = ramp(pigments, np.array(hue % 1.0)) / 255.0
            absorbs = -np.log(np.maximum(stain, 0.05)).astype(np.float32)
            thick = strength * rng.uniform(0.25, 1.25)
            center_x, center_y = place.tolist()
            left = max(0, round((center_x - 1.75 * reach) * canvas.px))
            top = max(0, round((center_y - 1.75 * reach) * canvas.px))
            right = min(canvas.cols, round((center_x + 1.75 * reach) * canvas.px))
            bottom = min(canvas.rows, round((center_y + 1.75 * reach) * canvas.px))
            if left >= right or top >= bottom:
                continue
            part = (slice(top, bottom), slice(left, right))
            x, y = (xs[:, left:right] - center_x) / reach, (ys[top:bottom] - center_y) / reach
            a = (x * math.cos(turn) + y * math.sin(turn)) * squash
            b = (y * math.cos(turn) - x * math.sin(turn)) / squash
            inside = (1.0 - np.sqrt(a * a + b * b) + 0.8 * ragged[part]) * reach  # about units
            cover = np.clip(inside * (canvas.px / 2.5) + 0.5, 0, 1)
            edge = np.exp(-np.maximum(inside, 0) / 0.0036)
            pool = 0.30 + 0.10 * flow[part] + 1.05 * edge
            density[part] += (cover * np.maximum(pool, 0.04) * thick)[..., None] * absorbs
    most = 1.9  # the paper always shines through
    density = most * (1.0 - np.exp(-density / most))
    bloom = canvas.noise(4.5) + 0.45 * canvas.noise(13) + 0.30 * canvas.noise(40)
    bloom = bloom + 0.10 * canvas.noise(110)
    lift = smooth(0.42, 0.95, bloom) * 0.55
    ring = np.exp(-np.abs(bloom - 0.40) / 0.020)
    density = density * (1.0 - lift + 0.40 * ring + 0.24 * tooth)[..., None]
    light: Array = palette("fffaf0")[0] * np.exp(-np.maximum(density, 0.0))
    light *= canvas.paper(0.045)[..., None]
    return light


def marbled_paper(canvas: Canvas) -> Array:
    """Bands of ink on water, drawn by combs and turned by a stylus."""
    rng = canvas.rng
    y, x = canvas.grid()
    inks = palette("13233f", "b5302a", "f2e4c4", "1f6f78", "e2a63b", "5c1f33", "f2e4c4", "7fa9a3")
    for _ in range(2):
        turn = rng.uniform(0.5, 1.0)
        ahead = canvas.noise(2.2) * 0.11 + canvas.noise(5.5) * 0.030
        aside = canvas.noise(2.2) * 0.11 + canvas.noise(5.5) * 0.030
        x, y = x + ahead * turn, y + aside * turn
    for left, top in canvas.scatter(12, margin=0.1).tolist():
        sign = 1.0 if rng.random() < 0.5 else -1.0
        dx, dy = x - left, y - top
        twist = np.exp((dx * dx + dy * dy) * (-1 / 0.095**2)) * (sign * rng.uniform(1.6, 3.2))
        cos, sin = np.cos(twist), np.sin(twist)
        x, y = left + dx * cos - dy * sin, top + dx * sin + dy * cos
    x, y = x.astype(np.float32), y.astype(np.float32)
    y = y + 0.045 * np.abs(((x * 10.0) % 1.0) * 2 - 1) ** 1.5
    x = x + 0.026 * np.abs(((y * 9.0) % 1.0) * 2 - 1) ** 1.5
    y = y + 0.012 * np.abs(((x * 27.0) % 1.0) * 2 - 1) ** 1.4
    band = y * 52.0 + canvas.noise(4) * 0.8
    index = np.floor(band).astype(np.int32)
    part = band - index
    order = rng.integers(0, len(inks), 1024)
    tint = rng.uniform(-18, 18, (1024, 1)).astype(np.float32)
    color = (inks[order] + tint)[index % 1024]
    side = np.minimum(part, 1 - part) * (1 + 0.35 * canvas.noise(12))
    vein = smooth(0.20, 0.10, side)
    kind = (order * 5 + np.arange(1024)) % 3
    light_vein, dark_vein = (kind == 0).astype(np.float32), (kind == 1).astype(np.float32)
    color = over(color, inks[2], vein * light_vein[index % 1024])
    color = over(color, inks[0], vein * dark_vein[index % 1024] * 0.9)
    stones = np.clip(np.rint(color), 0, 255).astype(np.uint8)
    page = Image.fromarray(stones)
    draw = ImageDraw.Draw(page)
    drops = canvas.scatter(420, margin=0.02)
    thick = canvas.at(canvas.noise(4), drops) > 0.05
    for cx, cy in (drops[thick] * canvas.px).tolist():
        reach = (0.0012 + 0.0055 * rng.random() ** 2) * canvas.px
        red, green, blue = inks[int(rng.integers(len(inks)))].astype(int).tolist()
        draw.ellipse((cx - reach, cy - reach, cx + reach, cy + reach), fill=(red, green, blue))
    grain = 1.0 + canvas.fractal(60, 3) * 0.028
    return np.asarray(page, dtype=np.float32) * (grain * canvas.paper(0.03))[..., None]
