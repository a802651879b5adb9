"""Files, pictures and tensors: what goes in comes out, and what cannot is refused in one line."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile

from stylecap import embedded, images, metadata
from stylecap.errors import InputError, LimitError, OptionError, OutputError

from .pictures import RECORD, difference, noise, one_line, smooth

LOSSLESS = (".png", ".tif", ".tiff", ".bmp")


def png(values: np.ndarray, colour: int, size: tuple[int, int] | None = None) -> bytes:
    """A 16-bit PNG of (H, W, C); ``size`` makes the header lie."""
    height, width = size or values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return (
        metadata.PNG_SIGNATURE
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# ---- formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(images.WRITABLE))
def test_every_format_round_trips(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"별 é {suffix}"
    picture = smooth()
    images.save_picture(picture, path)
    loaded = images.load_picture(path)
    assert loaded.info == {}
    # WebP halves the colour's resolution, whatever its quality; GIF has 256 colours.
    bound = 0 if suffix in LOSSLESS else {".gif": 16, ".webp": 12}.get(suffix, 8)
    assert difference(loaded, picture) <= bound
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_keep_every_value_through_the_profile(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    images.save_picture(noise(64, 64), path)
    assert difference(images.load_picture(path), noise(64, 64)) == 0


def test_equal_pictures_give_equal_files(tmp_path: Path) -> None:
    for suffix in sorted(images.WRITABLE):
        images.save_picture(noise(), tmp_path / f"a{suffix}", record="r")
        images.save_picture(noise(), tmp_path / f"b{suffix}", record="r")
        first = (tmp_path / f"a{suffix}").read_bytes()
        assert first == (tmp_path / f"b{suffix}").read_bytes()


def test_jpeg_is_not_subsampled_and_quality_counts(tmp_path: Path) -> None:
    images.save_picture(noise(96, 96), tmp_path / "a.jpg")
    images.save_picture(noise(96, 96), tmp_path / "b.jpg", quality=30)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert {layer[1:3] for layer in opened.layer} == {(1, 1)}
        assert ImageCms.ImageCmsProfile(io.BytesIO(opened.info["icc_profile"]))
    assert (tmp_path / "b.jpg").stat().st_size < (tmp_path / "a.jpg").stat().st_size / 2
    for quality in (0, 101):
        with pytest.raises(OptionError, match="1 to 100"):
            images.save_picture(noise(), tmp_path / "c.jpg", quality=quality)


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    images.save_picture(noise(), tmp_path / "a.png")
    os.rename(tmp_path / "a.png", tmp_path / "a.jpg")
    assert difference(images.load_picture(tmp_path / "a.jpg"), noise()) == 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_an_animation(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    red, _, blue = np.asarray(images.load_picture(tmp_path / "a"))[8, 8]
    assert red > 245 and blue < 10


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_thin_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    images.save_picture(noise(*size), tmp_path / "a.png")
    assert images.load_picture(tmp_path / "a.png").size == (size[1], size[0])


# ---- depth, colour, alpha ----------------------------------------------------------------------


def test_16_bit_png_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16, 1)
    expected = np.rint(ramp[..., 0] / 257).astype(int)
    for colour, bands in ((0, 1), (2, 3)):
        (tmp_path / "a.png").write_bytes(png(ramp.repeat(bands, axis=2), colour))
        loaded = np.asarray(images.load_picture(tmp_path / "a.png"), int)
        assert np.abs(loaded - expected[..., None]).max() <= 1
        assert (loaded.min(), loaded.max()) == (0, 255)
    for colour, bands in ((4, 2), (6, 4)):
        (tmp_path / "a.png").write_bytes(png(ramp.repeat(bands, axis=2), colour))
        loaded = np.asarray(images.load_picture(tmp_path / "a.png"), int)
        assert loaded.shape == (16, 16, 4)
        assert np.abs(loaded - expected[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 32768, 65535]], np.uint16), [0, 128, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[-100, 0, 155]], np.int32), [0, 100, 255]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 128, 255]], np.float32), [0, 128, 255]),
        (np.array([[0, 500, 1000]], np.float32), [0, 128, 255]),
        (np.array([[0, np.nan, 1]], np.float32), [0, 0, 255]),
        (np.array([[300, 300, 300]], np.float32), [0, 0, 0]),
        (np.array([[70000, 70000]], np.int32), [0, 0]),
    ],
)
def test_wide_grey_tiff_is_scaled(tmp_path: Path, values: np.ndarray, expected: list[int]) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    loaded = np.asarray(images.load_picture(tmp_path / "a.tif"))
    assert loaded[0, :, 0].tolist() == expected


def test_16_bit_transparent_value(tmp_path: Path) -> None:
    data = png(np.array([[[7], [40_000]]], np.uint16), 0)
    body = b"tRNS" + struct.pack(">H", 7)
    chunk = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    at = data.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + chunk + data[at:])
    loaded = images.load_picture(tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0, 0), (156, 156, 156, 255)]


def test_modes_without_alpha(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4), "white")
    for mode, kind in (
        ("1", "PNG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("YCbCr", "JPEG"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("LAB", "TIFF"),
    ):
        source = picture
        if mode == "LAB":
            source = ImageCms.profileToProfile(
                picture,
                ImageCms.createProfile("sRGB"),
                ImageCms.createProfile("LAB"),
                outputMode="LAB",
            )
        source.convert(mode).save(tmp_path / "a", kind)
        loaded = images.load_picture(tmp_path / "a")
        assert difference(loaded, picture) <= 2, (mode, kind)


def test_modes_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("LA", (3, 2), (100, 50)).save(path)
    assert images.load_picture(path).getpixel((0, 0)) == (100, 100, 100, 50)
    Image.new("RGBA", (3, 2), (10, 20, 30, 255)).save(path)
    assert images.load_picture(path).mode == "RGB"  # opaque everywhere
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for transparency in (0, bytes([0, 255])):
        palette.save(path, transparency=transparency)
        loaded = images.load_picture(path)
        assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0, 0), (0, 0, 255, 255)]
    Image.new("1", (2, 1), 1).save(path, transparency=255)
    assert images.load_picture(path).getpixel((0, 0)) == (255, 255, 255, 0)
    rgb = Image.new("RGB", (2, 1), (1, 2, 3))
    rgb.save(path, transparency=(1, 2, 3))
    assert images.load_picture(path).getpixel((0, 0)) == (1, 2, 3, 0)


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_premultiplied_and_palette_alpha(mode: str) -> None:
    picture = Image.new(
        "LA" if mode == "La" else "RGBA",
        (2, 2),
        ((200, 128) if mode == "La" else (200, 200, 200, 128)),
    )
    if mode == "PA":
        source = Image.new("L", (2, 2), 200).convert("P").convert("PA")
        source.putalpha(Image.new("L", (2, 2), 128))
    else:
        source = picture.convert(mode)
    pixel = images._normalise(source).getpixel((0, 0))
    assert np.abs(np.array(pixel) - (200, 200, 200, 128)).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".avif"])
def test_alpha_is_kept(tmp_path: Path, suffix: str) -> None:
    picture = smooth()
    alpha = smooth().getchannel("R")
    images.save_picture(images.join_alpha(picture, alpha), tmp_path / f"a{suffix}")
    loaded = images.load_picture(tmp_path / f"a{suffix}")
    assert loaded.mode == "RGBA"
    assert difference(loaded.getchannel("A"), alpha) <= 4


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_alpha_goes_over_white_where_there_is_none(tmp_path: Path, suffix: str) -> None:
    images.save_picture(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), tmp_path / f"a{suffix}")
    assert images.load_picture(tmp_path / f"a{suffix}").getpixel((4, 4)) == (255, 255, 255)


def test_split_and_join_alpha() -> None:
    rgb, alpha = images.split_alpha(Image.new("RGBA", (4, 2), (0, 0, 0, 51)))
    assert alpha is not None
    assert rgb.getpixel((0, 0)) == (204, 204, 204)  # 255 * (1 - 51 / 255)
    assert images.join_alpha(smooth(20, 40), alpha).getpixel((7, 7))[3] == 51
    assert images.split_alpha(smooth()) == (smooth(), None)
    assert images.join_alpha(rgb, None) is rgb


def _profile(space: str) -> bytes:
    """A profile built by hand: grey with gamma 1, or RGB with red and green exchanged."""
    base = bytearray(images._srgb_profile())
    if space == "RGB":
        (count,) = struct.unpack_from(">I", base, 128)
        places = {bytes(base[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
        red, green = places[b"rXYZ"], places[b"gXYZ"]
        base[red : red + 4], base[green : green + 4] = b"gXYZ", b"rXYZ"
        return bytes(base)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    tags = struct.pack(">I", 2) + struct.pack(
        ">4sII4sII", b"wtpt", 156, 20, b"kTRC", 176, len(curve)
    )
    body = bytes(base[:16]) + b"GRAYXYZ " + bytes(base[24:128]) + tags + white + curve
    return struct.pack(">I", len(body)) + body[4:]


def test_rgb_profile_is_applied(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF"):
        Image.new("RGB", (16, 16), (255, 0, 0)).save(
            tmp_path / "a", kind, icc_profile=_profile("RGB")
        )
        pixel = np.array(images.load_picture(tmp_path / "a").getpixel((8, 8)))
        assert np.abs(pixel - (0, 255, 0)).max() <= 6, kind


def test_grey_profile_is_applied(tmp_path: Path) -> None:
    picture = Image.new("L", (4, 4), 55)
    picture.save(tmp_path / "a.png", icc_profile=_profile("GRAY"))
    linear = 55 / 255
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)  # IEC 61966-2-1: 128
    for value in images.load_picture(tmp_path / "a.png").getpixel((0, 0)):
        assert abs(value - expected) <= 2


def _cmyk_profile() -> bytes:
    """A CMYK profile with a 2-point table: cyan alone decides, full cyan is black."""
    ramp = bytes(range(256))
    grid = bytes([255, 128, 128]) * 8 + bytes([0, 128, 128]) * 8  # Lab, cyan varies slowest
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    table += bytes(-len(table) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"A2B0", 176, len(table))
    base = images._srgb_profile()
    body = base[:8] + struct.pack(">I", 0x02100000) + b"prtrCMYKLab " + base[24:128]
    body += tags + white + table
    return struct.pack(">I", len(body)) + body[4:]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_profile_is_applied(tmp_path: Path, kind: str) -> None:
    for ink, expected in (((255, 0, 0, 0), 0), ((0, 255, 255, 0), 255)):
        picture = Image.new("CMYK", (16, 16), ink)
        picture.save(tmp_path / "a", kind, icc_profile=_cmyk_profile())
        pixel = np.array(images.load_picture(tmp_path / "a").getpixel((8, 8)))
        assert np.abs(pixel - expected).max() <= 4


def test_alpha_survives_a_profile(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 9)).save(tmp_path / "a.png", icc_profile=_profile("RGB"))
    assert images.load_picture(tmp_path / "a.png").getpixel((0, 0)) == (0, 255, 0, 9)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_profile_that_does_not_fit_is_ignored(tmp_path: Path, mode: str) -> None:
    picture = Image.new(mode, (4, 4), 0)
    for profile in (b"no profile", _profile("GRAY" if mode == "RGB" else "RGB")[:200]):
        picture.save(tmp_path / "a.tif", icc_profile=profile)
        assert difference(images.load_picture(tmp_path / "a.tif"), picture.convert("RGB")) == 0


def test_resizing_overshoots_neither_the_usual_range_nor_a_wider_one() -> None:
    """A style whose colours were matched may lie outside; its own range is kept."""
    edges = torch.zeros(1, 3, 32, 32)
    edges[..., 16:] = 1
    for low, high in ((0.0, 1.0), (-0.3, 1.4), (0.4, 0.6)):
        resized = images.resize_image(low + (high - low) * edges, (48, 20))
        assert min(low, 0) - 1e-6 <= float(resized.min()) <= low + 0.01
        assert max(high, 1) + 1e-6 >= float(resized.max()) >= high - 0.01


def test_a_size_is_told_by_the_header_alone(tmp_path: Path) -> None:
    """Nothing is decoded: neither what is cut off nor what would fill the memory."""
    whole = io.BytesIO()
    Image.new("RGB", (640, 480)).save(whole, "PNG")
    data = whole.getvalue()
    at = data.index(b"IDAT")
    (tmp_path / "cut.png").write_bytes(data[: at + 6])
    assert images.picture_size(tmp_path / "cut.png") == (480, 640)
    header = b"IHDR" + struct.pack(">II", 50_000, 40_000) + data[24:29]
    huge = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    (tmp_path / "huge.png").write_bytes(huge)
    assert images.picture_size(tmp_path / "huge.png") == (40_000, 50_000)


# ---- orientation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = Image.new("RGB", (64, 32), "black")
    upright.paste("red", (0, 0, 32, 16))  # one corner tells all eight apart
    upright.paste("white", (32, 0, 64, 16))
    turn = Image.Transpose
    stored = {
        1: lambda p: p,
        2: lambda p: p.transpose(turn.FLIP_LEFT_RIGHT),
        3: lambda p: p.transpose(turn.ROTATE_180),
        4: lambda p: p.transpose(turn.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(turn.TRANSPOSE),
        6: lambda p: p.transpose(turn.ROTATE_90),
        7: lambda p: p.transpose(turn.TRANSVERSE),
        8: lambda p: p.transpose(turn.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a", kind, exif=exif)
    assert images.picture_size(tmp_path / "a") == (32, 64)
    loaded = images.load_picture(tmp_path / "a")
    assert loaded.size == (64, 32)
    corners = [loaded.getpixel(place) for place in ((8, 8), (56, 8), (8, 24), (56, 24))]
    bright = [[value > 127 for value in corner] for corner in corners]
    assert bright == [[True, False, False], [True] * 3, [False] * 3, [False] * 3]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"]
)
def test_damaged_exif_does_not_matter(tmp_path: Path, exif: bytes) -> None:
    smooth().save(tmp_path / "a.jpg", exif=exif)
    assert images.load_picture(tmp_path / "a.jpg").size == (40, 24)
    assert embedded.read_embedded(tmp_path / "a.jpg") is None


# ---- refusals ----------------------------------------------------------------------------------


def test_bomb_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(np.zeros((1, 1, 1)), 0, size=(30_000, 30_000)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(LimitError, match="30000 x 30000") as error:
        images.load_picture(path)
    one_line(error, path)


def test_limit_is_ours_and_not_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.save_picture(smooth(10, 10), tmp_path / "a.png")
    assert images.load_picture(tmp_path / "a.png", max_pixels=100).size == (10, 10)
    with pytest.raises(LimitError):
        images.load_picture(tmp_path / "a.png", max_pixels=99)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert images.load_picture(tmp_path / "a.png").size == (10, 10)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_pillows_bomb_error_becomes_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.save_picture(smooth(10, 10), tmp_path / "a.png")

    def explode(self: Image.Image) -> None:
        raise Image.DecompressionBombError("inner tile too large")

    monkeypatch.setattr(PngImageFile, "load", explode)
    with pytest.raises(LimitError, match="inner tile"):
        images.load_picture(tmp_path / "a.png")


def test_what_is_not_a_picture(tmp_path: Path) -> None:
    cases = {
        "missing.png": (None, "does not exist"),
        "empty.png": (b"", "empty"),
        "text.png": (b"hello, I am no picture\n", "text"),
        "grüße.png": ("grüße".encode() * 200, "text"),
        "bytes.jpg": (bytes(range(256)), "not a picture"),
        "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),
        "line\nbreak.png": (b"", "empty"),
    }
    for name, (data, message) in cases.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        for read in (images.load_picture, embedded.read_embedded):
            with pytest.raises(InputError, match=message) as error:
                read(path)
            assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="folder") as error:
        images.load_picture(tmp_path)
    one_line(error, tmp_path)
    with pytest.raises(InputError):
        images.load_picture("a\0b.png")
    with pytest.raises(InputError):
        images.load_picture("x" * 5000)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="regular file"):
        images.load_picture(tmp_path / "a.png")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    images.save_picture(smooth(), path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="permissions") as error:
        images.load_picture(path)
    one_line(error, path)


def test_heic_without_its_plugin_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(InputError, match=r"pip install 'stylecap\[heic\]'"):
        images.load_picture(tmp_path / "a.heic")


def _encoded(suffix: str) -> bytes:
    return images._encode(noise(20, 20), images._FORMATS[suffix], 90, RECORD)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff", ".avif", ".bmp", ".gif"])
@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_ends_in_a_picture_or_one_line(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    whole = _encoded(suffix)
    cut = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole[:cut] if data.draw(st.booleans()) else whole)
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(damaged)
    for use in (
        lambda: images.load_picture(path, max_pixels=1_000_000),
        lambda: embedded.read_embedded(path),
        lambda: embedded.write_alt_text(path, "words"),
    ):
        try:
            use()
        except (InputError, OutputError) as error:
            assert "\n" not in str(error)
            assert path.name in str(error)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif", ".bmp", ".gif", ".tiff"])
def test_half_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    whole = images._encode(noise(64, 64), images._FORMATS[suffix], 90, None)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged") as error:
        images.load_picture(path)
    one_line(error, path)


# ---- writing -----------------------------------------------------------------------------------


def test_check_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.check_writable(tmp_path / "a.PNG")
    assert os.listdir(tmp_path) == []
    (tmp_path / "folder.png").mkdir()
    for path, message in (
        (tmp_path / "none" / "a.png", "does not exist"),
        (tmp_path / "folder.png", "is a folder"),
        (tmp_path / "a.xyz", "format"),
        (tmp_path / "a", "no suffix"),
    ):
        with pytest.raises(OutputError, match=message) as error:
            images.check_writable(path)
        one_line(error, path)
        with pytest.raises(OutputError):
            images.save_picture(smooth(), path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="may not be written"):
        images.check_writable(tmp_path / "a.png")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.png"
    images.save_picture(smooth(), path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    for change in (
        lambda: images.save_picture(noise(), path),
        lambda: embedded.write_alt_text(path, "words"),
    ):
        with pytest.raises(OutputError, match="No space left") as error:
            change()
        one_line(error, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_failing_encoder_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    images.save_picture(smooth(), path)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("encoder error")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match="encoder error"):
        images.save_picture(noise(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_size_the_format_cannot_hold(tmp_path: Path) -> None:
    for name in ("a.webp", "a.jpg"):
        with pytest.raises(OutputError, match="cannot be encoded"):
            images.save_picture(Image.new("RGB", (70_000, 1)), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_overwrite_links_and_threads(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.save_picture(smooth(), path)
    (tmp_path / "link.png").symlink_to("a.png")
    images.save_picture(noise(), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert difference(images.load_picture(path), noise()) == 0
    workers = [
        threading.Thread(target=images.save_picture, args=(noise(seed=seed), path))
        for seed in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    loaded = images.load_picture(path)
    assert any(difference(loaded, noise(seed=seed)) == 0 for seed in range(4))
    assert sorted(os.listdir(tmp_path)) == ["a.png", "link.png"]


# ---- sizes and tensors ---------------------------------------------------------------------------


def test_fit_long_side_by_hand() -> None:
    assert images.fit_long_side((768, 1024), 512) == (384, 512)
    assert images.fit_long_side((1, 10_000), 512) == (1, 512)
    assert images.fit_long_side((100, 50), 400) == (400, 200)
    for size, side in (((0, 5), 10), ((5, 5), 0)):
        with pytest.raises(ValueError, match="1 or more"):
            images.fit_long_side(size, side)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 3000))
def test_fit_long_side_keeps_the_aspect(height: int, width: int, side: int) -> None:
    new_height, new_width = images.fit_long_side((height, width), side)
    assert max(new_height, new_width) == side
    assert min(new_height, new_width) >= 1
    assert abs(new_height - max(1, height * side / max(height, width))) <= 0.5
    assert abs(new_width - max(1, width * side / max(height, width))) <= 0.5


def test_picture_to_tensor_and_back_is_exact() -> None:
    image = images.to_image(noise())
    assert image.shape == (1, 3, 24, 40)
    assert image.dtype == torch.float32
    assert difference(images.to_picture(image), noise()) == 0
    assert difference(images.to_picture(image[0]), noise()) == 0


def test_to_picture_rounds_half_to_even_and_clamps() -> None:
    values = torch.tensor([0.5, 1.5, 2.5, -300.0, 300.0]).div(255)
    pixels = images.to_picture(values.expand(3, 1, 5))
    assert np.asarray(pixels)[0, :, 0].tolist() == [0, 2, 2, 0, 255]
    for wrong in (torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4), torch.zeros(4, 4)):
        with pytest.raises(ValueError, match="expected"):
            images.to_picture(wrong)
    with pytest.raises(ValueError, match="finite"):
        images.to_picture(torch.full((3, 2, 2), float("nan")))


def test_to_image_puts_alpha_over_white() -> None:
    image = images.to_image(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))
    assert bool((image == 1).all())


def test_resizing() -> None:
    image = images.to_image(noise())
    assert images.resize_image(image, (24, 40)) is image
    smaller = images.resize_image(image, (6, 10))
    assert smaller.shape == (1, 3, 6, 10)
    assert float(smaller.min()) >= 0
    assert float(smaller.max()) <= 1
    flat = images.resize_image(torch.full((1, 3, 8, 8), 0.25), (5, 13))
    assert torch.allclose(flat, torch.tensor(0.25), atol=1e-6)
    assert images.resize_picture(noise(), (6, 10)).size == (10, 6)
    # The colour under transparent pixels must not bleed into the visible ones.
    picture = Image.new("RGBA", (8, 8), (0, 255, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 4, 8))
    resized = np.asarray(images.resize_picture(picture, (4, 4)), int)
    assert resized[..., 1][resized[..., 3] > 0].max() <= 2


# ---- lists of pictures -------------------------------------------------------------------------


def test_list_pictures(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp", "note.txt", ".hidden.png", ".dir/d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    everything = [tmp_path / "a.JPG", tmp_path / "b.png", tmp_path / "sub/c.webp"]
    assert images.list_pictures([tmp_path]) == everything
    assert images.list_pictures([tmp_path / "b.png", tmp_path]) == [
        tmp_path / "b.png",
        tmp_path / "a.JPG",
        tmp_path / "sub/c.webp",
    ]
    assert images.list_pictures([str(tmp_path / "**" / "*.webp")]) == [tmp_path / "sub/c.webp"]
    assert images.list_pictures([tmp_path / "note.txt"]) == [tmp_path / "note.txt"]
    (tmp_path / "empty").mkdir()
    for wrong, message in (
        ("empty", "no picture"),
        ("none.png", "does not exist"),
        ("*.bmp", "no picture"),
    ):
        with pytest.raises(InputError, match=message):
            images.list_pictures([tmp_path / wrong])


def test_the_module_itself_does_not_load_torch() -> None:
    code = "import sys, stylecap.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
