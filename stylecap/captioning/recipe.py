"""From captioned pictures to a captioner in a file: features, training, search, record."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from stylecap.backbone import Backbone, load_backbone
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.captioner_file import save_captioner
from stylecap.captioning.consensus import Consensus
from stylecap.captioning.consensus_fit import fit_consensus
from stylecap.captioning.curves import draw_curves
from stylecap.captioning.data import CaptionedPicture, check_pictures, halves, read_all
from stylecap.captioning.features import VIEWS, FeatureCache, View
from stylecap.captioning.matching import Matcher, summaries
from stylecap.captioning.metrics import Words
from stylecap.captioning.options import TrainOptions
from stylecap.captioning.train import Corpus, Trained, train
from stylecap.captioning.tuning import choose_search
from stylecap.captioning.vocabulary import mirrored_words
from stylecap.errors import InputError, OptionError
from stylecap.progress import OnProgress, Progress, ShouldStop
from stylecap.record import current_versions
from stylecap.runtime import Runtime

CAPTIONER = "captioner.safetensors"
CURVES = "curves.png"
FEATURES = "features"


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
    and the weights of the judges; the others stay untouched, to be reported by
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
        a consensus, and the search that was chosen.
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
    captioned, training, validation = _read(data, pictures)
    counts = Counter(word for each in training for words in each.captions for word in words)
    if max(counts.values()) < options.min_count:
        raise OptionError(
            f"min_count: no word occurs {options.min_count} times in the training captions, the "
            f"most frequent one {max(counts.values())} times; choose less"
        )
    if backbone is None:
        backbone = load_backbone(options.backbone, runtime=_agreed_runtime(device))
    seen = _see(
        training,
        validation,
        FeatureCache(cache or folder / FEATURES),
        backbone,
        view,
        options.mirrored,
        on_progress,
        should_stop,
    )
    if seen is None:
        return None
    trained = train(
        seen.training,
        seen.chosen,
        folder,
        options,
        frequencies=seen.references,
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
    if _rank() > 0:
        return captioner
    finished = _finish(captioner, seen, on_progress, should_stop)
    if finished is not None:
        save_captioner(finished, folder / CAPTIONER)
        if not draw_curves(trained.history, folder / CURVES) and on_progress is not None:
            message = f"{CURVES} needs matplotlib; pip install 'stylecap[train]' draws it"
            on_progress(Progress(1, 1, 0.0, "curves", message=message))
    return finished


def finish_captioner(
    captioner: Captioner,
    data: str | Path | Sequence[str | Path],
    *,
    pictures: str | Path | None = None,
    cache: str | Path | None = None,
    matcher: Matcher | None = None,
    backbone: Backbone | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Captioner | None:
    """Give trained decoders, joined ones perhaps, what follows a training: judges and search.

    Args:
        captioner: whose decoders they are; what people write is learned anew, from mirrored
            pictures, too.
        data: what they were trained on, in a form of `stylecap.captioning.data.read_captions`.
        pictures: as in `train_captioner`.
        cache: folder for the features; they are not kept if None.
        matcher: of the same backbone; the captioner's own if None.
        backbone: loaded before; else the captioner's own kind is loaded.
        on_progress: told of every batch of features, and of what follows.
        should_stop: asked before each of them.
    Returns:
        A captioner with these decoders, or None if it was stopped.
    Raises:
        As `train_captioner`.
    """
    captioner = with_judges(captioner, matcher=matcher or captioner.matcher)
    _, training, validation = _read(data, pictures)
    backbone = backbone or load_backbone(captioner.backbone_name, runtime=captioner.runtime)
    with tempfile.TemporaryDirectory(prefix="stylecap-") as passing:
        store = FeatureCache(cache or passing)
        seen = _see(
            training, validation, store, backbone, captioner.view, True, on_progress, should_stop
        )
        if seen is None:
            return None
        return _finish(captioner, seen, on_progress, should_stop)


@dataclass(frozen=True)
class _Seen:
    """What is learned from and what chooses.

    Attributes:
        training: the training split.
        chosen: every second validation picture.
        references: of all validation pictures.
    """

    training: Corpus
    chosen: Corpus
    references: Sequence[Sequence[Words]]


def _read(
    data: str | Path | Sequence[str | Path], pictures: str | Path | None
) -> tuple[list[CaptionedPicture], list[CaptionedPicture], list[CaptionedPicture]]:
    """All captioned pictures, those for training and those for validation."""
    captioned = read_all(data, pictures)
    training = [each for each in captioned if each.split == "train"]
    validation = [each for each in captioned if each.split == "dev"]
    if not training or not validation:
        raise InputError(
            f"data: expected pictures for training (split train) and validation (split dev), got "
            f"{len(training)} and {len(validation)}; name the file with the other split, too"
        )
    check_pictures([*training, *validation])
    return captioned, training, validation


def _see(
    training: Sequence[CaptionedPicture],
    validation: Sequence[CaptionedPicture],
    store: FeatureCache,
    backbone: Backbone,
    view: View,
    flipped: bool,
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
) -> _Seen | None:
    """Features of both splits; None if it was stopped."""

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
    if flipped and (mirrored := features(training, "mirrored pictures", True)) is None:
        return None
    references = [each.captions for each in validation]
    return _Seen(
        Corpus(plain, [each.captions for each in training], mirrored),
        Corpus(np.ascontiguousarray(halves(seen)[0]), halves(references)[0]),
        references,
    )


def _finish(
    captioner: Captioner,
    seen: _Seen,
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
) -> Captioner | None:
    """The captioner with a consensus, if enough was written for one, and its best search."""
    if on_progress is not None:
        on_progress(Progress(0, 1, 0.0, "what people write"))
    corpus = seen.training
    pictures, captions = [summaries(corpus.features)], [corpus.captions]
    if corpus.mirrored is not None:
        pictures.append(summaries(corpus.mirrored))
        captions.append([[mirrored_words(words) for words in each] for each in corpus.captions])
    consensus = fit_consensus(
        pictures, captions, captioner.vocabulary, captioner.view, should_stop=should_stop
    )
    captioner = with_judges(captioner, matcher=captioner.matcher, consensus=consensus)
    done = choose_search(
        captioner,
        seen.chosen.features,
        seen.chosen.captions,
        seen.references,
        on_progress,
        should_stop,
    )
    return captioner if done else None


def join_captioners(captioners: Sequence[Captioner]) -> Captioner:
    """An ensemble of captioners that were trained on the same data with other seeds or options.

    The first one's beam and length penalty are kept, judges are left out: how much they should
    count depends on the decoders. `finish_captioner` finds all that. A single one stays as it is.

    Raises:
        InputError: none, or they differ in their words, view or shape.
    """
    if not captioners:
        raise InputError("captioners: expected one captioner or more, got none")
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
    if len(captioners) == 1:
        return first
    return Captioner(
        [decoder for each in captioners for decoder in each.decoders],
        first.vocabulary,
        first.view,
        beam=first.beam,
        length_penalty=first.length_penalty,
        record={"ensemble": [each.record for each in captioners]},
        runtime=first.runtime,
    )


def with_judges(
    captioner: Captioner, *, matcher: Matcher | None = None, consensus: Consensus | None = None
) -> Captioner:
    """The same decoders with these judges, once `choose_search` has found how much they count.

    Raises:
        InputError: the matcher sees pictures in another way.
    """
    if matcher is not None:
        _check_matcher(matcher, captioner.view)
    return Captioner(
        captioner.decoders,
        captioner.vocabulary,
        captioner.view,
        matcher=matcher,
        consensus=consensus,
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
