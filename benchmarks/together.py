"""What a step costs for several pictures as one batch, and for each of them by itself.

    python benchmarks/together.py --size 128 --count 4

Steps of L-BFGS on crops of a sample photo with the default options; both ways take turns, and the
fastest of several turns counts. On a CPU processor seconds are printed too, for a machine that is
busy with other things.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import stylecap
from stylecap.images import load_picture, scale_picture, to_image
from stylecap.style.descent import Subject
from stylecap.style.transfer import transfer_together

SAMPLES = Path(__file__).parent.parent / "samples"
STEPS = 5  # after two, the first of which computes what stays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    options = stylecap.StyleOptions(size=arguments.size, steps=STEPS + 2, scales=1)
    runtime = stylecap.Runtime.choose(arguments.device)
    backbone = stylecap.load_backbone(runtime=runtime)
    photo = load_picture(SAMPLES / "coffee.jpg")
    contents = [
        to_image(scale_picture(photo.crop((n, n, n + 320, n + 240)), arguments.size))
        for n in range(0, 8 * arguments.count, 8)
    ]
    style = to_image(scale_picture(load_picture(SAMPLES / "chelsea.jpg"), arguments.size))

    def step(count: int) -> tuple[float, float]:
        """Wall and processor seconds of a step of so many pictures."""
        marks: list[tuple[float, float]] = []

        def mark(progress: stylecap.Progress) -> None:
            if runtime.torch_device.type == "cuda":
                torch.cuda.synchronize()
            marks.append((time.perf_counter(), time.process_time()))

        first, *others = contents[:count]
        subjects = [Subject(first, on_progress=mark), *map(Subject, others)]
        transfer_together(subjects, [style], options, backbone)
        begin, end = marks[1], marks[-1]
        return (end[0] - begin[0]) / STEPS, (end[1] - begin[1]) / STEPS

    turns = [(step(arguments.count), step(1)) for _ in range(arguments.turns)]
    shape = tuple(contents[0].shape[-2:])
    print(f"{shape}, {runtime.device}, {runtime.precision}, {runtime.threads} threads")
    for kind, name in enumerate(("wall", "processor")):
        together, alone = (min(turn[way][kind] for turn in turns) for way in (0, 1))
        print(
            f"{name}: a step of {arguments.count} together {together:.3f} s, of one {alone:.3f} s: "
            f"together {together / arguments.count / alone:.2f} of one after the other"
        )


if __name__ == "__main__":
    main()
