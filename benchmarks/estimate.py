"""How near `stylecap stylize --estimate` comes to what a run then takes.

    python benchmarks/estimate.py samples/chelsea.jpg mosaic --sizes 256 384 512

Estimates and runs take turns, and each run is held against the mean of the estimates before and
after it. With ``--processor-time`` the time that this program has the processor is counted
instead of that on the wall, with one thread: right on a machine that is busy with other things.
One Markdown row is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path

import torch

import stylecap
from stylecap.estimate import estimate, measure_painting


def expected(
    content: str, styles: list[str], options: stylecap.StyleOptions, backbone: stylecap.Backbone
) -> float:
    measured = measure_painting(content, styles, options, backbone)
    return estimate(measured.shape, len(styles), options, measured).seconds + measured.around


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384, 512])
    parser.add_argument("--backbones", nargs="+", default=["alexnet", "vgg16"])
    parser.add_argument("--optimizer", default="lbfgs")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--processor-time", action="store_true")
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    if arguments.processor_time:
        time.perf_counter, threads = time.process_time, 1
    target = Path(tempfile.mkdtemp()) / "result.png"

    print("| network | size | estimated | taken | estimated / taken |\n|---|---|---|---|---|")
    for network, size in product(arguments.backbones, arguments.sizes):
        runtime = stylecap.Runtime.choose(threads=threads)
        backbone = stylecap.load_backbone(network, runtime=runtime)
        options = stylecap.StyleOptions(
            backbone=network,
            size=size,
            steps=arguments.steps,
            optimizer=arguments.optimizer,
            early_stopping=False,
        )
        asked = (arguments.content, [arguments.style], options, backbone)
        before = expected(*asked)
        begin = time.perf_counter()
        stylecap.stylize(arguments.content, arguments.style, options, backbone=backbone).save(
            target
        )
        taken = time.perf_counter() - begin
        after = expected(*asked)
        mean = (before + after) / 2
        row = (network, size, f"{mean:.1f} s", f"{taken:.1f} s", f"{mean / taken:.2f}")
        print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
