"""The programs that stylecap is compared with, and the machine they are compared on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from objective import CONTENT, CONVOLUTIONS, MEAN, POOLED_AFTER, STD, STYLE, gram
from PIL import Image
from torch import Tensor, nn

import stylecap
from stylecap.weights import load_weights


def torchvision_vgg16() -> nn.Sequential:
    """Our weights in modules as `torchvision.models.vgg16().features`, cut after relu5_1."""
    weights = load_weights("vgg16")
    modules: list[nn.Module] = []
    for index in CONVOLUTIONS:
        kernel = weights[f"features.{index}.weight"].float()
        convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        convolution.weight.data = kernel
        convolution.bias.data = weights[f"features.{index}.bias"].float()
        modules += [convolution, nn.ReLU()]
        if index in POOLED_AFTER:
            modules.append(nn.MaxPool2d(2))
    return nn.Sequential(*modules).requires_grad_(False)


def plain_lbfgs(
    network: nn.Sequential,
    content: Tensor,
    style: Tensor,
    steps: int,
    content_weight: float,
    style_weights: Sequence[float],
    on_step: Callable[[Tensor], None] = lambda image: None,
) -> Tensor:
    """The objective of `objective.py` as everyone minimises it, from the content.

    torch.optim.LBFGS in float32 with a history of 20, autograd's gradient of the Gram matrix, no
    bounds; one step is one evaluation.

    Args:
        network: of `torchvision_vgg16`.
        content: (1, 3, H, W) in [0, 1].
        style: (1, 3, H', W').
        steps: evaluations.
        content_weight: c.
        style_weights: w_l, from relu1_1 to relu5_1.
        on_step: gets the image that was evaluated.
    """
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def features(image: Tensor) -> dict[int, Tensor]:
        found, x = {}, (image - mean) / std
        for index, module in enumerate(network):
            x = module(x)
            found[index - 1] = x  # under the index of the convolution that it rectifies
        return found

    with torch.no_grad():
        target = features(content)[CONTENT]
        of_style = features(style)
        grams = [gram(of_style[layer]) for layer in STYLE]
    x = content.clone(memory_format=torch.contiguous_format).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x],
        max_iter=steps,
        max_eval=steps,
        history_size=20,
        tolerance_grad=0,
        tolerance_change=0,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = features(x)
        loss = content_weight * (found[CONTENT] - target).square().mean()
        for layer, wanted, weight in zip(STYLE, grams, style_weights, strict=True):
            difference = gram(found[layer]) - wanted
            loss = loss + weight * difference.square().sum() / (4 * difference.shape[0] ** 2)
        loss.backward()
        on_step(x.detach())
        return loss

    optimizer.step(closure)
    return x.detach()


@dataclass(frozen=True)
class PeerRun:
    """A run of neural-style.

    Attributes:
        seconds: until it ended, from when it first runs the network.
        pictures: evaluations -> (seconds, picture file); in which the picture is clipped.
        losses: evaluations -> its own loss, of the image that is not clipped.
    """

    seconds: float
    pictures: dict[int, tuple[float, Path]]
    losses: dict[int, float]


def neural_style(
    peer: str,
    folder: Path,
    content: Path,
    style: Path,
    steps: int,
    *,
    style_weight: float = 100.0,
    history: int = 100,
    every: int = 0,
) -> PeerRun:
    """Run PyPI's neural-style 0.5.7 with our weights, from the content image, on the CPU.

    With ``every`` it says its loss and saves its picture every so many evaluations, by its own
    -print_iter and -save_iter; as BMP, which costs it about 10 ms each time. The times are those
    of the files. At the content, its loss is that of `objective.py` within 3e-4, and all digits
    agree where the border is padded as it does, with Caffe's mean instead of torchvision's.

    Args:
        peer: folder into which neural-style was installed.
        folder: for its files.
        content: a picture of the size of the result.
        style: a picture of the same long side.
        steps: evaluations.
        style_weight: of Σ_l Σ (G/(N M) - A/(N M_s))² / N²; that of Σ (F - P)² / (N M) is 1.
        history: pairs that its L-BFGS remembers; 100 unless told.
        every: 0 saves and prints nothing in between.
    """
    model = folder / "vgg16-peer.pth"
    save_peer_weights(model)
    command = [
        *(sys.executable, "-u", "-m", "neural_style.neural_style", "-gpu", "c", "-init", "image"),
        *("-content_image", str(content), "-style_image", str(style)),
        *("-image_size", str(max(Image.open(content).size))),
        *("-model_file", str(model), "-disable_check", "-tv_weight", "0"),
        *("-content_weight", "1", "-style_weight", str(style_weight)),
        *("-num_iterations", str(steps), "-print_iter", str(every), "-save_iter", str(every)),
        *("-output_image", str(folder / "peer.bmp"), "-lbfgs_num_correction", str(history)),
    ]
    errors = folder / "peer.err"
    begin, evaluations, losses = time.time(), 0, {}
    with (
        errors.open("w") as sink,
        subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": peer},
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
        ) as running,
    ):
        for line in running.stdout or ():
            words = line.split()
            if line.startswith("Capturing content targets"):
                begin = time.time()
            elif line.startswith("Iteration"):
                evaluations = int(words[1])
            elif line.strip().startswith("Total loss"):
                losses[evaluations] = float(words[-1])
    if running.returncode:
        sys.exit(f"neural-style failed: {errors.read_text()[-2000:]}")
    files = {steps: folder / "peer.bmp"}
    for file in folder.glob("peer_*.bmp"):
        files[int(file.stem.split("_")[1])] = file
    pictures = {step: (file.stat().st_mtime - begin, file) for step, file in sorted(files.items())}
    return PeerRun(pictures[steps][0], pictures, losses)


def save_peer_weights(path: Path) -> None:
    """Our VGG-16 for neural-style's images: BGR, pixel times 256, less Caffe's mean."""
    weights = {k: v.float() for k, v in load_weights("vgg16").items()}
    mean, std = (torch.tensor(values) * 256 for values in (MEAN, STD))
    caffe_mean = torch.tensor([123.68, 116.779, 103.939])
    kernel = weights["features.0.weight"] / std.view(1, 3, 1, 1)
    shift = (kernel * (caffe_mean - mean).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    weights["features.0.weight"] = kernel.flip(1).contiguous()
    weights["features.0.bias"] = weights["features.0.bias"] + shift
    torch.save(weights, path)


def machine() -> dict[str, Any]:
    """What a timing depends on."""
    model, flags = platform.processor() or platform.machine(), ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() == "flags":
            flags = value
    units = [name for name in ("avx512_bf16", "amx_bf16") if name in flags.split()]
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16 units": ", ".join(units) or "none found",
        "torch": torch.__version__,
        "stylecap": stylecap.__version__,
    }
