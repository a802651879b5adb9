"""A backbone with random weights and pictures made of noise: small, fast, the same every time."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from stylecap.backbone import Backbone, architecture
from stylecap.runtime import Runtime

RELU_LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")


class DoubleRuntime(Runtime):
    """float64, for checking gradients; nobody paints with it."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64


@cache
def small_backbone(dtype: torch.dtype = torch.float32) -> Backbone:
    """AlexNet with random weights that keep the activations' scale."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    incoming = 3
    for layer in architecture("alexnet"):
        if layer.kind == "conv":
            shape = (layer.channels, incoming, layer.kernel, layer.kernel)
            deviation = (2 / (incoming * layer.kernel**2)) ** 0.5
            weights[f"features.{layer.index}.weight"] = deviation * torch.randn(
                shape, generator=generator
            )
            weights[f"features.{layer.index}.bias"] = torch.zeros(layer.channels)
            incoming = layer.channels
    runtime = DoubleRuntime if dtype == torch.float64 else Runtime
    return Backbone("alexnet", weights, runtime("cpu", "float32", 1))


def photo(side: int, seed: int) -> Tensor:
    """Smooth noise, (1, 3, side, side) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return (smooth + 0.1 * torch.rand(1, 3, side, side, generator=generator)).clamp(0, 1)
