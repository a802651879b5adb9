"""`stylecap train-search`: teach which sentences fit a picture, for the search and for captions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stylecap.cli.flags import add_options, add_runtime, read_options
from stylecap.cli.terminal import INTERRUPTED, Display, Interruption, one_line, say, say_json
from stylecap.errors import InputError, OptionError, OutputError
from stylecap.studio.options import SearchTrainOptions

if TYPE_CHECKING:
    from stylecap.captioning.data import CaptionedPicture
    from stylecap.captioning.features import View
    from stylecap.progress import OnProgress, ShouldStop
    from stylecap.studio.train_search import Pairs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.usage = (
        "%(prog)s DATA [-o FILE] [options]\n"
        "       %(prog)s --ensemble FILE FILE [FILE ...] [-o FILE]"
    )
    add_data(parser, required=False)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("matcher.safetensors"),
        help="default matcher.safetensors in this folder",
    )
    parser.add_argument(
        "--ensemble",
        metavar="FILE",
        type=Path,
        nargs="+",
        help="train nothing: join these matchers of the same data into one that asks all of them",
    )
    add_options(parser, SearchTrainOptions)
    add_runtime(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def add_data(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add ``DATA``, ``--pictures`` and ``--cache``."""
    parser.add_argument(
        "data",
        metavar="DATA",
        type=Path,
        nargs="+" if required else "*",
        help="captions, in any form that captioners train on; COCO's are two files",
    )
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, help="if not beside DATA")
    parser.add_argument(
        "--cache",
        metavar="FOLDER",
        type=Path,
        default=Path("out/features"),
        help="keeps the pictures' features (default out/features)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 130 if it was interrupted, with the best epoch so far saved."""
    options = read_options(arguments, SearchTrainOptions)
    if arguments.output.suffix != ".safetensors" or not arguments.output.parent.is_dir():
        raise OutputError(
            f"{arguments.output}: expected a .safetensors file in a folder that is there"
        )
    if arguments.ensemble is not None:
        return _join(arguments)
    if not arguments.data:
        raise OptionError("expected DATA: captioned pictures to learn from; see --help")
    from stylecap.captioning.data import check_pictures, halves, read_all
    from stylecap.captioning.features import VIEWS
    from stylecap.captioning.matching import Matcher
    from stylecap.studio.train_search import Pairs, train_search

    read = read_all(arguments.data, arguments.pictures)
    check_pictures(read)
    view = VIEWS[options.backbone]
    with (
        Display(quiet=arguments.quiet) as display,
        Interruption(display, "features and the best epoch so far are kept") as stop,
    ):
        sets = [
            _pairs(
                [each for each in read if each.split == split],
                arguments,
                view,
                mirrored=options.mirrored and split == "train",
                on_progress=display,
                should_stop=stop,
            )
            for split in ("train", "dev")
        ]
        training, validation = sets
        if training is None or validation is None:
            return INTERRUPTED
        # Every second validation picture chooses the epoch; the others are only reported on.
        chooses = Pairs(halves(validation.summaries)[0], halves(validation.captions)[0])
        model, words, record = train_search(
            training, chooses, options, on_progress=display, should_stop=stop
        )
    if stop.requested and not record["epoch"]:
        return INTERRUPTED  # nothing was learnt; a file of before stays
    Matcher([model], words, view, record=record).save(arguments.output)
    if arguments.json:
        say_json({"output": str(arguments.output), **record})
    elif not arguments.quiet:
        best = record["validation"]
        found = [
            "/".join(f"{value:.1f}" for value in best[side])
            for side in ("image_to_text", "text_to_image")
        ]
        say(
            one_line(
                f"{arguments.output}: epoch {record['epoch']}, R@1/5/10 image to text {found[0]}, "
                f"text to image {found[1]}"
            )
        )
    return INTERRUPTED if stop.requested else 0


def _join(arguments: argparse.Namespace) -> int:
    from stylecap.captioning.matching import join_matchers, load_matcher

    if arguments.data:
        raise OptionError("--ensemble trains nothing; leave DATA out")
    joined = join_matchers([load_matcher(path) for path in arguments.ensemble])
    joined.save(arguments.output)
    size = arguments.output.stat().st_size
    if arguments.json:
        say_json({"output": str(arguments.output), "models": len(joined.models), "bytes": size})
    elif not arguments.quiet:
        say(one_line(f"{arguments.output}: {len(joined.models)} models, {size / 1e6:.1f} MB"))
    return 0


def _pairs(
    pictures: list[CaptionedPicture],
    arguments: argparse.Namespace,
    view: View,
    *,
    mirrored: bool,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> Pairs | None:
    """A split's pictures as the matcher sees them; None if it was stopped."""
    from stylecap.backbone import load_backbone
    from stylecap.captioning.features import FeatureCache
    from stylecap.captioning.matching import summaries
    from stylecap.runtime import Runtime
    from stylecap.studio.train_search import Pairs

    if not pictures:
        named = ", ".join(map(str, arguments.data))
        raise InputError(
            f"{named}: expected pictures for both train and dev; name the file of the other, too"
        )
    runtime = Runtime.choose(arguments.device, arguments.precision)
    backbone = load_backbone(view.backbone, runtime=runtime)
    seen = []
    for flipped in (False, True) if mirrored else (False,):
        features = FeatureCache(arguments.cache).features(
            backbone,
            view,
            [each.path for each in pictures],
            mirrored=flipped,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        if features is None:
            return None
        seen.append(summaries(features))
    return Pairs(seen[0], [each.captions for each in pictures], seen[1] if mirrored else None)
