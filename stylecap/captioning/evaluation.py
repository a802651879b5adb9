"""How good a captioner is on pictures that people described: figures, and what they mean.

Beside every figure stand those of people, of one sentence for every picture, and of the same
captions given to other pictures, so that it can be judged.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stylecap.backbone import Backbone, load_backbone
from stylecap.captioning.captioner import Captioner
from stylecap.captioning.data import CaptionedPicture, check_pictures, halves, read_all
from stylecap.captioning.features import FeatureCache, in_parts
from stylecap.captioning.metrics import (
    CiderD,
    Measure,
    Words,
    constant_floor,
    evaluate,
    has_wordnet,
    human_ceiling,
)
from stylecap.captioning.options import CaptionOptions
from stylecap.captioning.vocabulary import text_of
from stylecap.errors import InputError, OutputError
from stylecap.progress import OnProgress, Progress, ShouldStop
from stylecap.record import current_versions

#: Figures that are counts or ratios; all others are shown times 100.
_SHUFFLE_SEED = 0


@dataclass(frozen=True, slots=True)
class Described:
    """One picture of a report.

    Attributes:
        path: of the picture.
        caption: what the captioner said.
        references: what people wrote.
        cider: CIDEr-D of the caption.
    """

    path: Path
    caption: str
    references: tuple[str, ...]
    cider: float


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of a captioner on one split of a data set.

    Attributes:
        split: its name.
        whole: figure by name, on all its pictures.
        first, second: on every other picture and on the rest; of ``dev``, the first half chose
            weights and search settings where `train_captioner` trained.
        human: each reference against the others of its picture; None if one has a single one.
        constant: of the sentence ``sentence`` for every picture; None without training captions.
        sentence: see there.
        shuffled: of the captions, each given to another picture.
        wordnet: whether METEOR counted synonyms.
        described: every picture.
        about: captioner, data, options and versions.
    """

    split: str
    whole: Mapping[str, Measure]
    first: Mapping[str, Measure]
    second: Mapping[str, Measure]
    human: Mapping[str, float] | None
    constant: Mapping[str, Measure] | None
    sentence: str
    shuffled: Mapping[str, Measure]
    wordnet: bool
    described: Sequence[Described]
    about: Mapping[str, Any]

    def to_json(self) -> str:
        """The report as JSON; pictures by file name."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["described"] = [{**asdict(each), "path": each.path.name} for each in self.described]
        for name in ("whole", "first", "second", "constant", "shuffled"):
            figures = values[name]
            values[name] = figures and {key: asdict(each) for key, each in figures.items()}
        return json.dumps(values, indent=1)

    def save(self, folder: str | Path) -> None:
        """Write ``report.json`` and ``report.html``.

        Raises:
            OutputError: the folder cannot be written.
        """
        from stylecap.captioning.page import report_page

        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / "report.json").write_text(self.to_json() + "\n", encoding="utf-8")
            (place / "report.html").write_text(report_page(self), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{place}: cannot be written: {error.strerror}") from error


def describe_all(
    captioner: Captioner,
    features: np.ndarray,
    options: CaptionOptions,
    should_stop: ShouldStop | None = None,
) -> list[list[str]] | None:
    """The best caption, as words, for each of (N, P, C) features; None if it was stopped."""
    captions: list[list[str]] = []
    for part in in_parts(features):
        if should_stop is not None and should_stop():
            return None
        described = captioner.describe(part, options)
        captions += [[each.word for each in caption.words] for caption in described]
    return captions


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
        data: captions, in a form of `stylecap.captioning.data.read_captions`; several are
            taken together.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        pictures: folder of the pictures, if they lie elsewhere than beside the captions.
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


def evaluate_captioner(
    captioner: Captioner,
    data: str | Path | Sequence[str | Path],
    split: str = "dev",
    options: CaptionOptions | None = None,
    *,
    pictures: str | Path | None = None,
    cache: str | Path | None = None,
    backbone: Backbone | None = None,
    meteor: bool = True,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Report | None:
    """Describe the pictures of a split and compare with what people wrote.

    CIDEr-D weighs words by all references of the split, in the halves, too.

    Args:
        captioner: to be judged.
        data: captions, in a form of `stylecap.captioning.data.read_captions`.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        options: how captions are searched; `CaptionOptions()` if None.
        pictures: folder of the pictures, if they lie elsewhere than beside the captions.
        cache: folder that keeps the pictures' features; they are not kept if None.
        backbone: loaded before; else the captioner's own kind is loaded.
        meteor: whether to compute METEOR, which takes longest.
        on_progress: told of every batch of features, and of what follows.
        should_stop: asked before every batch, and before what is described is compared.
    Returns:
        The report, or None if it was stopped.
    Raises:
        InputError: the split is not in the data, or something cannot be read.
        OptionError: as `stylecap.caption`.
    """
    options = options or CaptionOptions()
    captioner.check(options)
    seen = see_split(
        captioner,
        data,
        split,
        pictures=pictures,
        cache=cache,
        backbone=backbone,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if seen is None:
        return None

    def tell(step: int, stage: str) -> None:
        if on_progress is not None:
            on_progress(Progress(step, 4, 0.0, stage))

    tell(0, "describing")
    captions = describe_all(captioner, seen.features, options, should_stop)
    if captions is None:
        return None
    references = [each.captions for each in seen.pictures]
    tell(1, "comparing")
    measure = partial(
        evaluate,
        document_frequencies=references,
        training_captions=seen.training,
        meteor=meteor,
    )
    whole = measure(captions, references)
    said, wrote = halves(captions), halves(references)
    first = measure(said[0], wrote[0])
    second = measure(said[1], wrote[1]) if said[1] else first  # one picture has no second half
    tell(2, "comparing with people")
    human = None
    if min(map(len, references)) > 1:
        human = human_ceiling(
            references,
            partial(evaluate, training_captions=seen.training, meteor=meteor),
        )
    tell(3, "comparing with one sentence for all")
    sentence, constant = "", None
    if seen.training:
        words, constant = constant_floor(
            seen.training, references, partial(evaluate, meteor=meteor)
        )
        sentence = text_of(words)
    shuffled = measure(_shuffled(captions), references)
    scorer = CiderD(references)
    described = [
        Described(
            picture.path,
            text_of(words),
            tuple(map(text_of, picture.captions)),
            scorer.score(words, scorer.prepare(picture.captions)),
        )
        for picture, words in zip(seen.pictures, captions, strict=True)
    ]
    tell(4, "done")
    return Report(
        split,
        whole,
        first,
        second,
        human,
        constant,
        sentence,
        shuffled,
        has_wordnet(),
        described,
        {
            "backbone": captioner.backbone_name,
            "decoders": len(captioner.decoders),
            "vocabulary": len(captioner.vocabulary),
            "options": asdict(captioner.settled(options)),
            "precision": captioner.runtime.precision,
            "data": captioner.record.get("data"),
            "versions": current_versions(),
        },
    )


def _shuffled(captions: Sequence[Words]) -> list[Words]:
    """Every caption given to another picture, by one random cycle through all."""
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(captions))
    moved: list[Words] = list(captions)
    for place, source in zip(order, np.roll(order, 1), strict=True):
        moved[place] = captions[source]
    return moved
