"""Seconds until the objective is as low as neural-style's: curves, a table and a plot.

    pip install --no-deps --target PEER neural-style==0.5.7
    python benchmarks/speed.py WORK --pair CONTENT STYLE --pair ... --sizes 256 512 --peer PEER
    python benchmarks/speed.py WORK --pair CONTENT STYLE --sizes 1024 --steps 100 --peer PEER

Every (pair, size, program) is one run, whose curve goes into the folder WORK as JSON. A run that
is there already is not repeated, so that a call can be broken off and given again, or the whole be
made in pieces (--programs); each call ends with plot and table of all that is there. Nothing else
may be running; the load of the last minute is kept with each run.

    neural-style   PyPI's, 500 steps of its L-BFGS with its 100 corrections, our weights
    plain          torch.optim.LBFGS in float32, history 20 (`peers.plain_lbfgs`)
    one scale      stylecap's optimiser and precision on one scale
    stylecap       its default schedule from coarse to fine, 300 steps
    floor          rates, floor and step of the first pair (`floor.py`)

All start from the content and minimise one loss, that of neural-style without total variation, as
`gatys` with content weight 1 and style weight 100,000 times 4 / N² for a layer of N channels. (Its
own ratio is 20, for Caffe's weights, whose features and therefore Gram matrices are far larger.)

Curves are of the picture with 8 bits, as it would be saved, scored in float64 by `objective.py`.
neural-style writes them itself (-save_iter), every tenth step as BMP, which costs it one step in a
hundred at most; the others keep references to their images and write them after the end. A coarse
picture is enlarged. Time begins when a program first runs the network for its targets: nobody's
start and loading of weights count.

An image that its optimiser leaves free loses when it is clipped to be saved. So the table has two
goals: neural-style's best picture, and the lowest loss that it printed itself, of the image that
was not clipped, which nobody could save.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from floor import measure, rows
from matplotlib.figure import Figure
from objective import Objective, read
from peers import machine, neural_style, plain_lbfgs, torchvision_vgg16
from PIL import Image
from torch import Tensor

import stylecap
from stylecap.images import load_picture, resize_picture, scale_picture, to_image, to_picture
from stylecap.progress import Progress

STYLE_WEIGHT = 1e5
LAYER_WEIGHTS = tuple(4 / channels**2 for channels in (64, 128, 256, 512, 512))
SAMPLED = {1, 2, 3, 5, 7, *range(10, 100, 10), *range(100, 500, 25), *range(500, 2001, 100)}
STEPS = {"neural-style": 500, "plain": 300, "one scale": 300, "stylecap": 300}

#: (steps, seconds, picture)
Snapshot = tuple[int, float, Image.Image]


class Job:
    """One pair at one size; all programs see the same two files."""

    def __init__(self, content: str, style: str, size: int, work: Path) -> None:
        self.pair = f"{Path(content).stem} in {Path(style).stem}"
        self.size = size
        self.name = f"{Path(content).stem}-{Path(style).stem}-{size}"
        self.content, self.style = (work / f"{self.name}-{n}.png" for n in ("content", "style"))
        for source, target in ((content, self.content), (style, self.style)):
            if source in stylecap.STYLES:
                picture = stylecap.paint_style(source)
            else:
                picture = load_picture(source)
            scale_picture(picture, size).save(target)

    def images(self) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W) and (1, 3, H', W')."""
        return to_image(load_picture(self.content)), to_image(load_picture(self.style))


def paint_plain(job: Job, steps: int) -> list[Snapshot]:
    """torch.optim.LBFGS."""
    network, (content, style) = torchvision_vgg16(), job.images()
    kept: list[tuple[int, float, Tensor]] = []
    done = 0

    def on_step(image: Tensor) -> None:
        nonlocal done
        done += 1
        if done in SAMPLED or done == steps:
            kept.append((done, time.perf_counter() - begin, image.clone()))

    begin = time.perf_counter()
    weights = [STYLE_WEIGHT * weight for weight in LAYER_WEIGHTS]
    plain_lbfgs(network, content, style, steps, 1.0, weights, on_step)
    return [(step, seconds, to_picture(image.clamp(0, 1))) for step, seconds, image in kept]


def paint_ours(job: Job, steps: int, **changes: Any) -> list[Snapshot]:
    """stylecap, as it comes but for the objective."""
    options = stylecap.StyleOptions(
        size=job.size,
        steps=steps,
        objective="gatys",
        content_weight=1.0,
        style_weight=STYLE_WEIGHT,
        layer_weights=LAYER_WEIGHTS,
        early_stopping=False,
        **changes,
    )
    backbone = stylecap.load_backbone()
    kept: list[tuple[int, float, Tensor]] = []
    stage, since = "", 0

    def on_progress(progress: Progress) -> None:
        nonlocal stage, since
        since = since + 1 if progress.stage == stage else 1
        stage = progress.stage
        if since in SAMPLED or progress.step == steps:
            kept.append((progress.step, time.perf_counter() - begin, progress.preview()))

    begin = time.perf_counter()
    stylecap.stylize(job.content, job.style, options, backbone=backbone, on_progress=on_progress)
    return [(step, seconds, to_picture(image)) for step, seconds, image in kept]


PAINTERS: dict[str, Callable[[Job, int], list[Snapshot]]] = {
    "plain": paint_plain,
    "one scale": lambda job, steps: paint_ours(job, steps, scales=1),
    "stylecap": paint_ours,
}


def run(job: Job, program: str, steps: int, peer: str | None) -> dict[str, Any]:
    """Paint, then score every snapshot: [steps, seconds, objective]."""
    load, losses = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as folder:
        if program == "neural-style":
            if peer is None:
                raise SystemExit("neural-style: name the folder it was installed into with --peer")
            done = neural_style(
                peer,
                Path(folder),
                job.content,
                job.style,
                steps,
                style_weight=STYLE_WEIGHT,
                every=10 if steps >= 100 else 1,
            )
            losses = done.losses
            snapshots = [
                (step, seconds, load_picture(file))
                for step, (seconds, file) in done.pictures.items()
                if step in SAMPLED or step == steps
            ]
        else:
            snapshots = PAINTERS[program](job, steps)
    weights = [STYLE_WEIGHT * weight for weight in LAYER_WEIGHTS]
    objective = Objective(read(str(job.content)), read(str(job.style)), 1.0, weights)
    size = Image.open(job.content).size[::-1]
    points = [
        (step, seconds, objective(to_image(resize_picture(picture, size))))
        for step, seconds, picture in snapshots
    ]
    return {
        "pair": job.pair,
        "size": job.size,
        "program": program,
        "steps": steps,
        "points": points,
        "own losses": losses,
        "machine": machine(),
        "load": load,
    }


def reached_after(points: list[tuple[int, float, float]], goal: float) -> float:
    """Seconds until a curve is as low as the goal, straight in log(objective) between its points.

    Infinity where it never is.
    """
    before = None
    for _, seconds, value in points:
        if value <= goal:
            if before is None or before[1] <= goal:
                return seconds
            share = math.log(before[1] / goal) / math.log(before[1] / value)
            return before[0] + share * (seconds - before[0])
        before = (seconds, value)
    return math.inf


def table(runs: dict[tuple[str, int, str], dict[str, Any]], goal_of: str) -> list[str]:
    """Markdown: seconds to neural-style's goal, by it and by each other, over its own."""
    others = [name for name in STEPS if name != "neural-style"]
    lines = [
        f"| size | pair | {goal_of} | neural-style | "
        + " | ".join(f"{name} | of its time" for name in others)
        + " |",
        "|---" * (4 + 2 * len(others)) + "|",
    ]
    peers = {(size, pair): each for (pair, size, name), each in runs.items() if name not in others}
    for size in sorted({size for size, _ in peers}):
        ratios: dict[str, list[float]] = {name: [] for name in others}
        for pair in (pair for at, pair in peers if at == size):
            goal, seconds = goal_and_seconds(peers[size, pair], goal_of)
            cells = [str(size), pair, f"{goal:.3f}", f"{seconds:.0f} s"]
            for name in others:
                if (pair, size, name) not in runs:
                    cells += ["", ""]
                    continue
                taken = reached_after(runs[pair, size, name]["points"], goal)
                ratios[name].append(taken / seconds)
                cells += [shown(taken, ".1f", " s"), shown(taken / seconds, ".3f")]
            lines.append("| " + " | ".join(cells) + " |")
        middle = [shown(median(found), ".3f") if found else "" for found in ratios.values()]
        lines.append(f"| {size} | median | | | | " + " | | ".join(middle) + " |")
    return lines


def goal_and_seconds(peer: dict[str, Any], goal_of: str) -> tuple[float, float]:
    """The lowest objective of neural-style's pictures or of its own losses, and when it was."""
    if goal_of == "best picture":
        _, seconds, goal = min(peer["points"], key=lambda point: point[2])
        return goal, seconds
    steps, seconds, _ = peer["points"][-1]
    at, goal = min(peer["own losses"].items(), key=lambda item: item[1])
    return goal, seconds * int(at) / steps


def shown(value: float, digits: str, unit: str = "") -> str:
    """A number, or that it never was."""
    return f"{value:{digits}}{unit}" if math.isfinite(value) else "never"


def draw(runs: dict[tuple[str, int, str], dict[str, Any]], target: Path) -> None:
    """One panel for each size and pair, both axes logarithmic."""
    sizes = sorted({size for _, size, _ in runs})
    pairs = list(dict.fromkeys(pair for pair, _, _ in runs))
    figure = Figure(figsize=(3.6 * len(pairs), 2.8 * len(sizes)), layout="constrained")
    panels = figure.subplots(len(sizes), len(pairs), squeeze=False)
    for row, size in enumerate(sizes):
        for panel, pair in zip(panels[row], pairs, strict=True):
            curves = {name: runs.get((pair, size, name)) for name in STEPS}
            panel.set_visible(any(curves.values()))
            for name, found in curves.items():
                if found is None:
                    continue
                _, seconds, values = zip(*found["points"], strict=True)
                panel.plot(seconds, values, label=name, linewidth=1.3)
            panel.set(xscale="log", yscale="log", xlabel="seconds", ylabel="objective")
            panel.set_title(f"{pair}, {size} px", fontsize=9)
            panel.legend(fontsize=7)
    figure.savefig(target, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of the runs")
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar="PICTURE")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--programs", nargs="+", default=[*STEPS, "floor"])
    parser.add_argument("--steps", type=int, help="of every program, instead of its own number")
    parser.add_argument("--peer", help="folder into which neural-style was installed")
    parser.add_argument("--plot", type=Path, help="WORK/speed.png if not given")
    arguments = parser.parse_args()

    arguments.work.mkdir(parents=True, exist_ok=True)
    for size in arguments.sizes:
        for order, (content, style) in enumerate(arguments.pair):
            job = Job(content, style, size, arguments.work)
            for program in arguments.programs:
                name = f"floor-{size}" if program == "floor" else f"{job.name}-{program}"
                file = arguments.work / f"{name.replace(' ', '-')}.json"
                if file.exists() or (program == "floor" and order):
                    continue
                print(f"{job.pair}, {size} px, {program} ...", flush=True)
                if program == "floor":
                    result = measure(*job.images(), turns=12)
                else:
                    steps = arguments.steps or STEPS[program]
                    result = run(job, program, steps, arguments.peer)
                unfinished = file.with_suffix(".part")
                unfinished.write_text(json.dumps(result))
                unfinished.rename(file)

    results = [json.loads(file.read_text()) for file in sorted(arguments.work.glob("*.json"))]
    if not results:
        raise SystemExit(f"{arguments.work}: no run is there yet; name at least one --pair")
    for line in dict.fromkeys(
        ", ".join(f"{name} {value}" for name, value in each["machine"].items()) for each in results
    ):
        print(line)
    print(f"load before a run: at most {max(each['load'] for each in results):.1f}\n")
    runs = {(r["pair"], r["size"], r["program"]): r for r in results if "pair" in r}
    for goal in ("best picture", "own loss"):
        print(*table(runs, goal), sep="\n", end="\n\n")
    for each in results:
        if "pair" not in each:
            print(*rows(each), sep="\n", end="\n\n")
    if runs:
        draw(runs, arguments.plot or arguments.work / "speed.png")


if __name__ == "__main__":
    main()
