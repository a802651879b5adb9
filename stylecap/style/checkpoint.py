"""Where a transfer is between two steps, so that it can stop here and go on elsewhere.

A checkpoint holds all that the next steps depend on. Nothing random is in it, for nothing is
drawn after the start: the noise of ``init`` comes from the options' seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylecap import __version__
from stylecap.backbone import Backbone
from stylecap.errors import InputError, RecordError, StylecapError
from stylecap.runtime import Runtime
from stylecap.style.cache import image_sha256
from stylecap.style.options import StyleOptions
from stylecap.tensorfile import load_tensors, save_tensors

_FORMAT = 3
_OPTIMIZER = "optimizer/"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A transfer between two steps.

    On a CPU, a transfer resumed from it ends bit for bit where the uninterrupted one does.

    Attributes:
        identity: of the transfer: its options, inputs, network, runtime and versions.
        runtime: device, precision and threads; resume with a backbone on this one.
        budget: bytes of memory by which it was planned, or None.
        scale: number of the size being painted, from 0.
        step: steps done at this scale.
        steps: steps done over all scales.
        seconds: time taken so far.
        messages: for people, so far.
        best: lowest loss of this scale.
        image: (1, C, H, W), what is optimised.
        good: (1, C, H, W), the last picture that had not diverged.
        seen: (1, C, H, W), the picture when it was last asked whether it still changes; infinite
            before.
        settled: it did not, so that this scale has ended.
        optimizer: its state.
    """

    identity: str
    runtime: Runtime
    budget: int | None
    scale: int
    step: int
    steps: int
    seconds: float
    messages: tuple[str, ...]
    best: float
    image: Tensor
    good: Tensor
    seen: Tensor
    settled: bool
    optimizer: dict[str, Tensor]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with a JSON header; it appears whole or not at all.

        Raises:
            OutputError: it cannot be written; what was there before is unchanged.
        """
        header = {
            "format": _FORMAT,
            "identity": self.identity,
            "runtime": asdict(self.runtime),
            "budget": self.budget,
            "scale": self.scale,
            "step": self.step,
            "steps": self.steps,
            "seconds": self.seconds,
            "messages": self.messages,
            "settled": self.settled,
        }
        tensors = {
            "image": self.image,
            "good": self.good,
            "seen": self.seen,
            "best": torch.tensor(self.best, dtype=torch.float64),  # infinity is not JSON
            **{_OPTIMIZER + name: value for name, value in self.optimizer.items()},
        }
        save_tensors(path, header, tensors)


#: Called after every step with a function that gives the checkpoint. Call that before the next
#: step, and only when the checkpoint is wanted: it copies the optimiser's state.
OnCheckpoint = Callable[[Callable[[], Checkpoint]], None]


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `Checkpoint.save` wrote.

    Raises:
        RecordError: it is missing, damaged, or of another kind or format.
    """
    try:
        header, stored = load_tensors(path, "checkpoint", _FORMAT, ("identity", "scale"))
        del header["format"]
        # Cloned, since torch's own memory is aligned, which decides how sums are rounded.
        tensors = {name: tensor.clone() for name, tensor in stored.items()}
        return Checkpoint(
            runtime=Runtime(**header.pop("runtime")),
            messages=tuple(header.pop("messages")),
            best=float(tensors.pop("best")),
            image=tensors.pop("image"),
            good=tensors.pop("good"),
            seen=tensors.pop("seen"),
            optimizer={name.removeprefix(_OPTIMIZER): value for name, value in tensors.items()},
            **header,
        )
    except InputError as error:
        raise RecordError(f"{error}; start anew") from error
    except (ValueError, KeyError, TypeError, StylecapError) as error:
        raise RecordError(
            f"{path}: cannot be read as a checkpoint ({error}); start anew"
        ) from error


def transfer_identity(
    images: Sequence[Tensor | None], options: StyleOptions, backbone: Backbone
) -> str:
    """Tells transfers apart that could give different pictures.

    Args:
        images: everything painted from, in a fixed order.
        options: of the transfer.
        backbone: network with its runtime.
    Returns:
        sha256, in hexadecimal.
    """
    plain: list[Any] = [
        *(__version__, str(torch.__version__)),
        *(asdict(options), asdict(backbone.runtime), backbone.name, backbone.weights_sha256),
        [None if image is None else image_sha256(image) for image in images],
    ]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()
