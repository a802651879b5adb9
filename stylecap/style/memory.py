"""What a painting takes of the device's memory, before it is begun."""

from __future__ import annotations

import math

from stylecap.backbone import architecture
from stylecap.errors import DeviceError
from stylecap.runtime import Runtime
from stylecap.style.optimizers import HISTORY
from stylecap.style.options import StyleOptions


def estimate_bytes(size: tuple[int, int], options: StyleOptions, runtime: Runtime) -> int:
    """Memory that the finest scale takes on the device, besides the network itself.

    Kept for the gradient: each convolution's and pooling's output, in the network's precision,
    and the content layers' difference in float32. Then the gradients on their way, float32
    copies of one style layer at a time, and the optimiser's images.
    """
    width = 2 if runtime.precision == "bfloat16" else 4
    wanted = {*options.resolved_content_layers, *options.resolved_style_layers}
    order = [layer.name for layer in architecture(options.backbone)]
    deepest = max(order.index(layer) for layer in wanted)
    kept = peak = 0
    height, across = size
    for layer in architecture(options.backbone)[: deepest + 1]:
        height, across = layer.output_size(height), layer.output_size(across)
        values = layer.channels * height * across
        kept += values * width if layer.kind != "relu" else 0
        kept += values * 4 if layer.name in options.resolved_content_layers else 0
        peak = max(peak, values * (3 * width + (8 if layer.name in wanted else 0)))
    images = 2 * HISTORY + 12 if options.optimizer == "lbfgs" else 10
    return kept + peak + images * 3 * size[0] * size[1] * 4


def check_memory(size: tuple[int, int], options: StyleOptions, runtime: Runtime) -> None:
    """Refuse what cannot fit, before any work.

    Raises:
        DeviceError: with the long side, in pixels, that would fit.
    """
    free = runtime.free_bytes()
    needed = estimate_bytes(size, options, runtime)
    if free is None or needed <= 0.9 * free:
        return
    fits = int(max(size) * math.sqrt(0.85 * free / needed))
    raise DeviceError(
        f"size: {size[1]}x{size[0]} needs about {needed / 1e9:.1f} GB on {runtime.device}, where "
        f"{free / 1e9:.1f} GB are free; --size {fits} would fit"
    )


def how_many_fit(size: tuple[int, int], options: StyleOptions, runtime: Runtime) -> int:
    """How many paintings of a size fit into the device's free memory together, at least 1."""
    free = runtime.free_bytes()
    return 1 if free is None else max(1, int(0.9 * free / estimate_bytes(size, options, runtime)))
