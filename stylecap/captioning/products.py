"""Products with weights that stay the same, which take as long as reading the weights does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stylecap.captioning.rounding import round_rows

#: Rows (..., I), float32, to (..., O), float32.
Product = Callable[[Tensor], Tensor]


def has_half() -> bool:
    """Whether torch multiplies float32 with weights in float16 here: FBGEMM, on x86 processors."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def product(weight: Tensor, dtype: torch.dtype) -> Product:
    """Rows through weights (O, I) of a type: int8 on CPUs, float16, bfloat16 or float32."""
    if dtype == torch.int8:
        return int8_product(weight)
    if dtype == torch.float16 and weight.device.type == "cpu":
        return half_product(weight)
    kept = weight.to(dtype)
    return lambda rows: (rows.to(dtype) @ kept.mT).float()


def half_product(weight: Tensor) -> Product:
    """Rows through weights (O, I) in float16, float32 on the CPU.

    For a few rows it takes a third of the time that float32 takes, for many half. Where there is
    no `has_half`, the weights stay as they are.
    """
    if not has_half():
        return lambda rows: rows @ weight.mT
    packed = torch.ops.quantized.linear_prepack_fp16(weight)

    def through(rows: Tensor) -> Tensor:
        found: Tensor = torch.ops.quantized.linear_dynamic_fp16(rows, packed)
        return found

    return through


def int8_product(weight: Tensor) -> Product:
    """Rows (M, I) through weights (O, I), each row of either rounded to 127 steps of its own."""
    whole, steps = round_rows(weight)  # (O, I), (O, 1)
    kept = whole.to(torch.int8).mT

    def through(rows: Tensor) -> Tensor:
        rounded, own = round_rows(rows)
        return torch._int_mm(rounded.to(torch.int8), kept) * (own * steps[:, 0])

    return through
