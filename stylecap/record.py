"""What a run was made from: kept inside its result, so that it can be repeated.

A record holds names and hashes, never absolute paths, so that passing a picture on tells nothing
about the machine it was made on. It is JSON; `stylecap.images` stores it as an opaque string.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stylecap import __version__
from stylecap.errors import RecordError

FORMAT = 1
ROLES = ("content", "style", "init", "mask")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Begins the name of a built-in style among the inputs.
BUILTIN = "builtin:"


@dataclass(frozen=True, slots=True)
class InputRecord:
    """One picture that went into a run.

    Attributes:
        role: one of `ROLES`.
        name: of the file, without its folder; ``"builtin:NAME"`` for a built-in style,
            ``"picture"`` for one that was given in memory.
        sha256: of the file, in hexadecimal, or ``""`` where there is no file.
    Raises:
        RecordError: the role is unknown, the name has a folder, or the hash is none.
    """

    role: str
    name: str
    sha256: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise RecordError(
                f"record: role of an input should be one of {', '.join(ROLES)}, got {self.role!r}"
            )
        name = self.name
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name:
            raise RecordError(f"record: expected a file name without a folder, got {name!r}")
        digest = self.sha256
        if not isinstance(digest, str) or not (digest == "" or _SHA256.fullmatch(digest)):
            raise RecordError(f"record: sha256 of {name!r} is not one: {digest!r}")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that is needed to repeat a run, and what came of it.

    Values become plain JSON values: tuples lists, numbers that are not finite None.

    Attributes:
        kind: of the run, such as ``"stylize"``.
        options: by name, with device and precision as they were chosen.
        inputs: in the order given.
        weights: name -> sha256 of the weight files used.
        versions: of stylecap, torch and python.
        result: such as steps, seconds, loss and the number of threads.
    Raises:
        RecordError: a field has another type, or holds what JSON cannot.
    """

    kind: str
    options: dict[str, Any]
    inputs: tuple[InputRecord, ...] = ()
    weights: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str):
            raise RecordError(f"record: kind should be a text, got {self.kind!r}")
        for name in ("options", "weights", "versions", "result"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise RecordError(f"record: {name} should be an object, got {value!r}")
            object.__setattr__(self, name, _plain(value, name))
        for name in ("weights", "versions"):
            if not all(isinstance(value, str) for value in getattr(self, name).values()):
                raise RecordError(f"record: {name} should be texts, got {getattr(self, name)!r}")
        object.__setattr__(self, "inputs", tuple(self.inputs))

    @property
    def threads(self) -> int | None:
        """CPU threads that the run was computed with, if it says so."""
        threads = self.result.get("threads")
        return threads if isinstance(threads, int) and threads > 0 else None

    def to_json(self) -> str:
        """The record as one line of ASCII."""
        return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """Read what `to_json` wrote.

        Raises:
            RecordError: it is not JSON, not a record, or of another format than `FORMAT`.
        """
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"record: not readable as JSON ({error})") from error
        if not isinstance(data, dict) or "format" not in data:
            raise RecordError("record: not one of stylecap's, it has no format number")
        number = data.pop("format")
        if number != FORMAT or isinstance(number, bool):
            raise RecordError(
                f"record: format {number!r} is unknown, this version reads {FORMAT}; "
                "repeat the run with the version that wrote it"
            )
        entries = data.pop("inputs", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise RecordError("record: inputs should be a list of objects")
        try:
            return cls(inputs=tuple(InputRecord(**entry) for entry in entries), **data)
        except (TypeError, RecursionError) as error:
            raise RecordError(
                f"record: a field is missing or unknown ({str(error).split('__init__() ')[-1]})"
            ) from error


def current_versions() -> dict[str, str]:
    """Versions of stylecap, torch and python here, for `RunRecord.versions`."""
    import torch

    return {
        "stylecap": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise RecordError(f"record: names in {where} should be texts, got {list(value)!r}")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise RecordError(f"record: {where} cannot hold a {type(value).__name__}: {value!r}")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
