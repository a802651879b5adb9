"""Measure what `stylecap.studio` promises: a fast search, LPIPS like its authors', regions found.

pip install --no-deps --target PEER lpips==0.1.4 scipy tqdm
python -m benchmarks.studio --peer PEER
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from stylecap.backbone import load_backbone
from stylecap.images import to_picture
from stylecap.runtime import Runtime
from stylecap.studio.masks import segment
from stylecap.studio.quality import lpips
from stylecap.studio.search import PictureIndex
from stylecap.weights import load_weights
from tests.small import photo
from tests.test_studio_masks import discs, mean_iou, quarters, textures

VECTORS, WIDTH, QUERIES = 100_000, 512, 50
SIDES = (192, 256, 320)


def search() -> None:
    rows = np.random.default_rng(0).standard_normal((VECTORS, WIDTH), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        index = PictureIndex(folder, folder)
        names = [f"{number}.jpg" for number in range(VECTORS)]
        index._write("random", names, [[0, 0]] * VECTORS, [], {"words": rows})
        begin = time.perf_counter()
        assert index.search("words", rows[7], 12)[0].path.name == "7.jpg"
        first = time.perf_counter() - begin
        spent, computed = [], []
        for query in rows[:QUERIES]:
            begin, busy = time.perf_counter(), time.process_time()
            index.search("words", query, 12)
            spent.append(1000 * (time.perf_counter() - begin))
            computed.append(1000 * (time.process_time() - busy))
    print(
        f"{VECTORS:,} vectors of {WIDTH}: {np.median(spent):.1f} ms a query (median of {QUERIES}; "
        f"best {min(spent):.1f}), {np.median(computed):.1f} ms of them computing; the first "
        f"{first:.2f} s with reading them"
    )


def agreement(peer: Path) -> None:
    sys.path.insert(0, str(peer))
    theirs = import_module("lpips")
    for name, net in (("alexnet", "alex"), ("vgg16", "vgg")):
        metric = theirs.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
        ours = load_weights(name)
        with torch.no_grad():
            for key, weight in metric.net.named_parameters():
                weight.copy_(ours["features." + key.split(".", 1)[1]])
        judge = load_backbone(name, runtime=Runtime("cpu", "float32", 1))
        gaps = []
        for seed in range(5):
            pair = photo(96, seed), photo(96, seed + 10)
            with torch.no_grad():
                gaps.append(abs(lpips(judge, *pair) - float(metric(*pair, normalize=True))))
        print(f"LPIPS, {name}: greatest difference of 5 pairs {max(gaps):.1e}")


def regions() -> None:
    vgg = load_backbone("vgg16", runtime=Runtime("cpu", "float32", 1))
    found = {}
    for layout in (quarters, discs):
        for side in SIDES:
            true = layout(side)
            image = textures(side).gather(0, true[None, None].expand(1, 3, -1, -1))
            found[layout.__name__, side] = mean_iou(segment(vgg, to_picture(image), 4), true)
    each = ", ".join(f"{name} {side} px {iou:.3f}" for (name, side), iou in found.items())
    print(f"regions: mean IoU {np.mean(list(found.values())):.3f} ({each})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="folder that holds lpips")
    arguments = parser.parse_args()
    search()
    agreement(arguments.peer)
    regions()


if __name__ == "__main__":
    main()
