"""What is in a photo, by torchvision's own classifiers and its Faster R-CNN.

The one exception to the shared backbone: these are whole networks, brought by
`stylecap weights fetch`.

Source: Krizhevsky 2014, Simonyan & Zisserman 2015 (classification); Ren et al. 2015 and Lin et al.
2017 (Faster R-CNN with a feature pyramid).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from stylecap.errors import InputError, OptionError, WeightsError
from stylecap.images import split_alpha, to_image
from stylecap.studio.masks import COLORS
from stylecap.weights import FETCHABLE, load_weights

CLASSIFIERS = ("alexnet", "vgg16", "vgg19")
DETECTOR = "faster-rcnn"


@dataclass(frozen=True, slots=True)
class Guess:
    """What a photo may show.

    Attributes:
        label: of ImageNet's 1,000.
        prob: its probability.
    """

    label: str
    prob: float


@dataclass(frozen=True, slots=True)
class Detection:
    """A thing and its place.

    Attributes:
        label: of COCO's 80.
        score: how sure the detector is, 0 to 1.
        box: (top, left, bottom, right) in shares of the photo's height and width.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


class Classifier:
    """Says what a whole photo shows."""

    def __init__(self, name: str = "vgg16") -> None:
        """Load a network.

        Args:
            name: one of `CLASSIFIERS`.
        Raises:
            OptionError: another name.
            WeightsError: its weights are not here, or damaged; the message says how to get them.
        """
        if name not in CLASSIFIERS:
            raise OptionError(f"network: expected one of {', '.join(CLASSIFIERS)}, got {name!r}")
        weights = f"{name}-classifier"
        with torch.device("meta"):  # nothing is drawn at random that is replaced at once
            network = models.get_model(name)
        self._network = _filled(network, weights)
        known = models.get_weight(f"{FETCHABLE[weights].enum}.DEFAULT")
        self._labels: Sequence[str] = known.meta["categories"]
        self._prepare = known.transforms()

    def classify(self, picture: Image.Image, count: int = 5) -> list[Guess]:
        """The most probable labels, the first one first.

        Args:
            picture: of any size; its middle square is seen, transparency lies over white.
            count: how many labels.
        Raises:
            OptionError: a count below 1.
        """
        if count < 1:
            raise OptionError(f"count: expected at least 1, got {count}")
        image = self._prepare(split_alpha(picture)[0])[None]  # (1, 3, 224, 224)
        with torch.inference_mode():
            probs = self._network(image)[0].softmax(0)  # (1000,)
        best = probs.topk(min(count, len(self._labels)))
        return [
            Guess(self._labels[index], prob)
            for index, prob in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


class Detector:
    """Says which things a photo shows, and where."""

    def __init__(self, network: nn.Module | None = None) -> None:
        """Load Faster R-CNN.

        Args:
            network: another one that answers in its way.
        Raises:
            WeightsError: its weights are not here, or damaged; the message says how to get them.
        """
        known = models.get_weight(f"{FETCHABLE[DETECTOR].enum}.DEFAULT")
        self._labels: Sequence[str] = known.meta["categories"]
        self._network = network or _filled(_faster_rcnn(len(self._labels)), DETECTOR)

    def detect(self, picture: Image.Image, threshold: float) -> list[Detection]:
        """Things found, the surest first.

        Args:
            picture: of any size; transparency lies over white.
            threshold: the least score, 0 to 1.
        Raises:
            OptionError: another threshold.
        """
        if not 0 <= threshold <= 1:
            raise OptionError(f"threshold: expected 0 to 1, got {threshold}")
        image = to_image(split_alpha(picture)[0])[0]  # (3, H, W)
        with torch.inference_mode():
            found = self._network([image])[0]
        things = [
            Detection(self._labels[label], score, _shares(box, image))
            for label, score, box in zip(
                found["labels"].tolist(),
                found["scores"].tolist(),
                found["boxes"].tolist(),
                strict=True,
            )
            if score >= threshold
        ]
        return sorted(things, key=lambda thing: -thing.score)


def box_regions(
    things: Sequence[Detection], size: tuple[int, int]
) -> tuple[Tensor, tuple[str, ...]]:
    """Boxes as regions for the spatial control: the rest, and one for each label.

    Where boxes overlap, the smaller one is in front. A label that nothing is seen of is left out,
    and the least sure labels where there are more than a mask has colours.

    Args:
        things: of `Detector.detect`.
        size: (height, width) of the photo.
    Returns:
        (H, W) numbers for `mask_picture`, 0 for the rest; and what each region is.
    Raises:
        InputError: there is no thing, or nothing is left beside them.
    """
    if not things:
        raise InputError("boxes: nothing was found; lower the threshold")
    height, width = size
    labels = list(dict.fromkeys(thing.label for thing in things))[: len(COLORS) - 1]
    regions = torch.zeros(size, dtype=torch.long)
    for thing in sorted(things, key=lambda each: -_area(each.box)):
        if thing.label in labels:
            top, left, bottom, right = thing.box
            rows = slice(round(top * height), max(round(top * height) + 1, round(bottom * height)))
            columns = slice(round(left * width), max(round(left * width) + 1, round(right * width)))
            regions[rows, columns] = 1 + labels.index(thing.label)
    seen = [number for number in range(len(labels) + 1) if bool((regions == number).any())]
    if seen[0] != 0:
        raise InputError("boxes: they cover the whole photo; raise the threshold, or name labels")
    numbers = torch.zeros_like(regions)
    for number, region in enumerate(seen):
        numbers[regions == region] = number
    return numbers, ("the rest", *(labels[region - 1] for region in seen[1:]))


def box_picture(picture: Image.Image, things: Sequence[Detection]) -> Image.Image:
    """The photo with its boxes, a colour for each label."""
    drawn = split_alpha(picture)[0].copy()
    pen = ImageDraw.Draw(drawn)
    labels = list(dict.fromkeys(thing.label for thing in things))
    for thing in reversed(things):
        top, left, bottom, right = thing.box
        color = COLORS[labels.index(thing.label) % len(COLORS)]
        corner = (left * (drawn.width - 1), top * (drawn.height - 1))
        opposite = (right * (drawn.width - 1), bottom * (drawn.height - 1))
        pen.rectangle((*corner, *opposite), outline=color, width=max(2, drawn.width // 200))
        text = f"{thing.label} {thing.score:.2f}"
        pen.rectangle(pen.textbbox(corner, text), fill=color)
        pen.text(corner, text, fill="white")
    return drawn


def _shares(box: Sequence[float], image: Tensor) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels to (top, left, bottom, right) in shares."""
    left, top, right, bottom = box
    height, width = image.shape[1:]
    return top / height, left / width, bottom / height, right / width


def _area(box: tuple[float, float, float, float]) -> float:
    top, left, bottom, right = box
    return (bottom - top) * (right - left)


def _faster_rcnn(labels: int) -> nn.Module:
    """Torchvision's, with the frozen normalisation of its COCO weights, whose epsilon is 0."""
    body = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=partial(FrozenBatchNorm2d, eps=0.0),
        trainable_layers=0,
    )
    network: nn.Module = FasterRCNN(body, labels)
    return network


def _filled(network: Any, name: str) -> nn.Module:
    """A network with the weights of that name, ready to be asked."""
    try:
        tensors = {key: value.float() for key, value in load_weights(name).items()}
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise WeightsError(
            f"weights {name}: they are not torchvision's ({reason}); remove the file and run "
            f"`stylecap weights fetch {name}`"
        ) from error
    filled: nn.Module = network.eval()
    return filled
