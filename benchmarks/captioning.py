"""What a caption costs beside the backbone's own forward pass: one image, and a folder of 500.

    python benchmarks/captioning.py [--backbone vgg16] [--captioner FILE] [--images 500]

Run it with nothing else running. One image: the fastest time of each sample photo, of several
rounds in which the two sides take turns. A folder of parts of these photos: the medians of turns of
50 pictures, each a call of its own, since a machine's speed changes within seconds. The targets: a
caption with beam 5 costs at most 1.25 forward passes, a folder runs at 90 % of the backbone's
throughput or more.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import stylecap
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.features import see
from stylecap.captioning.options import CaptionOptions
from stylecap.images import load_picture
from stylecap.runtime import Runtime

BATCHES = (1, 2, 4, 8, 16, 32)
TURN = 50  # pictures
PHOTOS = sorted((Path(__file__).parent.parent / "samples").glob("*.jpg"))


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def one_image(captioner: Captioner, backbone: stylecap.Backbone, rounds: int) -> None:
    view, options = captioner.view, CaptionOptions(beam=5)

    def forward(image: torch.Tensor) -> None:
        with torch.inference_mode():
            backbone.features(image, view.layers)

    def describe(image: torch.Tensor) -> None:
        captioner.describe(captioner.features(backbone, image), options)

    network = whole = 0.0
    for photo in PHOTOS:
        image = see(load_picture(photo), view)
        forward(image), describe(image)
        turns = [
            (seconds(partial(forward, image)), seconds(partial(describe, image)))
            for _ in range(rounds)
        ]
        alone, both = (min(column) for column in zip(*turns, strict=True))
        network, whole = network + alone / len(PHOTOS), whole + both / len(PHOTOS)
    print(
        f"one image: forward {1000 * network:.1f} ms, caption with beam 5 {1000 * whole:.1f} ms, "
        f"ratio {whole / network:.3f} (target 1.25)",
        flush=True,
    )


def best_batch(backbone: stylecap.Backbone, captioner: Captioner, rounds: int) -> int:
    """The batch size at which the network alone is fastest."""
    view = captioner.view
    images = {batch: torch.rand(batch, 3, view.side_px, view.side_px) for batch in BATCHES}

    def forward(image: torch.Tensor) -> None:
        with torch.inference_mode():
            backbone.features(image, view.layers)

    forward(images[max(BATCHES)])
    turns = [[seconds(partial(forward, images[n])) / n for n in BATCHES] for _ in range(rounds)]
    fastest = dict(zip(BATCHES, map(min, zip(*turns, strict=True)), strict=True))
    told = ", ".join(f"{1 / each:.1f} with batch {batch}" for batch, each in fastest.items())
    print(f"backbone alone, images a second: {told}", flush=True)
    return min(fastest, key=lambda batch: fastest[batch])


def folder(captioner: Captioner, backbone: stylecap.Backbone, images: int, rounds: int) -> None:
    view, batch = captioner.view, best_batch(backbone, captioner, rounds)
    draw, photos = random.Random(0), [load_picture(photo) for photo in PHOTOS]
    with tempfile.TemporaryDirectory() as place:
        paths = []
        for number in range(images):
            photo = photos[number % len(photos)]
            side = draw.randint(photo.height // 2, photo.height)
            left, top = draw.randint(0, photo.width - side), draw.randint(0, photo.height - side)
            part = photo.crop((left, top, left + side, top + side))
            paths.append(Path(place) / f"{number}.jpg")
            part.resize((view.side_px, view.side_px)).save(paths[-1])
        image = torch.rand(batch, 3, view.side_px, view.side_px)

        def forward(count: int) -> None:
            with torch.inference_mode():
                for _ in range(count // batch):
                    backbone.features(image, view.layers)

        def describe(part: list[Path]) -> None:
            found = stylecap.caption_many(part, captioner=captioner, backbone=backbone)
            assert all(isinstance(each, stylecap.Caption) for _, each in found)

        turns = []
        for start in range(0, images, TURN):
            part = paths[start : start + TURN]
            count = -(-len(part) // batch) * batch
            network = seconds(partial(forward, count)) / count
            turns.append((network, seconds(partial(describe, part)) / len(part)))
    alone, ours = (1 / statistics.median(column) for column in zip(*turns, strict=True))
    share = statistics.median(network / whole for network, whole in turns)
    print(
        f"folder of {images}: backbone alone (batch {batch}) {alone:.1f} images a second, "
        f"stylecap.caption_many {ours:.1f}, share {share:.3f} (target 0.90)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--captioner", help="file; default the one that comes with --backbone")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    runtime = Runtime.choose()
    captioner = stylecap.load_captioner(arguments.captioner or arguments.backbone, runtime=runtime)
    backbone = stylecap.load_backbone(captioner.backbone_name, runtime=runtime)
    print(
        f"{platform.processor() or platform.machine()}, {runtime.threads} threads, "
        f"{runtime.device}, {runtime.precision}, torch {torch.__version__}, "
        f"{captioner.backbone_name}, {len(captioner.decoders)} decoder(s)"
    )
    one_image(captioner, backbone, 10 * arguments.rounds)
    folder(captioner, backbone, arguments.images, arguments.rounds)


if __name__ == "__main__":
    main()
