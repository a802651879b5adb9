"""The objective `gatys` of a saved picture, in float64, computed without stylecap's code.

    python benchmarks/objective.py content.png style.png result.png

Content and style must have been resized as the optimiser saw them; content weight 1, style
weight 3, VGG-16, max pooling, no total variation.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24)
POOLED_AFTER = (2, 7, 14, 21)
STYLE, CONTENT = (0, 5, 10, 17, 24), 19  # relu1_1 relu2_1 relu3_1 relu4_1 relu5_1; relu4_2


def features(path: str) -> dict[int, Tensor]:
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)[None]
    weights = load_file("weights/vgg16.safetensors")
    found = {}
    for index in CONVOLUTIONS:
        kernel, bias = (weights[f"features.{index}.{part}"].double() for part in ("weight", "bias"))
        x = functional.conv2d(x, kernel, bias, padding=1).relu()
        found[index] = x
        if index in POOLED_AFTER:
            x = functional.max_pool2d(x, 2)
    return found


def gram(f: Tensor) -> Tensor:
    positions = f[0].flatten(1)
    return positions @ positions.T / positions.shape[1]


def objective(content: str, style: str, result: str) -> float:
    """L = mean((F - P)²) + 3 Σ_l Σ (G/M - A/M_s)² / (4 N²)."""
    of_content, of_style, of_result = features(content), features(style), features(result)
    total = (of_result[CONTENT] - of_content[CONTENT]).square().mean()
    for layer in STYLE:
        difference = gram(of_result[layer]) - gram(of_style[layer])
        total = total + 3 * difference.square().sum() / (4 * difference.shape[0] ** 2)
    return float(total)


if __name__ == "__main__":
    with torch.no_grad():
        print(objective(*sys.argv[1:4]))
