"""The same painting from the command line and from Python."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylecap.options import options_of
from stylecap.style.options import StyleOptions


def changed_options(options: StyleOptions) -> dict[str, Any]:
    """The options that differ from their defaults."""
    return {
        name: getattr(options, name)
        for name, declared in options_of(StyleOptions).items()
        if getattr(options, name) != declared.default
    }


def command_line(
    content: str,
    styles: Sequence[str],
    options: StyleOptions,
    init_image: str | None = None,
    mask: str | None = None,
) -> str:
    """The line for a shell that paints this.

    Args:
        content: name of the photo's file.
        styles: built-in names and names of files.
        options: of the painting.
        init_image: name of the file to start from.
        mask: name of the file with the regions.
    """
    words = ["stylecap", "stylize", content, *styles]
    declared = options_of(StyleOptions)
    for name, value in changed_options(options).items():
        flag = declared[name].flag
        if declared[name].kind is bool:
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        else:
            words += [flag, ",".join(map(_plain, value)) if declared[name].many else _plain(value)]
    if init_image is not None:
        words += ["--init-image", init_image]
    if mask is not None:
        words += ["--mask", mask]
    return " ".join(map(shlex.quote, words))


def python_lines(
    content: str,
    styles: Sequence[str],
    options: StyleOptions,
    init_image: str | None = None,
    mask: str | None = None,
) -> str:
    """The lines of Python that paint this."""
    given = repr(styles[0]) if len(styles) == 1 else repr(list(styles))
    changes = ", ".join(f"{name}={value!r}" for name, value in changed_options(options).items())
    start = f", init_image={init_image!r}" if init_image is not None else ""
    start += f", mask={mask!r}" if mask is not None else ""
    return (
        "import stylecap\n\n"
        f"options = stylecap.StyleOptions({changes})\n"
        f"result = stylecap.stylize({content!r}, {given}, options{start})\n"
        f"result.save({(Path(content).stem or 'photo') + '-painted.png'!r})\n"
    )


def _plain(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
