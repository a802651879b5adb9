"""`stylecap masks`: divide a photo into regions, each to be painted in its own style."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stylecap.cli.terminal import one_line, say, say_json
from stylecap.errors import OptionError
from stylecap.style.options import DEFAULT_LAYERS

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from stylecap.backbone import Backbone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("photo", metavar="PHOTO", type=Path, help="what is divided")
    parser.add_argument(
        "--regions", metavar="N", type=int, default=4, help="how many (2 to 8; default 4)"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, default=Path("mask.png"), help="the mask"
    )
    parser.add_argument(
        "--match",
        metavar="PAINTING",
        type=Path,
        help="divide this too, match its regions with the photo's, and keep a style picture of "
        "each beside OUT",
    )
    parser.add_argument("--preview", metavar="FILE", type=Path, help="the photo, regions tinted")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="another first guess")
    parser.add_argument(
        "--backbone", metavar="NAME", default="vgg16", help=", ".join(DEFAULT_LAYERS)
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from stylecap.backbone import load_backbone
    from stylecap.images import check_writable, load_picture, save_picture
    from stylecap.studio.masks import COLORS, preview_picture, segment

    photo, output = arguments.photo, arguments.output
    inputs = [photo, arguments.match]
    check_mask(output, inputs)
    if arguments.preview is not None:
        check_writable(arguments.preview, [*inputs, output])
    swatch_paths = [
        output.with_name(f"{output.stem}-style-{number}.png")
        for number in range(1, arguments.regions + 1)
        if arguments.match is not None
    ]
    for path in swatch_paths:
        check_writable(path, [*inputs, arguments.preview])
    picture = load_picture(photo)
    painting = load_picture(arguments.match) if arguments.match is not None else None
    backbone = load_backbone(arguments.backbone)
    labels = segment(backbone, picture, arguments.regions, seed=arguments.seed)
    styles = ["STYLE"] * arguments.regions
    likeness: tuple[float, ...] = ()
    if painting is not None:
        swatches, likeness = _matched(backbone, picture, labels, painting, arguments)
        for path, swatch in zip(swatch_paths, swatches, strict=True):
            save_picture(swatch, path)
        styles = [str(path) for path in swatch_paths]
    save_mask(labels, output)
    if arguments.preview is not None:
        save_picture(preview_picture(picture, labels), arguments.preview)
    colors = COLORS[: arguments.regions]
    shares = [float((labels == region).float().mean()) for region in range(arguments.regions)]
    command = command_of(photo, styles, output, colors)
    if arguments.json:
        say_json(
            {
                "output": str(output),
                "colors": list(colors),
                "shares": shares,
                "likeness": list(likeness),
                "command": command,
            }
        )
        return 0
    sizes = ", ".join(f"{color} {share:.0%}" for color, share in zip(colors, shares, strict=True))
    say(one_line(f"{output}: {picture.width}x{picture.height}, {sizes}"))
    if likeness:
        told = ", ".join(f"{value:.2f}" for value in likeness)
        say(one_line(f"likeness of the matched regions, -1 to 1: {told}"))
    say(one_line(shlex.join(command)))
    return 0


def check_mask(output: Path, inputs: Sequence[Path | None]) -> None:
    """Refuse a place where a mask cannot be written, or a format that would blur it."""
    from stylecap.images import check_writable

    check_writable(output, inputs)
    if output.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif"):
        raise OptionError(f"--output: {output.suffix} blurs a mask's edges; choose .png")


def save_mask(labels: Tensor, output: Path) -> None:
    """Write regions (H, W) as flat colours."""
    from stylecap.images import save_picture
    from stylecap.studio.masks import mask_picture

    save_picture(mask_picture(labels), output)


def command_of(
    photo: Path, styles: Sequence[str], output: Path, colors: Sequence[str]
) -> list[str]:
    """The command that paints each region of a mask in its style."""
    command = ["stylecap", "stylize", str(photo), *styles, "--mask", str(output)]
    return [*command, "--mask-styles", ",".join(colors)]


def _matched(
    backbone: Backbone,
    picture: Image.Image,
    labels: Tensor,
    painting: Image.Image,
    arguments: argparse.Namespace,
) -> tuple[list[Image.Image], tuple[float, ...]]:
    """For each region of the photo, the manner of the painting's region that is like it."""
    from stylecap.studio.masks import match_regions, region_swatch, segment

    theirs = segment(backbone, painting, arguments.regions, seed=arguments.seed)
    match = match_regions(backbone, picture, labels, painting, theirs)
    swatches = [region_swatch(painting, theirs, region) for region in match.regions]
    return swatches, match.likeness
