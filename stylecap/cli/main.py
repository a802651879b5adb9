"""`stylecap COMMAND ...`: finds the command, runs it, turns its errors into exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some of many failed, 130 interrupted.
Only the module of the command asked for is imported, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from stylecap import __version__
from stylecap.cli.terminal import FAILED, INTERRUPTED, WRONG_USAGE, one_line
from stylecap.errors import OptionError, StylecapError

#: Name -> (module with ``add_arguments(parser)`` and ``run(arguments) -> int``, one line of help).
COMMANDS: Mapping[str, tuple[str, str]] = {
    "stylize": ("stylecap.cli.stylize", "paint a photo in the style of other pictures"),
    "caption": ("stylecap.cli.caption", "describe photos in words"),
    "train-captioner": (
        "stylecap.cli.train_captioner",
        "teach a captioner from your own captioned pictures",
    ),
    "evaluate-captioner": ("stylecap.cli.evaluate_captioner", "measure how good captions are"),
    "batch": ("stylecap.cli.batch", "paint many photos in many styles; continue where it was"),
    "styles": ("stylecap.cli.styles", "list or draw the built-in styles"),
    "layers": ("stylecap.cli.layers", "sizes, parameters and cost of a network's layers"),
    "features": ("stylecap.cli.features", "show what a layer's channels answer to"),
    "masks": ("stylecap.cli.masks", "divide a photo into regions for painting"),
    "quality": (
        "stylecap.cli.quality",
        "judge what a painting kept and reached",
    ),
    "align": ("stylecap.cli.align", "show where a caption's words belong in a photo"),
    "classify": ("stylecap.cli.classify", "say what a photo shows"),
    "detect": ("stylecap.cli.detect", "find things in a photo, as a mask for painting"),
    "index": ("stylecap.cli.index", "make a folder of pictures searchable"),
    "search": ("stylecap.cli.search", "find pictures by a picture, a style or words"),
    "train-search": ("stylecap.cli.train_search", "teach a matcher which sentences fit a picture"),
    "evaluate-search": (
        "stylecap.cli.evaluate_search",
        "measure how well pictures and sentences find each other",
    ),
    "weights": ("stylecap.cli.weights", "list, verify or fetch pretrained weights"),
    "runtime": ("stylecap.cli.runtime", "show device and precision chosen here, and why"),
    "ui": ("stylecap.cli.ui", "open the web page"),
    "show-record": ("stylecap.cli.show_record", "print how a picture was made"),
}
DEBUG = "STYLECAP_DEBUG"
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # what torch calls them


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises `OptionError` instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise OptionError(f"{message}; see {self.prog} --help")


def build_parser(command: str | None = None) -> Parser:
    """The parser of the whole command line.

    Args:
        command: the one whose flags are added; the others are only listed.
    """
    parser = Parser(
        prog="stylecap",
        description="Paint photos in the style of paintings, and describe them in words.",
        epilog="'stylecap COMMAND --help' shows the flags of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"stylecap {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, (module, summary) in COMMANDS.items():
        added = commands.add_parser(name, help=summary, allow_abbrev=False)
        added.description = summary[0].upper() + summary[1:] + "."
        if name == command:
            import_module(module).add_arguments(added)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; those of the process if None.
    Returns:
        The exit code. Every failure is one line on stderr; with ``STYLECAP_DEBUG=1`` the
        traceback comes before it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault(_HUGE_PAGES, "1")  # a step spends less time on getting its memory
    try:
        with warnings.catch_warnings():
            if not os.environ.get(DEBUG):
                warnings.simplefilter("ignore")
            code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # --help and --version
        return _flushed(leaving.code if isinstance(leaving.code, int) else 0)
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _flushed(FAILED)
    except OptionError as error:
        return _failed(str(error), WRONG_USAGE)
    except StylecapError as error:
        return _failed(str(error), FAILED)
    except MemoryError as error:
        return _failed(f"too little memory; choose a smaller --size ({error})", FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}", FAILED)
    except Exception as error:
        reason = f"unexpected {type(error).__name__}: {error}"
        return _failed(f"{reason}; run with {DEBUG}=1 for the traceback", FAILED)


def _dispatch(arguments: list[str]) -> int:
    asked = next((word for word in arguments if not word.startswith("-")), None)
    parsed = build_parser(asked).parse_args(arguments)
    if parsed.command is None:
        raise OptionError(f"expected a command: {', '.join(COMMANDS)}; see stylecap --help")
    code: int = import_module(COMMANDS[parsed.command][0]).run(parsed)
    return code


def _failed(message: str, code: int) -> int:
    with suppress(OSError, ValueError):  # stderr may be closed
        if os.environ.get(DEBUG):
            traceback.print_exc()
        print(f"stylecap: error: {one_line(message)}", file=sys.stderr, flush=True)
    return _flushed(code)


def _flushed(code: int) -> int:
    """Flush stdout; if nobody reads it any more, keep the interpreter from saying so at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
