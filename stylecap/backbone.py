"""VGG-16, VGG-19 and AlexNet as named convolutional layers: image -> {layer name: features}.

Layer names are the field's: ``conv1_1``, ``relu4_2``, ``pool5`` for VGG; ``conv1``, ``relu1``,
``pool1`` ... ``relu5``, ``pool5`` for AlexNet. Normalisation and pooling are owned here.

Sources: Krizhevsky 2014, "One weird trick" (torchvision's AlexNet); Simonyan & Zisserman 2015
(VGG); Zeiler & Fergus 2013 (stochastic pooling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from stylecap.errors import InputError, OptionError
from stylecap.runtime import Runtime, keep_float32
from stylecap.weights import load_weights, weights_sha256

POOLINGS = ("max", "average", "stochastic")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a convolution, its rectifier or a pooling.

    Attributes:
        name: such as ``conv3_1``.
        kind: ``"conv"``, ``"relu"`` or ``"pool"``.
        channels: of its output.
        kernel, stride, padding: in pixels of its input; 1, 1, 0 for a rectifier.
        index: place in torchvision's ``features``, which names the weights.
    """

    name: str
    kind: str
    channels: int
    kernel: int
    stride: int
    padding: int
    index: int

    def output_size(self, size: int) -> int:
        """(N - F + 2 P) / S + 1, rounded down, along one side."""
        return (size - self.kernel + 2 * self.padding) // self.stride + 1


def _vgg(convolutions: Sequence[int]) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for block, (count, channels) in enumerate(
        zip(convolutions, (64, 128, 256, 512, 512), strict=True), start=1
    ):
        for order in range(1, count + 1):
            index = len(layers)
            layers.append(Layer(f"conv{block}_{order}", "conv", channels, 3, 1, 1, index))
            layers.append(Layer(f"relu{block}_{order}", "relu", channels, 1, 1, 0, index + 1))
        layers.append(Layer(f"pool{block}", "pool", channels, 2, 2, 0, len(layers)))
    return tuple(layers)


def _alexnet() -> tuple[Layer, ...]:
    # (channels, kernel, stride, padding, followed by a pooling)
    plan = (
        (64, 11, 4, 2, True),
        (192, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (256, 3, 1, 1, False),
        (256, 3, 1, 1, True),
    )
    layers: list[Layer] = []
    for order, (channels, kernel, stride, padding, pooled) in enumerate(plan, start=1):
        index = len(layers)
        layers.append(Layer(f"conv{order}", "conv", channels, kernel, stride, padding, index))
        layers.append(Layer(f"relu{order}", "relu", channels, 1, 1, 0, index + 1))
        if pooled:
            layers.append(Layer(f"pool{order}", "pool", channels, 3, 2, 0, index + 2))
    return tuple(layers)


ARCHITECTURES = {
    "vgg16": _vgg((2, 2, 3, 3, 3)),
    "vgg19": _vgg((2, 2, 4, 4, 4)),
    "alexnet": _alexnet(),
}
BACKBONES = tuple(ARCHITECTURES)


class Backbone:
    """A frozen pretrained network, loaded once, that painting and captioning share.

    It is usable once constructed and never changes: layers and pooling are arguments of
    `features`, so that one object can serve several uses at a time.

    Attributes:
        name: of the architecture, one of `BACKBONES`.
        runtime: device and precision of the weights and the features.
        weights_sha256: identity of the weights, for run records and caches.
    """

    def __init__(
        self,
        name: str,
        weights: dict[str, Tensor],
        runtime: Runtime | None = None,
        *,
        weights_sha256: str = "",
    ) -> None:
        """Place the weights on the runtime's device, in its precision.

        Args:
            name: one of `BACKBONES`.
            weights: torchvision's ``features.N.weight`` (O, I, H, W) and ``features.N.bias``.
            runtime: chosen automatically if None.
            weights_sha256: of the file they come from.
        Raises:
            OptionError: unknown name.
            InputError: a tensor is missing or has another shape.
        """
        self.name = name
        self.runtime = runtime or Runtime.choose()
        self.weights_sha256 = weights_sha256
        self._layers = {layer.name: layer for layer in architecture(name)}
        # Channels last: on CPUs a quarter to a third faster, and what tensor cores want.
        device, dtype = self.runtime.torch_device, self.runtime.dtype
        keep_float32()
        self._kernels: dict[str, tuple[Tensor, Tensor]] = {}
        incoming = 3
        for layer in self._layers.values():
            if layer.kind != "conv":
                continue
            expected = (layer.channels, incoming, layer.kernel, layer.kernel)
            kernel = weights.get(f"features.{layer.index}.weight")
            bias = weights.get(f"features.{layer.index}.bias")
            if kernel is None or bias is None or tuple(kernel.shape) != expected:
                got = "nothing" if kernel is None or bias is None else tuple(kernel.shape)
                raise InputError(
                    f"weights of {name}: features.{layer.index} should have shape {expected} and "
                    f"a bias, got {got}; these weights are of another network"
                )
            self._kernels[layer.name] = (
                kernel.to(device, dtype).contiguous(memory_format=torch.channels_last),
                bias.to(device, dtype),
            )
            incoming = layer.channels
        self._mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers, from the image upwards."""
        return tuple(self._layers)

    def features(
        self,
        image: Tensor,
        layers: Sequence[str],
        *,
        pooling: str = "max",
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Run the network up to the deepest layer asked for.

        Args:
            image: (B, 3, H, W), RGB in [0, 1], float32 on any device; gradients flow to it.
            layers: names out of `layers`, in any order.
            pooling: ``"max"``, ``"average"`` or ``"stochastic"``.
            generator: with stochastic pooling, sample as in training; None takes the
                expectation, its deterministic form for inference.
        Returns:
            layer name -> (B, C, H', W') in the runtime's precision, in the order asked for.
        Raises:
            OptionError: an unknown layer or pooling, or none.
            InputError: the image has another shape or is too small for the deepest layer.
        """
        deepest = self._deepest(layers)
        if pooling not in POOLINGS:
            raise OptionError(f"pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
        if image.ndim != 4 or image.shape[1] != 3:
            raise InputError(f"image: expected (B, 3, H, W), got {tuple(image.shape)}")
        smallest = smallest_side(self.name, deepest)
        if min(image.shape[-2:]) < smallest:
            raise InputError(
                f"image: {deepest} of {self.name} needs at least {smallest}x{smallest} pixels, "
                f"got {image.shape[-2]}x{image.shape[-1]}; choose a larger size"
            )
        wanted = set(layers)
        found: dict[str, Tensor] = {}
        x = self.normalize(image)
        below = ""
        for layer in layers_needed(self.name, layers, pooling):
            # In place unless somebody asked for what it would overwrite.
            x = self.compute(
                layer, x, pooling=pooling, generator=generator, inplace=below not in wanted
            )
            below = layer.name
            if layer.name in wanted:
                found[layer.name] = x
        return {name: found[name] for name in layers}

    def normalize(self, image: Tensor) -> Tensor:
        """What the first layer reads: (B, 3, H, W) in [0, 1] to ImageNet's mean and deviation."""
        x = (image.to(self._mean.device) - self._mean) / self._std  # (B, 3, H, W)
        return x.to(self.runtime.dtype, memory_format=torch.channels_last)

    def compute(
        self,
        layer: Layer,
        x: Tensor,
        *,
        pooling: str = "max",
        padded_rows: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
        inplace: bool = False,
    ) -> Tensor:
        """One layer alone.

        Args:
            layer: of this network.
            x: (B, C, H, W), what the layer below gives, or some rows of it.
            pooling: if it is one.
            padded_rows: rows of zeros above and below, if ``x`` does not reach both ends of the
                image; the layer's own padding if None.
            generator: as in `features`.
            inplace: a rectifier may overwrite ``x``.
        """
        if layer.kind == "pool":
            return pool(x, pooling, layer.kernel, layer.stride, generator=generator)
        if layer.kind == "relu":
            return functional.relu(x, inplace=inplace)
        kernel, bias = self._kernels[layer.name]
        both = (layer.padding, layer.padding)
        if padded_rows is None or padded_rows == both:
            return functional.conv2d(x, kernel, bias, layer.stride, layer.padding)
        if padded_rows != (0, 0):
            x = functional.pad(x, (0, 0, *padded_rows))
        return functional.conv2d(x, kernel, bias, layer.stride, (0, layer.padding))

    def transposed(
        self,
        layer: Layer,
        gradient: Tensor,
        size: tuple[int, int],
        padded_rows: tuple[int, int] | None = None,
    ) -> Tensor:
        """The gradient of what a convolution reads, (B, C, H, W), from that of what it gives.

        Args:
            layer: a convolution of this network.
            gradient: (B, C', H', W').
            size: (H, W).
            padded_rows: as in `compute`.
        """
        kernel, _ = self._kernels[layer.name]
        above, below = padded_rows or (layer.padding, layer.padding)
        padded = (size[0] + above + below, size[1] + 2 * layer.padding)
        unread = tuple(
            have - (given - 1) * layer.stride - layer.kernel
            for have, given in zip(padded, gradient.shape[2:], strict=True)
        )
        slope = functional.conv_transpose2d(
            gradient, kernel, None, layer.stride, (0, layer.padding), unread
        )
        return slope[:, :, above : above + size[0]]

    def _deepest(self, layers: Sequence[str]) -> str:
        if isinstance(layers, str) or not layers:
            raise OptionError(f"layers: expected a list of layer names, got {layers!r}")
        check_layers(self.name, layers)
        order = self.layers.index
        return max(layers, key=order)


def load_backbone(
    name: str = "vgg16", *, runtime: Runtime | None = None, weights: str | None = None
) -> Backbone:
    """Load a pretrained backbone.

    Args:
        name: one of `BACKBONES`; VGG-16 and AlexNet come with stylecap.
        runtime: device and precision; the fastest here if None.
        weights: folder to take the weights from, instead of the usual places.
    Raises:
        OptionError: unknown name.
        WeightsError: the weights are missing or corrupt.
    """
    architecture(name)
    return Backbone(
        name, load_weights(name, weights), runtime, weights_sha256=weights_sha256(name, weights)
    )


def architecture(name: str) -> tuple[Layer, ...]:
    """The layers of a network, in order.

    Raises:
        OptionError: unknown name.
    """
    if name not in ARCHITECTURES:
        raise OptionError(f"backbone: expected one of {', '.join(BACKBONES)}, got {name!r}")
    return ARCHITECTURES[name]


def layers_needed(name: str, wanted: Sequence[str], pooling: str) -> tuple[Layer, ...]:
    """The layers to compute for some, up to the deepest of them, in order.

    A rectifier that nobody asked for comes after the maximum pooling that would follow it, which
    gives the same and costs a quarter.

    Raises:
        OptionError: as `check_layers`.
    """
    check_layers(name, wanted)
    network = architecture(name)
    deepest = max(index for index, layer in enumerate(network) if layer.name in wanted)
    order = list(network[: deepest + 1])
    for index, (layer, above) in enumerate(pairwise(network[: deepest + 1])):
        swaps = layer.kind == "relu" and above.kind == "pool" and pooling == "max"
        if swaps and not {layer.name, above.name} & set(wanted):
            order[index : index + 2] = above, layer
    return tuple(order)


def check_layers(name: str, layers: Sequence[str]) -> None:
    """Refuse layers that a network does not have.

    Raises:
        OptionError: naming the layer and those that exist.
    """
    known = [layer.name for layer in architecture(name)]
    for wanted in layers:
        if wanted not in known:
            raise OptionError(f"layers: {name} has no layer {wanted!r}; it has {', '.join(known)}")


def pool(
    features: Tensor,
    pooling: str,
    kernel: int,
    stride: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pool non-negative features.

    Stochastic pooling picks one activation of each window with p_i = a_i / Σ a, or, for
    inference, takes the expectation Σ p_i a_i; a window of zeros gives 0.

    Args:
        features: (B, C, H, W); rectified, for stochastic pooling.
        pooling: ``"max"``, ``"average"`` or ``"stochastic"``.
        kernel: side of the window, in positions.
        stride: from one window to the next, in positions.
        generator: sample (stochastic pooling only) instead of taking the expectation.
    Returns:
        (B, C, H', W').
    Source: Zeiler & Fergus 2013, equations 1, 2 and 4.
    """
    if pooling == "max":
        return functional.max_pool2d(features, kernel, stride)
    if pooling == "average":
        return functional.avg_pool2d(features, kernel, stride)
    if generator is not None:
        return _sampled(features, kernel, stride, generator)
    precise = features.to(torch.promote_types(features.dtype, torch.float32))
    total = functional.avg_pool2d(precise, kernel, stride)
    squares = functional.avg_pool2d(precise.square(), kernel, stride)
    occupied = total > 0
    expected = torch.where(occupied, squares, 0.0) / torch.where(occupied, total, 1.0)
    return expected.to(features.dtype)


def _sampled(features: Tensor, kernel: int, stride: int, generator: torch.Generator) -> Tensor:
    windows = features.unfold(2, kernel, stride).unfold(3, kernel, stride).flatten(4)
    # windows: (B, C, H', W', kernel²)
    choices = windows.detach().to(torch.float32).flatten(0, 3)  # (B*C*H'*W', kernel²)
    empty = choices.sum(1, keepdim=True) == 0
    picked = torch.multinomial(choices + empty, 1, generator=generator)  # (B*C*H'*W', 1)
    return windows.gather(4, picked.view(*windows.shape[:4], 1)).squeeze(4)


def smallest_side(name: str, layer: str) -> int:
    """Smallest image side, in pixels, for which a layer still has one position."""
    side = 1
    while True:
        size = side
        for step in architecture(name):
            size = step.output_size(size)
            if size < 1 or step.name == layer:
                break
        if size >= 1:
            return side
        side += 1


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A row of `layer_table`.

    Attributes:
        name: of the layer.
        output: (channels, height, width).
        parameters: weights and biases.
        multiply_adds: to compute it once, without biases.
        receptive_field_px: side of the square of the image that one position sees.
        stride_px: distance of neighbouring positions in the image.
    """

    name: str
    output: tuple[int, int, int]
    parameters: int
    multiply_adds: int
    receptive_field_px: int
    stride_px: int


def layer_table(name: str, size: tuple[int, int] = (224, 224)) -> list[LayerInfo]:
    """Sizes, parameters, cost and receptive field of every layer that has a position left.

    Output sides follow (N - F + 2 P) / S + 1, parameters (F² C_in + 1) C_out.

    Args:
        name: one of `BACKBONES`.
        size: (height, width) of the image, in pixels.
    Raises:
        OptionError: unknown name, or a size too small for the first layer.
    """
    layers = architecture(name)
    least = smallest_side(name, layers[0].name)
    if min(size) < least:
        raise OptionError(
            f"size: {name} needs at least {least}x{least} pixels, got {size[0]}x{size[1]}"
        )
    rows: list[LayerInfo] = []
    incoming, (height, width), field, step = 3, size, 1, 1
    for layer in layers:
        height, width = layer.output_size(height), layer.output_size(width)
        if min(height, width) < 1:
            break
        field += (layer.kernel - 1) * step
        step *= layer.stride
        per_output = layer.kernel**2 * incoming if layer.kind == "conv" else 0
        rows.append(
            LayerInfo(
                layer.name,
                (layer.channels, height, width),
                (per_output + 1) * layer.channels if per_output else 0,
                per_output * layer.channels * height * width,
                field,
                step,
            )
        )
        incoming = layer.channels
    return rows
