"""`stylecap styles`: the built-in styles, as a list or as a sheet of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from stylecap.cli.terminal import one_line, say, table
from stylecap.errors import OptionError
from stylecap.style.builtin import STYLES, TILE_PX, paint_sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("--sheet", metavar="FILE", type=Path, help="draw them all into a picture")
    parser.add_argument(
        "--size",
        metavar="PX",
        type=int,
        help=f"side of one style on the sheet, in pixels (32 to 1024; default {TILE_PX})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.sheet is None:
        if arguments.size is not None:
            raise OptionError("--size is the size on a sheet; give --sheet FILE too")
        say(table(("style", "what it looks like"), list(STYLES.items())))
        return 0
    from stylecap.images import check_writable, save_picture

    check_writable(arguments.sheet)
    sheet = paint_sheet(tile_px=TILE_PX if arguments.size is None else arguments.size)
    save_picture(sheet, arguments.sheet)
    say(one_line(f"{arguments.sheet}: {len(STYLES)} styles, {sheet.width}x{sheet.height}"))
    return 0
