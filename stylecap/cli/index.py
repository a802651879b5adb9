"""`stylecap index`: make a folder of pictures searchable."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stylecap.cli.terminal import INTERRUPTED, Display, Interruption, one_line, say, say_json
from stylecap.errors import InputError

if TYPE_CHECKING:
    from stylecap.captioning.matching import Matcher

#: Where a folder's index lies unless another place is named; hidden, so that no picture is.
INDEX = ".stylecap-index"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="of the pictures")
    parser.add_argument(
        "-o", "--output", metavar="INDEX", type=Path, help=f"(default FOLDER/{INDEX})"
    )
    add_matcher(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 130 if it was interrupted, with the pictures so far kept."""
    from stylecap.backbone import load_backbone
    from stylecap.images import list_pictures
    from stylecap.studio.search import PictureEmbedder, PictureIndex

    folder = arguments.folder
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give a folder of pictures")
    paths = list_pictures([folder])
    words = chosen_matcher(arguments.matcher)
    index = PictureIndex(arguments.output or folder / INDEX, folder)
    with Display(quiet=arguments.quiet) as display:
        embedder = PictureEmbedder(load_backbone("vgg16"), words)
        with Interruption(display, "the index so far is kept") as interruption:
            done = index.update(paths, embedder, on_progress=display, should_stop=interruption)
        for path, reason in done.failed[:10]:
            display.tell(f"left out {path}: {reason}")
    if arguments.json:
        failed = [{"path": str(path), "reason": reason} for path, reason in done.failed]
        counts = {"added": done.added, "kept": done.kept, "removed": done.removed}
        say_json({"index": str(index.folder), **counts, "failed": failed, "stopped": done.stopped})
    elif not arguments.quiet:
        counted = f"{done.added} added, {done.kept} kept, {done.removed} removed"
        say(one_line(f"{index.folder}: {counted}, {len(done.failed)} left out"))
    return INTERRUPTED if done.stopped else 0


def add_matcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--matcher``."""
    parser.add_argument(
        "--matcher",
        metavar="FILE",
        help="of your own, from `stylecap train-search`, or a captioner that has one, instead of "
        "the one that comes with stylecap",
    )


def chosen_matcher(file: str | None) -> Matcher:
    """The matcher named, or the one that comes with stylecap."""
    from stylecap.captioning.matching import SEARCH, load_matcher
    from stylecap.studio.search import check_matcher

    matcher = load_matcher(file or SEARCH)
    check_matcher(matcher)
    return matcher
