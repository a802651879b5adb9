"""Jobs: which content is painted in which style, with which options, under which name."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from stylecap.errors import InputError, OptionError
from stylecap.images import WRITABLE, check_format, list_pictures
from stylecap.style.builtin import STYLES
from stylecap.style.options import StyleOptions

#: Folder below the output folder that holds everything but results and reports.
STATE = ".stylecap"
PAIRS = ("all", "zip")
_LONGEST_STEM = 80  # characters of a content's or style's name that go into the result's
_LONGEST_NAME = 200  # bytes of them all; file systems take 255, with the hash and the suffix
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff<>:"|?*\\/]')


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
        leave_out: a folder whose pictures are no contents, such as that of the results, when
            it lies in a folder given.
    Raises:
        OptionError: unknown pairing or suffix, numbers that do not fit for ``"zip"``, or a
            folder given is the one to leave out.
        InputError: a path does not exist or holds no picture.
    """
    if pair not in PAIRS:
        raise OptionError(f"pair: expected one of {', '.join(PAIRS)}, got {pair!r}")
    if not styles:
        raise OptionError("style: expected at least one")
    photos = [found for entry in contents for found in _contents_in(entry, leave_out)]
    if not photos:
        raise InputError("contents: no picture found besides the results; give others")
    manners = [found for style in styles for found in _styles_in(str(style))]
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
        Job(str(path), (manner,), chosen, name_result(below, (manner,), suffix))
        for (path, below), manner in pairs
    ]
    return told_apart(jobs, set())


def check_jobs(jobs: Sequence[Job], output: Path) -> None:
    """Refuse jobs that would overwrite each other or what they are made from.

    Raises:
        OptionError: naming the result.
        OutputError: its format has no place for a picture of that size.
    """
    taken: dict[str, Job] = {}
    inputs = {os.path.realpath(path) for path in {p for job in jobs for _, p in job.inputs}}
    root = os.path.realpath(output)
    for job in jobs:
        check_output(job.output)
        check_format(job.output, job.options.size)
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
    if max(len(part.encode()) for part in parts) > 255:
        raise OptionError(f"output: expected names of at most 255 bytes, got {name!r}")
    if PurePosixPath(name).suffix.lower() not in WRITABLE:
        raise OptionError(
            f"output: expected a name that ends in one of {', '.join(sorted(WRITABLE))}, "
            f"got {name!r}"
        )


def _contents_in(
    entry: str | Path, leave_out: str | Path | None
) -> list[tuple[Path, PurePosixPath]]:
    """Pictures that an argument names, each with its place below the folder given."""
    root = Path(entry)
    if root.is_file():
        return [(root, PurePosixPath(root.name))]
    while glob.has_magic(str(root)) and not root.is_dir():
        root = root.parent  # the last folder of a pattern that has no wildcard in it
    pictures = list_pictures([entry])
    made = _made_by_batches({path.parent for path in pictures}, root)
    found = [
        (path, PurePosixPath(path.relative_to(root).as_posix()))
        for path in pictures
        if path.parent not in made
    ]
    if leave_out is None or not _is_below(Path(leave_out), root):
        return found
    if os.path.realpath(leave_out) == os.path.realpath(root):
        raise OptionError(
            f"output: {leave_out} is the folder of the contents too, where results would be taken "
            "for contents next time; choose another one, such as a folder in it"
        )
    return [(path, below) for path, below in found if not _is_below(path, Path(leave_out))]


def _made_by_batches(folders: Collection[Path], root: Path) -> set[Path]:
    """Those of some folders that lie in the output folder of a batch below the root."""
    made: dict[Path, bool] = {root: False}

    def is_made(folder: Path) -> bool:
        if folder not in made:
            inside = folder.is_relative_to(root) and is_made(folder.parent)
            made[folder] = inside or (folder / STATE).is_dir()
        return made[folder]

    return {folder for folder in folders if is_made(folder)}


def _styles_in(style: str) -> list[str]:
    """Pictures and built-in styles that an argument names."""
    if is_builtin(style):
        return [style]
    if not Path(style).exists() and not glob.has_magic(style):
        raise InputError(
            f"style: {style!r} is neither a file nor a built-in style; the built-in ones are "
            f"{', '.join(STYLES)}"
        )
    return [str(path) for path in list_pictures([style])]


def is_builtin(style: str) -> bool:
    """Whether a style is the name of a built-in one; a file of that name goes first."""
    return style in STYLES and not Path(style).is_file()


def _is_below(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def name_result(below: PurePosixPath, styles: Sequence[str], suffix: str) -> str:
    """``CONTENT-STYLE.SUFFIX`` in the content's folder, in letters that every system takes.

    Args:
        below: place of the content below the folder given.
        styles: files, or names of built-in styles.
        suffix: of the format.
    Raises:
        OptionError: results cannot be written in this format.
    """
    if suffix.lower() not in WRITABLE:
        raise OptionError(f"format: expected one of {', '.join(sorted(WRITABLE))}, got {suffix!r}")
    words = [_clean(below.stem), *(_clean(s if is_builtin(s) else Path(s).stem) for s in styles)]
    name = _cut("-".join(words)) + suffix
    return str(PurePosixPath(*map(_clean, below.parts[:-1]), name))


def _clean(word: str) -> str:
    """Part of a name that every file system takes."""
    return _cut(_UNSAFE.sub("_", word)[:_LONGEST_STEM]).strip(". ") or "picture"


def _cut(name: str) -> str:
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")


def told_apart(jobs: Sequence[Job], named: set[str]) -> list[Job]:
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
