"""`stylecap show-record`: what a picture of ours was made from, and how."""

from __future__ import annotations

import argparse
from pathlib import Path

from stylecap.cli.terminal import say_json
from stylecap.errors import RecordError
from stylecap.record import RunRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("picture", metavar="PICTURE", type=Path, help="a result of stylecap")


def run(arguments: argparse.Namespace) -> int:
    """Run the command: print the record as one JSON object."""
    import json

    say_json(json.loads(record_of(arguments.picture).to_json()))
    return 0


def record_of(path: Path) -> RunRecord:
    """The record inside a picture.

    Raises:
        InputError: the file is not a picture.
        RecordError: it holds no record, or one that cannot be read.
    """
    from stylecap.embedded import read_embedded

    text = read_embedded(path)
    if text is None:
        raise RecordError(
            f"{path}: holds no run record; it was not made by stylecap, or another program "
            "saved it anew"
        )
    try:
        return RunRecord.from_json(text)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
