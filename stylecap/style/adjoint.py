"""The gradient of a layer from less than its features: signs of rectifiers, places of maxima.

A convolution is linear: its gradient needs its kernel alone. A rectifier needs to know where it
let something through, a bit each, and a maximum pooling where each maximum was, two bits each in
windows of four. Autograd keeps the features, of 32 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from stylecap.backbone import Backbone, Layer


def needs_values(layer: Layer, pooling: str) -> bool:
    """Whether the gradient of a layer cannot do without its features."""
    return layer.kind == "pool" and pooling == "stochastic"


def bits_remembered(layer: Layer, pooling: str) -> int:
    """Of every value that a layer gives."""
    if layer.kind == "relu":
        return 1
    return _place_bits(layer) if layer.kind == "pool" and pooling == "max" else 0


def remember(layer: Layer, x: Tensor, y: Tensor, pooling: str) -> Tensor | None:
    """What `pull_back` needs to know of a layer, packed; None if nothing.

    Args:
        layer: computed.
        x: (B, C, H, W) what it read; of a rectifier, perhaps overwritten.
        y: (B, C, H', W') what it gave.
        pooling: if it is one; of `needs_values` none.
    """
    if layer.kind == "relu":
        return _pack((y > 0).view(torch.uint8), 1)
    if layer.kind == "pool" and pooling == "max":
        places = torch.zeros_like(y, dtype=torch.uint8)
        for place in reversed(range(layer.kernel**2)):  # the first of equal ones stays
            places = torch.where(_window(x, y.shape, layer, place) == y, place, places)
        return _pack(places, _place_bits(layer))
    return None


def pull_back(
    backbone: Backbone,
    layer: Layer,
    gradient: Tensor,
    known: Tensor | None,
    size: tuple[int, int],
    padded_rows: tuple[int, int],
) -> Tensor:
    """The gradient of what a layer reads.

    Args:
        backbone: of the layer.
        layer: computed before.
        gradient: (B, C', H', W') of what it gave.
        known: of `remember`.
        size: (H, W) of what it read.
        padded_rows: as in `Backbone.compute`.
    Returns:
        (B, C, H, W).
    """
    if layer.kind == "conv":
        return backbone.transposed(layer, gradient, size, padded_rows)
    if layer.kind == "relu":
        assert known is not None
        return torch.where(_unpack(known, gradient, 1).view(torch.bool), gradient, 0)
    slope = torch.empty(
        (*gradient.shape[:2], *size),
        dtype=gradient.dtype,
        device=gradient.device,
        memory_format=torch.channels_last,
    ).zero_()
    places = None if known is None else _unpack(known, gradient, _place_bits(layer))
    share = gradient / layer.kernel**2 if places is None else gradient
    for place in range(layer.kernel**2):
        if places is not None:
            share = torch.where(places == place, gradient, 0)
        _window(slope, gradient.shape, layer, place).add_(share)
    return slope


def _window(x: Tensor, shape: torch.Size, layer: Layer, place: int) -> Tensor:
    """Of (B, C, H, W), one place of every window of a pooling: a view shaped like its output."""
    row, column = divmod(place, layer.kernel)
    height, width = ((size - 1) * layer.stride + 1 for size in shape[2:])
    return x[:, :, row : row + height : layer.stride, column : column + width : layer.stride]


def _place_bits(layer: Layer) -> int:
    """Bits for a place in a window, of those that divide a byte."""
    return 2 if layer.kernel == 2 else 4


def _pack(values: Tensor, bits: int) -> Tensor:
    """Small numbers, (B, C, H, W), in as many bits each: a row of bytes."""
    flat = values.permute(0, 2, 3, 1).flatten()  # as channels last lie in memory
    each = 8 // bits
    if len(flat) % each:
        flat = functional.pad(flat, (0, -len(flat) % each))
    parts = flat.view(each, -1)
    packed = parts[0].clone()
    for order in range(1, each):
        packed |= parts[order] << (bits * order)
    return packed


def _unpack(packed: Tensor, like: Tensor, bits: int) -> Tensor:
    """What `_pack` packed, in the shape of a tensor (B, C, H, W)."""
    parts = [(packed >> (bits * order)) & (2**bits - 1) for order in range(8 // bits)]
    batch, channels, height, width = like.shape
    flat = torch.cat(parts)[: like.numel()]
    return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)
