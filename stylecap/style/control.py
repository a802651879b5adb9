"""Control over colour and space, after Gatys et al. 2017 (arXiv:1611.07865).

Scale control, the third of the paper, is a use of the optimisation: `transfer.mix_scales`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from stylecap.backbone import layer_table
from stylecap.errors import InputError, OptionError
from stylecap.style.options import COLOR_METHODS

# Rec. 601 luma, the Y of YIQ in which the paper works.
_LUMA = (0.299, 0.587, 0.114)


def luminance(image: Tensor) -> Tensor:
    """Brightness of each pixel: (B, 3, H, W) -> (B, 1, H, W), the Y of YIQ."""
    weights = torch.tensor(_LUMA, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)  # (B, 1, H, W)


def match_luminance(style: Tensor, content: Tensor) -> Tensor:
    """Give the style's luminance the mean and deviation of the content's.

    Args:
        style: (B, 1, H, W) luminance.
        content: (B, 1, H', W') luminance.
    Returns:
        (B, 1, H, W), not clipped.
    Source: Gatys et al. 2017, section 5.1.
    """
    deviation = style.std().clamp_min(1e-6)
    return (style - style.mean()) * (content.std() / deviation) + content.mean()


def join_luminance(brightness: Tensor, colored: Tensor) -> Tensor:
    """Put a luminance together with the colour channels of a picture.

    Where the colour cannot be shown at that brightness, the brightness gives way, so that
    the two colour channels I and Q are exactly those of ``colored``.

    Args:
        brightness: (B, 1, H, W) in [0, 1].
        colored: (B, 3, H, W) in [0, 1].
    Returns:
        (B, 3, H, W) in [0, 1].
    Source: Gatys et al. 2017, section 5.1; the limited brightness is ours.
    """
    chroma = colored - luminance(colored)  # (B, 3, H, W)
    darkest = -chroma.amin(1, keepdim=True)  # (B, 1, H, W)
    brightest = 1 - chroma.amax(1, keepdim=True)  # (B, 1, H, W)
    return (brightness.clamp(darkest, brightest) + chroma).clamp(0, 1)


def match_color(style: Tensor, content: Tensor, method: str) -> Tensor:
    """Give the style's colours the mean and covariance of the content's: x' = A (x - μ_S) + μ_C.

    Args:
        style: (1, 3, H, W) in [0, 1].
        content: (1, 3, H', W') in [0, 1].
        method: ``cholesky`` A = L_C L_S⁻¹, ``principal-axes`` A = Σ_C^½ Σ_S^-½, or
            ``optimal-transport``, the A that moves colours least.
    Returns:
        (1, 3, H, W); not clipped, since that would change mean and covariance.
    Raises:
        OptionError: unknown method.
    Source: Gatys et al. 2017, section 5.2; Pitié & Kokaram 2007 for the last.
    """
    if method not in COLOR_METHODS:
        raise OptionError(
            f"color_method: expected one of {', '.join(COLOR_METHODS)}, got {method!r}"
        )
    mean_s, covariance_s, pixels = _color_moments(style)
    mean_c, covariance_c, _ = _color_moments(content)
    if method == "cholesky":
        lower_s, lower_c = (torch.linalg.cholesky(c) for c in (covariance_s, covariance_c))
        matrix = torch.linalg.solve_triangular(lower_s, lower_c, upper=False, left=False)
    elif method == "principal-axes":
        matrix = _power(covariance_c, 0.5) @ _power(covariance_s, -0.5)
    else:
        root, inverse = _power(covariance_s, 0.5), _power(covariance_s, -0.5)
        matrix = inverse @ _power(root @ covariance_c @ root, 0.5) @ inverse
    matched: Tensor = matrix @ (pixels - mean_s) + mean_c  # (3, H*W)
    return matched.to(style.dtype).view_as(style)


def _color_moments(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (3, 1), covariance (3, 3) and pixels (3, H*W), in float64."""
    pixels = image[0].flatten(1).double().cpu()
    mean = pixels.mean(1, keepdim=True)
    centred = pixels - mean
    covariance = centred @ centred.mT / pixels.shape[1]
    # A grey or single-coloured picture has no full covariance; a trace of noise gives it one.
    return mean, covariance + 1e-8 * torch.eye(3, dtype=torch.float64), pixels


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = (vectors * values.clamp_min(1e-12).pow(exponent)) @ vectors.mT
    return power


def regions_of(labels: Tensor, colors: tuple[tuple[int, int, int], ...]) -> Tensor:
    """Split a mask picture into one region for each colour.

    Every pixel belongs to the nearest colour, so that soft or compressed edges do no harm.

    Args:
        labels: (1, 3, H, W) in [0, 1].
        colors: one (r, g, b), 0 to 255, for each style.
    Returns:
        (R, 1, H, W) of zeros and ones that add up to one.
    Raises:
        InputError: a region has no pixel.
    """
    palette = torch.tensor(colors, dtype=torch.float32) / 255  # (R, 3)
    distance = (labels - palette[:, :, None, None]).square().sum(1)  # (R, H, W)
    nearest = distance.argmin(0)  # (H, W)
    regions = functional.one_hot(nearest, len(colors)).permute(2, 0, 1)[:, None].float()
    for color, region in zip(colors, regions, strict=True):
        if not region.any():
            raise InputError(
                f"mask: no pixel has the colour #{bytes(color).hex()}; "
                "give each style its own colour in the mask, or name them with --mask-styles"
            )
    return regions


def carry_guides(regions: Tensor, backbone: str, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Carry region masks down to the positions of a network's layers.

    A position counts for a region when its receptive field lies wholly inside it. Deep fields
    are wide: the field is halved until at least a quarter of the region's own area is left,
    and a region too small even for a single pixel of field is resized by area instead, so that
    no guide is ever empty.

    Args:
        regions: (R, 1, H, W), zeros and ones, the size of the image.
        backbone: its name.
        layers: names of layers.
    Returns:
        layer -> (R, H', W') share T² of each position, not all zero in any region.
    Source: Gatys et al. 2017, section 4 and supplement; the halving is ours.
    """
    height, width = regions.shape[-2:]
    table = {row.name: row for row in layer_table(backbone, (height, width))}
    guides: dict[str, Tensor] = {}
    for layer in layers:
        row = table[layer]
        size = row.output[1:]
        shares = functional.interpolate(regions, size, mode="area")  # (R, 1, H', W')
        guides[layer] = torch.cat(
            [
                _eroded(region[None], share[None], row.receptive_field_px)
                for region, share in zip(regions, shares, strict=True)
            ]
        )[:, 0]  # (R, H', W')
    return guides


def _eroded(region: Tensor, share: Tensor, field: int) -> Tensor:
    while field > 1:
        margin = field // 2
        # Beyond the border nothing belongs to another region.
        padded = functional.pad(1 - region, (margin,) * 4)
        # Rows, then columns: a square window is separable, and a deep field is 200 px wide.
        rows = functional.max_pool2d(padded, (1, 2 * margin + 1), stride=1)
        outside = functional.max_pool2d(rows, (2 * margin + 1, 1), stride=1)  # (1, 1, H, W)
        inside = functional.interpolate(1 - outside, share.shape[-2:], mode="nearest-exact")
        if inside.sum() >= share.sum() / 4 and inside.sum() >= 1:
            return inside
        field //= 2
    return share
