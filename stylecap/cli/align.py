"""`stylecap align`: where the words of a caption belong in a photo."""

from __future__ import annotations

import argparse
from pathlib import Path

from stylecap.cli.terminal import one_line, say, say_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("photo", metavar="PHOTO", type=Path, help="what is described")
    parser.add_argument(
        "--caption", metavar="TEXT", help="your own sentence (default: the captioner's)"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, default=Path("words.png"), help="the picture"
    )
    parser.add_argument(
        "--captioner",
        metavar="NAME",
        default="vgg16",
        help="vgg16, alexnet, or a .safetensors file of yours (default vgg16)",
    )
    parser.add_argument("--json", action="store_true", help="print the boxes as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from stylecap.backbone import load_backbone
    from stylecap.captioning.captioner_file import load_captioner
    from stylecap.images import check_writable, load_picture, save_picture
    from stylecap.studio.align import align, word_sheet

    check_writable(arguments.output, [arguments.photo])
    picture = load_picture(arguments.photo)
    captioner = load_captioner(arguments.captioner)
    backbone = load_backbone(captioner.backbone_name, runtime=captioner.runtime)
    alignment = align(captioner, backbone, picture, arguments.caption)
    sheet = word_sheet(alignment, picture)
    save_picture(sheet, arguments.output)
    if arguments.json:
        words = [
            {
                "word": word.word,
                "prob": word.prob,
                "looked": word.looked,
                "box": list(word.box),
                "heat": word.heat.tolist(),
            }
            for word in alignment.words
        ]
        say_json({"output": str(arguments.output), "caption": alignment.text, "words": words})
    else:
        say(one_line(f"{arguments.output}: {alignment.text}"))
    return 0
