"""Every error that stylecap raises on purpose, drawn as a tree.

    StylecapError
    ├── OptionError      an option has a value it cannot have        (also a ValueError)
    ├── InputError       a file or picture cannot be used
    │   └── LimitError   it could be read but is larger than allowed
    ├── OutputError      a result cannot be written where it should go
    ├── WeightsError     a weight file is missing, corrupt or unknown
    ├── RecordError      a run record is missing, unreadable or cannot be repeated
    └── DeviceError      the device asked for is not here, or too small

A message says what came, what was expected and what to do. The command line
turns `OptionError` into exit code 2 and every other one into exit code 1.
"""

from __future__ import annotations


class StylecapError(Exception):
    """Base of all errors that stylecap raises on purpose."""


class OptionError(StylecapError, ValueError):
    """An option has a value it cannot have."""


class InputError(StylecapError):
    """A file or a picture cannot be used."""


class LimitError(InputError):
    """A picture is larger than the limit that guards against decompression bombs."""


class OutputError(StylecapError):
    """A result cannot be written where it should go."""


class WeightsError(StylecapError):
    """A weight file is missing, corrupt or unknown."""


class RecordError(StylecapError):
    """A run record is missing, unreadable or cannot be repeated."""


class DeviceError(StylecapError):
    """The device asked for is not on this machine, or has too little memory."""
