"""`stylecap quality`: how far a painting kept its content and reached its style."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecap.cli.terminal import remark, say, say_json, table
from stylecap.errors import OptionError, RecordError
from stylecap.style.options import DEFAULT_LAYERS

if TYPE_CHECKING:
    from stylecap.captioning.captioner import Captioner
    from stylecap.studio.quality import QualityCard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("content", metavar="CONTENT", type=Path, help="the photo")
    parser.add_argument("result", metavar="RESULT", type=Path, help="the painting")
    parser.add_argument(
        "style", metavar="STYLE", help="the style picture, or a name from `stylecap styles`"
    )
    parser.add_argument(
        "--painter",
        metavar="NAME",
        help="network that painted, so that another one judges "
        f"({', '.join(DEFAULT_LAYERS)}; default: the one in the result's record, or vgg16)",
    )
    parser.add_argument(
        "--caption",
        action=argparse.BooleanOptionalAction,
        help="compare captions too (default: if a captioner is here)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from stylecap.images import load_picture
    from stylecap.inputs import read_input
    from stylecap.studio.quality import load_judge, quality_card

    painter, style_scale, seed = _painted_by(arguments)
    content, result = (load_picture(path) for path in (arguments.content, arguments.result))
    style = read_input(arguments.style, "style", [], seed)
    card = quality_card(
        content,
        result,
        style,
        load_judge(painter),
        style_scale=style_scale,
        captioner=_captioner(arguments.caption),
    )
    if arguments.json:
        say_json({**asdict(card), "style": card.style})
    else:
        say(card_table(card))
    return 0


def _painted_by(arguments: argparse.Namespace) -> tuple[str, float, int]:
    """Network, style scale and seed, from the record where there is one."""
    from stylecap.cli.show_record import record_of

    options: dict[str, Any] = {}
    try:
        options = record_of(arguments.result).options
    except RecordError:
        if arguments.painter is None:
            remark(f"{arguments.result}: holds no record; taken as painted by vgg16")
    painter = arguments.painter or options.get("backbone", "vgg16")
    if painter not in DEFAULT_LAYERS:
        raise OptionError(
            f"--painter: expected one of {', '.join(DEFAULT_LAYERS)}, got {painter!r}"
        )
    return painter, float(options.get("style_scale", 1.0)), int(options.get("seed", 0))


def _captioner(wanted: bool | None) -> Captioner | None:
    from stylecap.captioning.captioner_file import load_captioner
    from stylecap.errors import WeightsError

    if wanted is False:
        return None
    try:
        return load_captioner("vgg16")
    except WeightsError:
        if wanted:
            raise
        return None


def card_table(card: QualityCard) -> str:
    """The card for people to read."""
    layers = ", ".join(f"{layer} {share:.0%}" for layer, share in card.style_reached.items())
    rows = [
        ("content kept", f"LPIPS {card.content_lpips:.3f}", "0 is the content itself"),
        ("style reached", f"{card.style:.0%}", layers),
        ("colour to style", f"{card.color_to_style:.1f}", "CIELAB units; 2 is just seen"),
        ("colour to content", f"{card.color_to_content:.1f}", ""),
        ("roughness", f"{card.roughness:.2f}", "1 is the rougher of content and style"),
        ("border", f"{card.border:.2f}", "1 is as calm as the content's"),
        ("clipped pixels", f"{card.clipped:.1%}", "more than content or style have"),
    ]
    if card.caption is not None:
        drift = f"{card.caption.nats_per_word:+.2f}"
        rows.append(("caption drift", drift, "nats a word of the content's caption"))
        rows.append(("  content", "", card.caption.content))
        rows.append(("  result", "", card.caption.result))
    return table(("figure", card.judge, "meaning"), rows, right=(1,))
