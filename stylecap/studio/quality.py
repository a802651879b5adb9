"""The quality card: how far a painting kept its content and reached its style.

Whoever paints by a network's features also pleases that network, seen or not; so another one
judges: AlexNet the paintings of VGG, VGG-16 those of AlexNet.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from stylecap.backbone import Backbone, load_backbone
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.captioner_file import load_captioner
from stylecap.captioning.options import CaptionOptions
from stylecap.errors import OptionError, WeightsError
from stylecap.images import resize_picture, scale_picture, split_alpha, to_image
from stylecap.runtime import Runtime
from stylecap.style.losses import gram_matrix, style_loss, total_variation
from stylecap.style.options import DEFAULT_LAYERS
from stylecap.weights import load_weights

#: Layers that LPIPS compares; a network without an entry has no trained heads.
LPIPS_LAYERS = {
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
}
_SMALLEST = 1e-8
_SEEN = 0.05  # of the variation inside: what a border has less of is not seen


@dataclass(frozen=True, slots=True)
class CaptionDrift:
    """Whether the captioner still reads the same scene.

    Attributes:
        content: its caption of the content.
        result: its caption of the result.
        nats_per_word: how much less probable the content's caption became, as the mean over its
            words of ln p(word | content) - ln p(word | result); 0 where nothing changed.
    """

    content: str
    result: str
    nats_per_word: float


@dataclass(frozen=True, slots=True)
class QualityCard:
    """Figures of one painting, all of them at the size of the painting.

    Attributes:
        judge: the network that looked.
        content_lpips: perceptual distance to the content: 0 for the content itself, about 0.7
            for an unrelated picture.
        style_reached: layer -> 1 - E_l(result) / E_l(content): 0 where it is as far from the
            style as the content, 1 where it has the style's Gram matrix, below 0 where farther.
        color_to_style: distance of the colour distributions, in CIELAB units (a difference of 2
            is just seen).
        color_to_content: the same, to the content.
        roughness: total variation over the larger of the content's and the style's; far above 1
            it is noise that neither had.
        border: total variation of the outermost 1/32 of the sides over that of the rest, divided
            by the same of the content, with 0.05 added to both; far from 1 there is a frame.
        clipped: share of pixels with a channel at 0 or 255 that the content and the style, the
            one with more of them, did not have.
        caption: None without a captioner.
    """

    judge: str
    content_lpips: float
    style_reached: dict[str, float]
    color_to_style: float
    color_to_content: float
    roughness: float
    border: float
    clipped: float
    caption: CaptionDrift | None = None

    @property
    def style(self) -> float:
        """`style_reached`, mean of the layers."""
        return sum(self.style_reached.values()) / len(self.style_reached)

    @property
    def figures(self) -> dict[str, float]:
        """One number for each thing judged, for tables."""
        drift = {} if self.caption is None else {"caption_drift": self.caption.nats_per_word}
        return {
            "content_lpips": self.content_lpips,
            "style": self.style,
            "color_to_style": self.color_to_style,
            "color_to_content": self.color_to_content,
            "roughness": self.roughness,
            "border": self.border,
            "clipped": self.clipped,
            **drift,
        }


class Judge:
    """Judges many paintings with networks that are loaded once."""

    def __init__(self, painter: str = "vgg16") -> None:
        """Load the network that judges, and VGG-16's captioner where it is here.

        Args:
            painter: name of the network that paints.
        Raises:
            WeightsError: the judge's weights are missing or corrupt.
        """
        self._network = load_judge(painter)
        self._captioner: Captioner | None = None
        self._reader: Backbone | None = None
        with suppress(WeightsError):
            runtime = Runtime.choose("cpu", "float32")
            self._captioner = load_captioner(runtime=runtime)
            self._reader = load_backbone(self._captioner.backbone_name, runtime=runtime)

    def __call__(
        self,
        content: Image.Image,
        result: Image.Image,
        style: Image.Image,
        style_scale: float = 1.0,
    ) -> QualityCard:
        """As `quality_card`."""
        return quality_card(
            content,
            result,
            style,
            self._network,
            style_scale=style_scale,
            captioner=self._captioner,
            reader=self._reader,
        )


def judge_of(painter: str) -> str:
    """The network that judges what another one painted."""
    return "vgg16" if painter == "alexnet" else "alexnet"


def load_judge(painter: str = "vgg16", weights: str | None = None) -> Backbone:
    """The network that judges what ``painter`` painted, in float32: figures are compared.

    Raises:
        WeightsError: its weights are missing or corrupt.
    """
    return load_backbone(
        judge_of(painter), runtime=Runtime.choose("cpu", "float32"), weights=weights
    )


def quality_card(
    content: Image.Image,
    result: Image.Image,
    style: Image.Image,
    judge: Backbone,
    *,
    style_scale: float = 1.0,
    captioner: Captioner | None = None,
    reader: Backbone | None = None,
) -> QualityCard:
    """Judge a painting.

    Args:
        content: what was painted; resized to the result.
        result: the painting; transparency is laid over white, here as in the others.
        style: in which manner; its long side becomes that of the result times ``style_scale``.
        judge: of `load_judge`, not the network that painted.
        style_scale: of the painting's options.
        captioner: reads the scene before and after.
        reader: the captioner's backbone; loaded if there is a captioner and no reader.
    Raises:
        OptionError: the judge has no LPIPS heads.
        InputError: the result is too small for the judge's layers.
    """
    _check_heads(judge.name)
    painted = to_image(split_alpha(result)[0])
    size = (painted.shape[-2], painted.shape[-1])
    original = to_image(resize_picture(split_alpha(content)[0], size))
    manner = split_alpha(style)[0]
    long_side = max(16, round(max(size) * style_scale))
    example = to_image(scale_picture(manner, long_side))
    roughest = max(float(total_variation(original)), float(total_variation(example)), _SMALLEST)
    drift = None
    if captioner is not None:
        reader = reader or load_backbone(captioner.backbone_name, runtime=captioner.runtime)
        drift = caption_drift(content, result, captioner, reader)
    return QualityCard(
        judge=judge.name,
        content_lpips=lpips(judge, painted, original),
        style_reached=style_reached(judge, painted, original, example),
        color_to_style=color_distance(painted, example),
        color_to_content=color_distance(painted, original),
        roughness=float(total_variation(painted)) / roughest,
        border=(_frame(painted) + _SEEN) / (_frame(original) + _SEEN),
        clipped=max(0.0, _clipped(painted) - max(_clipped(original), _clipped(example))),
        caption=drift,
    )


def lpips(judge: Backbone, first: Tensor, second: Tensor) -> float:
    """Learned perceptual distance of two images.

    Features are scaled to unit length at every position, their squared differences weighted by
    the trained heads, averaged over positions and summed over layers.

    Args:
        judge: a network with trained heads.
        first: (1, 3, H, W) in [0, 1].
        second: of the same shape.
    Raises:
        OptionError: the network has no heads.
        InputError: the images are too small for its layers.
        ValueError: they are of different shape.
    Source: Zhang et al. 2018, equation 1, with the heads of version 0.1.
    """
    _check_heads(judge.name)
    if first.shape != second.shape:
        raise ValueError(f"images: expected equal shapes, got {first.shape} and {second.shape}")
    heads = load_weights(f"lpips-{judge.name}")
    layers = LPIPS_LAYERS[judge.name]
    with torch.inference_mode():
        ours, theirs = (judge.features(image, layers) for image in (first, second))
        distance = 0.0
        for order, layer in enumerate(layers):
            one, other = (
                functional.normalize(found[layer].float(), dim=1, eps=1e-10)
                for found in (ours, theirs)
            )  # (1, C, H', W')
            weight = heads[f"lin{order}.weight"].to(one)[:, None, None]  # (C, 1, 1)
            distance += float(((one - other).square() * weight).sum(1).mean())
    return distance


def style_reached(
    judge: Backbone, result: Tensor, content: Tensor, style: Tensor
) -> dict[str, float]:
    """How much of the way from the content's Gram matrices to the style's was gone.

    Args:
        judge: with its usual style layers.
        result: (1, 3, H, W) in [0, 1].
        content: (1, 3, H, W).
        style: (1, 3, H', W').
    Returns:
        layer -> 1 - E_l(result) / E_l(content); 1 for the style, 0 for the content.
    Raises:
        InputError: an image is too small for the layers.
    Source: E_l of Gatys et al. 2016; the ratio, comparable between layers, is ours.
    """
    layers = DEFAULT_LAYERS[judge.name][1]
    with torch.inference_mode():
        reached, start, goal = (
            {layer: gram_matrix(each) for layer, each in judge.features(image, layers).items()}
            for image in (result, content, style)
        )
    return {
        layer: 1
        - float(style_loss(reached[layer], goal[layer]))
        / max(float(style_loss(start[layer], goal[layer])), _SMALLEST)
        for layer in layers
    }


def color_distance(first: Tensor, second: Tensor) -> float:
    """Distance of two images' colour distributions, taken as Gaussians in CIELAB.

    Args:
        first: (1, 3, H, W), sRGB in [0, 1].
        second: (1, 3, H', W').
    Returns:
        W, in units of CIELAB: W² = ||μ1 - μ2||² + tr(Σ1 + Σ2 - 2 (Σ1^½ Σ2 Σ1^½)^½).
    Source: Dowson & Landau 1982 (the Fréchet distance of Gaussians).
    """
    (mean1, cov1), (mean2, cov2) = (_lab_moments(image) for image in (first, second))
    root = _root(cov1)
    mixed = _root(root @ cov2 @ root)
    squared = (mean1 - mean2).square().sum() + torch.trace(cov1 + cov2 - 2 * mixed)
    return float(squared.clamp_min(0).sqrt())


def caption_drift(
    content: Image.Image, result: Image.Image, captioner: Captioner, reader: Backbone
) -> CaptionDrift:
    """Describe content and result, and read the content's caption off the result.

    Args:
        content: a picture.
        result: a picture.
        captioner: describes both.
        reader: its backbone.
    Raises:
        InputError: the backbone is not the captioner's.
    """
    image = torch.cat([captioner.see(picture) for picture in (content, result)])
    features = captioner.features(reader, image)  # (2, P, C)
    before, after = captioner.describe(features)
    spoken = CaptionOptions(
        method="greedy",
        prefix=" ".join(word.word for word in before.words),
        max_words=max(1, len(before.words)),
    )
    of_content, of_result = (
        torch.tensor([word.prob for word in caption.words]).clamp_min(_SMALLEST).log().mean()
        for caption in captioner.describe(features, spoken)
    )
    return CaptionDrift(before.text, after.text, float(of_content - of_result))


def to_lab(image: Tensor) -> Tensor:
    """SRGB in [0, 1] to CIELAB under D65, (B, 3, H, W) each: L in 0..100, a and b about -100..100.

    Source: IEC 61966-2-1 and CIE 15.
    """
    linear = torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ],
        dtype=image.dtype,
        device=image.device,
    )
    white = matrix.sum(1)  # the sum of each row is that of R = G = B = 1
    xyz = torch.einsum("ij,bjhw->bihw", matrix / white[:, None], linear)  # (B, 3, H, W)
    bent = torch.where(
        xyz > (6 / 29) ** 3, xyz.clamp_min(1e-9) ** (1 / 3), xyz / 0.12841855 + 4 / 29
    )
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)  # (B, 3, H, W)


def _check_heads(name: str) -> None:
    if name not in LPIPS_LAYERS:
        raise OptionError(
            f"judge: LPIPS has trained heads for {', '.join(LPIPS_LAYERS)}, not for {name!r}"
        )


def _lab_moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3)."""
    colors = to_lab(image.double())[0].flatten(1)  # (3, H*W)
    mean = colors.mean(1)
    centred = colors - mean[:, None]
    return mean, centred @ centred.mT / colors.shape[1]


def _root(matrix: Tensor) -> Tensor:
    """Square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
    return root


def _frame(image: Tensor) -> float:
    """Mean variation of the outermost 1/32 of the sides over that of the rest."""
    steps = functional.pad(image.diff(dim=-1).square(), (0, 1)) + functional.pad(
        image.diff(dim=-2).square(), (0, 0, 0, 1)
    )  # (1, 3, H, W)
    width = max(2, min(image.shape[-2:]) // 32)
    inside = steps[..., width : -width - 1, width : -width - 1]
    # The last row and column have no neighbour on one side, and are left out.
    whole = steps[..., :-1, :-1]
    frame = (whole.sum() - inside.sum()) / max(1, whole.numel() - inside.numel())
    return float(frame / inside.mean().clamp_min(_SMALLEST)) if inside.numel() else 1.0


def _clipped(image: Tensor) -> float:
    """Share of pixels with a channel at the end of its range."""
    ends = (image <= 0.5 / 255) | (image >= 1 - 0.5 / 255)  # (1, 3, H, W)
    return float(ends.any(1).float().mean())
