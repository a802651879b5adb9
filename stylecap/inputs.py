"""What is given to the public functions: pictures in any form, named again by their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from stylecap.errors import InputError, OptionError, RecordError
from stylecap.files import file_sha256
from stylecap.images import load_picture, scale_picture, split_alpha, to_image, to_picture
from stylecap.record import BUILTIN, InputRecord, RunRecord
from stylecap.style.builtin import STYLES, style_picture
from stylecap.style.cache import StyleCache
from stylecap.style.options import StyleOptions

#: What can be given as a picture: a path, a PIL picture, or an image (1, 3, H, W) in [0, 1],
#: which is rounded to 8 bits as it would be in a file.
Pictorial = str | Path | Image.Image | Tensor

_WHITE_BLACK = ("#ffffff", "#000000")


def listed_styles(style: Pictorial | Sequence[Pictorial]) -> list[Pictorial]:
    """One style or several, as a list."""
    if isinstance(style, str | Path | Image.Image | Tensor):
        return [style]
    return list(style)


def read_input(
    source: Pictorial, role: str, inputs: list[InputRecord], seed: int = 0
) -> Image.Image:
    """Read an input, and write down what it was."""
    if isinstance(source, Tensor | Image.Image):
        picture = open_picture(source, role)
        digest = hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
        inputs.append(InputRecord(role, "picture", digest.hexdigest()))
        return picture
    entry = _identify(source, role)
    inputs.append(entry)
    if entry.name.startswith(BUILTIN):
        return style_picture(str(source), seed)
    return open_picture(source)


def _identify(source: str | Path, role: str) -> InputRecord:
    """What a path or the name of a built-in style stands for now."""
    path = Path(source)
    if role == "style" and str(source) in STYLES and not path.is_file():
        return InputRecord(role, BUILTIN + str(source), "")
    if role == "style" and not path.exists():
        raise InputError(
            f"style: {str(source)!r} is neither a file nor a built-in style; "
            f"the built-in ones are {', '.join(STYLES)}"
        )
    try:
        if path.is_file():
            return InputRecord(role, path.name, file_sha256(path))
    except (InputError, OSError, ValueError):
        pass
    load_picture(path)
    raise InputError(f"{path}: cannot be read; check its permissions")


def style_image(
    source: Pictorial, options: StyleOptions, inputs: list[InputRecord], cache: StyleCache
) -> Tensor:
    """A style at the size used; read or painted only if the cache does not know it."""
    if isinstance(source, Tensor | Image.Image):
        return reference_image(read_input(source, "style", inputs), options)
    entry = _identify(source, "style")
    inputs.append(entry)
    return cache.get(
        ("style", entry.sha256 or (entry.name, options.seed), options.size, options.style_scale),
        lambda: reference_image(read_input(source, "style", [], options.seed), options),
    )


def open_picture(source: Pictorial, role: str = "picture") -> Image.Image:
    """Whatever was given, as a picture.

    Raises:
        InputError: it cannot be read, or is a tensor of another shape; ``role`` says which it is.
    """
    if isinstance(source, Tensor):
        try:
            return to_picture(source)
        except ValueError as error:
            raise InputError(f"{role} {error}") from error
    return source if isinstance(source, Image.Image) else load_picture(source)


def reference_image(picture: Image.Image, options: StyleOptions) -> Tensor:
    """A style image at the largest size that the options use of it."""
    opaque = split_alpha(picture)[0]
    long_side = round(options.size * options.style_scale)
    return to_image(scale_picture(opaque, max(long_side, 16)))


def region_colors(colors: Sequence[str], count: int) -> tuple[tuple[int, int, int], ...]:
    """The colours of a mask's regions, one for each of ``count`` styles; white and black if none.

    Raises:
        OptionError: another number of colours, one that is no colour, or one twice.
    """
    named = tuple(colors) or _WHITE_BLACK
    if len(named) != count:
        raise OptionError(
            f"mask: {count} styles and {len(named)} colours "
            f"({', '.join(named)}); give one colour for each style"
        )
    parsed = []
    for color in named:
        digits = color.removeprefix("#")
        try:
            red, green, blue = bytes.fromhex(digits)
        except ValueError:
            raise OptionError(f"mask: expected a colour such as #ff8800, got {color!r}") from None
        parsed.append((red, green, blue))
    if len(set(parsed)) < count:
        raise OptionError(f"mask: each style needs its own colour, got {', '.join(named)}")
    return tuple(parsed)


def prepare_style(style: str | Path, options: StyleOptions, cache: StyleCache) -> None:
    """Read or paint a style into a cache, so that `stylize` with these options begins sooner.

    Raises:
        InputError: it is neither a picture that can be read nor a built-in style.
    """
    style_image(style, options, [], cache)


def inputs_from_record(
    record: RunRecord, given: Sequence[str | Path] = (), beside: str | Path = "."
) -> dict[str, Any]:
    """Find a record's inputs again, by their hashes.

    Args:
        record: of a stylization.
        given: files to look among first.
        beside: folder whose files of the recorded names are looked at next.
    Returns:
        The arguments of `stylize` that are not options: ``content``, ``style`` and, where the
        run had them, ``init_image``, ``mask`` and ``mask_colors``.
    Raises:
        RecordError: an input is not there; the message names all that are missing.
    """
    by_hash = {file_sha256(Path(path)): Path(path) for path in given if Path(path).is_file()}
    found: dict[str, list[Any]] = {"content": [], "style": [], "init": [], "mask": []}
    missing = []
    for entry in record.inputs:
        near = Path(beside) / entry.name
        if entry.name.startswith(BUILTIN):
            found[entry.role].append(entry.name.removeprefix(BUILTIN))
        elif entry.sha256 in by_hash:
            found[entry.role].append(by_hash[entry.sha256])
        elif near.is_file() and file_sha256(near) == entry.sha256:
            found[entry.role].append(near)
        else:
            missing.append(f"{entry.role} {entry.name} (sha256 {entry.sha256[:16]}...)")
    if missing:
        raise RecordError(
            f"record: cannot find {'; '.join(missing)}; looked at the files given and in "
            f"{beside}; give the missing files as arguments"
        )
    if not found["content"] or not found["style"]:
        raise RecordError("record: it names no content or no style; it is of another kind of run")
    arguments: dict[str, Any] = {"content": found["content"][0], "style": found["style"]}
    if found["init"]:
        arguments["init_image"] = found["init"][0]
    if found["mask"]:
        arguments["mask"] = found["mask"][0]
        arguments["mask_colors"] = tuple(record.options.get("mask_colors", ()))
    return arguments
