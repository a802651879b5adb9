"""Tensors with a JSON header in one safetensors file: captioners, matchers, checkpoints.

No code in such a file is ever run.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecap.errors import InputError
from stylecap.files import named, reason_of, written_whole

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "stylecap"


def save_tensors(
    path: str | Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a header, which names its ``format``, and tensors; the file appears whole or not.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        try:
            save_file(stored, temporary, {_KEY: json.dumps(header)})
        except SafetensorError as error:  # it names the system's error in words: (os error 28)
            told = re.search(r"os error (\d+)", str(error))
            number = int(told[1]) if told else errno.EIO
            raise OSError(number, os.strerror(number)) from error


def load_tensors(
    path: str | Path, what: str, version: int, needs: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save_tensors` wrote.

    Args:
        path: of the file.
        what: it should be, for the message.
        version: the ``format`` that its header should name.
        needs: entries that the header of such a file has.
    Returns:
        Header and tensors.
    Raises:
        InputError: it is missing, damaged, or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "null"))
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(
            f"{named(path)}: cannot be read as a {what}: {reason_of(error)}"
        ) from error
    known = isinstance(header, dict) and header.get("format") == version
    if not known or any(name not in header for name in needs):
        raise InputError(
            f"{named(path)}: expected a {what} of format {version}, this is another file"
        )
    return header, tensors


def under(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
