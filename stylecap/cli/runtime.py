"""`stylecap runtime`: where and how numbers are computed here, and why."""

from __future__ import annotations

import argparse

from stylecap.cli.flags import add_runtime
from stylecap.cli.terminal import one_line, say, say_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add_runtime(parser, precision=False)
    parser.add_argument(
        "--again", action="store_true", help="measure again instead of taking what is remembered"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from stylecap.runtime import Runtime, available_devices, fastest_precision

    device = Runtime.choose(arguments.device, "float32").device
    precision = fastest_precision(device, again=arguments.again)
    runtime = Runtime.choose(device, precision.name)
    note = precision.note
    told = {
        "device": runtime.device,
        "available": list(available_devices()),
        "precision": runtime.precision,
        "reason": precision.reason,
        "measured": None if note is None else note.day,
        "kept": None if note is None or note.path is None else str(note.path),
        "threads": runtime.threads,
    }
    if arguments.json:
        say_json(told)
        return 0
    say(f"device     {runtime.device} (here: {', '.join(available_devices())})")
    say(f"precision  {runtime.precision}: {precision.reason}")
    if note is not None:
        kept = "kept nowhere, since the folder cannot be written" if not note.path else note.path
        say("           " + one_line(f"measured on {note.day}, {kept}"))
    say(f"threads    {runtime.threads}")
    return 0
