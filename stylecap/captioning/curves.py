"""A picture of a training run, if matplotlib is here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylecap.captioning.run_folder import Scores
from stylecap.errors import OutputError


def draw_curves(history: Sequence[Scores], path: Path) -> bool:
    """Draw loss, reward and validation scores over the passes.

    Args:
        history: of the run.
        path: where the PNG goes.
    Returns:
        False, with nothing drawn, where matplotlib is not installed.
    Raises:
        OutputError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    passes = range(1, len(history) + 1)
    words, reward = (
        [(n, row.loss) for n, row in zip(passes, history, strict=True) if row.phase == phase]
        for phase in ("words", "reward")
    )
    if words:
        upper.plot(*zip(*words, strict=True), marker=".", label="cross-entropy a word (left)")
    if reward:
        right = upper.twinx()
        right.plot(*zip(*reward, strict=True), "C1.-", label="CIDEr-D of drawn captions (right)")
        right.legend(loc="upper right")
    if words:
        upper.legend(loc="upper left")
    for name, label in (("cider", "CIDEr-D"), ("bleu4", "BLEU-4"), ("rouge_l", "ROUGE-L")):
        lower.plot(passes, [100 * getattr(row, name) for row in history], marker=".", label=label)
    lower.set(xlabel="passes, then means of the weights", ylabel="validation, x 100")
    lower.grid(alpha=0.3)
    lower.legend()
    try:
        figure.savefig(path, dpi=100)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return True
