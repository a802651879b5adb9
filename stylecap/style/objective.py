"""The objective: what a painting should be near to, and how far it still is.

    gatys:     c · L_content + w · Σ_l w_l E_l + t · TV
    relative:  (1 - s) · L_content / Var(P) + s · Σ_l w_l E_l / E_l(content) / Σ_l w_l + t · TV

Source: Gatys et al. 2016, equation 7, with L_content as a mean over elements, so that its
weight does not depend on the size: their content weight is ours over B C H W / 2. The
relative one is ours: each term is 1 where nothing has been kept, or nothing been reached.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """The objective at one image; tensors, so that nothing waits for the device.

    Attributes:
        total: () what is minimised.
        content: () mean((F - P)²), unweighted, mean over the content layers.
        style: E_l of each style layer, summed over regions, unweighted.
        tv: () total variation, unweighted.
    """

    total: Tensor
    content: Tensor
    style: dict[str, Tensor]
    tv: Tensor

    def numbers(self) -> dict[str, Any]:
        """Read everything from the device."""
        return {
            "content": float(self.content.detach()),
            "style": {layer: float(loss.detach()) for layer, loss in self.style.items()},
            "tv": float(self.tv.detach()),
            "total": float(self.total.detach()),
        }


@dataclass(frozen=True, slots=True)
class StyleTarget:
    """Gram matrices to reach, and where.

    Attributes:
        grams: layer -> (1, C, C).
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
            content: (1, 3, H, W) in [0, 1].
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
        if options.objective == "gatys":
            self._content_scales = dict.fromkeys(
                self._content_layers, options.content_weight / len(self._content_layers)
            )
            self._style_scales = {
                layer: options.style_weight * weight for layer, weight in named.items()
            }
        else:
            share = 1 / max(sum(weights), _SMALLEST)
            self._content_scales = {
                layer: (1 - options.strength)
                / len(self._content_layers)
                / max(float(target.float().var()), _SMALLEST)
                for layer, target in self._content.items()
            }
            self._style_scales = {
                layer: options.strength * share * weight / max(float(start[layer]), _SMALLEST)
                for layer, weight in named.items()
            }
        self._tv_weight = options.tv_weight

    def __call__(self, image: Tensor) -> Losses:
        """Evaluate at an image, (1, 3, H, W); differentiable."""
        features = self._backbone.features(image, self._layers, pooling=self._pooling)
        content = {
            layer: content_loss(features[layer], target) for layer, target in self._content.items()
        }
        style = self._style_losses(features)
        tv = total_variation(image) if self._tv_weight else image.new_zeros(())
        total = self._tv_weight * tv
        for layer, loss in content.items():
            total = total + self._content_scales[layer] * loss
        for layer, loss in style.items():
            total = total + self._style_scales[layer] * loss
        mean = torch.stack(list(content.values())).mean()
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
            ).sum()
            for layer in self._style_layers
        }
