"""Networks with random weights and pictures made of noise: small, fast, the same every time."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from stylecap.backbone import Backbone, architecture
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.features import VIEWS
from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.vocabulary import EOS, FIRST_PREDICTED, SPECIALS, Vocabulary
from stylecap.runtime import Runtime

RELU_LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")


class DoubleRuntime(Runtime):
    """float64, for checking gradients; nobody paints with it."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64


@cache
def small_backbone(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Backbone:
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
    return Backbone("alexnet", weights, runtime(device, "float32", 1))


def photo(side: int, seed: int) -> Tensor:
    """Smooth noise, (1, 3, side, side) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return (smooth + 0.1 * torch.rand(1, 3, side, side, generator=generator)).clamp(0, 1)


def small_captioner(seed: int = 0, kind: str = "attentive") -> Captioner:
    """A captioner on AlexNet that has learned nothing, but says different things of pictures."""
    words = [
        *SPECIALS,
        *[
            "a",
            "the",
            "dog",
            "cat",
            "man",
            "runs",
            "sits",
            "on",
            "in",
            "grass",
            "with",
            "red",
            "ball",
            "water",
        ],
    ]
    view = VIEWS["alexnet"]
    layers = {layer.name: layer.channels for layer in architecture("alexnet")}
    shape = DecoderShape(
        words=len(words),
        channels=sum(layers[name] for name in view.layers),
        positions=view.grid**2,
        kind=kind,
        units=16,
        heads=2,
    )
    torch.manual_seed(seed)
    decoder = CaptionDecoder(shape)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.mul_(3)
        decoder.output_bias[EOS - FIRST_PREDICTED] = 2.0  # or it would never come to an end
    return Captioner([decoder], Vocabulary(words), view, runtime=Runtime("cpu", "float32", 1))
