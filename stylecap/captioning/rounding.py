"""Rows of matrices in whole steps, 127 on each side of zero: int8, for products and for files."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

_STEPS = 127
_TINY = 1e-12
_STEP = "/step"  # ends the name of what a step of each row is


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in whole steps, (..., I), and what a step is, (..., 1)."""
    step = (x.abs().amax(-1, keepdim=True) / _STEPS).clamp_min(_TINY)
    return (x / step).round(), step


def pack(tensors: Mapping[str, Tensor], *, half: Collection[str] = ()) -> dict[str, Tensor]:
    """Tensors as files keep them: matrices in int8 with a step a row, float16 the other floats.

    What was packed and unpacked once changes no more.

    Args:
        tensors: by their names, which do not end in ``/step``.
        half: names of matrices to keep in float16, too.
    """
    packed = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            packed[name] = tensor
        elif tensor.ndim < 2 or name in half:
            packed[name] = tensor.half()
        else:
            whole, packed[name + _STEP] = round_rows(tensor.float())
            packed[name] = whole.to(torch.int8)
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `pack` was given, float32 where it was floating.

    Raises:
        KeyError: a matrix is there without its step, or a step without its matrix.
        RuntimeError: their shapes do not belong together.
    """
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in packed.items()
        if not name.endswith(_STEP)
    }
    for name, tensor in packed.items():
        if tensor.dtype == torch.int8 and name + _STEP not in packed:
            raise KeyError(name + _STEP)
    for name, step in packed.items():
        if name.endswith(_STEP):
            matrix = name.removesuffix(_STEP)
            tensors[matrix] = tensors[matrix].float() * step
    return tensors
