"""File <-> picture <-> image tensor: limits, orientation, colour, alpha, size, atomic save.

A *picture* is a `PIL.Image.Image` in mode RGB or RGBA, upright, sRGB, 8 bits a channel.
An *image* is a float32 tensor (B, 3, H, W), RGB, in [0, 1]. Sizes are (height, width).

Loading goes: open, limits, first frame, alpha aside, 16 bits scaled to 8, ICC profile to sRGB,
RGB, alpha put back, EXIF orientation.
Only the formats named in `READABLE` are tried, so that a picture cannot reach Pillow's other
decoders. Pillow's global limits are neither used nor changed, so that threads may load at once.
"""

from __future__ import annotations

import glob
import io
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from stylecap import metadata
from stylecap.errors import InputError, LimitError, OptionError, OutputError
from stylecap.files import QUALITY, named, reason_of, same_place, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 300_000_000
WRITABLE = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".avif", ".bmp", ".gif"}
)
READABLE = WRITABLE | {".heic", ".heif"}

_FORMATS = {
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
}
_DECODERS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "BMP")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_PLAIN = "PNG, JPEG, WebP, TIFF, AVIF, BMP, GIF or HEIC"
_WEBP_SIDE_PX = 16_383
_MEMORY = "there is too little memory to decode it; give a smaller picture"


def load_picture(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the first frame of a picture file.

    Args:
        path: a file in one of the formats of `READABLE`; its content decides, not its suffix.
        max_pixels: largest width x height that is decoded.
    Returns:
        RGB, or RGBA if any pixel is not opaque; upright, sRGB, 8 bits. 16-bit values are
        scaled. 32-bit integers are taken as 0..65535 and floats as 0..1 or 0..255, where they
        keep to that; otherwise their own range is stretched to 0..255.
    Raises:
        LimitError: more than ``max_pixels``; found from the header, before decoding.
        InputError: missing, not a file, not readable, not a picture, or damaged.
    """
    with opened(path) as picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise LimitError(
                f"{named(path)}: {width} x {height} pixels are more than the limit of "
                f"{max_pixels}; give a smaller picture"
            )
        try:
            picture.load()
            turn = _turn_of(picture)
            upright = _normalise(picture)
            return upright if turn is None else upright.transpose(turn)
        except Exception as error:
            raise unreadable(path, error, picture.format) from error


def picture_size(path: str | Path) -> tuple[int, int]:
    """The (height, width) of what `load_picture` would give, from the file's header alone.

    Raises:
        InputError: it is not there or no picture, as far as the header tells.
    """
    with opened(path) as picture:
        width, height = picture.size
        # Pillow's getexif() would decode a PNG that has none before its pixels.
        told = picture.format != "PNG" or "exif" in picture.info
        turned = told and picture.format != "TIFF" and _turn_of(picture) in _SIDEWAYS
    return (width, height) if turned else (height, width)


def split_alpha(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The picture over white (RGB), and its alpha (mode L), or None if it has none."""
    if not picture.has_transparency_data:
        return picture.convert("RGB"), None
    layered = picture.convert("RGBA")
    alpha = layered.getchannel("A")
    white = Image.new("RGB", picture.size, "white")
    white.paste(layered.convert("RGB"), mask=alpha)
    return white, alpha


def join_alpha(picture: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """Put an alpha channel (mode L) back, resized to fit; None gives the picture as it is."""
    if alpha is None:
        return picture
    joined = picture.convert("RGB")
    joined.putalpha(resize_picture(alpha, (joined.height, joined.width)))
    return joined


def fit_long_side(size: tuple[int, int], long_side_px: int) -> tuple[int, int]:
    """The (height, width) with the aspect of ``size`` whose longer side is ``long_side_px``.

    Raises:
        ValueError: a side is below 1.
    """
    height, width = size
    if min(height, width, long_side_px) < 1:
        raise ValueError(f"sizes: expected 1 or more, got {size} and long side {long_side_px}")
    scale = long_side_px / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_picture(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resample with Lanczos to (height, width); transparent colours do not bleed."""
    height, width = size
    if (picture.height, picture.width) == (height, width):
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def scale_picture(picture: Image.Image, long_side_px: int, *, enlarge: bool = True) -> Image.Image:
    """Resample to a long side, keeping the aspect; smaller pictures stay if not to be enlarged."""
    if not enlarge:
        long_side_px = min(long_side_px, max(picture.size))
    return resize_picture(picture, fit_long_side((picture.height, picture.width), long_side_px))


def to_image(picture: Image.Image) -> Tensor:
    """A picture as a tensor (1, 3, H, W), float32 in [0, 1]; alpha is composited over white."""
    import torch

    rgb, _ = split_alpha(picture)
    values = torch.from_numpy(np.array(rgb))  # (H, W, 3)
    return values.permute(2, 0, 1)[None].to(torch.float32).div(255)  # (1, 3, H, W)


def to_picture(image: Tensor) -> Image.Image:
    """A tensor (1, 3, H, W) or (3, H, W) in [0, 1] as an RGB picture.

    Values outside are clamped; 255 times the value is rounded half to even.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    import torch

    single = image[0] if image.ndim == 4 and image.shape[0] == 1 else image
    if single.ndim != 3 or single.shape[0] != 3:
        raise ValueError(f"image: expected (1, 3, H, W) or (3, H, W), got {tuple(image.shape)}")
    values = single.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("image: expected finite values, got NaN or infinity")
    pixels = values.clamp(0, 1).mul(255).round().to(torch.uint8)  # (3, H, W)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample (B, 3, H, W) to ``size``: bicubic, antialiased.

    What overshoots is clamped to [0, 1], or to the image's own range where that is wider.
    """
    from torch.nn.functional import interpolate

    if tuple(image.shape[-2:]) == tuple(size):
        return image
    resized = interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True)
    least, most = image.aminmax()
    return resized.clamp(least.clamp_max(0), most.clamp_min(1))  # (B, 3, *size)


def check_format(path: str | Path, long_side_px: int = 1) -> None:
    """See whether a path's suffix names a format that takes a picture of this size.

    Raises:
        OutputError: unknown suffix, or too large a picture for the format.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise OutputError(
            f"{named(path)}: {suffix or 'no suffix'!r} is not a format that can be "
            f"written; use one of {', '.join(sorted(WRITABLE))}"
        )
    if suffix == ".webp" and long_side_px > _WEBP_SIDE_PX:
        raise OutputError(
            f"{named(path)}: WebP holds at most {_WEBP_SIDE_PX} pixels a side, not {long_side_px}; "
            "choose .png or .avif"
        )


def check_writable(
    path: str | Path, inputs: Iterable[str | Path | None] = (), *, long_side_px: int = 1
) -> None:
    """See whether a picture can be written to ``path``, before work starts.

    Args:
        path: of the file to write.
        inputs: files that it must not replace.
        long_side_px: of the picture.
    Raises:
        OutputError: unknown suffix, missing or read-only folder, a folder in its place, or a
            picture too large for the format.
        OptionError: it is one of the inputs.
    """
    target = Path(path)
    if "\0" in str(path):
        raise OutputError(f"cannot write {str(path)!r}: a file name cannot hold a zero byte")
    check_format(target, long_side_px)
    check_place(target)
    if any(same_place(entry, target) for entry in inputs if entry is not None):
        raise OptionError(f"output: {named(path)} is an input too; choose another name")


def save_picture(
    picture: Image.Image,
    path: str | Path,
    *,
    quality: int = QUALITY,
    record: str | None = None,
) -> None:
    """Write a picture; the file appears whole or not at all.

    Args:
        picture: RGB or RGBA. JPEG and BMP have no alpha: it is composited over white.
        path: its suffix, one of `WRITABLE`, names the format. A symbolic link is followed.
        quality: 1..100 for JPEG (always 4:4:4), WebP and AVIF; PNG, TIFF and BMP lose nothing,
            GIF is reduced to 256 colours.
        record: text kept inside the file, where `stylecap.embedded` finds it. BMP and GIF cannot
            carry one and are written without.
    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
        OptionError: ``quality`` is out of range.
    """
    if not 1 <= quality <= 100:
        raise OptionError(f"quality: expected 1 to 100, got {quality}")
    check_writable(path)
    try:
        data = _encode(picture, _FORMATS[Path(path).suffix.lower()], quality, record)
    except (OSError, ValueError, MemoryError, RuntimeError, SystemError, struct.error) as error:
        raise OutputError(f"{named(path)}: cannot be encoded ({reason_of(error)})") from error
    write_atomically(path, data)


def list_pictures(paths: Iterable[str | Path]) -> list[Path]:
    """The picture files that files, folders and patterns name, each once.

    A file is taken as it is. A folder gives what is in it and below it with a suffix of
    `READABLE`, sorted, without hidden files; links to other folders are not followed. A pattern
    (``*``, ``?``, ``[...]``, ``**``) gives such files sorted.

    Raises:
        InputError: a path does not exist, a folder in it cannot be listed, or a folder or pattern
            holds no picture.
    """
    found: dict[Path, None] = {}
    for entry in paths:
        path = Path(entry)
        if path.is_dir():
            walked = os.walk(path, onerror=_unlistable)
            below = (Path(folder) / name for folder, _, names in walked for name in names)
            hits = [hit for hit in below if not _hidden(hit.relative_to(path))]
        elif path.exists():
            found[path] = None
            continue
        elif glob.has_magic(str(entry)):
            hits = [Path(hit) for hit in glob.glob(str(entry), recursive=True)]
        else:
            raise InputError(f"{named(path)}: does not exist; check the path")
        hits = sorted(hit for hit in hits if hit.suffix.lower() in READABLE and hit.is_file())
        if not hits:
            raise InputError(f"{named(path)}: no picture found there; expected {_PLAIN} files")
        found.update(dict.fromkeys(hits))
    return list(found)


def _unlistable(error: OSError) -> None:
    """Of a folder: without it some pictures would be missing, and nobody would know."""
    raise InputError(
        f"{named(error.filename)}: cannot be listed ({error.strerror}); check its permissions, or "
        "name the folders beside it"
    ) from error


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """A picture of which only the header has been read.

    Pillow's own `open` would try every decoder it has, and bring its global pixel limit along.

    Raises:
        InputError: the file cannot be opened as a picture.
    """
    name = named(path)
    try:
        place = Path(path)
        if place.is_dir():
            raise InputError(f"{name}: is a folder; give a picture file")
        if place.exists() and not place.is_file():
            raise InputError(f"{name}: is not a regular file; give a picture file")
        stream = place.open("rb")
    except FileNotFoundError:
        raise InputError(f"{name}: does not exist; check the path") from None
    except PermissionError:
        raise InputError(f"{name}: may not be read; check its permissions") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({reason_of(error)})") from error
    with stream:
        try:
            start = stream.read(512)
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({reason_of(error)})") from error
        kind = _format_of(path, start)
        try:
            factory, _ = Image.OPEN[kind]
            stream.seek(0)
            picture = factory(stream, "")
        except Exception as error:
            raise unreadable(path, error, kind) from error
        yield picture


def _format_of(path: str | Path, start: bytes) -> str:
    """Pillow's name of the format that a file's first bytes show."""
    name = named(path)
    if not start:
        raise InputError(f"{name}: is empty (0 bytes); give a picture file")
    Image.init()
    brands = start[8:64]
    if start[4:8] == b"ftyp" and brands[:4] in _HEIF_BRANDS and b"avif" not in brands:
        try:
            import_module("pillow_heif").register_heif_opener()
        except ImportError:
            raise InputError(
                f"{name}: is a HEIC picture, which needs pillow-heif; pip install 'stylecap[heic]'"
            ) from None
        return "HEIF"
    for kind in _DECODERS:
        _, accept = Image.OPEN.get(kind, (None, None))
        if accept is not None and accept(start[:16]) is True:
            return kind
    what = "is text, not a picture" if _is_text(start) else "is not a picture"
    raise InputError(f"{name}: {what}; expected {_PLAIN}")


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8", "ignore" if len(start) == 512 else "strict")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text)


def unreadable(path: str | Path, error: Exception, kind: str | None) -> InputError:
    """What any failure inside Pillow means to the user. Damaged files raise almost anything."""
    if isinstance(error, Image.DecompressionBombError):
        return LimitError(f"{named(path)}: {reason_of(error)}; give a smaller picture")
    if isinstance(error, MemoryError):
        return InputError(f"{named(path)}: {_MEMORY}")
    return InputError(
        f"{named(path)}: damaged or incomplete {kind or 'picture'} file ({reason_of(error)}); "
        "get a sound copy"
    )


def _turn_of(picture: Image.Image) -> Image.Transpose | None:
    """What makes a loaded picture upright (Pillow has turned a TIFF by then)."""
    try:
        return _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block turns nothing
        return None


def _normalise(picture: Image.Image) -> Image.Image:
    """A picture of any mode and profile as 8-bit sRGB, RGB or RGBA."""
    profile = picture.info.get("icc_profile")
    alpha = _alpha_of(picture)
    picture.info.pop("transparency", None)  # or converting would warn of it
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _scale_to_8_bits(picture)
    elif picture.mode in ("La", "RGBa"):
        picture = picture.convert(picture.mode.upper())
    if picture.mode in ("1", "LA"):
        picture = picture.convert("L")
    elif picture.mode not in ("L", "CMYK", "LAB"):
        picture = picture.convert("RGB")
    rgb = _to_srgb(picture, profile)
    rgb.info = {}
    if alpha is not None and alpha.getextrema() != (255, 255):
        rgb.putalpha(alpha)
    return rgb


def _alpha_of(picture: Image.Image) -> Image.Image | None:
    if not picture.has_transparency_data:
        return None
    clear = picture.info.get("transparency")
    if picture.mode.startswith("I") and isinstance(clear, int):
        opaque = np.asarray(picture) != clear
        return Image.fromarray(opaque.astype(np.uint8) * np.uint8(255))
    if picture.mode == "La":
        picture = picture.convert("LA")
    return picture.convert("RGBA").getchannel("A")


def _scale_to_8_bits(picture: Image.Image) -> Image.Image:
    precise = np.float64 if picture.mode == "I" else np.float32
    values = np.nan_to_num(np.asarray(picture, dtype=precise), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    bits = getattr(picture, "tag_v2", {}).get(258, (16,))[0]
    if picture.mode == "F":
        full = 1.0 if high <= 1 else 255.0
    else:
        full = float(2**bits - 1) if 8 < bits < 16 else 65535.0
    if low < 0 or high > full:
        values, full = values - low, (high - low) or 1.0
    return Image.fromarray(np.rint(values * (255 / full)).astype(np.uint8))


def _to_srgb(picture: Image.Image, profile: Any) -> Image.Image:
    """Convert L, RGB, CMYK or LAB by its profile; a profile that does not fit is ignored."""
    source: Any = None
    with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
        if picture.mode == "LAB":
            source = ImageCms.createProfile("LAB")
        elif isinstance(profile, bytes) and profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = source.profile.xcolor_space.strip()
            if space == "RGB" and picture.mode == "L":
                picture = picture.convert("RGB")
            if space != {"L": "GRAY"}.get(picture.mode, picture.mode):
                source = None
        if source is not None:
            converted = ImageCms.profileToProfile(
                picture,
                source,
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if converted is not None:
                return converted
    return picture.convert("RGB")


def _srgb_profile() -> bytes:
    """Little CMS's sRGB profile with a fixed date, so that equal pictures give equal files."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + data[36:]


def _encode(picture: Image.Image, kind: str, quality: int, record: str | None) -> bytes:
    layered = kind not in ("JPEG", "BMP") and "A" in picture.getbands()
    picture = picture.convert("RGBA") if layered else split_alpha(picture)[0]
    options: dict[str, Any] = {}
    if kind not in ("BMP", "GIF"):
        options["icc_profile"] = _srgb_profile()
    if kind in ("JPEG", "WEBP", "AVIF"):
        options["quality"] = quality
        if record is not None:
            block = metadata.edit_tiff(metadata.EMPTY_TIFF, record=record)
            if kind == "JPEG" and len(block) > metadata.JPEG_EXIF_LIMIT:
                raise ValueError(
                    f"the record needs {len(block)} bytes and JPEG holds "
                    f"{metadata.JPEG_EXIF_LIMIT}; save as PNG"
                )
            options["exif"] = metadata.EXIF_PREFIX + block
    if kind in ("JPEG", "AVIF"):
        options["subsampling"] = "4:4:4"
    if kind == "TIFF":
        options["compression"] = "tiff_adobe_deflate"
    if kind == "PNG" and record is not None:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("stylecap", record)
        options["pnginfo"] = text
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    data = stream.getvalue()
    if kind == "TIFF" and record is not None:  # libtiff writes no EXIF directory
        data = metadata.edit_tiff(data, record=record)
    return data


def check_place(target: Path) -> None:
    """See whether a file can be written here, over another one or not.

    Raises:
        OutputError: missing or read-only folder, a read-only file, or a folder in its place.
    """
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"{named(target)}: the folder does not exist; make it first")
    if target.is_dir():
        raise OutputError(f"{named(target)}: is a folder; give the name of a file")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{named(target)}: is read-only; choose another name")
    if not os.access(os.path.dirname(os.path.realpath(target)), os.W_OK | os.X_OK):
        raise OutputError(f"{named(target)}: the folder may not be written to; choose another")
