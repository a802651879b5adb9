"""Declare an option once: its default, range and help, for API, flags and web page alike.

A frozen dataclass declares its fields with `option` and calls `validate` in its
``__post_init__``. Command line flags and page controls are generated from `options_of`.
This module imports no torch, so that ``stylecap --help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from stylecap.errors import OptionError

#: Highest start of random numbers.
MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of one option.

    Attributes:
        name: of the dataclass field; its flag is ``--name`` with hyphens.
        kind: ``int``, ``float``, ``str`` or ``bool``.
        many: a tuple of values rather than one.
        optional: None is allowed and means "chosen by the program".
        default: as written in the dataclass.
        help: one sentence.
        minimum, maximum: allowed range, both ends included.
        choices: allowed values, or () for any.
        advanced: folded away on the web page and listed last in ``--help``.
    """

    name: str
    kind: type
    many: bool
    optional: bool
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    advanced: bool

    @property
    def flag(self) -> str:
        """Its command line flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """The allowed values, in words."""
        noun, least, most = _NOUNS[self.kind], self.minimum, self.maximum
        if self.choices:
            words = "one of " + ", ".join(self.choices)
        elif least is not None and most is not None:
            words = f"{noun} from {least:.12g} to {most:.12g}"
        elif least is not None:
            words = f"{noun} of at least {least:.12g}"
        else:
            words = noun
        return f"values, each {words}" if self.many else words


_NOUNS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    advanced: bool = False,
) -> Any:
    """Declare a dataclass field as an option; its type comes from the annotation."""
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "advanced": advanced,
    }
    return field(default=default, metadata=metadata)


@cache
def options_of(options_class: type) -> Mapping[str, Option]:
    """The options that a dataclass declares, by name, in order."""
    hints = typing.get_type_hints(options_class)
    return {
        f.name: _describe(f, hints[f.name])
        for f in dataclasses.fields(options_class)
        if "help" in f.metadata
    }


def _describe(f: dataclasses.Field[Any], hint: Any) -> Option:
    optional = False
    if isinstance(hint, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        (hint,) = members
    many = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if many else hint
    return Option(f.name, kind, many, optional, f.default, **f.metadata)


def validate(options: Any) -> None:
    """Check every declared field of a dataclass instance; for ``__post_init__``.

    Lists become tuples and whole numbers floats where the annotation says so.

    Raises:
        OptionError: naming the field, the value that came and the allowed ones.
    """
    options_class: type = type(options)
    for declared in options_of(options_class).values():
        value = getattr(options, declared.name)
        if value is None and declared.optional:
            continue
        if declared.many:
            if not isinstance(value, list | tuple):
                raise OptionError(f"{declared.name}: expected {declared.expected}, got {value!r}")
            value = tuple(_checked(declared, item) for item in value)
        else:
            value = _checked(declared, value)
        object.__setattr__(options, declared.name, value)


def _checked(declared: Option, value: Any) -> Any:
    refusal = OptionError(f"{declared.name}: expected {declared.expected}, got {value!r}")
    if declared.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    fits: bool = isinstance(value, declared.kind)
    if not fits or isinstance(value, bool) != (declared.kind is bool):
        raise refusal
    if isinstance(value, float) and not math.isfinite(value):
        raise refusal
    if declared.choices and value not in declared.choices:
        raise refusal
    if declared.minimum is not None and value < declared.minimum:
        raise refusal
    if declared.maximum is not None and value > declared.maximum:
        raise refusal
    return value
