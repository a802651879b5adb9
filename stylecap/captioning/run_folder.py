"""The folder of a training: its log, and the checkpoint from which it goes on."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from stylecap.captioning.model import DecoderShape
from stylecap.captioning.options import TrainOptions
from stylecap.errors import InputError, OutputError
from stylecap.files import write_atomically
from stylecap.tensorfile import load_tensors, save_tensors

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.csv"
PHASES = ("words", "reward", "mean")
_FORMAT = 2


@dataclass(frozen=True)
class Scores:
    """A validation: one row of the log.

    ``loss`` is the mean reward in the phase of rewards. In that of means nothing is learnt:
    ``epoch`` counts the shares that are tried, and ``loss`` and ``learning_rate`` are 0.
    """

    phase: str
    epoch: int
    step: int
    learning_rate: float
    loss: float
    cider: float
    bleu4: float
    rouge_l: float
    length: float
    seconds: float


@dataclass
class Position:
    """Where a run is: everything of the checkpoint that is not a tensor of the network."""

    phase: str = PHASES[0]
    epoch: int = 0
    batch: int = 0
    step: int = 0
    phase_step: int = 0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    best: float = -math.inf
    without_gain: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rewarded(self) -> bool:
        """Whether a pass of rewards was finished."""
        return any(row["phase"] == "reward" for row in self.history)


@dataclass(frozen=True)
class RunFolder:
    """Where a run is kept, and what has to be the same for it to go on.

    Attributes:
        path: of the folder.
        options: of the training.
        words: of the vocabulary.
        shape: of the decoder.
        pictures: that it learns from.
    """

    path: Path
    options: TrainOptions
    words: Sequence[str]
    shape: DecoderShape
    pictures: int

    def prepare(self) -> None:
        """Make it if it is not there.

        Raises:
            OutputError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot make the folder: {error}") from error

    def save(self, at: Position, tensors: Mapping[str, Tensor]) -> None:
        """Write checkpoint and log; whoever reads them sees the old or the new, never a part.

        Raises:
            OutputError: they cannot be written.
        """
        header = {
            "format": _FORMAT,
            "options": asdict(self.options),
            "words": self.words,
            "shape": asdict(self.shape),
            "pictures": self.pictures,
            "position": asdict(at),
        }
        save_tensors(self.path / CHECKPOINT, header, tensors)
        log = io.StringIO(newline="")
        writer = csv.DictWriter(log, [f.name for f in fields(Scores)])
        writer.writeheader()
        writer.writerows(at.history)
        write_atomically(self.path / LOG, log.getvalue().encode())

    def load(self) -> tuple[Position, dict[str, Tensor]] | None:
        """Where the run was and the tensors of its learner; None if it has not begun.

        Raises:
            InputError: the checkpoint belongs to other options or another corpus.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        header, tensors = read_checkpoint(path)
        theirs, mine = header["options"], asdict(self.options)
        free = {"epochs", "reward_epochs", "patience", "save_every"}
        at = Position(**header["position"])
        if at.phase != PHASES[0]:
            free.remove("epochs")  # they are over
        if at.rewarded and at.phase not in PHASES[:2]:
            free.remove("reward_epochs")
        if not (at.rewarded or at.phase == "reward"):  # of what has not begun, all may change
            free |= {name for name in mine if name.startswith("reward_")}
            at.phase = at.phase if at.phase in PHASES[:2] else PHASES[1]  # there may be rewards now
        other = [name for name in mine if name not in free and theirs.get(name) != mine[name]]
        if other:
            name = other[0]
            raise InputError(
                f"{path}: was trained with {name}={theirs.get(name)!r}, now {mine[name]!r}; "
                "use the same options or another folder"
            )
        mine = {"words": list(self.words), "shape": asdict(self.shape), "pictures": self.pictures}
        if any(header[name] != value for name, value in mine.items()):
            raise InputError(f"{path}: belongs to another corpus; use another folder")
        return at, tensors


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a training checkpoint; no code in it is ever run.

    Raises:
        InputError: the file is not a checkpoint of this program and version.
    """
    return load_tensors(path, "training checkpoint", _FORMAT, ("position", "options"))
