"""`stylecap classify`: what a photo shows, in ImageNet's words."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from stylecap.cli.terminal import say, say_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("photo", metavar="PHOTO", type=Path, help="what is looked at")
    parser.add_argument(
        "--network",
        metavar="NAME",
        default="vgg16",
        help="alexnet, vgg16 or vgg19 (default vgg16); `stylecap weights fetch vgg16-classifier` "
        "brings its weights",
    )
    parser.add_argument("--count", metavar="N", type=int, default=5, help="labels (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from stylecap.images import load_picture
    from stylecap.studio.recognition import Classifier

    picture = load_picture(arguments.photo)
    guesses = Classifier(arguments.network).classify(picture, arguments.count)
    if arguments.json:
        say_json({"photo": str(arguments.photo), "guesses": [asdict(each) for each in guesses]})
    else:
        say(table(("prob", "label"), [(f"{each.prob:.3f}", each.label) for each in guesses]))
    return 0
