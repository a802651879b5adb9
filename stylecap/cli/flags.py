"""Command line flags, generated from the fields of an options class."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from stylecap.errors import OptionError
from stylecap.options import Option, options_of

Options = TypeVar("Options")
Presets = Mapping[str, Mapping[str, Any]]


def add_options(
    parser: argparse.ArgumentParser,
    options_class: type,
    *,
    presets: Presets | None = None,
    title: str = "options of the run",
) -> None:
    """Add a flag for every option, those for experts in a group of their own.

    What is not said on the command line is left out of the parsed arguments, so that a preset
    or a record can fill it.
    """
    usual = parser.add_argument_group(title)
    expert = parser.add_argument_group(f"{title}, for experts")
    if presets is not None:
        usual.add_argument(
            "--preset",
            metavar="NAME",
            help=f"options chosen together, others given change it: {', '.join(presets)}",
        )
    for declared in options_of(options_class).values():
        group = expert if declared.advanced else usual
        described: dict[str, Any] = {
            "dest": declared.name,
            "default": argparse.SUPPRESS,
            "help": _help(declared).replace("%", "%%"),
        }
        if declared.kind is bool:
            group.add_argument(declared.flag, action=argparse.BooleanOptionalAction, **described)
        else:
            group.add_argument(
                declared.flag, type=_reader(declared), metavar=_metavar(declared), **described
            )


def given_options(arguments: argparse.Namespace, options_class: type) -> dict[str, Any]:
    """The options that the command line named, by field name."""
    return {
        name: getattr(arguments, name)
        for name in options_of(options_class)
        if hasattr(arguments, name)
    }


def read_options(
    arguments: argparse.Namespace,
    options_class: type[Options],
    *,
    presets: Presets | None = None,
    base: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Options:
    """Options from defaults, ``base``, ``--preset``, flags and ``changes``; later ones win.

    Raises:
        OptionError: unknown preset, or a value that is not allowed.
    """
    preset: Mapping[str, Any] = {}
    name = getattr(arguments, "preset", None)
    if name is not None:
        if presets is None or name not in presets:
            raise OptionError(f"preset: expected one of {', '.join(presets or ())}, got {name!r}")
        preset = presets[name]
    values = {**(base or {}), **preset, **given_options(arguments, options_class), **changes}
    return options_class(**values)


def plain_options(options: Any) -> dict[str, Any]:
    """An options object as plain values for JSON."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(options).items()
    }


def _help(declared: Option) -> str:
    words = declared.help.rstrip(".")
    default = declared.default
    if declared.many:
        default = ",".join(str(value) for value in default)
    notes = [] if declared.kind is bool else [declared.expected]
    if default is not None and default != "":
        notes.append(f"default {default:g}" if isinstance(default, float) else f"default {default}")
    return f"{words} ({'; '.join(notes)})"


def _metavar(declared: Option) -> str:
    noun = {int: "N", float: "X", str: "NAME" if declared.choices else "TEXT"}[declared.kind]
    return f"{noun},..." if declared.many else noun


def _reader(declared: Option) -> Callable[[str], Any]:
    def read_one(text: str) -> Any:
        try:
            return declared.kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"expected {declared.expected}, got {text[:80]!r}"
            ) from None

    def read_many(text: str) -> tuple[Any, ...]:
        return tuple(read_one(part.strip()) for part in text.split(",")) if text.strip() else ()

    return read_many if declared.many else read_one
