"""The objective `gatys` of a saved picture, in float64, computed without stylecap's code.

    python benchmarks/objective.py content.png style.png result.png

Content and style must have been resized as the optimiser saw them; VGG-16, max pooling, no total
variation, content weight 1, style weight 3 for every layer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

_WEIGHTS = Path(__file__).parent.parent / "weights" / "vgg16.safetensors"
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24)
POOLED_AFTER = (2, 7, 14, 21)
STYLE, CONTENT = (0, 5, 10, 17, 24), 19  # relu1_1 relu2_1 relu3_1 relu4_1 relu5_1; relu4_2
MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class Objective:
    """L = c mean((F - P)²) + Σ_l w_l Σ (G/M - A/M_s)² / (4 N²), of images of `read`."""

    def __init__(
        self,
        content: Tensor,
        style: Tensor,
        content_weight: float = 1.0,
        style_weights: Sequence[float] = (3.0,) * len(STYLE),
    ) -> None:
        weights = load_file(_WEIGHTS)
        self._weights = {name: value.double() for name, value in weights.items()}
        self._content_weight, self._style_weights = content_weight, style_weights
        with torch.no_grad():
            of_style = self._features(style)
            self._content = self._features(content)[CONTENT]
            self._grams = [gram(of_style[layer]) for layer in STYLE]

    def __call__(self, image: Tensor) -> float:
        """Evaluate."""
        with torch.no_grad():
            found = self._features(image)
            total = self._content_weight * (found[CONTENT] - self._content).square().mean()
            for layer, target, weight in zip(STYLE, self._grams, self._style_weights, strict=True):
                difference = gram(found[layer]) - target
                total += weight * difference.square().sum() / (4 * difference.shape[0] ** 2)
        return float(total)

    def _features(self, image: Tensor) -> dict[int, Tensor]:
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
        x = (image.double() - mean.view(3, 1, 1)) / std.view(3, 1, 1)  # (1, 3, H, W)
        found = {}
        for index in CONVOLUTIONS:
            kernel, bias = (
                self._weights[f"features.{index}.{part}"] for part in ("weight", "bias")
            )
            x = functional.conv2d(x, kernel, bias, padding=1).relu()
            found[index] = x
            if index in POOLED_AFTER:
                x = functional.max_pool2d(x, 2)
        return found


def gram(f: Tensor) -> Tensor:
    positions = f[0].flatten(1)
    return positions @ positions.T / positions.shape[1]


def read(path: str) -> Tensor:
    """A picture as (1, 3, H, W), float64 in [0, 1]."""
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


if __name__ == "__main__":
    content, style, result = map(read, sys.argv[1:4])
    print(Objective(content, style)(result))
