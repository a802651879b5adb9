"""`stylecap ui`: the web page."""

from __future__ import annotations

import argparse
import os
import webbrowser
from importlib import import_module
from typing import Any

from stylecap.cli.flags import add_options, read_options
from stylecap.cli.terminal import say
from stylecap.errors import OptionError
from stylecap.server.options import PageOptions

_AUTH = "STYLECAP_AUTH"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add_options(parser, PageOptions)
    parser.add_argument(
        "--no-auth",
        action="store_true",
        help="let everybody in, though --host can be reached from other machines",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    changes: dict[str, Any] = {}
    if not hasattr(arguments, "auth") and os.environ.get(_AUTH):
        changes["auth"] = os.environ[_AUTH]
    options: PageOptions = read_options(arguments, PageOptions, **changes)
    if not options.is_local and not options.auth and not arguments.no_auth:
        raise OptionError(
            f"--host {options.host} lets other machines in: give --auth NAME:PASSWORD (or set "
            f"{_AUTH}), or say --no-auth if everybody may use this page"
        )
    from stylecap.server.web import serve

    app = import_module("stylecap._ui.page").create_app(options)

    def ready(address: str) -> None:
        say(f"the page is at {address} - Ctrl-C ends it")
        if arguments.open:
            webbrowser.open(address)

    serve(app, options, ready)
    return 0
