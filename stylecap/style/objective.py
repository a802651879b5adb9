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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylecap.backbone import Backbone
from stylecap.style.losses import content_loss, gram_matrix, style_loss, total_variation
from stylecap.style.options import StyleOptions

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


def style_grams(backbone: Backbone, style: Tensor, options: StyleOptions) -> dict[str, Tensor]:
    """Gram matrices of a style image, (1, 3, H, W), at the layers of the options."""
    layers = options.resolved_style_layers
    with torch.no_grad():
        found = backbone.features(style, layers, pooling=options.pooling)
        return {layer: gram_matrix(features) for layer, features in found.items()}


class Objective:
    """The function of the image that is minimised; its targets are computed once, here."""

    def __init__(
        self,
        backbone: Backbone,
        content: Tensor,
        targets: Sequence[StyleTarget],
        options: StyleOptions,
    ) -> None:
        """Compute the content's features and the scales of the relative objective.

        Args:
            backbone: shared, frozen.
            content: (B, 3, H, W) in [0, 1].
            targets: one for each region; one without guides for the whole image.
            options: layers, weights, pooling.
        """
        self._backbone = backbone
        self._targets = targets
        self._pooling = options.pooling
        self._content_layers = options.resolved_content_layers
        self._style_layers = options.resolved_style_layers
        self._layers = tuple(dict.fromkeys((*self._content_layers, *self._style_layers)))
        with torch.no_grad():
            features = backbone.features(content, self._layers, pooling=self._pooling)
            self._content = {name: features[name].clone() for name in self._content_layers}
            start = self._style_losses(features)
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
                for layer, target in self._content.items()
            }
            self._style_scales = {
                layer: _over(options.strength * share * weight, start[layer])
                for layer, weight in named.items()
            }
        self._tv_weight = options.tv_weight

    def __call__(self, image: Tensor) -> Losses:
        """Evaluate at images, (B, 3, H, W); differentiable."""
        features = self._backbone.features(image, self._layers, pooling=self._pooling)
        content = {
            layer: content_loss(features[layer], target) for layer, target in self._content.items()
        }
        style = self._style_losses(features)
        tv = total_variation(image) if self._tv_weight else image.new_zeros(len(image))
        total = self._tv_weight * tv
        for layer, loss in content.items():
            total = total + self._content_scales[layer] * loss
        for layer, loss in style.items():
            total = total + self._style_scales[layer] * loss
        mean = torch.stack(list(content.values())).mean(0)
        return Losses(total, mean, style, tv)

    def _style_losses(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            layer: torch.stack(
                [
                    style_loss(
                        gram_matrix(
                            features[layer], target.guides[layer] if target.guides else None
                        ),
                        target.grams[layer],
                    )
                    for target in self._targets
                ]
            ).sum(0)
            for layer in self._style_layers
        }


def _over(weight: float, values: Tensor) -> Tensor:
    """A weight over each of the values, (B,), divided in double precision."""
    return values.new_tensor([weight / max(value, _SMALLEST) for value in values.tolist()])
