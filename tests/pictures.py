"""Pictures to read and write, and what tests say of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RECORD = '{"name": "별이 빛나는 밤 · étude", "pad": "' + "0123456789" * 1000 + '"}'


def smooth(height: int = 24, width: int = 40) -> Image.Image:
    """A gradient, on which lossy formats lose little."""
    y, x = np.mgrid[:height, :width]
    values = np.stack([x * 255 / width, y * 255 / height, 128 + 0 * x], axis=2)
    return Image.fromarray(values.astype(np.uint8))


def noise(height: int = 24, width: int = 40, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def difference(a: Image.Image, b: Image.Image) -> int:
    assert (a.mode, a.size) == (b.mode, b.size)
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def one_line(error: pytest.ExceptionInfo[Exception], path: Path) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert path.name in text
