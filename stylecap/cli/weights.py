"""`stylecap weights list|verify|fetch`: the pretrained weights on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from stylecap.cli.terminal import one_line, say, table
from stylecap.errors import WeightsError
from stylecap.files import readable_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and flags of the command."""
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    actions.add_parser("list", help="name, size, licence and place of each file")
    verify = actions.add_parser("verify", help="compare size and sha256 with the manifest")
    verify.add_argument("names", metavar="NAME", nargs="*", help="which ones (default all)")
    fetch = actions.add_parser("fetch", help="bring weights that are not shipped")
    fetch.add_argument("name", metavar="NAME", help="as `stylecap weights list` shows")
    fetch.add_argument(
        "--file",
        metavar="FILE",
        type=Path,
        help="take this .safetensors, or torchvision's .pth, instead of downloading",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.action == "list":
        return _list()
    if arguments.action == "verify":
        return _verify(arguments.names)
    from stylecap.weights import fetch

    say(one_line(f"{arguments.name}: {fetch(arguments.name, arguments.file)}"))
    return 0


def _list() -> int:
    from stylecap.weights import FETCHABLE, registry

    known = registry()
    rows = [
        (
            name,
            readable_size(entry.bytes),
            entry.licence,
            one_line(str(path)) if path.is_file() else f"missing: {one_line(str(path))}",
        )
        for name, (entry, path) in known.items()
    ]
    say(table(("name", "size", "licence", "where"), rows, right=(1,)))
    rest = [(name, what.about) for name, what in FETCHABLE.items() if name not in known]
    if rest:
        say("\nto fetch with `stylecap weights fetch NAME`:")
        say("\n".join(f"  {line}" for line in table(("name", "what"), rest).splitlines()))
    return 0


def _verify(names: list[str]) -> int:
    from stylecap.weights import find_weights, registry

    chosen = names or list(registry())
    if not chosen:
        raise WeightsError("weights: there is no manifest to verify; install stylecap again")
    failures: list[str] = []
    for name in chosen:
        try:
            say(one_line(f"{name}: ok, {find_weights(name)}"))
        except WeightsError as error:
            failures.append(str(error))
    if failures:
        raise WeightsError(f"{len(failures)} of {len(chosen)} are not sound: {'; '.join(failures)}")
    return 0
