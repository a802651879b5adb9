"""Text inside a picture's file: the record of a painting, and a description for people.

Both are read and written without coding the pixels anew; `stylecap.metadata` knows the formats.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from PIL import ExifTags

from stylecap import metadata
from stylecap.errors import OutputError
from stylecap.files import named, reason_of, write_atomically
from stylecap.images import check_place, opened, unreadable


def read_embedded(path: str | Path) -> str | None:
    """The record that `save_picture` stored, or None if there is none.

    It lies in the PNG text ``stylecap`` (iTXt, UTF-8) or in the EXIF ``UserComment`` of JPEG,
    WebP, TIFF and AVIF (see `stylecap.metadata`).

    Raises:
        InputError: the file cannot be opened as a picture.
    """
    with opened(path) as picture:
        if picture.format == "PNG":  # its getexif() would decode
            text = picture.info.get("stylecap")
            return str(text) if isinstance(text, str) else None
        try:
            exif = picture.getexif()
            comment = exif.get_ifd(ExifTags.IFD.Exif).get(metadata.USER_COMMENT)
            order = ">" if exif.endian == ">" else "<"
        except Exception:  # damaged EXIF holds no record
            return None
        return metadata.decode_record(comment, order=order) if isinstance(comment, bytes) else None


def read_alt_text(path: str | Path) -> str | None:
    """The description inside a picture's file, or None; where `write_alt_text` puts it.

    Raises:
        InputError: the file cannot be opened as a picture.
    """
    with opened(path) as picture:
        try:
            if picture.format == "PNG":
                picture.load()  # it may stand behind the pixels
                text = picture.info.get("Description")
            else:
                text = picture.getexif().get(metadata.IMAGE_DESCRIPTION)
                if isinstance(text, str):
                    with suppress(UnicodeError):  # Pillow reads it as Latin-1
                        text = text.encode("latin-1").decode()
        except Exception as error:
            raise unreadable(path, error, picture.format) from error
    return (text.strip("\0 \n") or None) if isinstance(text, str) else None


def write_alt_text(path: str | Path, text: str) -> None:
    """Store a description inside a JPEG, PNG, WebP or TIFF file.

    The coded pixels, the profile, the record and all other metadata are copied byte for byte.
    The text goes to EXIF ``ImageDescription`` (UTF-8) or to the PNG text ``Description``.

    Raises:
        InputError: the file cannot be opened as a picture.
        OutputError: its format has no such place (AVIF, BMP, GIF, HEIC, BigTIFF), it is
            malformed, or it cannot be replaced.
    """
    with opened(path) as picture:
        kind = picture.format
    edits: dict[str | None, Callable[[bytes, str], bytes]] = {
        "PNG": metadata.describe_png,
        "WEBP": metadata.describe_webp,
        "JPEG": metadata.describe_jpeg,
        "MPO": metadata.describe_jpeg,
        "TIFF": lambda data, text: metadata.edit_tiff(data, description=text),
    }
    if kind not in edits:
        raise OutputError(
            f"{named(path)}: a description cannot be put into a {kind} file without coding it "
            "anew; convert it to PNG, JPEG, WebP or TIFF"
        )
    check_place(Path(path))
    clean = text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
    try:
        data = edits[kind](Path(path).read_bytes(), clean)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{named(path)}: the description cannot be stored ({reason_of(error)})"
        ) from error
    write_atomically(path, data)
