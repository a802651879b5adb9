"""What went wrong, for two readers: a sentence and a number for the page, all for the log."""

from __future__ import annotations

import logging
import re
import secrets
from dataclasses import dataclass

from stylecap.errors import (
    DeviceError,
    InputError,
    LimitError,
    OptionError,
    OutputError,
    RecordError,
    StylecapError,
    WeightsError,
)
from stylecap.server.jobs import BusyError

log = logging.getLogger("stylecap.page")

# The first that fits counts.
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (BusyError, "busy"),
    (LimitError, "limit"),
    (OptionError, "option"),
    (InputError, "input"),
    (OutputError, "output"),
    (RecordError, "record"),
    (WeightsError, "weights"),
    (DeviceError, "device"),
    (StylecapError, "other"),
)
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][^/\\\s:;,'\"()]+)+[/\\]")
_FLAG = re.compile(r"--([a-z]+(?:-[a-z]+)*)")


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure as the page tells it.

    Attributes:
        kind: such as ``input`` or ``busy``; ``unexpected`` for what is our own mistake.
        number: under which the log has the details.
        reason: the library's own sentence without folders of the server; empty if unexpected.
    """

    kind: str
    number: str
    reason: str


def note(error: BaseException) -> Fault:
    """Write an error to the log, and give what may be shown of it."""
    number = secrets.token_hex(4)
    kind = next((name for expected, name in _KINDS if isinstance(error, expected)), "unexpected")
    if kind == "unexpected":
        log.error("%s: unexpected error", number, exc_info=error)
        return Fault(kind, number, "")
    log.warning("%s: %s: %s", number, type(error).__name__, error)
    return Fault(kind, number, public_words(str(error)))


def public_words(message: str) -> str:
    """A message of the library without folders and without the dashes of flags."""
    return _FLAG.sub(lambda flag: flag[1].replace("-", " "), _PATH.sub("", message))
