"""`stylecap caption`: describe pictures, files and whole folders, in words."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecap.captioning.options import CaptionOptions
from stylecap.cli.flags import add_options, add_runtime, given_options, read_options
from stylecap.cli.terminal import INTERRUPTED, SOME_FAILED, Display, Interruption, one_line, say
from stylecap.errors import InputError, OptionError, StylecapError
from stylecap.progress import Progress

if TYPE_CHECKING:
    from stylecap.captioning.captioner import Caption, Captioner

_SHOWN = 60  # characters of a description
_FEW = 16  # so many are done before their progress is worth a line
_COLUMNS = ("path", "caption", "log_prob", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.usage = "%(prog)s PATH [PATH ...] [options]"
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="pictures, folders with pictures in them and below, or patterns such as '*.jpg'",
    )
    add_options(parser, CaptionOptions)
    add_captioner(parser)
    add_runtime(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", action="store_true", help="print one JSON object a line for each picture"
    )
    output.add_argument(
        "--csv", metavar="FILE", type=Path, help=f"also write a table: {', '.join(_COLUMNS)}"
    )
    output.add_argument(
        "--attention",
        metavar="FILE",
        type=Path,
        help="draw, for one picture, where the captioner looked for each word",
    )
    output.add_argument(
        "--write-alt-text",
        action="store_true",
        help="put each caption into its picture's file as the description (PNG, JPEG, WebP, "
        "TIFF), where it has none; pixels stay as they are",
    )
    output.add_argument(
        "--replace-alt-text",
        action="store_true",
        help="the same, also where there is a description",
    )
    output.add_argument("--quiet", action="store_true", help="say nothing but captions and errors")


def add_captioner(parser: argparse.ArgumentParser) -> None:
    """Add ``--captioner``."""
    parser.add_argument(
        "--captioner",
        metavar="FILE",
        type=Path,
        help="a captioner of your own, from `stylecap train-captioner`, instead of the one that "
        "comes with --backbone",
    )


def chosen_captioner(arguments: argparse.Namespace, options: CaptionOptions) -> Captioner:
    """Load what ``--captioner`` or ``--backbone`` names, on the device asked for.

    Raises:
        OptionError: both are given and do not agree.
    """
    from stylecap.captioning.captioner_file import load_captioner
    from stylecap.runtime import Runtime

    runtime = Runtime.choose(arguments.device, arguments.precision)
    captioner = load_captioner(arguments.captioner or options.backbone, runtime=runtime)
    asked = given_options(arguments, CaptionOptions).get("backbone", captioner.backbone_name)
    if asked != captioner.backbone_name:
        raise OptionError(
            f"--backbone: {arguments.captioner} was trained on {captioner.backbone_name}, "
            f"got {asked}; leave --backbone out"
        )
    return captioner


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        0; 3 if some of the pictures failed, 1 if none could be read, 130 if interrupted.
    """
    options = read_options(arguments, CaptionOptions)
    listed = _listed(arguments.paths)
    readable = [path for path, error in listed.items() if error is None]
    for flag, target in (("--attention", arguments.attention), ("--csv", arguments.csv)):
        if target is not None and target.exists() and any(map(target.samefile, readable)):
            raise OptionError(f"{flag}: {target} is a picture to be captioned; name another file")
    if arguments.attention is not None:
        _check_drawing(arguments.attention, readable)
    from stylecap.describing import caption_many

    captioner = chosen_captioner(arguments, options)
    read = failed = 0
    stopped = False
    began = time.monotonic()
    # On a terminal the captions themselves show how far it is.
    with (
        _table(arguments.csv) as write_row,
        Display(quiet=arguments.quiet, bar=not sys.stdout.isatty()) as display,
        Interruption(display, "what was printed is kept") as interruption,
    ):
        captions = caption_many(readable, options, captioner=captioner, should_stop=interruption)
        for place, (path, error) in enumerate(listed.items(), 1):
            found = error or next(captions, (path, None))[1]
            if found is None:
                stopped = True
                break
            if isinstance(found, StylecapError):
                failed += 1
                _say_error(path, found, display, as_json=arguments.json)
                write_row((path, "", "", one_line(str(found))))
            else:
                read += 1
                _say_caption(path, found, as_json=arguments.json)
                write_row((path, found.text, f"{found.log_prob:.4f}", ""))
                failed += not _kept(path, found, arguments, display)
            if len(listed) > _FEW:
                seconds = time.monotonic() - began
                display(Progress(place, len(listed), seconds, "captions"))
    if stopped:
        return INTERRUPTED
    if not read:
        return 1
    return SOME_FAILED if failed else 0


def _listed(entries: Sequence[str]) -> dict[Path, StylecapError | None]:
    """What is to be captioned, each once, in order; an entry that names nothing with its error."""
    from stylecap.images import list_pictures

    found: dict[Path, StylecapError | None] = {}
    for entry in entries:
        try:
            found.update(dict.fromkeys(list_pictures([entry])))
        except InputError as error:
            found[Path(entry)] = error
    return found


def _check_drawing(target: Path, pictures: Sequence[Path]) -> None:
    from stylecap.images import check_writable

    if len(pictures) != 1:
        raise OptionError(f"--attention draws one picture, got {len(pictures)}; give one PATH")
    check_writable(target)


@contextmanager
def _table(path: Path | None) -> Iterator[Any]:
    """A function that writes a row, so that it is on the disk at once."""
    if path is None:
        yield lambda row: None
        return
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.writer(stream)

        def write_row(row: Sequence[Any]) -> None:
            writer.writerow(row)
            stream.flush()

        write_row(_COLUMNS)
        yield write_row


def _say_error(path: Path, error: StylecapError, display: Display, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(path), "error": one_line(str(error))}), flush=True)
    else:
        display.warn(f"error: {error}")


def _say_caption(path: Path, caption: Caption, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(path), **_plain(caption)}), flush=True)
    else:
        say(f"{one_line(str(path))}\t{caption.text}")
        sys.stdout.flush()


def _plain(caption: Caption) -> dict[str, Any]:
    """A caption as JSON values."""
    return {
        "caption": caption.text,
        "log_prob": caption.log_prob,
        "words": [{"word": each.word, "prob": each.prob} for each in caption.words],
        "alternatives": [
            {"caption": text, "log_prob": log_prob} for text, log_prob in caption.alternatives
        ],
    }


def _kept(path: Path, caption: Caption, arguments: argparse.Namespace, display: Display) -> bool:
    """Draw and store as asked; False, with a word about it, if the picture's file refused."""
    if arguments.attention is not None:
        from stylecap.captioning.drawing import draw_attention
        from stylecap.images import load_picture, save_picture

        save_picture(draw_attention(load_picture(path), caption), arguments.attention)
        display.tell(f"{arguments.attention}: where it looked for each word")
    if arguments.write_alt_text or arguments.replace_alt_text:
        from stylecap.embedded import read_alt_text, write_alt_text

        try:
            before = None if arguments.replace_alt_text else read_alt_text(path)
            if before is None:
                write_alt_text(path, caption.text)
            else:
                display.tell(
                    f"{path}: keeps its description, {before[:_SHOWN]!r}; "
                    "--replace-alt-text replaces it"
                )
        except StylecapError as error:
            display.warn(f"error: {error}")
            return False
    return True
