"""Built-in styles made of lines: woodcut, linocut and pen."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from stylecap.style.builtin.canvas import Array, Canvas, over, palette, ramp, smooth, unit_flow


def woodcut_waves(canvas: Canvas) -> Array:
    """Waves behind waves, carved in lines that follow their crests."""
    rng = canvas.rng
    y, x = canvas.grid()
    inks = palette("12264f", "1d3f78", "3f6fa3", "86aabd", "cfd6c6")
    cream, deep = palette("f1e6cb", "0e1c3d")
    bend_x = canvas.noise(2.6) * 0.10 + canvas.noise(6.0) * 0.035
    bend_y = canvas.noise(2.6) * 0.08
    rough = canvas.noise(26) * 0.006 + canvas.noise(70) * 0.0022
    wear = canvas.fractal(45, 3)
    u, v = x + bend_x, y + bend_y
    picture = np.broadcast_to(cream, (canvas.rows, canvas.cols, 3)).copy()
    layers = math.ceil((canvas.height + 0.55) / 0.135)
    for layer in range(layers):
        swell = rng.uniform(1.5, 3.2)
        phase = rng.uniform(0, 2 * math.pi)
        height = rng.uniform(0.05, 0.115)
        wave = 2 * math.pi * swell * u + phase
        lean = wave + 0.75 * np.sin(wave)  # steep on one side
        crest = layer * 0.135 - 0.28 + height * (1 - np.abs(np.sin(lean / 2)) * 2)
        depth = v - crest + rough
        cover = smooth(-0.0012, 0.0012, depth)
        body = ramp(inks, np.clip(0.10 + depth * 3.1 + 0.20 * np.sin(layer * 2.4), 0, 1))
        spacing = 0.0150
        line = (depth + 0.012 * np.sin(lean * 2 + layer)) / spacing
        stripe = np.abs(line - np.floor(line) - 0.5) * 2
        width = 0.42 + 0.30 * np.sin(lean + 1.3 * layer) + 0.10 * wear
        cut = smooth(width + 0.10, width - 0.10, stripe) * smooth(0.012, 0.030, depth)
        body = over(body, cream, cut * smooth(0.30, 0.02, depth) * 0.92)
        body = over(body, deep, smooth(0.86, 0.97, stripe) * smooth(0.02, 0.05, depth) * 0.8)
        claws = (
            0.021
            + 0.013 * np.sin(lean * 5 + 4 * bend_y * 9)
            + 0.010 * np.abs(np.sin(lean * 13 + layer))
        )
        foam = smooth(claws + 0.0015, claws - 0.0015, depth)
        edge = smooth(0.0042, 0.0022, np.abs(depth - claws))
        body = over(body, cream, foam)
        inner = smooth(0.0024, 0.0010, np.abs(depth - claws * 0.55)) * (wear > -0.3)
        body = over(body, inks[2], inner * 0.85)
        body = over(body, deep, np.maximum(edge, smooth(0.0048, 0.0030, depth)))
        picture = over(picture, body, cover)
    drops = canvas.scatter(420, margin=0.0)
    spots = Image.new("L", (canvas.cols, canvas.rows))
    draw = ImageDraw.Draw(spots)
    sizes = rng.uniform(0.0015, 0.0052, len(drops))
    clump = canvas.at(canvas.noise(5), drops) > 0.05
    for (cx, cy), size in zip((drops[clump] * canvas.px).tolist(), sizes[clump], strict=True):
        reach = float(size) * canvas.px
        draw.ellipse((cx - reach, cy - reach, cx + reach, cy + reach), fill=255)
    picture = over(picture, cream, np.asarray(spots, dtype=np.float32) / 255)
    grain = canvas.noise(230, stretch=9) * 0.5 + canvas.noise(90, stretch=14) * 0.5
    picture = over(picture, cream, smooth(0.42, 0.75, grain) * 0.30)
    return picture * canvas.paper(0.035)[..., None]


def linocut_leaves(canvas: Canvas) -> Array:
    """Leaves in four inks; every light line is the cut of a gouge."""
    rng, px = canvas.rng, canvas.px
    black, cream = palette("1b2420", "f2e7cf")
    inks = palette("2f5d4e", "7d9a56", "d9a441", "c4573a", "1f4a5c", "e7cfa0")
    image = Image.new("RGB", (canvas.cols, canvas.rows), tuple(black.astype(int).tolist()))
    draw = ImageDraw.Draw(image)

    def ink(color: Array) -> tuple[int, int, int]:
        red, green, blue = np.rint(color).astype(int).tolist()
        return red, green, blue

    def gouge(start: Array, end: Array, width: float, color: Array) -> None:
        ahead = end - start
        side = np.array([-ahead[1], ahead[0]]) / max(float(np.hypot(*ahead)), 1e-9) * width / 2
        middle = start + ahead * 0.4
        corners = np.array([start, middle + side, end, middle - side]) * px
        draw.polygon([(a, b) for a, b in corners.tolist()], fill=ink(color))

    flow = unit_flow(canvas.fractal(3.0, 2))
    for place in canvas.scatter(2600, margin=0.03):
        ahead = canvas.at(flow, place) * rng.uniform(0.014, 0.034)
        gouge(place - ahead / 2, place + ahead / 2, rng.uniform(0.0035, 0.0065), cream)
    way = np.linspace(0, 1, 22)
    outline = np.sin(way * math.pi) ** 0.8 * (1 - 0.35 * way)
    for place in canvas.scatter(150, margin=0.12):
        along = canvas.at(flow, place)
        turn = rng.normal(0, 0.7)
        along = np.array(
            [
                along[0] * math.cos(turn) - along[1] * math.sin(turn),
                along[0] * math.sin(turn) + along[1] * math.cos(turn),
            ]
        )
        across = np.array([-along[1], along[0]])
        length, broad = rng.uniform(0.11, 0.23), rng.uniform(0.28, 0.48)
        bow = rng.normal(0, 0.16)
        stem = place + length * (
            (way - 0.5)[:, None] * along + (bow * way * (1 - way) * 2)[:, None] * across
        )
        half = (outline * length * broad * 0.5)[:, None] * across
        pick = int(rng.integers(len(inks)))
        color = inks[pick]
        vein = black if pick in (2, 5) else cream
        for swell, fill in ((1.0 + 0.10, black), (1.0, color)):
            rim = np.concatenate([stem + half * swell, (stem - half * swell)[::-1]]) * px
            draw.polygon([(a, b) for a, b in rim.tolist()], fill=ink(fill))
            if swell > 1:
                draw.line(
                    [(a, b) for a, b in rim.tolist()], fill=ink(black), width=round(0.006 * px)
                )
        gouge(stem[0], stem[-2], 0.0055, vein)
        count = max(5, round(length / 0.017))
        for step in np.linspace(0.08, 0.86, count):
            root = int(step * 21)
            for sign in (-1.0, 1.0):
                tip = stem[root] + along * length * 0.10 + sign * half[min(root + 2, 21)] * 0.86
                gouge(stem[root], tip, rng.uniform(0.0032, 0.0052), vein)
    picture = np.asarray(image, dtype=np.float32)
    worn = canvas.fractal(60, 3)
    picture = over(picture, cream, smooth(1.6, 2.6, worn) * 0.65)
    picture = picture * (1.0 + 0.05 * canvas.noise(120))[..., None]
    picture += 2.0 * worn[..., None]
    return picture


def crosshatch(canvas: Canvas) -> Array:
    """Folds shaded by patches of parallel pen strokes; the darker, the more of them cross."""
    rng, px = canvas.rng, canvas.px
    papers = palette("f6edd8", "e6d3a8")
    inks = palette("33211a", "1b2545", "5c3523", "b0532c")
    form = canvas.noise(2.6) * 1.5 + canvas.noise(6.0) * 0.4
    tone = 0.52 + 0.26 * np.sin(form * 5.5) + 0.15 * canvas.fractal(4, 3)  # 1 is dark
    tone = np.maximum(tone, 0.12)  # even the lights are drawn
    ground = ramp(papers, np.clip(0.5 + 0.3 * canvas.fractal(5, 4), 0, 1))
    wash = palette("c99b66", "8a94a6")
    ground = over(ground, wash[0], smooth(0.25, 0.95, tone) * 0.62)
    ground = over(ground, wash[1], smooth(0.60, 1.0, tone) * 0.40)
    page = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(page)
    along = unit_flow(form)
    bearing = np.stack([np.cos(0.9 * form + 0.7), np.sin(0.9 * form + 0.7)], axis=-1)
    passes = (
        (0.02, 0.0, along, 560, 0),
        (0.40, 0.0, bearing, 400, 2),
        (0.62, 1.25, bearing, 360, 1),
        (0.82, 2.2, bearing, 300, 1),
    )
    lines, spacing, steps = 8, 1 / 105, 7
    rank = np.arange(lines) - (lines - 1) / 2
    for least, turn, field, count, which in passes:
        middles = canvas.scatter(count, margin=0.06)
        ahead = canvas.at(field, middles)
        spin = turn + rng.normal(0, 0.09, len(middles))
        ahead = np.stack(
            [
                ahead[:, 0] * np.cos(spin) - ahead[:, 1] * np.sin(spin),
                ahead[:, 0] * np.sin(spin) + ahead[:, 1] * np.cos(spin),
            ],
            axis=1,
        )
        across = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
        away = (rank * spacing)[None, :, None] * across[:, None]
        slip = rng.normal(0, 0.005, (len(middles), lines, 1)) * ahead[:, None]
        places = (middles[:, None] + away + slip).reshape(-1, 2)
        heading = np.repeat(ahead, lines, axis=0)
        dark = canvas.at(tone, places) + rng.normal(0, 0.06, len(places))
        kept = dark > least
        places, heading, dark = places[kept], heading[kept], dark[kept]
        length = rng.uniform(0.045, 0.075, len(places))
        way = np.linspace(-0.5, 0.5, steps)
        bow = np.stack([-heading[:, 1], heading[:, 0]], axis=1) * rng.normal(0, 0.05)
        paths = places[:, None] + length[:, None, None] * (
            way[None, :, None] * heading[:, None] + (way**2)[None, :, None] * bow[:, None]
        )
        widths = (0.0011 + 0.0030 * np.clip(dark - least, 0, 0.5)) * px
        mixed = np.where(rng.random(len(places)) < 0.07, 3, which)
        fills = np.clip(inks[mixed] + rng.normal(0, 9, (len(places), 1)), 0, 255).astype(int)
        for path, width, fill in zip(
            np.round(paths.reshape(len(places), -1) * px, 1).tolist(),
            np.maximum(1, np.rint(widths)).astype(int).tolist(),
            fills.tolist(),
            strict=True,
        ):
            draw.line(path, fill=tuple(fill), width=width)
            draw.line(path[:-6], fill=tuple(fill), width=width + 1)
    return np.asarray(page, dtype=np.float32) * canvas.paper(0.06)[..., None]
