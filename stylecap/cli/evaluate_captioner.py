"""`stylecap evaluate-captioner`: how good captions are, and compared to what."""

from __future__ import annotations

import argparse
from pathlib import Path

from stylecap.captioning.options import CaptionOptions
from stylecap.cli.caption import add_captioner, chosen_captioner
from stylecap.cli.flags import add_options, add_runtime, read_options
from stylecap.cli.terminal import INTERRUPTED, Display, Interruption, one_line, say, table
from stylecap.cli.train_captioner import add_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.usage = "%(prog)s --data PATH [PATH ...] [--split dev] [--report DIR] [options]"
    add_data(parser, required=True)
    parser.add_argument(
        "--split",
        metavar="NAME",
        default="dev",
        choices=("train", "dev", "test"),
        help="pictures to describe: train, dev or test (default dev)",
    )
    add_captioner(parser)
    parser.add_argument(
        "--report",
        metavar="DIR",
        type=Path,
        help="write report.json and report.html with pictures into this folder",
    )
    parser.add_argument("--no-meteor", action="store_true", help="leave METEOR out, the slowest")
    add_options(parser, CaptionOptions)
    add_runtime(parser)
    parser.add_argument("--json", action="store_true", help="print report.json, not the table")
    parser.add_argument("--quiet", action="store_true", help="say nothing but figures and errors")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 130 if it was interrupted."""
    options = read_options(arguments, CaptionOptions)
    from stylecap.captioning.evaluation import evaluate_captioner
    from stylecap.captioning.page import figure_rows, notes

    captioner = chosen_captioner(arguments, options)
    kept = "the features so far are kept in --cache" if arguments.cache else "nothing is kept"
    with (
        Display(quiet=arguments.quiet) as display,
        Interruption(display, kept) as interruption,
    ):
        report = evaluate_captioner(
            captioner,
            arguments.data,
            arguments.split,
            options,
            pictures=arguments.pictures,
            cache=arguments.cache,
            meteor=not arguments.no_meteor,
            on_progress=display,
            should_stop=interruption,
        )
        if report is None:
            return INTERRUPTED
        if arguments.report is not None:
            report.save(arguments.report)
            display.tell(f"{arguments.report / 'report.html'}: pictures, captions and references")
    if arguments.json:
        say(report.to_json())
        return 0
    head, rows = figure_rows(report)
    say(table(head, rows, right=range(1, len(head))))
    if not arguments.quiet:
        for note in notes(report):
            say(one_line(note))
    return 0
