"""The losses of Gatys et al. 2016 and 2017, as pure functions of features.

Features come in the network's precision; everything here is float32 or wider, since the
sums of a Gram matrix lose their small terms in half precision. Every function treats each
picture of a batch by itself, so that several paintings can be one batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gram_matrix(features: Tensor, guide: Tensor | None = None) -> Tensor:
    """Correlate channels over positions: what occurs, not where.

    Args:
        features: (B, C, H, W) activations of one layer.
        guide: (H, W), the share T² of each position in a region, not all zero; None for all
            positions alike.
    Returns:
        (B, C, C), float32 or wider, symmetric; mean product per position of the region.
    Raises:
        ValueError: ``features`` is not four-dimensional, or the guide has another size.
    Source: Gatys et al. 2016, section 2.2, and 2017, equation 5; they do not divide by the
    number of positions. Dividing by the region's own makes regions and images of different
    area comparable.
    """
    if features.ndim != 4:
        raise ValueError(f"features: expected (B, C, H, W), got {tuple(features.shape)}")
    if guide is not None and guide.shape != features.shape[-2:]:
        raise ValueError(f"guide: expected {tuple(features.shape[-2:])}, got {tuple(guide.shape)}")
    share = None if guide is None else guide / guide.sum()
    return gram_share(features, share, features.shape[2] * features.shape[3])


def gram_share(features: Tensor, share: Tensor | None, positions: int) -> Tensor:
    """What some rows of a layer contribute to its Gram matrix; all rows together are the whole.

    Args:
        features: (B, C, H, W) activations.
        share: (H, W) weight of each position, of which the whole layer's sum to one; None for
            all positions alike.
        positions: of the whole layer.
    Returns:
        (B, C, C), float32 or wider, symmetric.
    """
    gram: Tensor = _Gram.apply(features, share, positions)
    return gram


def gram_slope(features: Tensor, share: Tensor | None, positions: int, gradient: Tensor) -> Tensor:
    """The gradient of `gram_share`, S F (G' + G'ᵀ).

    Args:
        features: as of `gram_share`.
        share: likewise.
        positions: likewise.
        gradient: (B, C, C), G'.
    Returns:
        (B, C, H, W), in the features' own precision, in which it goes on through the network.
    """
    both = gradient + gradient.mT  # (B, C, C)
    rows = features.flatten(2).mT  # (B, H*W, C), in memory as channels last are
    if share is None:
        slope = rows @ (both / positions).to(features.dtype)
    else:
        slope = (rows @ both.to(features.dtype)) * _column(share, rows)
    return slope.mT.view_as(features)


class _Gram(torch.autograd.Function):
    """Fᵀ S F over the positions of (B, C, H, W), with the gradient of a symmetric matrix.

    Left to itself, autograd keeps a float32 copy of the features and multiplies twice, for each
    factor of the product once, and adds.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, share: Tensor | None, positions: int) -> Tensor:
        ctx.save_for_backward(features, share)
        ctx.positions = positions
        rows = _precise(features).flatten(2).mT  # (B, H*W, C)
        if share is None:
            return rows.mT @ rows / positions  # (B, C, C)
        return rows.mT @ (rows * _column(share, rows))  # (B, C, C)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        features, share = ctx.saved_tensors
        return gram_slope(features, share, ctx.positions, gradients[0]), None, None


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of features.

    Args:
        features: (B, C, H, W) of the image.
        target: (B, C, H, W) of the content.
    Returns:
        (B,) mean((F - P)²), float32 or wider.
    Source: Gatys et al. 2016, equation 1, is 1/2 Σ (F - P)²: this times C H W / 2.
    """
    return content_share(features, target, target[0].numel())


def content_share(features: Tensor, target: Tensor, count: int) -> Tensor:
    """What some rows of a layer contribute to `content_loss`.

    Args:
        features: (B, C, H, W) of the image.
        target: (B, C, H, W) of the content.
        count: elements of the whole layer, of one picture.
    Returns:
        (B,) Σ (F - P)² / count, float32 or wider.
    """
    share: Tensor = _Content.apply(features, target, count)
    return share


class _Content(torch.autograd.Function):
    """Σ (F - P)² / count, which keeps nothing for its gradient but what is there already."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(features, target)
        ctx.count = count
        return (_precise(features) - _precise(target)).square().sum((1, 2, 3)) / count  # (B,)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        features, target = ctx.saved_tensors
        return content_slope(features, target, ctx.count, gradients[0]), None, None


def content_slope(features: Tensor, target: Tensor, count: int, gradient: Tensor) -> Tensor:
    """The gradient of `content_share`, 2 (F - P) g / count.

    Args:
        features: as of `content_share`.
        target: likewise.
        count: likewise.
        gradient: (B,), g.
    Returns:
        (B, C, H, W), in the features' own precision.
    """
    scale = (2 / count * gradient)[:, None, None, None]  # (B, 1, 1, 1)
    return ((_precise(features) - _precise(target)) * scale).to(features.dtype)


def style_loss(gram: Tensor, target: Tensor) -> Tensor:
    """E_l, the difference of two Gram matrices.

    Args:
        gram: (B, C, C) of the image, divided by its positions M.
        target: (B, C, C), or (1, C, C) for all, of the style, divided by its own positions.
    Returns:
        (B,) Σ (G/M - A/M_s)² / (4 C²).
    Source: Gatys et al. 2016, equation 4, where both images have the same M.
    """
    channels = gram.shape[-1]
    return (gram - target).square().sum((1, 2)) / (4 * channels**2)  # (B,)


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, down plus across.

    Args:
        image: (B, 3, H, W), with H and W at least 2.
    Returns:
        (B,).
    Source: Mahendran & Vedaldi 2015, section 3.1, with β = 2, as means.
    """
    precise = _precise(image)
    across, down = (precise.diff(dim=side).square().mean((1, 2, 3)) for side in (-1, -2))
    return across + down  # (B,)


def _column(share: Tensor, like: Tensor) -> Tensor:
    return share.flatten()[:, None].to(like.dtype)  # (H*W, 1)


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
