"""What a painting takes of the device's memory, and how it is made to fit into less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from stylecap.errors import DeviceError, OptionError
from stylecap.images import fit_long_side
from stylecap.runtime import Runtime
from stylecap.style.adjoint import bits_remembered
from stylecap.style.optimizers import HISTORY
from stylecap.style.options import AUTO, StyleOptions, parse_memory
from stylecap.style.strips import Strips, layers_again, split_stages

_SHORTER = (10, 5)  # histories of L-BFGS that a painting may be left with
_MB = 10**6
_PLACE = 8  # bytes in which a pooling notes where a maximum was
_STRIP_COPIES = 15  # of a layer in a strip: what convolutions and their gradients work with
_GAPS = 1.6  # times what a CPU's step needs: memory given back in pieces of other sizes
_PROGRAM = 650_000_000  # bytes of interpreter, torch and network in a process


@dataclass(frozen=True, slots=True)
class Plan:
    """How one scale is computed.

    Attributes:
        strips: how much of the network in strips.
        history: pairs that L-BFGS remembers.
        bytes: that it takes on the device, besides the network itself.
    """

    strips: Strips
    history: int
    bytes: int

    def resident_bytes(self, runtime: Runtime) -> int:
        """What the device holds in all; on a CPU, the whole process."""
        return self.bytes + _program(runtime)

    @property
    def spares(self) -> bool:
        """Whether it takes less memory than it likes to."""
        return _spares(self.strips, self.history)


def plan_memory(
    size: tuple[int, int], options: StyleOptions, runtime: Runtime, budget: int | None
) -> Plan:
    """The fastest way to compute a scale that fits; the smallest one if none does.

    More and more of the network goes into strips, the lowest stages first, where most memory is
    and the least is computed, and L-BFGS remembers in bfloat16; where that is not enough, it gives
    up history.

    Args:
        size: (height, width) in pixels.
        options: layers, optimiser.
        runtime: precision.
        budget: bytes it may take, or None for as many as it likes.
    """
    plans = list(_plans(size, options, runtime))
    fitting = (plan for plan in plans if budget is None or plan.bytes <= budget)
    return next(fitting, min(plans, key=lambda plan: plan.bytes))


def memory_budget(options: StyleOptions, runtime: Runtime) -> int | None:
    """Bytes that a painting may take besides the network, in whole MB; None if nobody knows.

    It is what the options allow, or most of what is free if that is less.

    Raises:
        OptionError: the options allow less than the program needs by itself.
    """
    free = runtime.free_bytes()
    budget = None if free is None else int(0.9 * free)
    if options.memory != AUTO:
        allowed = parse_memory(options.memory) - _program(runtime)
        if allowed <= 0:
            raise OptionError(
                f"memory: {options.memory} is less than the program needs by itself; give at "
                f"least {_PROGRAM // _MB + 200}MB"
            )
        budget = allowed if budget is None else min(allowed, budget)
    return budget if budget is None else budget // _MB * _MB


def memory_taken(budget: int | None, runtime: Runtime) -> str:
    """The options' ``memory`` that gives a budget."""
    if budget is None:
        return AUTO
    return f"{(budget + _program(runtime)) // _MB}MB"


def check_memory(
    size: tuple[int, int], options: StyleOptions, runtime: Runtime, budget: int | None
) -> None:
    """Refuse what cannot fit, before any work.

    Raises:
        DeviceError: with the long side, in pixels, that would fit.
    """
    plan = plan_memory(size, options, runtime, budget)
    if budget is None or plan.bytes <= budget:
        return
    fits = max(size)
    while fits > 1 and plan_memory(fit_long_side(size, fits), options, runtime, 0).bytes > budget:
        fits = fits * 49 // 50
    raise DeviceError(
        f"size: {size[1]}x{size[0]} needs at least {plan.bytes / 1e9:.1f} GB on {runtime.device}, "
        f"where it may take {budget / 1e9:.1f} GB; --size {fits} would fit"
    )


def how_many_fit(size: tuple[int, int], options: StyleOptions, runtime: Runtime) -> int:
    """How many paintings fit together without strips; 1 if nobody knows, or not even one does.

    Raises:
        OptionError: as `memory_budget`.
    """
    budget = memory_budget(options, runtime)
    return max(1, budget // plan_memory(size, options, runtime, None).bytes) if budget else 1


def estimate_bytes(
    size: tuple[int, int],
    options: StyleOptions,
    runtime: Runtime,
    strips: Strips | None = None,
    history: int = HISTORY,
) -> int:
    """Memory that one scale takes on the device, besides the network itself.

    Of stages computed at once, every convolution's and pooling's output is kept, and where each
    maximum was; of those in strips only the input and signs. The most is taken at some layer on
    the way up or back, with what is kept until there, a float32 copy for its losses, and the
    gradients that pass. Then come the content's features and the optimiser's images.
    """
    strips = strips or Strips()
    width = 2 if runtime.precision == "bfloat16" else 4
    styled, contents = options.resolved_style_layers, options.resolved_content_layers
    wanted = (*styled, *contents)
    gaps = _GAPS if runtime.device == "cpu" else 1.0
    kept = kept_content = most = 0
    height, across = size
    below = 3 * height * across
    for order, stage in enumerate(split_stages(options.backbone, wanted, options.pooling)):
        in_strips = order < strips.stages
        held = 0  # in a strip
        again = layers_again(stage, wanted, options.pooling)
        for place, layer in enumerate(stage):
            height, across = layer.output_size(height), layer.output_size(across)
            values = layer.channels * height * across
            computed = min(values, strips.values) if in_strips else values
            taken = 0 if layer.kind == "relu" else computed * width
            taken += computed * _PLACE if layer.kind == "pool" else 0
            if in_strips and place >= again:
                kept += values * bits_remembered(layer, options.pooling) // 8
            elif in_strips:
                held += taken
            else:
                kept += int(gaps * taken)
            kept_content += values * width if layer.name in contents else 0
            losses = 8 if layer.name in contents else 4 if layer.name in styled else 0
            passing = _STRIP_COPIES * width if in_strips else int(gaps * 3 * width)
            most = max(most, kept_content + kept + held + computed * (passing + losses))
        if in_strips:  # its input and output, and on the way back the gradients of both
            kept += values * width
            gradients = (values + below) * width
            most = max(most, kept_content + kept + held + gradients + computed * passing)
        below = values
    # The optimiser takes its step when the gradients that pass the network are gone.
    images = 9
    if options.optimizer == "lbfgs":
        images = 8 + history if _spares(strips, history) else 7 + 2 * history
    image = 3 * size[0] * size[1] * 4
    return max(most, kept_content + 4 * image) + images * image


def _spares(strips: Strips, history: int) -> bool:
    return strips.stages > 0 or history < HISTORY


def _program(runtime: Runtime) -> int:
    return _PROGRAM if runtime.device == "cpu" else 0


def _plans(size: tuple[int, int], options: StyleOptions, runtime: Runtime) -> Iterator[Plan]:
    layers = (*options.resolved_style_layers, *options.resolved_content_layers)
    stages = len(split_stages(options.backbone, layers, options.pooling))
    histories = (HISTORY, *_SHORTER) if options.optimizer == "lbfgs" else (HISTORY,)
    for history, count in product(histories, range(stages + 1)):
        strips = Strips(count)
        yield Plan(strips, history, estimate_bytes(size, options, runtime, strips, history))
