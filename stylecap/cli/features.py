"""`stylecap features`: what the channels of a layer answer to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stylecap.cli.terminal import INTERRUPTED, Display, Interruption, one_line, say, say_json
from stylecap.errors import OptionError
from stylecap.files import free_name
from stylecap.style.options import DEFAULT_LAYERS

if TYPE_CHECKING:
    from PIL import Image

    from stylecap.backbone import Backbone

_SIZE_PX = 384


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.usage = (
        "%(prog)s PHOTO --layer NAME [-o OUT] [--poolings]\n"
        "       %(prog)s --layer NAME --channel N --folder FOLDER [-o OUT]"
    )
    parser.add_argument("photo", metavar="PHOTO", nargs="?", type=Path, help="what is looked at")
    parser.add_argument(
        "--layer", metavar="NAME", required=True, help="such as conv3_1; see `stylecap layers`"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help="the picture (default features.png in this folder)",
    )
    parser.add_argument("--channel", metavar="N", type=int, help="one channel of the layer, from 0")
    parser.add_argument(
        "--folder",
        metavar="FOLDER",
        help="show the patches of these pictures that excite the channel most",
    )
    parser.add_argument(
        "--poolings",
        action="store_true",
        help="show one channel after max, average and stochastic pooling",
    )
    parser.add_argument(
        "--count", metavar="N", type=int, help="channels shown (default 24), or patches (10)"
    )
    parser.add_argument(
        "--size",
        metavar="PX",
        type=int,
        default=_SIZE_PX,
        help=f"long side at which pictures are seen, in pixels (default {_SIZE_PX})",
    )
    parser.add_argument(
        "--backbone", metavar="NAME", default="vgg16", help=", ".join(DEFAULT_LAYERS)
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 130 if it was interrupted, with what was found so far drawn."""
    _check(arguments)
    from stylecap.backbone import check_layers, load_backbone
    from stylecap.images import check_writable, list_pictures, save_picture

    output = arguments.output or free_name("features")
    shown = [arguments.photo] if arguments.folder is None else list_pictures([arguments.folder])
    check_writable(output, shown)
    check_layers(arguments.backbone, [arguments.layer])
    backbone = load_backbone(arguments.backbone)
    if arguments.folder is not None:
        picture, numbers = _patches(backbone, arguments)
    elif arguments.poolings:
        picture, numbers = _poolings(backbone, arguments)
    else:
        picture, numbers = _maps(backbone, arguments)
    save_picture(picture, output)
    if arguments.json:
        say_json({"output": str(output), "layer": arguments.layer, **numbers})
    elif not arguments.quiet:
        say(one_line(f"{output}: {picture.width}x{picture.height}, {_summary(numbers)}"))
    return INTERRUPTED if numbers.get("stopped") else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.folder is not None:
        if arguments.channel is None:
            raise OptionError("--folder shows what excites one channel; give --channel N too")
        if arguments.photo is not None or arguments.poolings:
            raise OptionError("--folder stands instead of PHOTO and --poolings; give only one")
    elif arguments.photo is None:
        raise OptionError("expected a PHOTO, or --channel N with --folder FOLDER")
    elif arguments.channel is not None and not arguments.poolings:
        raise OptionError("--channel belongs to --folder or --poolings; give one of them")
    if not 16 <= arguments.size <= 4096:
        raise OptionError(f"--size: expected 16 to 4096 pixels, got {arguments.size}")


def _maps(
    backbone: Backbone, arguments: argparse.Namespace
) -> tuple[Image.Image, dict[str, object]]:
    from stylecap.images import load_picture
    from stylecap.studio.explore import feature_maps, feature_sheet, picture_for

    image = picture_for(load_picture(arguments.photo), arguments.size)
    maps = feature_maps(backbone, image, arguments.layer, _count(arguments, 24))
    title = f"{arguments.layer} of {backbone.name}: strongest channels on {arguments.photo.name}"
    channels = [
        {"channel": each.channel, "strength": each.strength, "peak": each.peak} for each in maps
    ]
    return feature_sheet(maps, title), {"channels": channels}


def _poolings(
    backbone: Backbone, arguments: argparse.Namespace
) -> tuple[Image.Image, dict[str, object]]:
    from stylecap.images import load_picture
    from stylecap.studio.explore import compare_poolings, picture_for, pooling_sheet

    image = picture_for(load_picture(arguments.photo), arguments.size)
    pooled = compare_poolings(backbone, image, arguments.layer, channel=arguments.channel)
    title = f"{arguments.layer} of {backbone.name}, channel {pooled[0].channel}, pooled"
    numbers = [
        {"pooling": each.pooling, "size": list(each.size), "mean": each.mean} for each in pooled
    ]
    return pooling_sheet(pooled, title), {"channel": pooled[0].channel, "poolings": numbers}


def _patches(
    backbone: Backbone, arguments: argparse.Namespace
) -> tuple[Image.Image, dict[str, object]]:
    from stylecap.errors import InputError
    from stylecap.images import list_pictures
    from stylecap.studio.explore import exciting_patches, patch_sheet

    paths = list_pictures([arguments.folder])
    with (
        Display(quiet=arguments.quiet) as display,
        Interruption(display, "what was found so far is drawn") as interruption,
    ):
        patches = exciting_patches(
            backbone,
            paths,
            arguments.layer,
            arguments.channel,
            _count(arguments, 10),
            long_side_px=arguments.size,
            on_progress=display,
            should_stop=interruption,
        )
    if not patches and interruption.requested:
        raise KeyboardInterrupt
    if not patches:
        raise InputError(
            f"{arguments.folder}: none of its {len(paths)} pictures excites channel "
            f"{arguments.channel} of {arguments.layer}; choose another channel"
        )
    title = f"{arguments.layer} of {backbone.name}: what excites channel {arguments.channel} most"
    numbers = [
        {"path": str(each.path), "activation": each.activation, "box": list(each.box)}
        for each in patches
    ]
    found = {
        "channel": arguments.channel,
        "patches": numbers,
        "stopped": interruption.requested,
    }
    return patch_sheet(patches, title), found


def _count(arguments: argparse.Namespace, usual: int) -> int:
    return usual if arguments.count is None else int(arguments.count)


def _summary(numbers: dict[str, object]) -> str:
    kind, listed = next((name, value) for name, value in numbers.items() if name != "channel")
    assert isinstance(listed, list)
    return f"{len(listed)} {kind}"
