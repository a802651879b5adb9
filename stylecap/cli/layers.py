"""`stylecap layers`: what each layer of a network gives, costs and sees."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict

from stylecap.cli.terminal import say, say_json, table
from stylecap.style.options import DEFAULT_LAYERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("backbone", metavar="NETWORK", help=", ".join(DEFAULT_LAYERS))
    parser.add_argument(
        "--size",
        metavar="HxW",
        type=_size,
        default=(224, 224),
        help="height and width of the image, in pixels (default 224x224)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from stylecap.backbone import layer_table
    from stylecap.studio.explore import LAYER_COLUMNS, layer_rows

    if arguments.json:
        layers = layer_table(arguments.backbone, arguments.size)
        height, width = arguments.size
        say_json(
            {
                "backbone": arguments.backbone,
                "height": height,
                "width": width,
                "layers": [asdict(layer) for layer in layers],
                "parameters": sum(layer.parameters for layer in layers),
                "multiply_adds": sum(layer.multiply_adds for layer in layers),
            }
        )
        return 0
    say(table(LAYER_COLUMNS, layer_rows(arguments.backbone, arguments.size), right=(1, 2, 3, 4, 5)))
    return 0


def _size(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 224x224, got {text!r}")
    return int(sides[1]), int(sides[2] or sides[1])
