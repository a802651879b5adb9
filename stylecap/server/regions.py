"""Where a painting goes: masks painted on the page, and regions proposed by the backbone."""

from __future__ import annotations

import base64
import filecmp
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from stylecap.errors import InputError
from stylecap.images import load_picture, save_picture, scale_picture, split_alpha
from stylecap.server.painting import Restored, open_picture

if TYPE_CHECKING:
    from stylecap.server.site import Site

LABEL_STEP = 30  # between the grey values of two regions, as page.js reads them
COUNTS = (2, 3, 4, 5, 6)  # of regions that can be asked for
SEEN = "seen.webp"
_SEEN_SIDE_PX = 1024
_MARKED = "marked.png"
_BACKBONE = "vgg16"
_PNG_ADDRESS = "data:image/png;base64,"
_MAX_MASK_PIXELS = 4_000_000


def keep_seen(site: Site, owner: str, path: Path) -> str:
    """Keep a picture in a form and size that every browser shows; the name of its folder.

    Raises:
        LimitError, InputError: it cannot be opened.
    """
    picture = split_alpha(open_picture(path, site.options))[0]
    folder = site.history.new_folder(owner)
    save_picture(scale_picture(picture, _SEEN_SIDE_PX, enlarge=False), folder / SEEN, quality=88)
    return folder.name


def propose(site: Site, owner: str, name: str, count: int) -> str:
    """Divide a picture that `keep_seen` kept; the file with the regions, each a shade of grey.

    Raises:
        InputError: the picture is no longer kept, or has too little in it to be divided.
        OptionError: another number of regions.
    """
    from stylecap.studio import masks

    seen = site.history.file(owner, name, SEEN)
    if seen is None:
        raise InputError("this picture is no longer here; add it again")
    labels = masks.segment(site.backbone(_BACKBONE), load_picture(seen), count)
    shades = Image.fromarray(labels.mul(LABEL_STEP).byte().numpy())
    made = seen.with_name(f"regions-{count}.png")
    save_picture(shades.convert("RGB"), made)
    return made.name


def mark_again(site: Site, owner: str, name: str, photo: Path, before: Restored | None) -> str:
    """Keep the mask of settings that were brought back beside a picture that `keep_seen` kept.

    Returns:
        Its file, like those of `propose`, with the inside as region 1; "" where there is none, or
        where it was painted over another photo.
    Raises:
        InputError: the mask cannot be read.
    """
    folder = site.history.place(owner, name)
    if folder is None or before is None or before.content is None or before.mask is None:
        return ""
    here = before.content.is_file() and before.mask.is_file()
    if not here or not filecmp.cmp(photo, before.content, shallow=False):
        return ""
    inside = load_picture(before.mask, max_pixels=_MAX_MASK_PIXELS).convert("L")
    shades = inside.point([LABEL_STEP * (value >= 128) for value in range(256)])
    save_picture(shades.convert("RGB"), folder / _MARKED)
    return _MARKED


def read_mask(address: str) -> Image.Image:
    """A painted mask as the page sends it, as a black and white picture (mode L).

    Args:
        address: ``data:image/png;base64,...``.
    Raises:
        InputError: it is none.
    """
    if not isinstance(address, str) or not address.startswith(_PNG_ADDRESS):
        raise InputError("mask: expected what was painted on the page")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        try:
            path.write_bytes(base64.b64decode(address.removeprefix(_PNG_ADDRESS), validate=True))
        except ValueError:
            raise InputError("mask: expected what was painted on the page") from None
        drawn = split_alpha(load_picture(path, max_pixels=_MAX_MASK_PIXELS))[0]
    return drawn.convert("L").point([255 * (value >= 128) for value in range(256)])
