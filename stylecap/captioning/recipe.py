"""From captioned pictures to a captioner in a file: features, training, search, record."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from stylecap.backbone import Backbone, load_backbone
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.curves import draw_curves
from stylecap.captioning.data import CaptionedPicture, check_pictures, halves, read_all
from stylecap.captioning.features import VIEWS, FeatureCache, View
from stylecap.captioning.matching import Matcher
from stylecap.captioning.metrics import CiderD, Words
from stylecap.captioning.options import CaptionOptions, TrainOptions
from stylecap.captioning.train import Corpus, Trained, train
from stylecap.errors import InputError, OptionError
from stylecap.progress import OnProgress, Progress, ShouldStop
from stylecap.record import current_versions
from stylecap.runtime import Runtime

CAPTIONER = "captioner.safetensors"
CURVES = "curves.png"
FEATURES = "features"
_BEAMS = (3, 5)
_PENALTIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # 1 is the mean per word; more favours length itself
_MATCH_WEIGHTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
_PART = 50  # pictures described together


def train_captioner(
    data: str | Path | Sequence[str | Path],
    folder: str | Path,
    options: TrainOptions | None = None,
    *,
    pictures: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    backbone: Backbone | None = None,
    matcher: Matcher | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Captioner | None:
    """Train a captioner; goes on where the folder holds an unfinished run.

    Every second validation picture chooses the weights to keep, the beam, the length penalty
    and the weight of the matcher; the others stay untouched, to be reported by
    `evaluate_captioner`. Where torch's process group is initialised, all processes work together
    and the first one writes; on several machines the folder has to lie on a disk that they share.

    Args:
        data: captions, in a form of `stylecap.captioning.data.read_captions`; several are
            taken together.
        folder: receives ``captioner.safetensors``, ``log.csv``, ``curves.png`` (if matplotlib
            is here) and the checkpoint; made if it is not there.
        options: `TrainOptions()` if None.
        pictures: folder of the pictures, if they lie elsewhere than beside the captions.
        cache: folder for the features, to be shared by runs; ``features`` in ``folder`` if None.
        device: of the training.
        backbone: loaded before; else loaded by the options.
        matcher: of the same backbone, to choose among the beam's sentences.
        on_progress: told of every batch of features and of every step.
        should_stop: asked before each of them; call again with the same arguments to go on.
    Returns:
        The captioner, or None if it was stopped. Of several processes only the first one's has
        the beam, the length penalty and the match weight that were chosen.
    Raises:
        InputError: captions or pictures cannot be read, the folder belongs to another run, or the
            matcher to another backbone.
        OptionError: no word is frequent enough.
        OutputError: a folder cannot be written.
        DeviceError: the device is not here.
        WeightsError: the backbone's weights are missing or corrupt.
    Source: Vinyals et al. 2015; Lu et al. 2017; Rennie et al. 2017.
    """
    options, folder = options or TrainOptions(), Path(folder)
    view = VIEWS[options.backbone]
    if matcher is not None:
        _check_matcher(matcher, view)
    captioned = read_all(data, pictures)
    training = [each for each in captioned if each.split == "train"]
    validation = [each for each in captioned if each.split == "dev"]
    if not training or not validation:
        raise InputError(
            f"data: expected pictures for training (split train) and validation (split dev), got "
            f"{len(training)} and {len(validation)}; name the file with the other split, too"
        )
    check_pictures([*training, *validation])
    counts = Counter(word for each in training for words in each.captions for word in words)
    if max(counts.values()) < options.min_count:
        raise OptionError(
            f"min_count: no word occurs {options.min_count} times in the training captions, the "
            f"most frequent one {max(counts.values())} times; choose less"
        )
    if backbone is None:
        backbone = load_backbone(options.backbone, runtime=_agreed_runtime(device))
    store = FeatureCache(cache or folder / FEATURES)

    def features(
        of: Sequence[CaptionedPicture], what: str, mirrored: bool = False
    ) -> np.ndarray | None:
        def told(progress: Progress) -> None:
            if on_progress is not None:
                on_progress(replace(progress, stage=f"features of {what}"))

        return _in_turns(
            lambda: store.features(
                backbone,
                view,
                [each.path for each in of],
                mirrored=mirrored,
                on_progress=told,
                should_stop=should_stop,
            ),
            backbone.runtime.torch_device,
        )

    seen = features(validation, "validation pictures")
    if seen is None:
        return None
    plain = features(training, "training pictures")
    if plain is None:
        return None
    mirrored = None
    if options.mirrored and (mirrored := features(training, "mirrored pictures", True)) is None:
        return None
    references = [each.captions for each in validation]
    chosen = Corpus(np.ascontiguousarray(halves(seen)[0]), halves(references)[0])
    trained = train(
        Corpus(plain, [each.captions for each in training], mirrored),
        chosen,
        folder,
        options,
        frequencies=references,
        device=backbone.runtime.device,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if not trained.finished:
        return None
    captioner = Captioner(
        [trained.decoder],
        trained.vocabulary,
        view,
        matcher=matcher,
        record=_record(data, captioned, options, trained, backbone),
        runtime=backbone.runtime,
    )
    if _rank() == 0:
        if not choose_search(
            captioner, chosen.features, chosen.captions, references, on_progress, should_stop
        ):
            return None
        captioner.save(folder / CAPTIONER)
        if not draw_curves(trained.history, folder / CURVES) and on_progress is not None:
            message = f"{CURVES} needs matplotlib; pip install 'stylecap[train]' draws it"
            on_progress(Progress(1, 1, 0.0, "curves", message=message))
    return captioner


def choose_search(
    captioner: Captioner,
    features: np.ndarray,
    references: Sequence[Sequence[Words]],
    frequencies: Sequence[Sequence[Words]],
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> bool:
    """Set a captioner's beam, length penalty and match weight to those of the highest CIDEr-D.

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
    tried: list[dict[str, Any]] = []
    settings = [(beam, penalty) for beam in _BEAMS for penalty in _PENALTIES]
    began = time.monotonic()
    for place, (beam, penalty) in enumerate(settings, 1):
        options = CaptionOptions(beam=beam, length_penalty=penalty)
        found = []
        for part in _parts(features):
            if should_stop is not None and should_stop():
                return False
            found += captioner.candidates(part, options)
        ciders = [
            [scorer.score(words_in(each.sentence.tokens), group) for each in some]
            for some, group in zip(found, prepared, strict=True)
        ]
        for weight in (0.0,) if captioner.matcher is None else _MATCH_WEIGHTS:
            chosen = [
                max(zip(some, scores, strict=True), key=lambda pair: pair[0].value(weight))[1]
                for some, scores in zip(found, ciders, strict=True)
            ]
            cider = sum(chosen) / len(chosen)
            setting = {"beam": beam, "length_penalty": penalty, "match_weight": weight}
            tried.append({**setting, "cider": cider})
        if on_progress is not None:
            seconds = time.monotonic() - began
            on_progress(Progress(place, len(settings), seconds, "choosing beam and penalty"))
    if should_stop is not None and should_stop():
        return False
    best = max(tried, key=lambda each: each["cider"])
    captioner.beam, captioner.length_penalty = best["beam"], best["length_penalty"]
    captioner.match_weight = best["match_weight"]
    captioner.record["search"] = {"pictures": len(features), "best": best, "tried": tried}
    return True


def describe_all(
    captioner: Captioner, features: np.ndarray, options: CaptionOptions
) -> list[list[str]]:
    """The best caption, as words, for each of (N, P, C) features."""
    return [
        [each.word for each in caption.words]
        for part in _parts(features)
        for caption in captioner.describe(part, options)
    ]


def _parts(features: np.ndarray) -> Iterator[Tensor]:
    for start in range(0, len(features), _PART):
        yield torch.from_numpy(np.array(features[start : start + _PART]))


@dataclass(frozen=True, slots=True)
class SeenSplit:
    """One split of a data set as a captioner sees it.

    Attributes:
        pictures: of the split.
        features: (N, P, C) of them.
        training: captions of the training split, if the data hold one.
    """

    pictures: Sequence[CaptionedPicture]
    features: np.ndarray
    training: Sequence[Words]


def see_split(
    captioner: Captioner,
    data: str | Path | Sequence[str | Path],
    split: str,
    *,
    pictures: str | Path | None = None,
    cache: str | Path | None = None,
    backbone: Backbone | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> SeenSplit | None:
    """Read captioned pictures and compute the features of one split.

    Args:
        captioner: whose view of the pictures it is.
        data: as in `train_captioner`.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        pictures: as in `train_captioner`.
        cache: folder for the features; they are not kept if None.
        backbone: loaded before; else the captioner's own kind is loaded.
        on_progress: told of every batch of features.
        should_stop: asked before each of them.
    Returns:
        None if it was stopped.
    Raises:
        InputError: the split is not in the data, or something cannot be read.
    """
    captioned = read_all(data, pictures)
    chosen = [each for each in captioned if each.split == split]
    if not chosen:
        there = ", ".join(sorted({each.split for each in captioned}))
        raise InputError(f"split: expected one with pictures in it ({there}), got {split!r}")
    check_pictures(chosen)
    backbone = backbone or load_backbone(captioner.backbone_name, runtime=captioner.runtime)
    paths = [each.path for each in chosen]
    with tempfile.TemporaryDirectory(prefix="stylecap-") as passing:
        features = FeatureCache(cache or passing).features(
            backbone, captioner.view, paths, on_progress=on_progress, should_stop=should_stop
        )
        if features is not None and cache is None:
            features = np.array(features)
    if features is None:
        return None
    training = [words for each in captioned if each.split == "train" for words in each.captions]
    return SeenSplit(chosen, features, training)


def join_captioners(captioners: Sequence[Captioner]) -> Captioner:
    """An ensemble of captioners that were trained on the same data with other seeds or options.

    The first one's beam and length penalty are kept; `choose_search` finds better ones. Matchers
    are left out: how much they should count depends on the decoders. `with_matcher` adds one.

    Raises:
        InputError: fewer than two, or they differ in their words, view or shape.
    """
    if len(captioners) < 2:
        raise InputError(f"captioners: expected two captioners or more, got {len(captioners)}")
    first = captioners[0]
    for place, other in enumerate(captioners[1:], 2):
        for what, mine, theirs in (
            ("see pictures in the same way", first.view, other.view),
            ("know the same words", first.vocabulary.words, other.vocabulary.words),
            (
                "have decoders of one shape",
                first.decoders[0].shape.trained,
                other.decoders[0].shape.trained,
            ),
        ):
            if mine != theirs:
                raise InputError(
                    f"captioners: 1 and {place} do not {what}; join only those trained "
                    "on the same data and backbone"
                )
    return Captioner(
        [decoder for each in captioners for decoder in each.decoders],
        first.vocabulary,
        first.view,
        beam=first.beam,
        length_penalty=first.length_penalty,
        record={"ensemble": [each.record for each in captioners]},
        runtime=first.runtime,
    )


def with_matcher(captioner: Captioner, matcher: Matcher) -> Captioner:
    """A captioner that asks the matcher, too, once `choose_search` has found how much.

    Raises:
        InputError: the matcher sees pictures in another way.
    """
    _check_matcher(matcher, captioner.view)
    return Captioner(
        captioner.decoders,
        captioner.vocabulary,
        captioner.view,
        matcher=matcher,
        beam=captioner.beam,
        length_penalty=captioner.length_penalty,
        record=captioner.record,
        runtime=captioner.runtime,
    )


def _check_matcher(matcher: Matcher, view: View) -> None:
    if matcher.view != view:
        raise InputError(
            f"matcher: expected one that sees pictures as the captioner does, {view}, got one for "
            f"{matcher.view}; train one with `stylecap train-search --backbone {view.backbone}`"
        )


def _record(
    data: str | Path | Sequence[str | Path],
    captioned: Sequence[CaptionedPicture],
    options: TrainOptions,
    trained: Trained,
    backbone: Backbone,
) -> Mapping[str, Any]:
    """How a captioner came about; names and hashes, no folders."""
    sources = [data] if isinstance(data, str | Path) else list(data)
    digest = hashlib.sha256()
    captions: Counter[str] = Counter()
    for each in captioned:
        captions[each.split] += len(each.captions)
        digest.update(repr((each.split, each.path.name, each.captions)).encode())
    return {
        "data": {
            "names": [Path(source).name for source in sources],
            "pictures": dict(Counter(each.split for each in captioned)),
            "captions": dict(captions),
            "sha256": digest.hexdigest(),
        },
        "options": asdict(options),
        "weights": {backbone.name: backbone.weights_sha256},
        "precision": backbone.runtime.precision,
        "history": [asdict(scores) for scores in trained.history],
        "versions": current_versions(),
    }


# several processes


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _agreed_runtime(device: str) -> Runtime:
    """One precision for all processes: which is faster is measured, and might differ."""
    runtime = Runtime.choose(device)
    if dist.is_available() and dist.is_initialized():
        agreed = [runtime.precision]
        dist.broadcast_object_list(agreed, device=runtime.torch_device)
        runtime = replace(runtime, precision=agreed[0])
    return runtime


def _in_turns(compute: Callable[[], np.ndarray | None], device: torch.device) -> np.ndarray | None:
    """What ``compute`` gives: computed by one process and then read from disk by the others.

    The first process of all goes first, then the first one of every machine, for they may not
    share a disk, then all. None if it was stopped in any of them.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return compute()
    found = None
    for mine in (_rank() == 0, os.environ.get("LOCAL_RANK", "0") == "0", True):
        if mine:
            found = compute()
        stopped = torch.tensor(float(mine and found is None), device=device)
        dist.all_reduce(stopped)  # also waits
        if stopped > 0:
            return None
    return found
