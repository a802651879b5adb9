"""What was measured on this machine: once, then remembered in the user's cache folder.

A note is found by its kind and by all that its values depend on. Whatever is wrong with its file
(not there, damaged, of something else, not writable) only means that it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from stylecap.errors import OutputError
from stylecap.files import cache_folder, write_atomically


@dataclass(frozen=True, slots=True)
class Note:
    """A measurement.

    Attributes:
        values: finite numbers by name.
        day: when it was made, as ``YYYY-MM-DD``.
        path: the file that keeps it, or None where none can.
    """

    values: Mapping[str, float]
    day: str
    path: Path | None


def recall(kind: str, key: Mapping[str, str], names: Collection[str]) -> Note | None:
    """A measurement made before, or None.

    Args:
        kind: what was measured; a part of the file's name.
        key: all that the values depend on.
        names: of the values.
    """
    try:
        path = _path(kind, key)
        written = json.loads(path.read_bytes())
        values = {str(name): float(value) for name, value in written["values"].items()}
        whole = set(values) == set(names) and all(map(math.isfinite, values.values()))
        if whole and written["key"] == dict(key):
            return Note(values, str(written["day"]), path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        pass
    return None


def measure(kind: str, key: Mapping[str, str], make: Callable[[], Mapping[str, float]]) -> Note:
    """Make a measurement and remember it if that is possible.

    Args:
        kind: as for `recall`.
        key: as for `recall`.
        make: measures; its numbers are finite.
    """
    values, day = dict(make()), date.today().isoformat()
    written = json.dumps({"key": dict(key), "values": values, "day": day}, indent=1)
    with suppress(OSError, OutputError, RuntimeError):
        path = _path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, written.encode())
        return Note(values, day, path)
    return Note(values, day, None)


def processor() -> tuple[str, str]:
    """The processor's model as the system names it, and a hash of what it says it can do.

    Both, since virtual machines of different processors bear one name.
    """
    model, abilities = platform.processor() or platform.machine(), ""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            elif name.strip() in ("flags", "Features"):
                abilities = value.strip()
            elif not line.strip():  # the other cores are alike
                break
    return model, hashlib.sha256(abilities.encode()).hexdigest()[:16]


def _path(kind: str, key: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "measured" / f"{kind}-{digest}.json"
