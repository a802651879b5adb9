"""The built-in styles: repeatable, alike at every size, rich to the edge, refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylecap.errors import OptionError
from stylecap.style import builtin
from stylecap.style.builtin import STYLES, paint_sheet, paint_style, style_picture
from stylecap.style.builtin.canvas import Canvas, blurred, lit, palette, ramp

NAMES = list(STYLES)
LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module")
def paintings() -> dict[str, Image.Image]:
    """Every style once, at 192 px with seed 0."""
    return {name: paint_style(name, (192, 192)) for name in NAMES}


def numbers(picture: Image.Image) -> np.ndarray:
    """A picture as (H, W, 3) from 0 to 255."""
    return np.asarray(picture, dtype=np.float64)


def test_there_are_at_least_eight_styles_each_described_in_one_line() -> None:
    """The list is what the command line prints."""
    assert len(STYLES) >= 8
    assert all(text and "\n" not in text and len(text) < 80 for text in STYLES.values())


@pytest.mark.parametrize("name", NAMES)
def test_same_arguments_same_bytes(name: str, paintings: dict[str, Image.Image]) -> None:
    """Nothing but name, size and seed decides."""
    assert paint_style(name, (192, 192)).tobytes() == paintings[name].tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_is_another_picture_of_the_same_range(
    name: str, paintings: dict[str, Image.Image]
) -> None:
    """A seed changes the picture, not what kind of picture it is."""
    first, second = numbers(paintings[name]), numbers(paint_style(name, (192, 192), seed=1))
    assert np.abs(first - second).mean() > 8
    assert abs(first.mean() - second.mean()) < 45


@pytest.mark.parametrize("name", NAMES)
def test_light_dark_and_colour_fill_the_picture(
    name: str, paintings: dict[str, Image.Image]
) -> None:
    """A style needs light and dark, and texture everywhere, for its Gram matrices to say much."""
    picture = numbers(paintings[name])
    light = picture @ LUMA
    low, high = np.percentile(light, [2, 98])
    assert light.std() > 30
    assert low < 75
    assert high > 165
    chroma = picture.max(axis=2) - picture.min(axis=2)
    assert chroma.mean() > 20
    tiles = light.reshape(8, 24, 8, 24).swapaxes(1, 2).reshape(64, -1).std(axis=1)
    assert np.percentile(tiles, 5) > 7  # no large flat area


@pytest.mark.parametrize("name", NAMES)
def test_no_frame(name: str, paintings: dict[str, Image.Image]) -> None:
    """A border would be carried into every stylized picture."""
    light = numbers(paintings[name]) @ LUMA
    inside = light[8:-8, 8:-8]
    for strip in (light[:3], light[-3:], light[:, :3], light[:, -3:]):
        assert abs(strip.mean() - inside.mean()) < 1.2 * inside.std()
        assert 0.4 < strip.std() / inside.std() < 1.8


@pytest.mark.parametrize("name", NAMES)
def test_large_and_small_show_the_same_painting(
    name: str, paintings: dict[str, Image.Image]
) -> None:
    """Lengths are in units of the side, so reducing the large one gives nearly the small one."""
    large = paint_style(name, (384, 384)).resize((48, 48), Image.Resampling.BOX)
    small = paintings[name].resize((48, 48), Image.Resampling.BOX)
    together = np.corrcoef((numbers(large) @ LUMA).ravel(), (numbers(small) @ LUMA).ravel())
    assert together[0, 1] > 0.85


@given(
    name=st.sampled_from(NAMES),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=10, deadline=None)
def test_every_small_size_is_painted(name: str, height: int, width: int, seed: int) -> None:
    """A single pixel and a thin strip too; sizes are (height, width), Pillow's the other way."""
    picture = paint_style(name, (height, width), seed)
    assert (picture.mode, picture.size) == ("RGB", (width, height))


def test_an_unknown_name_is_refused_with_the_list() -> None:
    """The message says what came and what could have come."""
    with pytest.raises(OptionError, match="'sunflowers'") as caught:
        paint_style("sunflowers")
    assert all(name in str(caught.value) for name in NAMES)
    with pytest.raises(OptionError, match="'sunflowers'"):
        paint_sheet(["mosaic", "sunflowers"])


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (20_000, 10)])
def test_an_impossible_size_is_refused(size: tuple[int, int]) -> None:
    """Both numbers and the range are in the message."""
    with pytest.raises(OptionError, match=f"{size[0]}x{size[1]}"):
        paint_style("mosaic", size)


def test_a_negative_seed_an_empty_sheet_and_a_tiny_tile_are_refused() -> None:
    """Each is named."""
    with pytest.raises(OptionError, match="seed: got -1"):
        paint_style("mosaic", (8, 8), -1)
    with pytest.raises(OptionError, match="names: got none"):
        paint_sheet([])
    with pytest.raises(OptionError, match="tile_px: got 8"):
        paint_sheet(tile_px=8)


def test_the_sheet_shows_the_paintings_themselves() -> None:
    """Two tiles in a row, each the style at that size, with room for a label."""
    sheet = paint_sheet(["mosaic", "crosshatch"], tile_px=64)
    assert sheet.width > 2 * 64
    assert sheet.height > 64
    tile = numbers(paint_style("mosaic", (64, 64)))
    assert np.array_equal(numbers(sheet)[4:68, 4:68], tile)


def test_importing_the_list_loads_neither_numpy_nor_pillow() -> None:
    """``stylecap styles`` must answer at once."""
    code = (
        "import sys; import stylecap.style.builtin as b; assert b.STYLES;"
        "print([m for m in ('numpy', 'PIL', 'torch', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_ramp_by_hand() -> None:
    """Halfway between black and white is grey; beyond the ends are the ends."""
    colors = palette("000000", "ffffff")
    assert ramp(colors, np.array([-1.0, 0.0, 0.5, 2.0]))[:, 0].tolist() == [0, 0, 127.5, 255]


def test_cells_know_their_point_and_their_border() -> None:
    """Where the cell changes between neighbours, the border is nearer than a pixel."""
    canvas = Canvas((64, 64), 3)
    cells = canvas.cells(6.0)
    assert cells.edge.min() >= -1e-6
    changes = cells.id[:, 1:] != cells.id[:, :-1]
    assert changes.any()
    assert cells.edge[:, 1:][changes].max() <= 1.01 / canvas.px


def test_flat_paint_stays_as_it_is() -> None:
    """Neither light nor blur changes what has no relief."""
    flat = np.full((9, 7), 4.0)
    color = np.full((9, 7, 3), 90.0)
    assert np.array_equal(lit(color, flat), color)
    assert np.allclose(blurred(flat, 3.0), flat)


def test_a_style_is_painted_once_and_then_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is what was painted; a damaged file is painted again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = style_picture("crosshatch")
    (kept,) = tmp_path.rglob("*.png")
    with monkeypatch.context() as patch:
        patch.setattr(builtin, "paint_style", None)
        assert style_picture("crosshatch").tobytes() == first.tobytes()
    assert first.tobytes() == paint_style("crosshatch").tobytes()
    assert style_picture("crosshatch", 1).tobytes() != first.tobytes()
    old = kept.with_name("crosshatch-0-0123456789abcdef.png")  # by an older version
    old.write_bytes(b"")
    whole = kept.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"GIF89a"):
        kept.write_bytes(damaged)
        assert style_picture("crosshatch").tobytes() == first.tobytes()
        assert kept.read_bytes() == whole and not old.exists()


def test_a_style_is_painted_where_nothing_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where the folder should be; or there is no home."""
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    usual = style_picture("crosshatch").tobytes()

    def homeless() -> NoReturn:
        raise RuntimeError("no home")

    monkeypatch.setattr(builtin, "cache_folder", homeless)
    assert style_picture("crosshatch").tobytes() == usual
