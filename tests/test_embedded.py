"""What is kept inside a picture's file: records and descriptions."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylecap import embedded, images, metadata
from stylecap.errors import OutputError

from .pictures import RECORD, difference, noise, one_line, smooth


@pytest.mark.parametrize("suffix", sorted(images.WRITABLE))
@pytest.mark.parametrize("record", [RECORD, "plain ascii", "", "𝄞"])
def test_record_round_trip(tmp_path: Path, suffix: str, record: str) -> None:
    path = tmp_path / f"a{suffix}"
    images.save_picture(smooth(), path, record=record)
    assert images.load_picture(path).size == (40, 24)
    assert embedded.read_embedded(path) == (None if suffix in (".bmp", ".gif") else record)
    images.save_picture(smooth(), path)
    assert embedded.read_embedded(path) is None


def test_record_too_long_for_jpeg(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="save as PNG"):
        images.save_picture(smooth(), tmp_path / "a.jpg", record="x" * 70_000)
    images.save_picture(smooth(), tmp_path / "a.png", record="x" * 70_000)
    assert embedded.read_embedded(tmp_path / "a.png") == "x" * 70_000


def test_record_is_where_other_programs_look(tmp_path: Path) -> None:
    images.save_picture(smooth(), tmp_path / "a.png", record=RECORD)
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.text["stylecap"] == RECORD
    for suffix in (".jpg", ".webp", ".tiff", ".avif"):
        images.save_picture(smooth(), tmp_path / f"a{suffix}", record="é")
        with Image.open(tmp_path / f"a{suffix}") as opened:
            comment = opened.getexif().get_ifd(0x8769)[0x9286]
        assert comment == b"UNICODE\0" + "stylecap:é".encode("utf-16-le")


def test_another_programs_comment_is_no_record(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0taken in Tubingen"
    smooth().save(tmp_path / "a.jpg", exif=exif)
    assert embedded.read_embedded(tmp_path / "a.jpg") is None


@pytest.mark.parametrize("order", ["<", ">"])
@given(text=st.text(max_size=40))
def test_record_coding_is_reversible(order: str, text: str) -> None:
    coded = metadata.encode_record(text, order=order)
    # NUL ends an ASCII comment in other programs' files, so ours may not end in one.
    expected = text.rstrip("\0") if text.isascii() else text
    assert metadata.decode_record(coded, order=order) == expected


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_alt_text_leaves_pixels_and_record(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    picture = images.join_alpha(noise(), smooth().getchannel("R"))
    images.save_picture(picture, path, record=RECORD)
    before = images.load_picture(path)
    for text in ("a longer first text", "ein Hund läuft · 개", "dog"):
        embedded.write_alt_text(path, text)
        assert difference(images.load_picture(path), before) == 0
        assert embedded.read_embedded(path) == RECORD
        with Image.open(path) as opened:
            opened.load()
            assert opened.info.get("icc_profile") == images._srgb_profile()
            if suffix == ".png":
                assert opened.text["Description"] == text
            else:
                stored = opened.getexif()[0x010E]
                assert stored.encode("latin-1").decode("utf-8") == text


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_alt_text_in_a_simple_webp(tmp_path: Path, mode: str, lossless: bool) -> None:
    path = tmp_path / "a.webp"
    picture = images.join_alpha(noise(), smooth().getchannel("R")).convert(mode)
    picture.save(path, lossless=lossless)
    before = images.load_picture(path)
    embedded.write_alt_text(path, "a dog")
    assert difference(images.load_picture(path), before) == 0
    with Image.open(path) as opened:
        assert opened.getexif()[0x010E] == "a dog"


@pytest.mark.parametrize("endian", ["<", ">"])
def test_alt_text_keeps_other_exif_and_the_scan(tmp_path: Path, endian: str) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "a camera's maker"
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x829A] = 0.25
    noise().save(path, exif=exif, comment=b"kept")
    before = path.read_bytes()
    embedded.write_alt_text(path, "a dog")
    after = path.read_bytes()
    assert after[after.index(b"\xff\xdb") :] == before[before.index(b"\xff\xdb") :]
    with Image.open(path) as opened:
        read = opened.getexif()
        assert (read[0x010E], read[0x010F], read[0x0112]) == ("a dog", "a camera's maker", 6)
        assert read.get_ifd(0x8769)[0x829A] == 0.25
        assert opened.info["comment"] == b"kept"


@pytest.mark.parametrize("suffix", [".avif", ".bmp", ".gif"])
def test_alt_text_is_refused_where_it_has_no_place(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    images.save_picture(smooth(), path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="PNG, JPEG, WebP or TIFF") as error:
        embedded.write_alt_text(path, "a dog")
    one_line(error, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_description_is_read_where_it_is_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    Image.new("RGB", (8, 8)).save(path, kind)
    assert embedded.read_alt_text(path) is None
    embedded.write_alt_text(path, "가을, a dog")
    assert embedded.read_alt_text(path) == "가을, a dog"
    embedded.write_alt_text(path, "  ")
    assert embedded.read_alt_text(path) is None


def test_a_description_behind_the_pixels_is_read(tmp_path: Path) -> None:
    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, "PNG")
    data = written.getvalue()
    text = b"tEXtDescription\0by hand"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk + data[-12:])
    assert embedded.read_alt_text(tmp_path / "a.png") == "by hand"
