"""Jobs: which content is painted in which style, with which options, under which name."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from stylecap.errors import InputError, OptionError
from stylecap.images import WRITABLE, list_pictures
from stylecap.options import Option, options_of
from stylecap.style.builtin import STYLES
from stylecap.style.options import PRESETS, StyleOptions

PAIRS = ("all", "zip")
_LONGEST_STEM = 80  # characters of a content's or style's name that go into the result's
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff<>:"|?*\\/]')
_PICTURES = ("content", "style", "mask", "init_image")
_FIELDS = (*_PICTURES, "mask_colors", "output", "preset")


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

    @property
    def inputs(self) -> tuple[tuple[str, str], ...]:
        """(role, path or built-in style) of all that it is made from, as records name them."""
        return (
            ("content", self.content),
            *(("style", style) for style in self.styles),
            *((("init", self.init_image),) if self.init_image else ()),
            *((("mask", self.mask),) if self.mask else ()),
        )


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
    if pair not in PAIRS:
        raise OptionError(f"pair: expected one of {', '.join(PAIRS)}, got {pair!r}")
    if not styles:
        raise OptionError("style: expected at least one")
    photos = [
        found
        for entry in contents
        for found in _contents_in(entry)
        if leave_out is None or not _is_below(found[0], Path(leave_out))
    ]
    if not photos:
        raise InputError("contents: no picture found besides the results; give others")
    manners = [
        found
        for style in map(str, styles)
        for found in ([style] if _is_builtin(style) else map(str, list_pictures([style])))
    ]
    if pair == "zip" and len(photos) != len(manners):
        raise OptionError(
            f"pair: zip needs as many styles as contents, got {len(manners)} styles for "
            f"{len(photos)} contents"
        )
    pairs = (
        list(zip(photos, manners, strict=True))
        if pair == "zip"
        else [(photo, manner) for photo in photos for manner in manners]
    )
    chosen = options or StyleOptions()
    jobs = [
        Job(str(path), (manner,), chosen, _name(below, (manner,), suffix))
        for (path, below), manner in pairs
    ]
    return _told_apart(jobs, set())


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
    option of `StyleOptions`. Paths are relative to the manifest. Results are named as by
    `plan_jobs`, in the folder that the row writes before its content's name.

    Args:
        path: ``.csv`` with a header, ``.jsonl`` with an object a line, or ``.toml`` with
            ``[[job]]`` tables.
        options: values for the rows that do not say otherwise.
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
            made = _jobs_of(row, Path(path).parent, dict(options or {}), styles, suffix)
        except (OptionError, InputError) as error:
            raise type(error)(f"{where}: {error}") from error
        if row.get("output"):
            named.add(made[0].output)
        jobs += made
    if not jobs:
        raise InputError(f"{path}: names no job; give it rows with content and style")
    return _told_apart(jobs, named)


def check_jobs(jobs: Sequence[Job], output: Path) -> None:
    """Refuse jobs that would overwrite each other or what they are made from.

    Raises:
        OptionError: naming the result.
    """
    taken: dict[str, Job] = {}
    inputs = {os.path.realpath(path) for job in jobs for _, path in job.inputs}
    root = os.path.realpath(output)
    for job in jobs:
        check_output(job.output)
        other = taken.setdefault(_folded(job.output), job)
        if other is not job:
            raise OptionError(
                f"output: {job.output} is the result of two jobs, {other.content} and "
                f"{job.content}; name them apart"
            )
        if os.path.join(root, *job.output.split("/")) in inputs:
            raise OptionError(f"output: {job.output} is an input too; choose another output folder")


def check_output(name: str) -> None:
    """Refuse a name that leaves the output folder or is no picture's.

    Raises:
        OptionError: naming it.
    """
    parts = name.split("/")
    if not all(parts) or any(part.startswith(".") or _UNSAFE.search(part) for part in parts):
        raise OptionError(
            f"output: expected a name below the output folder without hidden parts, got {name!r}"
        )
    if PurePosixPath(name).suffix.lower() not in WRITABLE:
        raise OptionError(
            f"output: expected a name that ends in one of {', '.join(sorted(WRITABLE))}, "
            f"got {name!r}"
        )


def _contents_in(entry: str | Path) -> list[tuple[Path, PurePosixPath]]:
    """Pictures that an argument names, each with its place below the folder given."""
    root = Path(entry)
    if not root.is_dir():
        # Below the last folder of a pattern that has no wildcard in it.
        fixed = root.parent
        while glob.has_magic(str(fixed)):
            fixed = fixed.parent
        root = fixed
    return [
        (path, PurePosixPath(path.relative_to(root).as_posix())) for path in list_pictures([entry])
    ]


def _is_builtin(style: str) -> bool:
    return style in STYLES and not Path(style).is_file()


def _is_below(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _name(below: PurePosixPath, styles: Sequence[str], suffix: str) -> str:
    if suffix.lower() not in WRITABLE:
        raise OptionError(f"format: expected one of {', '.join(sorted(WRITABLE))}, got {suffix!r}")
    words = [_clean(below.stem), *(_clean(s if _is_builtin(s) else Path(s).stem) for s in styles)]
    return str(PurePosixPath(*map(_clean, below.parts[:-1]), "-".join(words) + suffix))


def _clean(word: str) -> str:
    """Part of a name that every file system takes."""
    return _UNSAFE.sub("_", word)[:_LONGEST_STEM].strip(". ") or "picture"


def _told_apart(jobs: Sequence[Job], named: set[str]) -> list[Job]:
    """Give jobs called alike a part of a hash, and leave out jobs that come twice.

    The hash is of their inputs, so that a name stays when options change; of the whole job
    where only the options differ.

    Args:
        jobs: in order.
        named: outputs that a person chose; they stay.
    """
    unique = list(dict.fromkeys(jobs))
    for whole in (False, True):
        called = Counter(_folded(job.output) for job in unique)
        alike = [called[_folded(job.output)] > 1 and job.output not in named for job in unique]
        unique = [
            _numbered(job, asdict(job) if whole else job.inputs) if again else job
            for job, again in zip(unique, alike, strict=True)
        ]
    return unique


def _numbered(job: Job, what: Any) -> Job:
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
    place = PurePosixPath(job.output)
    return replace(job, output=str(place.with_name(f"{place.stem}-{digest}{place.suffix}")))


def _folded(name: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", name).casefold()


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
        [tuple(style if _is_builtin(style) else str(folder / style) for style in given)]
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
            output=row.get("output") or _name(below, manner, suffix),
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


def _value(declared: Option, value: Any) -> Any:
    """A value of a manifest; what CSV gives as text becomes the option's kind."""
    if not isinstance(value, str) or (declared.kind is str and not declared.many):
        return value
    parts = [part.strip() for part in value.split(";")] if declared.many else [value]
    try:
        read = tuple(declared.kind(part) for part in parts)
    except ValueError:
        raise OptionError(f"{declared.name}: expected {declared.expected}, got {value!r}") from None
    return read if declared.many else read[0]
