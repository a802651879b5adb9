"""Where and how numbers are computed: device, precision, threads; passed explicitly."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional

from stylecap.errors import DeviceError, OptionError

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class Runtime:
    """A device with the precision of the network on it; images and losses stay float32.

    Attributes:
        device: as torch names it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: of the network's weights and activations: ``"float32"`` or ``"bfloat16"``
            (not float16, in which gradients as small as ours vanish).
        threads: CPU threads of one operation; a part of the runtime because sums that are
            split among another number of threads round differently.
    """

    device: str
    precision: str
    threads: int

    def __post_init__(self) -> None:
        if self.precision not in _DTYPES:
            raise OptionError(
                f"precision: expected one of {', '.join(_DTYPES)}, got {self.precision!r}"
            )
        if self.threads < 1:
            raise OptionError(f"threads: expected at least 1, got {self.threads}")

    @classmethod
    def choose(
        cls, device: str = "auto", precision: str = "auto", threads: int | None = None
    ) -> Runtime:
        """Resolve ``"auto"``: the best device here, and the precision that is fastest on it.

        On a CPU the two precisions are timed against each other once per process, for only
        some processors have units for bfloat16 and the others are slower with it.

        Raises:
            DeviceError: ``device`` is not on this machine; the message lists those that are.
            OptionError: ``precision`` is unknown.
        """
        if device == "auto":
            device = available_devices()[0]
        _check_device(device)
        if precision == "auto":
            precision = _fastest_precision(device)
        return cls(device, precision, threads or torch.get_num_threads())

    @property
    def torch_device(self) -> torch.device:
        """The device as torch's own type."""
        return torch.device(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's weights and activations."""
        return _DTYPES[self.precision]

    @contextmanager
    def using_threads(self) -> Iterator[None]:
        """Run a block with this runtime's number of CPU threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def free_bytes(self) -> int | None:
        """Memory that a computation may still take on the device, or None if unknown."""
        # What torch keeps of earlier computations is free for the next one.
        if self.torch_device.type == "cuda":
            device = self.torch_device
            kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return torch.cuda.mem_get_info(device)[0] + kept
        if self.torch_device.type == "mps":
            return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        return _free_system_bytes()


def available_devices() -> tuple[str, ...]:
    """Devices on this machine, the one to prefer first."""
    cuda = ("cuda",) if torch.cuda.is_available() else ()
    mps = ("mps",) if torch.backends.mps.is_available() else ()
    return (*cuda, *mps, "cpu")


def _check_device(device: str) -> None:
    here = available_devices()
    refusal = DeviceError(
        f"device: {device!r} is not on this machine; available: {', '.join(here)}"
    )
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise refusal from None
    count = torch.cuda.device_count() if parsed.type == "cuda" else 1
    if parsed.type not in here or (parsed.index or 0) >= count:
        raise refusal


def _fastest_precision(device: str) -> str:
    kind = device.split(":")[0]
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if kind == "cpu" and _cpu_prefers_bfloat16() else "float32"


@cache
def _cpu_prefers_bfloat16() -> bool:
    """Time a convolution of the network's middle in both types, in turns; ask for a clear win.

    The fastest of several turns counts, so that other programs on the machine disturb little.
    """
    dtypes = (torch.float32, torch.bfloat16)
    fastest = dict.fromkeys(dtypes, float("inf"))
    layers = {
        dtype: [
            torch.ones(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
            for shape in ((1, 256, 56, 56), (256, 256, 3, 3))
        ]
        for dtype in dtypes
    }
    with torch.inference_mode():
        for _ in range(6):
            for dtype, (features, kernel) in layers.items():
                begin = time.perf_counter()
                functional.conv2d(features, kernel, padding=1)
                fastest[dtype] = min(fastest[dtype], time.perf_counter() - begin)
    return fastest[torch.bfloat16] < 0.8 * fastest[torch.float32]


def _free_system_bytes() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
