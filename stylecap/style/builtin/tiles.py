"""Built-in styles made of panes, stones and facets."""

from __future__ import annotations

import math

import numpy as np

from stylecap.style.builtin.canvas import Array, Canvas, blurred, lit, over, palette, ramp, smooth


def stained_glass(canvas: Canvas) -> Array:
    """Panes of uneven glass: large shapes of one hue, cut small by thinner leads."""
    colors = palette("16226b", "1c63b7", "18938f", "2f8f3d", "e9b924", "e2721b", "b81d2c", "6d1f6e")
    large = canvas.cells(4.2, warp=0.035)
    small = canvas.cells(13.0, warp=0.010)
    hue = large.random[large.id, 0] + (small.random[small.id, 0] - 0.5) * 0.30
    color = ramp(colors, np.rint((hue % 1.0) * 14) / 14)
    light = small.random[small.id, 1]
    color = over(color, palette("fff3cf")[0], np.maximum(light - 0.62, 0) * 1.45)
    color = over(color, palette("0a0d26")[0], np.maximum(0.36 - light, 0) * 1.35)
    streaks = canvas.fractal(16, 3, stretch=3.5) * 0.10 + canvas.fractal(42, 2) * 0.07
    glow = np.exp(-(small.x**2 + small.y**2) / 0.0011)
    color = color * (0.86 + streaks + 0.30 * glow)[..., None]
    seeds = smooth(1.60, 1.85, canvas.fractal(105, 1) + 0.15)
    color = over(color, palette("ffffff")[0], seeds * 0.28)
    uneven = 1.0 + 0.22 * canvas.noise(30)
    thick, thin = 0.0062 * uneven, 0.0034 * uneven
    away = np.minimum(large.edge / thick, small.edge / thin)  # 1 at the side of a lead
    lead = smooth(1.12, 0.92, away)
    bead = np.sqrt(np.clip(1.0 - away**2, 0, 1)) * thick * canvas.px
    metal = palette("1b1c22")[0] * (1.0 + 0.25 * canvas.noise(120))[..., None]
    metal = lit(metal, bead * 0.75, 1.0, 0.36)
    shadow = smooth(2.4, 0.9, away) * 0.45
    return over(color * (1.0 - shadow[..., None]), metal, lead)


def mosaic(canvas: Canvas) -> Array:
    """Stones in rings about many centres, each tilted a little differently."""
    rng = canvas.rng
    field = canvas.cells(4.4, jitter=0.8)
    wobble = canvas.noise(9) * 0.010
    x, y = field.x + canvas.noise(7) * 0.016, field.y + canvas.noise(7) * 0.016
    chance = field.random[field.id]
    stone = 0.0215
    radius = np.hypot(x, y) + wobble * 0.3
    ring = np.floor(radius / stone)
    depth = radius / stone - ring
    around = np.maximum(np.rint(2 * math.pi * (ring + 0.5) / 1.12), 3)
    turn = (np.arctan2(y, x) / (2 * math.pi) + 0.5 + 0.37 * ring + chance[..., 0]) % 1.0 * around
    slot = np.floor(turn)
    side = turn - slot
    number = (field.id * 131 + ring.astype(np.int64) * 7919 + slot.astype(np.int64) * 104729) % 8192
    table = rng.random((8192, 5), dtype=np.float32)
    own = table[number]
    length = 2 * math.pi * radius / around
    gap_side = np.minimum(side, 1 - side) * length
    gap_depth = np.minimum(depth, 1 - depth) * stone
    edge = np.minimum(np.minimum(gap_side, gap_depth), field.edge)
    edge = edge - 0.0009 * own[..., 4] + canvas.noise(140) * 0.0006
    sets = [
        palette("12305c", "1f6f9c", "8cc4c0", "f3ead0", "d9a033"),
        palette("7a1f1c", "c24a22", "e8a23c", "f6e3b0", "1f6f7c"),
        palette("123c3c", "23806f", "9cc48f", "f0e2b4", "b5432a"),
        palette("241a3c", "57407e", "c98f8a", "f3dfc0", "dba93a"),
    ]
    order = (ring * 0.31 + chance[..., 1] + (own[..., 0] - 0.5) * 0.34) % 1.0
    shades = np.stack([ramp(colors, np.arange(9) / 8) for colors in sets]).astype(np.float32)
    kind = np.floor(chance[..., 2] * len(sets))
    color = shades[kind.astype(np.int32), np.rint(order * 8).astype(np.int32)]
    color = color * (0.80 + 0.40 * own[..., 1])[..., None]
    lean = ((own[..., 2] - 0.5) * x + (own[..., 3] - 0.5) * y) / stone
    grain = canvas.fractal(90, 2) * 0.045
    color = color * (1.0 + grain + 0.16 * lean)[..., None]
    bevel = np.clip(edge / 0.0042, 0, 1) ** 0.6 * (canvas.px / 230.0)
    color = lit(color, blurred(bevel, canvas.px / 900.0), 1.0, 0.42)
    grout = palette("4d463f")[0] * (1.0 + 0.16 * canvas.noise(200))[..., None]
    return over(grout, color, smooth(0.0011, 0.0022, edge))


def cubist_facets(canvas: Canvas) -> Array:
    """Planes that overlap, each shaded from one of its edges and brushed along it."""
    rng = canvas.rng
    ys, xs = canvas.grid()
    colors = palette("1d1f26", "474d55", "55718f", "7f8d93", "a58a5c", "c9a469", "c3c1b2", "f3ead2")
    accents = palette("8c4a2c", "35564f", "2c4a74")
    picture = ramp(colors, np.clip(0.55 + 0.2 * canvas.fractal(4, 3), 0, 1))
    dabs = canvas.noise(40) * 0.5 + canvas.noise(150) * 0.35 + canvas.noise(300) * 0.5
    mood = canvas.fractal(2.4, 2)
    leaning = canvas.noise(1.6)
    places = canvas.scatter(210, margin=0.10)
    for index, place in enumerate(places):
        share = index / len(places)
        reach = (0.25 - 0.17 * share**0.7) * rng.uniform(0.65, 1.3)
        corners = int(rng.integers(3, 5))
        base = (0.35, 1.15, 1.92, 2.75)[int(rng.integers(4))]
        base += rng.normal(0, 0.09) + 0.5 * float(canvas.at(leaning, place))
        apart = rng.uniform(-0.30, 0.30, corners)
        angles = (base + (np.arange(corners) + apart) * (2 * math.pi / corners)).tolist()
        distances = (reach * rng.uniform(0.22, 0.62, corners)).tolist()
        bits = rng.random(4).tolist()
        tone = 0.60 + 0.16 * float(canvas.at(mood, place)) + rng.normal(0, 0.25)
        color = ramp(colors, np.array(round(min(max(tone, 0.0), 1.0) * 10) / 10))
        if bits[0] < 0.09:
            color = accents[int(bits[1] * 3)]
        center_x, center_y = place.tolist()
        left = max(0, round((center_x - 1.25 * reach) * canvas.px))
        top = max(0, round((center_y - 1.25 * reach) * canvas.px))
        right = min(canvas.cols, round((center_x + 1.25 * reach) * canvas.px))
        bottom = min(canvas.rows, round((center_y + 1.25 * reach) * canvas.px))
        if left >= right or top >= bottom:
            continue
        part = (slice(top, bottom), slice(left, right))
        x, y = xs[:, left:right] - center_x, ys[top:bottom] - center_y
        sides = [
            distance - (x * math.cos(angle) + y * math.sin(angle))
            for angle, distance in zip(angles, distances, strict=True)
        ]
        inside = np.minimum(np.minimum.reduce(sides), 1.2 * reach - np.maximum(abs(x), abs(y)))
        cover = np.clip(inside * (canvas.px / 2) + 0.5, 0, 1)
        fade = np.clip(sides[0] / (distances[0] * 1.9), 0, 1)  # 0 at the edge that is shaded
        along = x * math.sin(angles[0]) - y * math.cos(angles[0])
        grain = dabs[part]
        brushed = np.sin(along * 270 + 3.0 * grain) * 0.11 + 0.09 * grain
        shade = (0.48 + 0.80 * fade if bits[2] < 0.6 else 1.32 - 0.70 * fade) + brushed
        glaze = cover * (1.0 - 0.95 * fade**2) if bits[3] < 0.7 else cover
        dim = np.clip(1.0 + inside / 0.016, 0, 1) ** 2 * (1 - cover) * 0.30
        under = picture[part] * (1 - dim[..., None])
        painted = over(under, color * shade[..., None], glaze)
        rim = np.clip(1.6 - inside * (1 / 0.0021), 0, 1) * cover
        picture[part] = over(painted, colors[0], rim * (0.85 - 0.5 * fade))
    return lit(picture, canvas.noise(240) * np.float32(canvas.px / 1200.0), 0.7, 0.16)
