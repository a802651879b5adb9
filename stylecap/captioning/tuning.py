"""Choose how a captioner searches, on validation pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stylecap.captioning.captioner import Captioner
from stylecap.captioning.features import in_parts
from stylecap.captioning.metrics import CiderD, Words
from stylecap.captioning.options import CaptionOptions
from stylecap.progress import OnProgress, Progress, ShouldStop

_BEAMS = (3, 5, 10)
_PENALTIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # 1 is the mean per word; more favours length itself
_MATCH_WEIGHTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
_CONSENSUS_WEIGHTS = (3.0, 0.0, 1.0, 2.0, 4.0)  # the first one while beam and penalty are chosen


def choose_search(
    captioner: Captioner,
    features: np.ndarray,
    references: Sequence[Sequence[Words]],
    frequencies: Sequence[Sequence[Words]],
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> bool:
    """Set a captioner's beam, length penalty and weights of judges to those of highest CIDEr-D.

    The consensus steers the beam, so that each of its weights is a search of its own: beam and
    penalty are chosen first, then its weight. That of the matcher is chosen with all of them.

    Args:
        captioner: changed; its record keeps the figures under ``search``.
        features: (N, P, C) of validation pictures.
        references: what people wrote about each.
        frequencies: references that CIDEr-D weighs words by.
        on_progress: told after every setting.
        should_stop: asked before every fifty pictures of each setting, and at the end.
    Returns:
        False if it was stopped; nothing is changed then.
    """
    scorer = CiderD(frequencies)
    prepared = [scorer.prepare(group) for group in references]
    words_in = captioner.vocabulary.decode
    first, *others = (0.0,) if captioner.consensus is None else _CONSENSUS_WEIGHTS
    match_weights = (0.0,) if captioner.matcher is None else _MATCH_WEIGHTS
    tried: list[dict[str, Any]] = []

    def best() -> dict[str, Any]:
        weights = ("consensus_weight", "match_weight")  # nobody is asked for nothing
        return max(tried, key=lambda each: (each["cider"], *(-each[name] for name in weights)))

    def settings() -> Iterator[dict[str, Any]]:
        for beam in _BEAMS:
            for penalty in _PENALTIES:
                yield {"beam": beam, "length_penalty": penalty, "consensus_weight": first}
        chosen = best()
        for weight in others:
            kept = {name: chosen[name] for name in ("beam", "length_penalty")}
            yield {**kept, "consensus_weight": weight}

    count = len(_BEAMS) * len(_PENALTIES) + len(others)
    began = time.monotonic()
    for place, setting in enumerate(settings(), 1):
        found = []
        for part in in_parts(features):
            if should_stop is not None and should_stop():
                return False
            found += captioner.candidates(part, CaptionOptions(**setting))
        ciders = [
            [scorer.score(words_in(each.sentence.tokens), group) for each in some]
            for some, group in zip(found, prepared, strict=True)
        ]
        for weight in match_weights:
            chosen = [
                max(zip(some, scores, strict=True), key=lambda pair: pair[0].value(weight))[1]
                for some, scores in zip(found, ciders, strict=True)
            ]
            cider = sum(chosen) / len(chosen)
            tried.append({**setting, "match_weight": weight, "cider": cider})
        if on_progress is not None:
            seconds = time.monotonic() - began
            on_progress(Progress(place, count, seconds, "choosing the search"))
    if should_stop is not None and should_stop():
        return False
    for name, value in best().items():
        if name != "cider":
            setattr(captioner, name, value)
    captioner.record["search"] = {"pictures": len(features), "best": best(), "tried": tried}
    return True
