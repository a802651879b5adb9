"""Divide a picture into regions by its features, for painting each in its own style.

Positions are described by several layers, colours and edges below, materials above, averaged
over a small neighbourhood, so that a texture is one thing. They are clustered by k-means, and a
guided filter carries the clusters to the picture's own edges.

Source: Farabet et al. 2013, who label a scene from features of several scales; clusters instead
of learned labels are ours. He et al. 2013 for the guided filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from stylecap.backbone import Backbone
from stylecap.errors import InputError, OptionError
from stylecap.images import scale_picture, split_alpha, to_image

#: Colours of the regions in a mask, the first for the uppermost region; seen apart by everyone.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
MAX_REGIONS = len(COLORS)
LAYERS = {
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
    "vgg19": ("relu1_2", "relu2_2", "relu3_4", "relu4_4"),
    "alexnet": ("relu1", "relu2", "relu3", "relu5"),
}
_SEEN_PX = 384  # long side at which features are taken and edges followed
_CELL_PX = 4
_COMPONENTS = 16  # of each layer, by principal component analysis
_NEIGHBOURHOOD = 5  # cells, over which a texture is averaged
_PLACE = 0.3  # deviation of a position's row or column, beside 1 for each layer's features
_RESTARTS = 4
_ROUNDS = 30
# Of the guided filter. Deep layers see both sides of an edge from some way off, and give a border
# region along it; the window must be wider, so that the side's own colour decides there.
_RADIUS_PX, _SOFTNESS = 14, 1e-3


@dataclass(frozen=True, slots=True)
class Match:
    """Which region of a style paints which region of a content.

    Attributes:
        regions: for each region of the content, the number of its region of the style.
        likeness: for each, the cosine of their centred features, -1 to 1.
    """

    regions: tuple[int, ...]
    likeness: tuple[float, ...]


def segment(backbone: Backbone, picture: Image.Image, regions: int, *, seed: int = 0) -> Tensor:
    """Divide a picture into regions that look alike inside.

    Args:
        backbone: whose features tell what looks alike.
        picture: of any size; transparency lies over white.
        regions: from 2 to `MAX_REGIONS`.
        seed: of the clusters' first guess.
    Returns:
        (H, W) numbers from 0, of the picture's size. Every region has a pixel; the one whose
        pixels lie uppermost on the average is 0.
    Raises:
        OptionError: another number of regions, or a network without layers for it.
        InputError: the picture is too small, or has too little in it to be divided.
    """
    if not 2 <= regions <= MAX_REGIONS:
        raise OptionError(f"regions: expected 2 to {MAX_REGIONS}, got {regions}")
    opaque = split_alpha(picture)[0]
    seen = to_image(scale_picture(opaque, _SEEN_PX))
    described = torch.cat([_principal(each) for each in describe(backbone, seen).values()])
    height, width = described.shape[1:]
    rows = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    columns = torch.linspace(-1, 1, width)[None].expand(height, width)
    place = 3**0.5 * _PLACE * torch.stack([rows, columns])  # a uniform row has deviation 1/√3
    points = torch.cat([described, place]).flatten(1).mT.contiguous()  # (N, D)
    distances = k_means(points, regions, seed)  # (N, R)
    # Clusters fade into each other over the distances that points usually have.
    usual = distances.amin(1).mean().clamp_min(1e-9)
    shares = functional.softmax(-2 * distances / usual, dim=1).mT.reshape(1, regions, height, width)
    shares = functional.interpolate(shares, seen.shape[-2:], mode="bilinear", align_corners=False)
    shares = guided_filter(seen, shares, _RADIUS_PX, _SOFTNESS)  # (1, R, h, w)
    shares = functional.interpolate(shares, _size(opaque), mode="bilinear", align_corners=False)
    labels = _keep_all(shares[0])  # (H, W)
    heights = [
        float((labels == region).nonzero()[:, 0].double().mean()) for region in range(regions)
    ]
    order = sorted(range(regions), key=heights.__getitem__)
    renamed = torch.empty(regions, dtype=torch.long)
    renamed[order] = torch.arange(regions)
    return renamed[labels]


def describe(backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
    """Describe what lies around each position, layer by layer.

    Args:
        backbone: the network.
        image: (1, 3, H, W) in [0, 1].
    Returns:
        layer -> (C, H / 4, W / 4), of unit length at each position, averaged over the
        neighbourhood.
    Raises:
        OptionError: a network without layers for it.
        InputError: the image is too small.
    """
    if backbone.name not in LAYERS:
        raise OptionError(f"backbone: expected one of {', '.join(LAYERS)}, got {backbone.name}")
    cells = tuple(max(1, side // _CELL_PX) for side in image.shape[-2:])
    described = {}
    with torch.inference_mode():
        found = backbone.features(image, LAYERS[backbone.name])
        for layer, features in found.items():
            precise = features.float().cpu()  # (1, C, H', W')
            if precise.shape[-2] >= cells[0] and precise.shape[-1] >= cells[1]:
                sized = functional.interpolate(precise, cells, mode="area")
            else:
                sized = functional.interpolate(precise, cells, mode="bilinear", align_corners=False)
            blurred = functional.avg_pool2d(
                sized, _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2, count_include_pad=False
            )
            described[layer] = functional.normalize(blurred, dim=1)[0]  # (C, h, w)
    return described


def mask_picture(labels: Tensor, colors: Sequence[str] = COLORS) -> Image.Image:
    """Regions as a picture of flat colours, for ``stylize(mask=...)``.

    Args:
        labels: (H, W) numbers of regions.
        colors: one for each region, ``"#rrggbb"``.
    Raises:
        ValueError: more regions than colours.
    """
    count = int(labels.max()) + 1
    if count > len(colors):
        raise ValueError(f"labels: expected at most {len(colors)} regions, got {count}")
    palette = np.array([list(bytes.fromhex(color[1:])) for color in colors], np.uint8)
    return Image.fromarray(palette[labels.numpy()])


def preview_picture(picture: Image.Image, labels: Tensor) -> Image.Image:
    """A picture, each of its regions tinted with the colour that it has in the mask."""
    return Image.blend(split_alpha(picture)[0], mask_picture(labels), 0.55)


def match_regions(
    backbone: Backbone,
    content: Image.Image,
    content_labels: Tensor,
    style: Image.Image,
    style_labels: Tensor,
) -> Match:
    """Find for each region of a content the region of a style that is most like it.

    What all regions of one picture have in common, such as being painted, is taken away before
    they are compared. No region of the style is used twice.

    Args:
        backbone: whose features are compared.
        content: a picture.
        content_labels: (H, W) of `segment`.
        style: a picture.
        style_labels: (H', W') of `segment`, of at least as many regions as the content.
    Raises:
        OptionError: fewer regions in the style than in the content.
        InputError: a picture is too small.
    """
    ours = _region_features(backbone, content, content_labels)  # (R, D)
    theirs = _region_features(backbone, style, style_labels)  # (S, D)
    if len(theirs) < len(ours):
        raise OptionError(
            f"regions: the style has {len(theirs)}, the content {len(ours)}; divide the style "
            "into at least as many"
        )
    likeness = (ours @ theirs.mT).tolist()  # (R, S)
    best = max(
        permutations(range(len(theirs)), len(ours)),
        key=lambda chosen: sum(row[region] for row, region in zip(likeness, chosen, strict=True)),
    )
    return Match(best, tuple(row[region] for row, region in zip(likeness, best, strict=True)))


def region_swatch(style: Image.Image, labels: Tensor, region: int) -> Image.Image:
    """A picture of one region's manner alone, at the scale and size of the whole.

    The largest upright rectangle inside the region is repeated in mirror images, so that the
    strokes keep their size and no border shows another region.

    Args:
        style: a picture.
        labels: (H, W) of `segment`, of the picture's size.
        region: its number.
    Raises:
        InputError: the region is nowhere eight pixels wide.
    """
    opaque = split_alpha(style)[0]
    top, left, bottom, right = largest_rectangle(labels == region)
    if min(bottom - top, right - left) < 8:
        raise InputError(
            f"style: region {region} is nowhere wider than "
            f"{min(bottom - top, right - left)} pixels; ask for fewer regions"
        )
    part = np.asarray(opaque)[top:bottom, left:right]
    beyond = [
        (0, max(0, whole - own)) for whole, own in zip(_size(opaque), part.shape, strict=False)
    ]
    return Image.fromarray(np.pad(part, (*beyond, (0, 0)), mode="symmetric"))


def largest_rectangle(inside: Tensor) -> tuple[int, int, int, int]:
    """The largest upright rectangle of a mask, to the precision of a 64th of its long side.

    Args:
        inside: (H, W), bool.
    Returns:
        (top, left, bottom, right), bottom and right excluded; empty if nothing fits.
    """
    height, width = inside.shape
    cell = max(1, -(-max(height, width) // 64))
    down, across = height // cell, width // cell
    cells = inside[: down * cell, : across * cell].view(down, cell, across, cell)
    full = cells.all(3).all(1).numpy()  # (down, across)
    best, found = 0, (0, 0, 0, 0)
    heights = np.zeros(across, int)
    for row in range(down):
        heights = np.where(full[row], heights + 1, 0)
        for left in range(across):
            tall = heights[left]
            for right in range(left, across):
                tall = min(tall, heights[right])
                if tall == 0:
                    break
                area = tall * (right - left + 1)
                if area > best:
                    best, found = area, (row - tall + 1, left, row + 1, right + 1)
    top, left, bottom, right = (int(side) * cell for side in found)
    return top, left, bottom, right


def k_means(points: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """Squared distances of points to the centres of their clusters.

    Args:
        points: (N, D).
        clusters: R.
        seed: of the first guesses; the best of several is kept.
    Returns:
        (N, R).
    Raises:
        InputError: fewer than R different points.
    Source: Lloyd 1982; Arthur & Vassilvitskii 2007 (k-means++).
    """
    generator = torch.Generator().manual_seed(seed)
    best, kept = float("inf"), None
    for _ in range(_RESTARTS):
        centres = _first_centres(points, clusters, generator)
        owner: Tensor | None = None
        for _ in range(_ROUNDS):
            distances = torch.cdist(points, centres).square()  # (N, R)
            nearest = distances.argmin(1)  # (N,)
            if owner is not None and torch.equal(owner, nearest):
                break
            owner = nearest
            own = functional.one_hot(owner, clusters).to(points.dtype)  # (N, R)
            counts = own.sum(0)[:, None]  # (R, 1)
            centres = torch.where(counts > 0, own.mT @ points / counts.clamp_min(1), centres)
        distances = torch.cdist(points, centres).square()
        cost = float(distances.amin(1).sum())
        if cost < best:
            best, kept = cost, distances
    assert kept is not None
    return kept


def guided_filter(guide: Tensor, values: Tensor, radius: int, softness: float) -> Tensor:
    """Smooth values, but along the edges of a colour image.

    In every window the values are taken as a linear function of the guide's colours.

    Args:
        guide: (1, 3, H, W) in [0, 1].
        values: (1, R, H, W).
        radius: of the window, in pixels.
        softness: variance of the guide, in squared units of [0, 1], below which an edge is none.
    Returns:
        (1, R, H, W).
    Source: He, Sun & Tang 2013, equations 19 to 21.
    """

    def mean(x: Tensor) -> Tensor:
        side = 2 * radius + 1
        rows = functional.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)
        return functional.avg_pool2d(rows, (side, 1), 1, (radius, 0), count_include_pad=False)

    height, width = guide.shape[-2:]
    guide_mean, value_mean = mean(guide), mean(values)  # (1, 3, H, W), (1, R, H, W)
    pairs = guide[0, :, None] * guide[0]  # (3, 3, H, W)
    spread = mean(pairs.flatten(0, 1)[None]).view(3, 3, height, width)  # (3, 3, H, W)
    spread = spread - guide_mean[0, :, None] * guide_mean[0]
    crossed = mean((guide[0, :, None] * values[0]).flatten(0, 1)[None])
    crossed = crossed.view(3, -1, height, width) - guide_mean[0, :, None] * value_mean[0]
    system = spread.permute(2, 3, 0, 1) + softness * torch.eye(3)  # (H, W, 3, 3)
    solved = torch.linalg.solve(system, crossed.permute(2, 3, 0, 1))  # (H, W, 3, R)
    slopes = solved.permute(2, 3, 0, 1)  # (3, R, H, W)
    offsets = value_mean[0] - (slopes * guide_mean[0, :, None]).sum(0)  # (R, H, W)
    smooth = mean(slopes.flatten(0, 1)[None]).view(3, -1, height, width)  # (3, R, H, W)
    return (smooth * guide[0, :, None]).sum(0)[None] + mean(offsets[None])  # (1, R, H, W)


def _size(picture: Image.Image) -> tuple[int, int]:
    return picture.height, picture.width


def _principal(described: Tensor) -> Tensor:
    """(C, h, w) to its first principal components (K, h, w), of total variance 1."""
    points = described.flatten(1)  # (C, N)
    centred = points - points.mean(1, keepdim=True)
    covariance = centred @ centred.mT / points.shape[1]  # (C, C)
    _, vectors = torch.linalg.eigh(covariance)
    first: Tensor = vectors[:, -_COMPONENTS:].mT @ centred  # (K, N)
    scale = first.square().sum(0).mean().sqrt().clamp_min(1e-6)
    return (first / scale).view(-1, *described.shape[1:])  # (K, h, w)


def _first_centres(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next centre is a point, drawn by its squared distance to those before."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    for _ in range(clusters - 1):
        nearest = torch.cdist(points, points[chosen]).square().amin(1)  # (N,)
        if float(nearest.max()) < 1e-9:
            raise InputError(
                f"picture: there are not {clusters} different regions in it; ask for fewer"
            )
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
    return points[chosen]


def _keep_all(shares: Tensor) -> Tensor:
    """(R, H, W) to the greatest, (H, W); a region that is nowhere so keeps its best pixel."""
    labels = shares.argmax(0)
    for region, share in enumerate(shares):
        if not (labels == region).any():
            labels.view(-1)[int(share.argmax())] = region
    return labels


def _region_features(backbone: Backbone, picture: Image.Image, labels: Tensor) -> Tensor:
    """(R, D) of unit length: what each region has that the whole picture has not."""
    opaque = split_alpha(picture)[0]
    seen = to_image(scale_picture(opaque, _SEEN_PX))
    described = describe(backbone, seen)
    regions = functional.one_hot(labels).permute(2, 0, 1)[None].float()  # (1, R, H, W)
    cells = next(iter(described.values())).shape[1:]
    shares = functional.interpolate(regions, cells, mode="area")[0].flatten(1)  # (R, N)
    shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-9)
    parts = []
    for each in described.values():
        points = each.flatten(1)  # (C, N)
        parts.append(functional.normalize(shares @ (points - points.mean(1, keepdim=True)).mT))
    rows = torch.linspace(-1, 1, cells[0])[:, None].expand(cells).flatten()  # (N,)
    # Where it lies, above or below, counts as much as a layer: sky is above in both.
    parts.append((shares @ rows)[:, None])
    return functional.normalize(torch.cat(parts, dim=1))  # (R, D)
