"""Put text into picture files without decoding their pixels: bytes in, bytes out.

Two texts are known here, and both are opaque strings:

* the *record*, in the EXIF ``UserComment`` (the PNG form is a text chunk that Pillow writes).
  It begins with ``stylecap:``, so that another program's comment is not mistaken for it. ASCII
  text carries the character code ``ASCII``, any other text ``UNICODE`` and UTF-16 in the byte
  order of the EXIF block, as the EXIF standard and its readers have it;
* the *description* (alternative text), in EXIF ``ImageDescription`` as UTF-8, or in a PNG
  ``iTXt`` chunk with the keyword ``Description``.

Tags are added to a TIFF structure (an EXIF block is one) by appending a new directory, so that
every byte that was there keeps its place: thumbnails, maker notes and strips stay valid.
A malformed file raises `ValueError`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

IMAGE_DESCRIPTION = 0x010E
EXIF_DIRECTORY = 0x8769
USER_COMMENT = 0x9286
_ASCII, _LONG, _UNDEFINED = 2, 4, 7

EMPTY_TIFF = b"II*\0" + struct.pack("<IHI", 8, 0, 0)
MARK = "stylecap:"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF_PREFIX = b"Exif\0\0"
# A JPEG segment counts its length in 16 bits, the two of the count included.
JPEG_EXIF_LIMIT = 0xFFFF - 2 - len(EXIF_PREFIX)


def encode_record(record: str, *, order: str = "<") -> bytes:
    """The bytes of a ``UserComment`` that holds ``record``; ``order`` is "<" or ">"."""
    text = MARK + record
    if text.isascii():
        return b"ASCII\0\0\0" + text.encode("ascii")
    return b"UNICODE\0" + text.encode("utf-16-le" if order == "<" else "utf-16-be")


def decode_record(comment: bytes, *, order: str = "<") -> str | None:
    """What `encode_record` was given, or None for a comment that is not ours."""
    code, payload = comment[:8], comment[8:]
    try:
        if code == b"UNICODE\0":
            text = payload.decode("utf-16-le" if order == "<" else "utf-16-be")
        else:
            text = payload.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text.removeprefix(MARK) if text.startswith(MARK) else None


def edit_tiff(tiff: bytes, *, description: str | None = None, record: str | None = None) -> bytes:
    """Set the description or the record in a TIFF file or an EXIF block; keep all else.

    Args:
        tiff: a classic TIFF structure; `EMPTY_TIFF` to begin with nothing.
        description: text for ``ImageDescription``, or None to leave it.
        record: text for the ``UserComment``, or None to leave it.
    Returns:
        ``tiff`` with a new first directory behind its old bytes.
    Raises:
        ValueError: not a classic TIFF structure (BigTIFF is not).
    """
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        raise ValueError("expected a classic TIFF structure")
    order = "<" if tiff[:2] == b"II" else ">"
    output = bytearray(tiff)
    (start,) = _unpack(order + "I", tiff, 4)
    entries, following = _read_directory(tiff, start, order)
    if description is not None:
        text = description.encode("utf-8") + b"\0"
        entries[IMAGE_DESCRIPTION] = _entry(output, order, IMAGE_DESCRIPTION, _ASCII, text)
    if record is not None:
        exif: dict[int, bytes] = {}
        if EXIF_DIRECTORY in entries:
            (exif_start,) = _unpack(order + "I", entries[EXIF_DIRECTORY], 8)
            exif, _ = _read_directory(tiff, exif_start, order)
        comment = encode_record(record, order=order)
        exif[USER_COMMENT] = _entry(output, order, USER_COMMENT, _UNDEFINED, comment)
        exif_start = _append_directory(output, order, exif, 0)
        entries[EXIF_DIRECTORY] = struct.pack(order + "HHII", EXIF_DIRECTORY, _LONG, 1, exif_start)
    start = _append_directory(output, order, entries, following)
    output[4:8] = struct.pack(order + "I", start)
    return bytes(output)


def describe_jpeg(data: bytes, description: str) -> bytes:
    """A JPEG file with its EXIF description set; every other segment is copied."""
    position, insert_at, old_end, tiff = 2, 2, 2, EMPTY_TIFF
    if data[:2] != b"\xff\xd8":
        raise ValueError("expected a JPEG file")
    while True:
        marker, length = _unpack(">HH", data, position)
        if marker < 0xFFC0 or marker == 0xFFD9:
            raise ValueError("expected a JPEG segment")
        end = position + 2 + length
        if marker == 0xFFE1 and data[position + 4 :].startswith(EXIF_PREFIX):
            tiff, insert_at, old_end = data[position + 10 : end], position, end
            break
        if marker == 0xFFE0 and position == 2:
            insert_at = old_end = end  # JFIF's own segment comes first
        if marker == 0xFFDA or end >= len(data):
            break
        position = end
    block = edit_tiff(tiff, description=description)
    if len(block) > JPEG_EXIF_LIMIT:
        raise ValueError(f"the EXIF block would need {len(block)} of {JPEG_EXIF_LIMIT} bytes")
    segment = struct.pack(">HH", 0xFFE1, len(block) + 8) + EXIF_PREFIX + block
    return data[:insert_at] + segment + data[old_end:]


def describe_png(data: bytes, description: str) -> bytes:
    """A PNG file with the text ``Description`` set; every other chunk is copied."""
    if not data.startswith(PNG_SIGNATURE):
        raise ValueError("expected a PNG file")
    output = [PNG_SIGNATURE]
    body = b"Description\0\0\0\0\0" + description.encode("utf-8")
    text = struct.pack(">I", len(body)) + b"iTXt" + body
    text += struct.pack(">I", zlib.crc32(b"iTXt" + body))
    position = len(PNG_SIGNATURE)
    while position < len(data):
        length, kind = _unpack(">I4s", data, position)
        chunk = data[position : position + 12 + length]
        old = kind in (b"tEXt", b"zTXt", b"iTXt") and chunk[8:].startswith(b"Description\0")
        if not old:
            output.append(chunk)
        if kind == b"IHDR":
            output.append(text)
        position += 12 + length
    return b"".join(output)


def describe_webp(data: bytes, description: str) -> bytes:
    """A WebP file with its EXIF description set; the coded pixels are copied."""
    chunks = list(_webp_chunks(data))
    names = [name for name, _ in chunks]
    if "VP8X" not in names:
        chunks.insert(0, ("VP8X", _webp_header(*chunks[0])))
    elif names[0] != "VP8X":
        raise ValueError("expected VP8X as the first WebP chunk")
    header = bytearray(chunks[0][1])
    header[0] |= 0x08  # there is EXIF
    chunks[0] = ("VP8X", bytes(header))
    old = next((body for name, body in chunks if name == "EXIF"), EMPTY_TIFF)
    block = edit_tiff(old.removeprefix(EXIF_PREFIX), description=description)
    chunks = [chunk for chunk in chunks if chunk[0] != "EXIF"]
    place = next((i for i, (name, _) in enumerate(chunks) if name == "XMP "), len(chunks))
    chunks.insert(place, ("EXIF", block))
    body = b"".join(
        name.encode("latin-1") + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2)
        for name, part in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _webp_chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("expected a WebP file")
    position = 12
    while position + 8 <= len(data):
        name, length = _unpack("<4sI", data, position)
        yield name.decode("latin-1"), data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _webp_header(name: str, body: bytes) -> bytes:
    """The VP8X chunk that a simple WebP file does without, from its one chunk of pixels."""
    if name == "VP8 ":
        width, height = (side & 0x3FFF for side in _unpack("<HH", body, 6))
        flags = 0
    elif name == "VP8L":
        (bits,) = _unpack("<I", body, 1)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags = 0x10 if bits >> 28 & 1 else 0  # there is alpha
    else:
        raise ValueError(f"expected WebP pixels, got a chunk {name!r}")
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return struct.pack("<I", flags) + sides


def _read_directory(tiff: bytes, start: int, order: str) -> tuple[dict[int, bytes], int]:
    """The raw 12-byte entries of a directory by tag, and the offset of the next directory."""
    (count,) = _unpack(order + "H", tiff, start)
    entries: dict[int, bytes] = {}
    for index in range(count):
        position = start + 2 + 12 * index
        (tag,) = _unpack(order + "H", tiff, position)
        entries[tag] = tiff[position : position + 12]
    # Some writers leave the last offset out.
    rest = tiff[start + 2 + 12 * count :][:4].ljust(4, b"\0")
    (following,) = struct.unpack(order + "I", rest)
    return entries, following


def _entry(output: bytearray, order: str, tag: int, kind: int, payload: bytes) -> bytes:
    """A directory entry for bytes; more than four of them are appended to ``output``."""
    head = struct.pack(order + "HHI", tag, kind, len(payload))
    if len(payload) <= 4:
        return head + payload.ljust(4, b"\0")
    output += b"\0" * (len(output) % 2)
    place = struct.pack(order + "I", len(output))
    output += payload
    return head + place


def _append_directory(
    output: bytearray, order: str, entries: dict[int, bytes], following: int
) -> int:
    output += b"\0" * (len(output) % 2)
    start = len(output)
    output += struct.pack(order + "H", len(entries))
    for tag in sorted(entries):
        output += entries[tag]
    output += struct.pack(order + "I", following)
    return start


def _unpack(form: str, data: bytes, position: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(form, data, position)
    except struct.error as error:
        raise ValueError("the file ends too early") from error
