"""Look into a network: its feature maps, what excites a channel, what the poolings keep.

Source: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", for
patches beside channels; ours are cut from the pictures, not projected back by a deconvnet.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from stylecap.backbone import (
    POOLINGS,
    Backbone,
    Layer,
    architecture,
    check_layers,
    layer_table,
    pool,
)
from stylecap.drawing import PAPER, draw_map, draw_sheet
from stylecap.errors import InputError, OptionError
from stylecap.images import (
    load_picture,
    scale_picture,
    split_alpha,
    to_image,
)
from stylecap.progress import OnProgress, Progress, ShouldStop

LAYER_COLUMNS = ("layer", "output", "parameters", "multiply-adds", "field px", "stride px")


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """One channel of a layer, over one picture.

    Attributes:
        channel: its number, from 0.
        strength: mean over all positions of what the rectifier lets pass, max(0, activation).
        peak: greatest activation.
        picture: brighter where it answers; darkest where the rectifier lets nothing pass.
    """

    channel: int
    strength: float
    peak: float
    picture: Image.Image


@dataclass(frozen=True, slots=True)
class Patch:
    """A part of a picture that excites a channel.

    Attributes:
        path: of the picture.
        activation: of the channel at the patch's position.
        box: (top, left, bottom, right) of the receptive field in the picture as it was seen,
            in its pixels; it may reach beyond the border.
        picture: the patch, paper-coloured beyond the border.
    """

    path: Path
    activation: float
    box: tuple[int, int, int, int]
    picture: Image.Image


@dataclass(frozen=True, slots=True)
class Pooled:
    """One channel after one kind of pooling.

    Attributes:
        pooling: ``"none"``, one of `POOLINGS`, or ``"sampled"``: stochastic pooling as in
            training, where ``"stochastic"`` is its expectation.
        channel: its number.
        size: (height, width) of the map, in positions.
        mean: activation over all positions.
        picture: all kinds are drawn at one size, on one scale of brightness.
    """

    pooling: str
    channel: int
    size: tuple[int, int]
    mean: float
    picture: Image.Image


def picture_for(picture: Image.Image, long_side_px: int) -> Tensor:
    """A picture as the network sees it: (1, 3, H, W), transparency over white."""
    opaque = split_alpha(picture)[0]
    return to_image(scale_picture(opaque, long_side_px))


def feature_maps(
    backbone: Backbone, image: Tensor, layer: str, count: int = 24, *, pooling: str = "max"
) -> list[FeatureMap]:
    """The channels of a layer that a picture excites most, the strongest first.

    Args:
        backbone: to look into.
        image: (1, 3, H, W) in [0, 1].
        layer: name of any layer.
        count: how many channels at most.
        pooling: of the layers below.
    Raises:
        OptionError: unknown layer or pooling, or no channel asked for.
        InputError: the image is too small for the layer.
    """
    _check_count(count)
    features = _features(backbone, image, layer, pooling)  # (C, H', W')
    strength = features.clamp_min(0).mean((1, 2))  # (C,)
    return [
        FeatureMap(
            channel,
            float(strength[channel]),
            float(features[channel].max()),
            # From 0, as the rectifier; a few extreme positions would leave the rest dark.
            draw_map(features[channel], low=0.0, high=float(features[channel].quantile(0.998))),
        )
        for channel in strength.argsort(descending=True, stable=True)[:count].tolist()
    ]


def feature_sheet(maps: Sequence[FeatureMap], title: str = "") -> Image.Image:
    """Feature maps as one picture, each labelled with its channel and its strength."""
    tiles = [
        (each.picture, f"channel {each.channel}\nmean {each.strength:.3g}, peak {each.peak:.3g}")
        for each in maps
    ]
    return draw_sheet(tiles, title=title)


def exciting_patches(
    backbone: Backbone,
    paths: Sequence[Path],
    layer: str,
    channel: int,
    count: int,
    *,
    long_side_px: int,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> list[Patch]:
    """The parts of pictures that excite a channel most, at most one of each picture.

    Args:
        backbone: to look into.
        paths: of the pictures.
        layer: name of any layer.
        channel: its number, from 0.
        count: how many patches at most.
        long_side_px: size at which the pictures are seen.
        on_progress: told after every picture.
        should_stop: asked before every picture; the best so far are given then.
    Returns:
        The most exciting first; patches of zero activation are left out.
    Raises:
        OptionError: unknown layer, no such channel, or no patch asked for.
        InputError: a picture cannot be read, or is too small for the layer.
    """
    _check_count(count)
    check_layers(backbone.name, [layer])
    channels = _layer(backbone.name, layer).channels
    if not 0 <= channel < channels:
        raise OptionError(f"channel: {layer} has channels 0 to {channels - 1}, got {channel}")
    best: list[tuple[float, int, Patch]] = []
    begin = time.perf_counter()
    for number, path in enumerate(paths):
        if should_stop is not None and should_stop():
            break
        picture = scale_picture(split_alpha(load_picture(path))[0], long_side_px)
        try:
            answer = _features(backbone, to_image(picture), layer)[channel]  # (H', W')
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        row, column = divmod(int(answer.argmax()), answer.shape[1])
        activation = float(answer[row, column])
        if activation > 0 and (len(best) < count or activation > best[0][0]):
            box = receptive_box(backbone.name, layer, row, column)
            patch = Patch(Path(path), activation, box, _cut(picture, box))
            # The number breaks ties: of equal activations the earlier picture stays.
            heapq.heappush(best, (activation, -number, patch))
            if len(best) > count:
                heapq.heappop(best)
        if on_progress is not None:
            seconds = time.perf_counter() - begin
            on_progress(Progress(number + 1, len(paths), seconds, f"channel {channel}"))
    return [patch for _, _, patch in sorted(best, key=lambda each: each[:2], reverse=True)]


def patch_sheet(patches: Sequence[Patch], title: str = "") -> Image.Image:
    """Patches as one picture, each labelled with its activation and its file."""
    tiles = []
    for patch in patches:
        side = max(patch.picture.size)
        scale = max(1, round(160 / side))
        enlarged = patch.picture.resize((side * scale, side * scale), Image.Resampling.NEAREST)
        tiles.append((enlarged, f"{patch.activation:.3g}\n{patch.path.name}"))
    return draw_sheet(tiles, title=title, columns=5)


def receptive_box(name: str, layer: str, row: int, column: int) -> tuple[int, int, int, int]:
    """The square of the image that one position of a layer sees.

    Args:
        name: of the network.
        layer: name of a layer.
        row: of the position, from 0.
        column: of the position, from 0.
    Returns:
        (top, left, bottom, right) in pixels, bottom and right excluded; it reaches beyond the
        border where padding was seen.
    Raises:
        OptionError: unknown network or layer.
    """
    check_layers(name, [layer])
    field, step, start = 1, 1, 0
    for each in architecture(name):
        start -= each.padding * step
        field += (each.kernel - 1) * step
        step *= each.stride
        if each.name == layer:
            break
    top, left = start + row * step, start + column * step
    return top, left, top + field, left + field


def compare_poolings(
    backbone: Backbone, image: Tensor, layer: str, *, channel: int | None = None, seed: int = 0
) -> list[Pooled]:
    """One channel before and after each kind of pooling, with the network's own window.

    Args:
        backbone: to look into.
        image: (1, 3, H, W) in [0, 1].
        layer: its rectified activations are pooled, by the window of the next pooling above.
        channel: its number; the strongest one if None.
        seed: of the sample of stochastic pooling.
    Returns:
        ``"none"``, `POOLINGS` in order, and ``"sampled"``.
    Raises:
        OptionError: unknown layer or channel, or no pooling above the layer.
        InputError: the image is too small for that pooling.
    """
    check_layers(backbone.name, [layer])
    layers = architecture(backbone.name)
    above = layers[[each.name for each in layers].index(layer) + 1 :]
    window = next((each for each in above if each.kind == "pool"), None)
    if window is None:
        raise OptionError(f"layer: there is no pooling above {layer}; choose a lower layer")
    features = _features(backbone, image, layer).clamp_min(0)  # (C, H', W')
    if channel is None:
        channel = int(features.mean((1, 2)).argmax())
    if not 0 <= channel < len(features):
        raise OptionError(f"channel: {layer} has channels 0 to {len(features) - 1}, got {channel}")
    if min(features.shape[1:]) < window.kernel:
        raise InputError(
            f"image: {layer} has {features.shape[1]}x{features.shape[2]} positions, too few for a "
            f"window of {window.kernel}; choose a larger size"
        )
    one = features[None, channel : channel + 1]  # (1, 1, H', W')
    generator = torch.Generator().manual_seed(seed)
    pooled = {
        "none": one,
        **{name: pool(one, name, window.kernel, window.stride) for name in POOLINGS},
        "sampled": pool(one, "stochastic", window.kernel, window.stride, generator=generator),
    }
    brightest = float(one.max())
    drawn = {
        name: draw_map(values[0, 0], low=0.0, high=brightest, side_px=224)
        for name, values in pooled.items()
    }
    size = drawn["none"].size
    return [
        Pooled(
            name,
            channel,
            (values.shape[2], values.shape[3]),
            float(values.mean()),
            drawn[name].resize(size, Image.Resampling.NEAREST),
        )
        for name, values in pooled.items()
    ]


def pooling_sheet(pooled: Sequence[Pooled], title: str = "") -> Image.Image:
    """Compared poolings as one picture."""
    tiles = [
        (each.picture, f"{each.pooling}\n{each.size[0]}x{each.size[1]}, mean {each.mean:.3g}")
        for each in pooled
    ]
    return draw_sheet(tiles, title=title)


def layer_rows(name: str, size: tuple[int, int]) -> list[tuple[str, ...]]:
    """The rows of `layer_table` as texts under `LAYER_COLUMNS`, between the image and the sum.

    Raises:
        OptionError: unknown network, or a size too small for its first layer.
    """
    layers = layer_table(name, size)
    rows = [
        (
            layer.name,
            "x".join(map(str, (*layer.output[1:], layer.output[0]))),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
            str(layer.receptive_field_px),
            str(layer.stride_px),
        )
        for layer in layers
    ]
    parameters = sum(layer.parameters for layer in layers)
    multiply_adds = sum(layer.multiply_adds for layer in layers)
    image = ("image", f"{size[0]}x{size[1]}x3", "0", "0", "1", "1")
    return [image, *rows, ("total", "", f"{parameters:,}", f"{multiply_adds:,}", "", "")]


def _features(backbone: Backbone, image: Tensor, layer: str, pooling: str = "max") -> Tensor:
    """(C, H', W') float32 on the CPU."""
    with torch.inference_mode():
        return backbone.features(image, [layer], pooling=pooling)[layer][0].float().cpu()


def _layer(name: str, layer: str) -> Layer:
    return next(each for each in architecture(name) if each.name == layer)


def _check_count(count: int) -> None:
    if count < 1:
        raise OptionError(f"count: expected at least 1, got {count}")


def _cut(picture: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    top, left, bottom, right = box
    patch = Image.new("RGB", (right - left, bottom - top), PAPER)
    inside = (max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height))
    patch.paste(picture.crop(inside), (inside[0] - left, inside[1] - top))
    return patch
