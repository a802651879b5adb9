"""The canvas all built-in styles are painted on: noise, cells, strokes and light.

Lengths are in units: one unit is the square root of the picture's area, so that
the area is 1 and a number of strokes covers every size and shape equally. The
canvas is larger than the picture and is reduced at the end, which smooths edges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array: TypeAlias = NDArray[np.floating[Any]]
Integers: TypeAlias = NDArray[np.integer[Any]]
_BAND_ROWS = 32


class Cells(NamedTuple):
    """A Voronoi diagram of jittered points, seen from every position."""

    id: Integers  # (H, W) number of the nearest point
    x: Array  # (H, W) offset from that point, in units
    y: Array
    edge: Array  # (H, W) distance to the border of the cell, in units
    random: Array  # (points, 4) numbers in [0, 1), drawn once for each point


class Canvas:
    """A place to paint on: size, resolution and the only source of chance."""

    def __init__(self, size: tuple[int, int], seed: int) -> None:
        """Prepare a canvas for a picture of ``size`` (height, width)."""
        height, width = size
        side = math.sqrt(height * width)
        self.size = size
        self.px = min(max(2.0 * side, 640.0), 2400.0)  # pixels in a unit
        self.height, self.width = height / side, width / side  # in units
        self.rows = max(1, round(self.height * self.px))
        self.cols = max(1, round(self.width * self.px))
        self.rng = np.random.default_rng(seed)

    def grid(self) -> tuple[Array, Array]:
        """Position of every pixel in units: y (H, 1) and x (1, W)."""
        y = (np.arange(self.rows, dtype=np.float32) + np.float32(0.5)) / np.float32(self.px)
        x = (np.arange(self.cols, dtype=np.float32) + np.float32(0.5)) / np.float32(self.px)
        return y[:, None], x[None, :]

    def noise(self, cells: float, stretch: float = 1.0) -> Array:
        """Smooth noise (H, W) about 0 with ``cells`` bumps in a unit.

        ``stretch`` over 1 makes the bumps that much wider than high.
        """
        down, right = self.height * cells, self.width * cells / stretch
        shape = (math.ceil(down) + 5, math.ceil(right) + 5)
        lattice = self.rng.uniform(-1.0, 1.0, shape).astype(np.float32)
        box = (2.0, 2.0, 2.0 + right, 2.0 + down)
        grown = Image.fromarray(lattice).resize(
            (self.cols, self.rows), Image.Resampling.BICUBIC, box=box
        )
        return np.asarray(grown)

    def fractal(self, cells: float, octaves: int = 4, stretch: float = 1.0) -> Array:
        """Noise of several scales (H, W), of mean about 0 and deviation about 1."""
        total = self.noise(cells, stretch)
        for octave in range(1, octaves):
            total = total + self.noise(cells * 2.0**octave, stretch) * np.float32(0.5**octave)
        return total * np.float32(2.1)

    def cells(self, count: float, jitter: float = 0.85, warp: float = 0.0) -> Cells:
        """Voronoi cells, ``count`` in a unit, with borders bent by ``warp`` units."""
        y, x = self.grid()
        if warp:
            y = y + self.noise(count * 0.6) * np.float32(warp)
            x = x + self.noise(count * 0.6) * np.float32(warp)
        y, x = np.broadcast_arrays(y * np.float32(count), x * np.float32(count))
        margin = 4
        down = math.ceil(self.height * count) + 2 * margin + 1
        right = math.ceil(self.width * count) + 2 * margin + 1
        shift = self.rng.uniform(-0.5 * jitter, 0.5 * jitter, (2, down, right)).astype(np.float32)
        shift[1] += np.float32(0.25) * (np.arange(down) % 2 * 2 - 1)[:, None]
        point_y = (np.arange(down, dtype=np.float32)[:, None] - margin + 0.5 + shift[0]).ravel()
        point_x = (np.arange(right, dtype=np.float32)[None, :] - margin + 0.5 + shift[1]).ravel()
        row = np.clip(np.floor(y).astype(np.int32) + margin, 2, down - 3)
        column = np.clip(np.floor(x).astype(np.int32) + margin, 2, right - 3)
        home = row * np.int32(right) + column
        points = np.stack([point_y, point_x])
        nearest, edge = np.empty_like(home), np.empty_like(y)
        for top in range(0, self.rows, _BAND_ROWS):  # as many as the processor's cache holds
            band = slice(top, top + _BAND_ROWS)
            nearest[band], edge[band] = _nearest(y[band], x[band], home[band], points, right)
        scale = np.float32(1.0 / count)
        chance = self.rng.random((down * right, 4), dtype=np.float32)
        return Cells(
            nearest,
            (x - point_x[nearest]) * scale,
            (y - point_y[nearest]) * scale,
            edge * scale,
            chance,
        )

    def scatter(self, count: int, margin: float = 0.1) -> Array:
        """About ``count`` evenly strewn positions (N, 2) as (x, y), in random order."""
        spacing = 1.0 / math.sqrt(count)
        down = math.ceil((self.height + 2 * margin) / spacing)
        right = math.ceil((self.width + 2 * margin) / spacing)
        y, x = np.mgrid[0:down, 0:right]
        places = np.stack([x.ravel(), y.ravel()], axis=1) + self.rng.random((down * right, 2))
        self.rng.shuffle(places)
        return places * spacing - margin

    def at(self, field: Array, places: Array) -> Array:
        """Read a field (H, W) or (H, W, C) at places (..., 2) in units."""
        column = np.clip((places[..., 0] * self.px).astype(np.intp), 0, self.cols - 1)
        row = np.clip((places[..., 1] * self.px).astype(np.intp), 0, self.rows - 1)
        read: Array = field[row, column]
        return read

    def trace(self, along: Array, places: Array, lengths: Array, steps: int = 9) -> Array:
        """Follow a field of directions (H, W, 2): paths (N, steps, 2) centred on places."""
        stride = (lengths / (steps - 1))[:, None]
        middle = steps // 2
        path = np.empty((len(places), steps, 2))
        path[:, middle] = places
        for sign, stop in ((-1, -1), (1, steps)):
            place = places
            for step in range(middle + sign, stop, sign):
                place = place + sign * stride * self.at(along, place)
                path[:, step] = place
        return path

    def paper(self, strength: float) -> Array:
        """The tooth of paper (H, W), about 1."""
        tooth = self.noise(170) * 0.5 + self.noise(330) * 0.5 + self.noise(60) * 0.25
        paper: Array = 1.0 + np.float32(strength) * tooth
        return paper

    def finish(self, color: Array) -> Image.Image:
        """Turn colours (H, W, 3) from 0 to 255 into the picture."""
        painted = np.clip(np.rint(color), 0, 255).astype(np.uint8)
        height, width = self.size
        return Image.fromarray(painted).resize((width, height), Image.Resampling.LANCZOS)


@dataclass(slots=True)
class Paint:
    """Wet paint: colour and thickness, drawn together, lit at the end."""

    canvas: Canvas
    image: Image.Image
    draw: ImageDraw.ImageDraw

    @classmethod
    def over(cls, canvas: Canvas, color: Array) -> Paint:
        """Start from an underpainting of colours (H, W, 3) from 0 to 255."""
        flat = np.clip(np.rint(color), 0, 255).astype(np.uint8)
        ground = np.dstack([flat, np.full(flat.shape[:2], 60, dtype=np.uint8)])
        image = Image.fromarray(ground)
        return cls(canvas, image, ImageDraw.Draw(image))

    def strokes(
        self,
        paths: Array,
        widths: Array,
        colors: Array,
        *,
        hairs: int = 8,
        mixing: float = 10.0,
        ragged: int = 1,
        edges: Array | None = None,
        square: bool = False,
        relief: float = 32.0,
    ) -> None:
        """Draw strokes as bundles of hairs.

        Args:
            paths: (N, S, 2) positions in units.
            widths: (N,) in units.
            colors: (N, 3) from 0 to 255.
            hairs: lines in a stroke.
            mixing: deviation of one hair's colour from the stroke's.
            ragged: by how many steps of the path a hair may begin late or end early.
            edges: (N, 3) colours of the far edge; the stroke blends into them.
            square: as wide at the ends as in the middle, as a knife's, and cut at a slant.
            relief: deviation of one hair's thickness, out of 255.
        """
        rng, px = self.canvas.rng, self.canvas.px
        count, steps, _ = paths.shape
        ahead = np.gradient(paths, axis=1)
        ahead /= np.maximum(np.linalg.norm(ahead, axis=2, keepdims=True), 1e-9)
        across = np.stack([-ahead[..., 1], ahead[..., 0]], axis=-1)
        belly = np.sin(np.linspace(0.22, math.pi - 0.22, steps)) ** (0.0 if square else 0.5)
        spread = np.linspace(-0.5, 0.5, hairs)
        offset = spread[None, :] * widths[:, None]  # (N, hairs)
        lines = (
            paths[:, None] + across[:, None] * (offset[:, :, None] * belly)[..., None]
        ) * px  # (N, hairs, S, 2)
        if square:  # the blade is set down and lifted at a slant, in a curve
            slant = rng.normal(0, 0.22, (count, 1)) * spread
            curve = rng.normal(0, 0.35, (count, 1)) * spread**2
            slip = (slant + curve + rng.normal(0, 0.015, (count, hairs))) * widths[:, None]
            lines = lines + ahead[:, None] * (slip * px)[:, :, None, None]
        hair_px = np.maximum(1, np.rint(widths * px / hairs * 1.45)).astype(int).tolist()
        tone = colors[:, None, :] + rng.normal(0, mixing, (count, hairs, 1))
        tone = tone + rng.normal(0, mixing * 0.4, (count, hairs, 3))
        if edges is not None:
            blend = np.clip(spread * 1.5 + 0.5 + rng.normal(0, 0.12, (count, hairs)), 0, 1)
            tone = tone + blend[..., None] * (edges - colors)[:, None, :]
        ridge = 95 + 240 * spread**2 + rng.normal(0, relief, (count, hairs))  # higher at the edges
        fill = np.dstack([tone, ridge])
        fills = np.clip(np.rint(fill), 0, 255).astype(int).tolist()
        late = rng.integers(0, ragged + 1, (count, hairs)).tolist()
        early = rng.integers(0, ragged + 1, (count, hairs)).tolist()
        flat = np.round(lines.reshape(count, hairs, steps * 2), 1).tolist()
        line = self.draw.line
        for n in range(count):
            for h in range(hairs):
                points = flat[n][h][2 * late[n][h] : 2 * (steps - early[n][h])]
                line(points, fill=tuple(fills[n][h]), width=hair_px[n])

    def lit(self, strength: float = 1.0, gloss: float = 0.3) -> Array:
        """Light the paint from the upper left: colours (H, W, 3) from 0 to 255."""
        both = np.asarray(self.image, dtype=np.float32)
        height = blurred(both[..., 3], self.canvas.px / 900.0)
        return lit(both[..., :3], height / 255.0 * (self.canvas.px / 130.0), strength, gloss)


def lit(color: Array, height: Array, strength: float = 1.0, gloss: float = 0.3) -> Array:
    """Light a relief from the upper left; ``height`` is in pixels, as are its positions."""
    if min(height.shape) < 2:
        return color
    slope_y, slope_x = np.gradient(height)
    facing = (slope_x + slope_y) * np.float32(0.7)
    shade = np.tanh(facing * np.float32(0.8)) * np.float32(strength)
    dark = np.minimum(shade, 0.0)[..., None]
    bright = np.maximum(shade, 0.0)[..., None]
    relief: Array = color * (1.0 + 0.45 * dark) + (255.0 - color) * bright * np.float32(gloss)
    return relief


def blurred(field: Array, radius_px: float) -> Array:
    """Three box filters, nearly a Gaussian of deviation ``radius_px``, on (H, W)."""
    reach = round(radius_px * 0.95)
    if reach < 1:
        return field
    size = 2 * reach + 1
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach + 1, reach)
        for _ in range(3):
            total = np.cumsum(np.pad(field, pad, mode="edge"), axis=axis, dtype=np.float64)
            last = field.shape[axis]
            high = np.take(total, np.arange(size, size + last), axis=axis)
            low = np.take(total, np.arange(last), axis=axis)
            field = ((high - low) / size).astype(np.float32)
    return field


def smooth(low: float, high: float, value: Array) -> Array:
    """0 below ``low``, 1 above ``high``, an S between them (either way round)."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    curve: Array = t * t * (3.0 - 2.0 * t)
    return curve


def _nearest(
    y: Array, x: Array, home: Integers, points: Array, right: int
) -> tuple[Integers, Array]:
    """Number of the nearest of the points around each position, and distance to its border.

    Args:
        y: (H, W) in steps of the lattice, as are all lengths here.
        x: (H, W).
        home: (H, W) number of the point in whose square a position is.
        points: (2, N) y and x of the points, ``right`` of them in a row.
        right: points in a row.
    """
    point_y, point_x = points
    around = [
        i * right + j for i in range(-2, 3) for j in range(-2, 3) if not abs(i) == abs(j) == 2
    ]
    best = np.full(y.shape, np.inf, dtype=np.float32)
    nearest = home.copy()
    for step in around:
        other = home + np.int32(step)
        gap = (point_y[other] - y) ** 2 + (point_x[other] - x) ** 2
        closer = gap < best
        best = np.where(closer, gap, best)
        nearest = np.where(closer, other, nearest)
    near_y, near_x = point_y[nearest], point_x[nearest]
    edge = np.full(y.shape, np.inf, dtype=np.float32)
    for step in around:
        other = home + np.int32(step)
        other_y, other_x = point_y[other], point_x[other]
        gap = (other_y - y) ** 2 + (other_x - x) ** 2
        apart = np.sqrt((other_y - near_y) ** 2 + (other_x - near_x) ** 2)
        border = (gap - best) / np.maximum(2.0 * apart, np.float32(1e-6))
        edge = np.where(other == nearest, edge, np.minimum(edge, border))
    return nearest, edge


def palette(*colors: str) -> Array:
    """Colours written as hex triplets: (N, 3) from 0 to 255."""
    rows = [[int(color[i : i + 2], 16) for i in (0, 2, 4)] for color in colors]
    return np.array(rows, dtype=np.float32)


def ramp(colors: Array, t: Array) -> Array:
    """Blend along a palette (N, 3): ``t`` (...) in [0, 1] gives (..., 3)."""
    place = np.clip(t, 0.0, 1.0) * (len(colors) - 1)
    left = np.minimum(place.astype(np.int32), len(colors) - 2)
    part = (place - left)[..., None].astype(np.float32)
    blended: Array = colors[left] * (1 - part) + colors[left + 1] * part
    return blended


def over(below: Array, color: Array, cover: Array) -> Array:
    """Lay a colour (3,) or (H, W, 3) over a picture where ``cover`` (H, W) is 1."""
    return below + (color - below) * cover[..., None]


def unit_flow(potential: Array) -> Array:
    """The direction along the level lines of a potential (H, W): (H, W, 2) as (x, y)."""
    if min(potential.shape) < 2:
        return np.stack([np.ones_like(potential), np.zeros_like(potential)], axis=-1)
    slope_y, slope_x = np.gradient(potential)
    along = np.stack([slope_y, -slope_x], axis=-1)
    along /= np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-9)
    return along
