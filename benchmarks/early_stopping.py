"""What early stopping saves, and how far its picture is from that of all steps.

    python benchmarks/early_stopping.py CONTENT STYLE --strength 0.85 --size 256 --steps 300

One scale is painted with all its steps. A run that stops is the beginning of that one, so the
thresholds can all be read from it: the mean change of a pixel in ten steps, in 1/255, below
which it would have ended. LPIPS (by the network that did not paint), the mean difference in
1/255 and the objective are between the picture there and that of all steps. ``--rounding``
paints again in the other precision: two pictures that no option tells apart.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor

import stylecap
from stylecap.images import to_image, to_picture
from stylecap.progress import Progress
from stylecap.studio.quality import load_judge, lpips
from stylecap.style.descent import _LOOK_EVERY

OTHER = {"bfloat16": "float32", "float32": "bfloat16"}


class Watcher:
    """Keeps each picture right after a look, with the change that the look found."""

    def __init__(self) -> None:
        self.looks: list[tuple[int, float, Tensor, float]] = []
        self._seen: Tensor | None = None
        self._change = float("inf")

    def __call__(self, progress: Progress) -> None:
        """Look at one step."""
        picture = progress.preview()
        if progress.step % _LOOK_EVERY == 0:
            if self._seen is not None:
                self._change = 255 * float((picture - self._seen).abs().mean())
            self._seen = picture
        elif progress.step % _LOOK_EVERY == 1 and self._seen is not None:
            self.looks.append((progress.step, self._change, picture, progress.loss))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--strength", type=float, default=0.85)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--optimizer", default="lbfgs")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 1.0, 1.5])
    parser.add_argument("--rounding", action="store_true")
    arguments = parser.parse_args()

    options = stylecap.StyleOptions(
        size=arguments.size,
        strength=arguments.strength,
        steps=arguments.steps,
        backbone=arguments.backbone,
        optimizer=arguments.optimizer,
        scales=1,
        early_stopping=False,
    )
    judge = load_judge(arguments.backbone)

    def compared(name: str, steps: int, picture: Tensor, loss: float) -> None:
        shown = to_image(to_picture(picture))
        with torch.no_grad():
            distance = lpips(judge, shown, whole)
        difference = 255 * float((shown - whole).abs().mean())
        row = (
            name,
            steps,
            f"{distance:.3f}",
            f"{difference:.1f}",
            f"{loss / full.loss['total']:.3f}",
        )
        print("|", " | ".join(map(str, row)), "|", flush=True)

    watcher = Watcher()
    full = stylecap.stylize(arguments.content, arguments.style, options, on_progress=watcher)
    whole = to_image(full.picture)
    print(f"{vars(arguments)}\n| threshold | steps | LPIPS | difference | objective |")
    print("|---|---|---|---|---|")
    for threshold in arguments.thresholds:
        settled = next((look for look in watcher.looks if look[1] < threshold), None)
        if settled is None:
            print(f"| {threshold} | {full.steps} (all) | | | |")
        else:
            compared(str(threshold), settled[0], settled[2], settled[3])
    if arguments.rounding:
        other = replace(options, precision=OTHER[full.precision])
        again = stylecap.stylize(arguments.content, arguments.style, other)
        compared(f"in {again.precision}", again.steps, again.image, again.loss["total"])


if __name__ == "__main__":
    main()
