"""A manifest: a file that names jobs, one a row, each with its own options."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from stylecap.batch.jobs import Job, check_output, is_builtin, name_result, told_apart
from stylecap.errors import InputError, OptionError
from stylecap.options import Option, options_of
from stylecap.style.options import PRESETS, StyleOptions

_FIELDS = ("content", "style", "mask", "init_image", "mask_colors", "output", "preset")


def read_manifest(
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    styles: Sequence[str | Path] = (),
    suffix: str = ".png",
) -> list[Job]:
    """Jobs from a file: one a row, each with its own options.

    A row names ``content`` and ``style`` (one, or several: a list, or in CSV separated by
    ``;``), perhaps ``output``, ``mask``, ``mask_colors``, ``init_image``, ``preset``, and any
    option of `StyleOptions`. Paths are relative to the manifest. Results are named as by
    `plan_jobs`, in the folder that the row writes before its content's name.

    Args:
        path: ``.csv`` with a header, ``.jsonl`` with an object a line, or ``.toml`` with
            ``[[job]]`` tables.
        options: values for the rows that do not say otherwise.
        preset: name of one, for the rows that name none.
        styles: for rows without a style, each a job of its own.
        suffix: of results whose row names no output.
    Raises:
        InputError: it cannot be read, or names nothing.
        OptionError: a row has an unknown field or an impossible value; the message names both.
    """
    jobs: list[Job] = []
    named: set[str] = set()
    for where, row in _rows(Path(path)):
        try:
            made = _jobs_of(row, Path(path).parent, dict(options or {}), preset, styles, suffix)
        except (OptionError, InputError) as error:
            raise type(error)(f"{where}: {error}") from error
        if row.get("output"):
            named.add(made[0].output)
        jobs += made
    if not jobs:
        raise InputError(f"{path}: names no job; give it rows with content and style")
    return told_apart(jobs, named)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, values) of each row of a manifest."""
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".toml": _toml_rows}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: expected a manifest that ends in one of {', '.join(readers)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        for where, row in readers[path.suffix.lower()](text):
            if not isinstance(row, dict):
                raise InputError(f"{path}, {where}: expected fields with values, got {row!r:.80}")
            yield f"{path}, {where}", row
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        if isinstance(error, OptionError):
            raise
        raise InputError(f"{path}: cannot be read as a manifest ({error})") from error


def _csv_rows(text: str) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    for row in reader:
        where = f"line {reader.line_num}"
        if None in row:
            raise ValueError(f"{where} has more cells than the header")
        cells = {name.strip(): (cell or "").strip() for name, cell in row.items()}
        if any(cells.values()):
            yield where, {name: cell for name, cell in cells.items() if cell}


def _json_rows(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


def _toml_rows(text: str) -> Iterator[tuple[str, Any]]:
    tables = tomllib.loads(text)
    rows = tables.pop("job", [])
    if tables or not isinstance(rows, list):
        raise ValueError("expected nothing but [[job]] tables")
    for number, row in enumerate(rows, start=1):
        yield f"job {number}", row


def _jobs_of(
    row: dict[str, Any],
    folder: Path,
    base: dict[str, Any],
    usual: str | None,
    styles: Sequence[str | Path],
    suffix: str,
) -> list[Job]:
    known = options_of(StyleOptions)
    unknown = [name for name in row if name not in known and name not in _FIELDS]
    if unknown:
        raise OptionError(f"unknown field {unknown[0]!r}; expected {', '.join((*_FIELDS, *known))}")
    for name in ("content", "output", "mask", "init_image", "preset"):
        if not isinstance(row.get(name, ""), str):
            raise OptionError(f"{name}: expected a text, got {row[name]!r}")
    if "content" not in row:
        raise OptionError("content: expected the path of a picture, got nothing")
    preset = row.get("preset")
    if preset is not None and preset not in PRESETS:
        raise OptionError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    values = {
        **(PRESETS.get(usual or "", {}) if preset is None else {}),
        **base,
        **PRESETS.get(preset or "", {}),
        **{name: _value(known[name], value) for name, value in row.items() if name in known},
    }
    if row.get("init_image"):
        values["init"] = "image"
    given = _texts("style", row.get("style", ()))
    if not given and not styles:
        raise OptionError("style: expected a picture or the name of a built-in style, got nothing")
    manners = (
        [tuple(style if is_builtin(style) else str(folder / style) for style in given)]
        if given
        else [(str(style),) for style in styles]
    )
    chosen = StyleOptions(**values)
    content = PurePosixPath(Path(row["content"]).as_posix())
    inside = not content.is_absolute() and ".." not in content.parts
    below = content if inside else PurePosixPath(content.name)
    if len(manners) > 1 and row.get("output"):
        raise OptionError(f"output: one name for {len(manners)} styles; name one style in the row")
    jobs = [
        Job(
            content=str(folder / row["content"]),
            styles=manner,
            options=chosen,
            output=row.get("output") or name_result(below, manner, suffix),
            mask=str(folder / row["mask"]) if row.get("mask") else "",
            mask_colors=tuple(_texts("mask_colors", row.get("mask_colors", ()))),
            init_image=str(folder / row["init_image"]) if row.get("init_image") else "",
        )
        for manner in manners
    ]
    for job in jobs:
        check_output(job.output)
    return jobs


def _texts(name: str, value: Any) -> list[str]:
    """One text or several: a list, or separated by semicolons."""
    parts = [part.strip() for part in value.split(";")] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(p, str) and p for p in parts):
        raise OptionError(f"{name}: expected a text or a list of texts, got {value!r}")
    return list(parts)


def _truth(word: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
        word.lower()
    ]


def _value(declared: Option, value: Any) -> Any:
    """A value of a manifest; what CSV gives as text becomes the option's kind."""
    if not isinstance(value, str) or (declared.kind is str and not declared.many):
        return value
    parts = [part.strip() for part in value.split(";")] if declared.many else [value]
    kind = _truth if declared.kind is bool else declared.kind
    try:
        read = tuple(kind(part) for part in parts)
    except (KeyError, ValueError):
        raise OptionError(f"{declared.name}: expected {declared.expected}, got {value!r}") from None
    return read if declared.many else read[0]
