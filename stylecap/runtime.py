"""Where and how numbers are computed: device, precision, threads; passed explicitly."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional

from stylecap.errors import DeviceError, OptionError
from stylecap.measured import Note, measure, processor, recall

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}
_CLEAR_WIN = 0.8  # of float32's time, from which bfloat16 is chosen
_TURNS = 12
_FINE_SECONDS = 1e-4  # a clock that ticks more rarely cannot time a convolution


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

        On a CPU the two precisions are timed against each other once, and the answer is
        remembered in the user's cache folder: only some processors have units for bfloat16, and
        the others are slower with it.

        Raises:
            DeviceError: ``device`` is not on this machine; the message lists those that are.
            OptionError: ``precision`` is unknown.
        """
        if device == "auto":
            device = available_devices()[0]
        _check_device(device)
        if precision == "auto":
            precision = fastest_precision(device).name
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
        """Memory that a computation may still take on the device, or None if unknown.

        Of processes that `share_memory`, each may take its part.
        """
        # What torch keeps of earlier computations is free for the next one.
        if self.torch_device.type == "cuda":
            device = self.torch_device
            kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            free: int | None = torch.cuda.mem_get_info(device)[0] + kept
        elif self.torch_device.type == "mps":
            free = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        else:
            free = _free_system_bytes()
        return None if free is None else free // _sharing


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


@dataclass(frozen=True, slots=True)
class Precision:
    """The precision that is fastest on a device, and how that is known.

    Attributes:
        name: ``"float32"`` or ``"bfloat16"``.
        reason: why, in words.
        note: the measurement behind it, or None where none was needed.
    """

    name: str
    reason: str
    note: Note | None = None


def fastest_precision(device: str, *, again: bool = False) -> Precision:
    """Which precision is faster on a device; on a CPU as it was once measured there.

    Args:
        device: one that is here.
        again: forget what is remembered, and measure.
    """
    kind = device.split(":")[0]
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bfloat16", "this GPU has units for it")
        return Precision("float32", "this GPU has no units for bfloat16")
    if kind != "cpu":
        return Precision("float32", f"bfloat16 is not measured on {kind}")
    if again:
        _remembered_share.cache_clear()
    note = _remembered_share(again)
    share = note.values["share"]
    return Precision(
        "bfloat16" if share < _CLEAR_WIN else "float32",
        f"a convolution in bfloat16 takes {share:.2f} of its time in float32",
        note,
    )


@cache
def _remembered_share(again: bool) -> Note:
    model, abilities = processor()
    key = {"processor": model, "abilities": abilities, "torch": str(torch.__version__)}
    known = None if again else recall("precision", key, ["share"])
    return known or measure("precision", key, lambda: {"share": _bfloat16_share()})


def _bfloat16_share() -> float:
    """Time a convolution of the network's middle in both types; bfloat16's time over float32's.

    One thread is measured, by the clock that stands still while other programs have the
    processor: on a busy machine the time on the wall gave anything from half to twice the share.
    The types take turns, and the fastest turn of each counts.
    """
    dtypes = (torch.float32, torch.bfloat16)
    fastest = dict.fromkeys(dtypes, float("inf"))
    layers = {
        dtype: [
            torch.ones(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
            for shape in ((1, 256, 28, 28), (256, 256, 3, 3))
        ]
        for dtype in dtypes
    }
    fine = time.get_clock_info("thread_time").resolution < _FINE_SECONDS
    clock = time.thread_time if fine else time.perf_counter
    with Runtime("cpu", "float32", 1).using_threads(), torch.inference_mode():
        for _ in range(_TURNS):
            for dtype, (features, kernel) in layers.items():
                begin = clock()
                functional.conv2d(features, kernel, padding=1)
                fastest[dtype] = min(fastest[dtype], clock() - begin)
    return fastest[torch.bfloat16] / fastest[torch.float32]


_sharing = 1


def share_memory(processes: int) -> None:
    """Say among how many processes like this one the free memory of its device is divided."""
    global _sharing
    _sharing = processes


def keep_float32() -> None:
    """Have convolutions in float32 computed in float32 on every GPU, not in TF32's ten bits."""
    convolutions = getattr(torch.backends.cudnn, "conv", None)  # of newer torch
    if convolutions is None:
        torch.backends.cudnn.allow_tf32 = False
    else:
        convolutions.fp32_precision = "ieee"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device has too little memory; that of a CPU or of MPS has no class of its own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = ("DefaultCPUAllocator", "out of memory")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in told)


def is_device_lost(error: BaseException) -> bool:
    """Whether a GPU answers nothing more to this process, as after an illegal access."""
    kinds = getattr(torch, "AcceleratorError", ())  # of newer torch
    told = isinstance(error, RuntimeError) and "CUDA error" in str(error)
    return (told or isinstance(error, kinds)) and not is_out_of_memory(error)


def _free_system_bytes() -> int | None:
    known = [_free_machine_bytes(), *_free_group_bytes()]
    return min((free for free in known if free is not None), default=None)


def _free_group_bytes(root: Path = Path("/")) -> Iterator[int]:
    """What control groups leave this process, as containers and batch systems set them up.

    A file's pages that nobody has used lately count as free: the kernel gives them up first.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if not controllers:
                top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
            elif "memory" in controllers.split(","):
                top = root / "sys/fs/cgroup/memory"
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            else:
                continue
            group = top / place.lstrip("/")
            for folder in (group, *group.parents):  # each of them limits those below it
                with suppress(OSError, ValueError):  # "max", or no such group in this container
                    limit, used = (int((folder / name).read_text()) for name in names)
                    rows = (folder / "memory.stat").read_text().splitlines()
                    numbers = dict(row.split() for row in rows)
                    yield max(0, limit - used + int(numbers.get("inactive_file", 0)))
                if folder == top:
                    break


def _free_machine_bytes() -> int | None:
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
