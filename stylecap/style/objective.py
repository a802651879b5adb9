"""The objective: what a painting should be near to, and how far it still is.

    gatys:     c · L_content + w · Σ_l w_l E_l + t · TV
    relative:  (1 - s) · L_content / Var(P) + s · Σ_l w_l E_l / E_l(content) / Σ_l w_l + t · TV

Source: Gatys et al. 2016, equation 7, with L_content as a mean over elements, so that its
weight does not depend on the size: their content weight is ours over C H W / 2. The
relative one is ours: each term is 1 where nothing has been kept, or nothing been reached.

A batch of pictures has one objective each; their sum has the gradient of each in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stylecap.backbone import Backbone, layer_table
from stylecap.style.losses import (
    content_share,
    content_slope,
    gram_share,
    gram_slope,
    style_loss,
    total_variation,
)
from stylecap.style.options import StyleOptions
from stylecap.style.strips import Strips, Term, measure, split_stages

_SMALLEST = 1e-8  # below this, a scale is rounding noise and not divided by


@dataclass(frozen=True, slots=True)
class Losses:
    """The objective of each image; tensors, so that nothing waits for the device.

    Attributes:
        total: (B,) what is minimised.
        content: (B,) mean((F - P)²), unweighted, mean over the content layers.
        style: (B,) E_l of each style layer, summed over regions, unweighted.
        tv: (B,) total variation, unweighted.
    """

    total: Tensor
    content: Tensor
    style: dict[str, Tensor]
    tv: Tensor

    def numbers(self) -> list[dict[str, Any]]:
        """Read everything from the device, image by image."""
        read = torch.stack([self.total, self.content, self.tv, *self.style.values()], 1)
        return [
            {
                "content": content,
                "style": dict(zip(self.style, style, strict=True)),
                "tv": tv,
                "total": total,
            }
            for total, content, tv, *style in read.tolist()
        ]


@dataclass(frozen=True, slots=True)
class StyleTarget:
    """Gram matrices to reach, and where.

    Attributes:
        grams: layer -> (B, C, C), or (1, C, C) for all images.
        guides: layer -> (H', W') share of each position, or None for the whole image.
    """

    grams: dict[str, Tensor]
    guides: dict[str, Tensor] | None = None


def style_grams(
    backbone: Backbone, style: Tensor, options: StyleOptions, strips: Strips | None = None
) -> dict[str, Tensor]:
    """Gram matrices of a style image, (1, 3, H, W), at the layers of the options."""
    positions = _positions(backbone, style)
    terms = {layer: [_Gram(positions[layer])] for layer in options.resolved_style_layers}
    with torch.no_grad():
        found = measure(backbone, style, terms, pooling=options.pooling, strips=strips)
    return {layer: found[layer][0] for layer in terms}


class Objective:
    """The function of the image that is minimised; its targets are computed once, here."""

    def __init__(
        self,
        backbone: Backbone,
        content: Tensor,
        targets: Sequence[StyleTarget],
        options: StyleOptions,
        strips: Strips | None = None,
    ) -> None:
        """Compute the content's features and the scales of the relative objective.

        Args:
            backbone: shared, frozen.
            content: (B, 3, H, W) in [0, 1].
            targets: one for each region; one without guides for the whole image.
            options: layers, weights, pooling.
            strips: how much of the network is computed in strips, which need less memory.
        """
        self._backbone = backbone
        self._targets = targets
        self._pooling = options.pooling
        self._strips = strips or Strips()
        self._content_layers = options.resolved_content_layers
        self._style_layers = options.resolved_style_layers
        positions = _positions(backbone, content)
        self._grams: dict[str, list[Term]] = {
            layer: [
                _Gram(positions[layer], target.guides[layer] if target.guides else None)
                for target in targets
            ]
            for layer in self._style_layers
        }
        copies = {layer: _Copy(positions[layer]) for layer in self._content_layers}
        with torch.no_grad():
            start = self._style_losses(self._measure(content, copies))
        features = {layer: copy.features for layer, copy in copies.items()}
        self._content = {layer: _Distance(target) for layer, target in features.items()}
        weights = options.layer_weights or (1.0,) * len(self._style_layers)
        named = dict(zip(self._style_layers, weights, strict=True))
        self._content_scales: Mapping[str, float | Tensor]
        self._style_scales: Mapping[str, float | Tensor]
        if options.objective == "gatys":
            self._content_scales = dict.fromkeys(
                self._content_layers, options.content_weight / len(self._content_layers)
            )
            self._style_scales = {
                layer: options.style_weight * weight for layer, weight in named.items()
            }
        else:
            kept = (1 - options.strength) / len(self._content_layers)
            share = 1 / max(sum(weights), _SMALLEST)
            self._content_scales = {
                layer: _over(kept, target.float().var((1, 2, 3)))
                for layer, target in features.items()
            }
            self._style_scales = {
                layer: _over(options.strength * share * weight, start[layer])
                for layer, weight in named.items()
            }
        self._tv_weight = options.tv_weight

    def save_memory(self) -> bool:
        """Compute one more stage of the network in strips; False if all are already."""
        layers = (*self._content_layers, *self._style_layers)
        if self._strips.stages >= len(split_stages(self._backbone.name, layers, self._pooling)):
            return False
        self._strips = replace(self._strips, stages=self._strips.stages + 1)
        return True

    def __call__(self, image: Tensor) -> Losses:
        """Evaluate at images, (B, 3, H, W); differentiable."""
        measured = self._measure(image, self._content)
        content = {layer: measured[layer][-1] for layer in self._content_layers}
        style = self._style_losses(measured)
        tv = total_variation(image) if self._tv_weight else image.new_zeros(len(image))
        total = self._tv_weight * tv
        for layer, loss in content.items():
            total = total + self._content_scales[layer] * loss
        for layer, loss in style.items():
            total = total + self._style_scales[layer] * loss
        mean = torch.stack(list(content.values())).mean(0)
        return Losses(total, mean, style, tv)

    def _measure(self, image: Tensor, content: Mapping[str, Term]) -> dict[str, list[Tensor]]:
        """Of every layer the Gram matrices, one a target, and then the content's term."""
        terms: dict[str, list[Term]] = {layer: [*own] for layer, own in self._grams.items()}
        for layer, term in content.items():
            terms.setdefault(layer, []).append(term)
        return measure(self._backbone, image, terms, pooling=self._pooling, strips=self._strips)

    def _style_losses(self, measured: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        return {
            layer: torch.stack(
                [
                    style_loss(measured[layer][region], target.grams[layer])
                    for region, target in enumerate(self._targets)
                ]
            ).sum(0)
            for layer in self._style_layers
        }


class _Gram:
    """Term: the Gram matrix, (B, C, C), of a layer or of a region in it."""

    def __init__(self, size: tuple[int, int], guide: Tensor | None = None) -> None:
        self._positions = size[0] * size[1]
        self._share = None if guide is None else guide / guide.sum()  # (H, W)

    def __call__(self, features: Tensor, rows: slice) -> Tensor:
        return gram_share(features, self._of(rows), self._positions)

    def slope(self, features: Tensor, rows: slice, gradient: Tensor) -> Tensor:
        return gram_slope(features, self._of(rows), self._positions, gradient)

    def _of(self, rows: slice) -> Tensor | None:
        return None if self._share is None else self._share[rows]


class _Distance:
    """Term: the content loss, (B,)."""

    def __init__(self, target: Tensor) -> None:
        self._target = target  # (B, C, H, W)
        self._count = target[0].numel()

    def __call__(self, features: Tensor, rows: slice) -> Tensor:
        return content_share(features, self._target[:, :, rows], self._count)

    def slope(self, features: Tensor, rows: slice, gradient: Tensor) -> Tensor:
        return content_slope(features, self._target[:, :, rows], self._count, gradient)


class _Copy:
    """Term that sums up nothing: it keeps the features, (B, C, H, W)."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self.features = torch.empty(0)

    def __call__(self, features: Tensor, rows: slice) -> Tensor:
        if rows == slice(0, self._size[0]):
            self.features = features.clone()
        else:
            if not self.features.numel():
                self.features = features.new_empty((*features.shape[:2], *self._size)).contiguous(
                    memory_format=torch.channels_last
                )
            self.features[:, :, rows] = features
        return features.new_zeros(())

    def slope(self, features: Tensor, rows: slice, gradient: Tensor) -> Tensor:
        return torch.zeros_like(features)


def _positions(backbone: Backbone, image: Tensor) -> dict[str, tuple[int, int]]:
    """Height and width of every layer for an image, (B, 3, H, W)."""
    table = layer_table(backbone.name, (image.shape[2], image.shape[3]))
    return {row.name: (row.output[1], row.output[2]) for row in table}


def _over(weight: float, values: Tensor) -> Tensor:
    """A weight over each of the values, (B,), divided in double precision."""
    return values.new_tensor([weight / max(value, _SMALLEST) for value in values.tolist()])
