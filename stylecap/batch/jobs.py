"""Jobs: which content is painted in which style with which options, and how its result is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylecap.style.options import StyleOptions


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to paint.

    Attributes:
        content: file of the photo.
        styles: files or names of built-in styles; several are blended, or painted by the mask.
        options: of the painting.
        output: name of the result below the output folder, with ``/`` between folders and the
            suffix of its format; identifies the job.
        mask, mask_colors, init_image: as for `stylecap.stylize`.
    """

    content: str
    styles: tuple[str, ...]
    options: StyleOptions
    output: str
    mask: str = ""
    mask_colors: tuple[str, ...] = ()
    init_image: str = ""


def plan_jobs(
    contents: Sequence[str | Path],
    styles: Sequence[str | Path],
    options: StyleOptions | None = None,
    *,
    pair: str = "all",
    suffix: str = ".png",
    leave_out: str | Path | None = None,
) -> list[Job]:
    """Every content in every style.

    A result is called ``CONTENT-STYLE.SUFFIX``, in the same folder below the output folder as
    its content is below the folder given. Where two would be called alike, each of them gets
    eight digits of its job's hash, so that a name never depends on the order of the jobs.

    Args:
        contents: files, folders (with all below them) and patterns.
        styles: files, folders, patterns and names of built-in styles.
        options: `StyleOptions()` if None.
        pair: ``"all"`` for every content with every style, ``"zip"`` for the first with the
            first, the second with the second, and so on.
        suffix: names the format of the results.
        leave_out: a folder whose pictures are no contents, such as that of the results.
    Raises:
        OptionError: unknown pairing or suffix, or numbers that do not fit for ``"zip"``.
        InputError: a path does not exist or holds no picture.
    """
    raise NotImplementedError


def read_manifest(
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    *,
    styles: Sequence[str | Path] = (),
    suffix: str = ".png",
) -> list[Job]:
    """Jobs from a file: one a row, each with its own options.

    A row names ``content`` and ``style`` (one, or several: a list, or in CSV separated by
    ``;``), perhaps ``output``, ``mask``, ``mask_colors``, ``init_image``, ``preset``, and any
    option of `StyleOptions`. Paths are relative to the manifest.

    Args:
        path: ``.csv`` with a header, ``.jsonl`` with an object a line, or ``.toml`` with
            ``[[job]]`` tables.
        options: values for the rows that do not say otherwise.
        styles: for rows without a style.
        suffix: of results whose row names no output.
    Raises:
        InputError: it cannot be read; the message names the row.
        OptionError: a row has an unknown field or an impossible value; the message names it.
    """
    raise NotImplementedError
