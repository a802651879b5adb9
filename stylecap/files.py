"""Where files are kept, written whole or not at all, and spoken of in one line."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stylecap.errors import InputError, OutputError

_LONGEST_STEM = 200  # bytes; file systems take 255 for the whole name

#: Of JPEG, WebP and AVIF files, 1 to 100, where nothing else is asked for.
QUALITY = 95


def cache_folder() -> Path:
    """The user's folder for what can be made or fetched again: ``$XDG_CACHE_HOME/stylecap``.

    Raises:
        RuntimeError: neither that variable (default ``~/.cache``) nor a home directory is set.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "stylecap"


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file that appears whole or not.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
    """
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A file beside the target to write instead; it is flushed to the disk and renamed.

    A failure leaves nothing behind.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".stylecap-{secrets.token_hex(8)}.tmp")
    try:
        try:
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            with suppress(OSError):
                os.chmod(temporary, mode)  # whoever wrote it may have made it anew
                shutil.copymode(target, temporary)  # whoever could not read it still cannot
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{named(path)}: cannot be written ({reason_of(error)}); "
            "check the folder and the space on the disk"
        ) from error


def free_name(stem: str, folder: Path = Path()) -> Path:
    """``STEM.png`` in a folder, this one if none is given; ``STEM-2.png`` ... where it is taken."""
    short = os.fsencode(stem)[:_LONGEST_STEM].decode(errors="ignore")
    path, number = folder / f"{short}.png", 2
    while path.exists():
        path, number = folder / f"{short}-{number}.png", number + 1
    return path


def same_place(first: str | Path, second: str | Path) -> bool:
    """Whether two paths name one file, be it there or not; False where they cannot be followed."""
    try:
        if os.path.realpath(first) == os.path.realpath(second):
            return True
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return False


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise InputError(f"{named(path)}: cannot be read: {reason_of(error)}") from error


def named(path: str | Path) -> str:
    """A path for a one-line message: control characters and stray bytes are escaped."""
    return "".join(part if part.isprintable() else repr(part)[1:-1] for part in str(path))


def readable_size(size: int) -> str:
    """Bytes as a person would say them: ``9.87 MB``, ``350 MB``, ``1.2 GB``."""
    unit, name = next(
        ((unit, name) for unit, name in ((10**9, "GB"), (10**6, "MB")) if size >= unit),
        (1000, "kB"),
    )
    return f"{float(f'{size / unit:.3g}'):g} {name}"


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line without the error's number."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
