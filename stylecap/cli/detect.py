"""`stylecap detect`: which things a photo shows, and where; as a mask for painting."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stylecap.cli.masks import check_mask, command_of, save_mask
from stylecap.cli.terminal import one_line, say, say_json, table
from stylecap.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("photo", metavar="PHOTO", type=Path, help="what is looked at")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help="write a mask for `stylecap stylize --mask`: the rest, and a region for each label",
    )
    parser.add_argument("--only", metavar="LABEL,...", help="keep these labels, such as person,dog")
    parser.add_argument(
        "--threshold", metavar="X", type=float, default=0.5, help="least score (default 0.5)"
    )
    parser.add_argument("--preview", metavar="FILE", type=Path, help="the photo with its boxes")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from stylecap.images import check_writable, load_picture, save_picture
    from stylecap.studio.masks import COLORS
    from stylecap.studio.recognition import Detector, box_picture, box_regions

    if arguments.output is not None:
        check_mask(arguments.output, [arguments.photo])
    if arguments.preview is not None:
        check_writable(arguments.preview, [arguments.photo, arguments.output])
    picture = load_picture(arguments.photo)
    things = Detector().detect(picture, arguments.threshold)
    if arguments.only is not None:
        wanted = {label.strip() for label in arguments.only.split(",")}
        found = ", ".join(sorted({thing.label for thing in things})) or "nothing"
        things = [thing for thing in things if thing.label in wanted]
        if not things:
            raise InputError(f"--only: none of {arguments.only} was found, but {found}")
    told: dict[str, Any] = {"things": [asdict(thing) for thing in things]}
    command: list[str] = []
    if arguments.output is not None:
        regions, names = box_regions(things, (picture.height, picture.width))
        save_mask(regions, arguments.output)
        colors = COLORS[: len(names)]
        command = command_of(arguments.photo, ["STYLE"] * len(names), arguments.output, colors)
        told |= {"output": str(arguments.output), "regions": list(names), "command": command}
    if arguments.preview is not None:
        save_picture(box_picture(picture, things), arguments.preview)
    if arguments.json:
        say_json(told)
        return 0
    rows = [
        (f"{thing.score:.2f}", thing.label, ", ".join(f"{side:.2f}" for side in thing.box))
        for thing in things
    ]
    say(table(("score", "label", "top, left, bottom, right"), rows))
    if command:
        parts = ", ".join(f"{c} {n}" for c, n in zip(colors, names, strict=True))
        say(one_line(f"{arguments.output}: {parts}"))
        say(one_line(shlex.join(command)))
    return 0
