"""`stylecap search`: find pictures of an index by a picture, by a style or by words."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stylecap.cli.index import INDEX, add_words, load_words
from stylecap.cli.terminal import one_line, say, say_json, table
from stylecap.errors import InputError, WeightsError

if TYPE_CHECKING:
    import numpy as np

    from stylecap.studio.search import Hit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="of the pictures, after `stylecap index FOLDER`"
    )
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--like", metavar="PICTURE", type=Path, help="pictures that show the same")
    query.add_argument("--style", metavar="PICTURE", type=Path, help="pictures painted like this")
    query.add_argument("--words", dest="text", metavar="TEXT", help="pictures of what this says")
    parser.add_argument("--index", metavar="INDEX", type=Path, help=f"(default FOLDER/{INDEX})")
    parser.add_argument("--count", metavar="N", type=int, default=12, help="default 12")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="draw them on a sheet")
    add_words(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from stylecap.images import check_writable
    from stylecap.studio.search import PictureIndex

    if arguments.output is not None:
        check_writable(arguments.output)
    index = PictureIndex(arguments.index or arguments.folder / INDEX, arguments.folder)
    if not index.folder.is_dir():
        raise InputError(f"{index.folder}: there is no index; run `stylecap index` first")
    space, query = _query(arguments)
    hits = index.search(space, query, arguments.count)
    if arguments.output is not None:
        _draw(hits, arguments.output)
    if arguments.json:
        say_json({"hits": [{"path": str(hit.path), "score": hit.score} for hit in hits]})
    else:
        rows = [(f"{hit.score:.3f}", one_line(str(hit.path))) for hit in hits]
        say(table(("score", "picture"), rows))
    return 0


def _query(arguments: argparse.Namespace) -> tuple[str, np.ndarray]:
    words = load_words(arguments.words)
    if arguments.text is not None:
        if words is None:
            raise WeightsError(
                "the search by words needs weights that are not here; train them with "
                "`stylecap train-search` and name them with --words-weights"
            )
        return "words", words.embed_words(arguments.text).numpy()
    from stylecap.backbone import load_backbone
    from stylecap.images import load_picture
    from stylecap.studio.search import PictureEmbedder

    space, path = ("content", arguments.like) if arguments.like else ("style", arguments.style)
    picture = load_picture(path)
    return space, PictureEmbedder(load_backbone("vgg16"), words)(picture)[space]


def _draw(hits: list[Hit], output: Path) -> None:
    from stylecap.drawing import draw_sheet
    from stylecap.images import (
        load_picture,
        save_picture,
        scale_picture,
        split_alpha,
    )

    tiles = []
    for hit in hits:
        picture = split_alpha(load_picture(hit.path))[0]
        small = scale_picture(picture, 200)
        tiles.append((small, f"{hit.score:.3f}\n{hit.path.name}"))
    save_picture(draw_sheet(tiles), output)
