"""`stylecap search`: find pictures of an index by a picture, by a style or by words."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from stylecap.cli.index import INDEX, add_matcher, chosen_matcher
from stylecap.cli.terminal import one_line, say, say_json, table
from stylecap.errors import InputError
from stylecap.studio.options import RerankOptions

if TYPE_CHECKING:
    import numpy as np

    from stylecap.studio.search import Hit, PictureIndex


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
    add_matcher(parser)
    add_rerank(parser, weight=f"{RerankOptions.weight:g}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def add_rerank(parser: argparse.ArgumentParser, *, weight: str) -> None:
    """Add the flags of the captioner's second reading; ``weight`` says what is used without."""
    group = parser.add_argument_group("second reading, of searches by words")
    group.add_argument(
        "--rerank",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the captioner read the nearest again (default)",
    )
    group.add_argument(
        "--candidates",
        metavar="N",
        type=int,
        help=f"how many, about 0.1 s each on a CPU (default {RerankOptions.candidates})",
    )
    group.add_argument(
        "--weight",
        metavar="X",
        type=float,
        help=f"of its log-probability a word, beside the cosine (default: {weight})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from stylecap.images import check_writable
    from stylecap.studio.search import PictureIndex

    if arguments.output is not None:
        check_writable(arguments.output, [arguments.like, arguments.style])
    index = PictureIndex(arguments.index or arguments.folder / INDEX, arguments.folder)
    if not index.folder.is_dir():
        raise InputError(f"{index.folder}: there is no index; run `stylecap index` first")
    space, query = _query(arguments)
    if space == "words" and arguments.rerank:
        hits = _reread(index, query, arguments)
    else:
        hits = index.search(space, query, arguments.count)
    if arguments.output is not None:
        check_writable(arguments.output, [hit.path for hit in hits])
        _draw(hits, arguments.output)
    if arguments.json:
        say_json({"hits": [{**asdict(hit), "path": str(hit.path)} for hit in hits]})
    else:
        rows = [(f"{hit.score:.3f}", _read(hit), one_line(str(hit.path))) for hit in hits]
        say(table(("score", "log-prob", "picture"), rows))
    return 0


def _reread(index: PictureIndex, query: np.ndarray, arguments: argparse.Namespace) -> list[Hit]:
    """The nearest pictures, those that the captioner read again first."""
    from stylecap.backbone import load_backbone
    from stylecap.captioning.captioner_file import load_captioner
    from stylecap.studio.retrieval import rerank_hits

    given = {"candidates": arguments.candidates, "weight": arguments.weight}
    options = RerankOptions(**{name: value for name, value in given.items() if value is not None})
    hits = index.search("words", query, max(arguments.count, options.candidates))
    captioner = load_captioner("vgg16")
    backbone = load_backbone(captioner.backbone_name, runtime=captioner.runtime)
    reread = rerank_hits(hits, arguments.text, captioner, backbone, options)
    return reread[: arguments.count]


def _read(hit: Hit) -> str:
    return "" if hit.log_prob is None else f"{hit.log_prob:.2f}"


def _query(arguments: argparse.Namespace) -> tuple[str, np.ndarray]:
    words = chosen_matcher(arguments.matcher)
    if arguments.text is not None:
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
