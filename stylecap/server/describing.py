"""Captions for the page: words with their regions, another word tried, whole folders."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from stylecap.captioning.options import CaptionOptions
from stylecap.drawing import draw_over
from stylecap.errors import StylecapError
from stylecap.files import write_atomically
from stylecap.images import scale_picture, split_alpha
from stylecap.server.faults import public_words
from stylecap.server.painting import open_picture

if TYPE_CHECKING:
    from torch import Tensor

    from stylecap.backbone import Backbone
    from stylecap.captioning.captioner import Caption, Captioner
    from stylecap.server.site import Site

_SHOWN_SIDE_PX = 720


@dataclass(frozen=True, slots=True)
class Described:
    """A picture seen once, ready to be asked again.

    Attributes:
        picture: as it is shown.
        features: what the captioner reads.
        caption: the latest description.
        options: with which it was made.
        path: of the picture's file.
    """

    picture: Image.Image
    features: Tensor
    caption: Caption
    options: CaptionOptions
    path: Path


def describe(
    path: Path,
    picture: Image.Image,
    captioner: Captioner,
    backbone: Backbone,
    options: CaptionOptions,
) -> Described:
    """Describe a picture that was read from a path."""
    captioner.check(options)
    shown = split_alpha(picture)[0]
    shown = scale_picture(shown, _SHOWN_SIDE_PX, enlarge=False)
    features = captioner.features(backbone, captioner.see(picture))
    caption = captioner.describe(features, options)[0]
    return Described(shown, features, caption, options, path)


def describe_with(seen: Described, captioner: Captioner, place: int, word: str) -> Described:
    """Decode again with another word at one place; the words before it stay.

    Args:
        seen: the description so far.
        captioner: the same as before.
        place: of the word, from 0.
        word: to be put there.
    Raises:
        OptionError: the captioner does not know the word.
    """
    kept = [each.word for each in seen.caption.words[:place]]
    options = replace(seen.options, prefix=" ".join([*kept, word]))
    return replace(seen, caption=captioner.describe(seen.features, options)[0], options=options)


def heat_map(seen: Described, place: int) -> Image.Image | None:
    """The picture, dark where the captioner looked least for a word, bright where most.

    None if the captioner does not look.
    """
    attention = seen.caption.words[place].attention
    return None if attention is None else draw_over(seen.picture, attention - attention.min())


def probability(log_prob: float) -> float:
    """Of a whole caption, from its logarithm."""
    return math.exp(min(0.0, log_prob))


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a folder: its caption, or why there is none."""

    name: str
    caption: str
    prob: float | None
    problem: str


def describe_file(path: Path, site: Site, options: CaptionOptions) -> Row:
    """Describe one of many pictures; a bad one is a row that says so.

    Raises:
        WeightsError: there is no captioner.
    """
    captioner = site.captioner()
    backbone = site.backbone(captioner.backbone_name)
    try:
        picture = open_picture(path, site.options)
    except StylecapError as error:
        return Row(path.name, "", None, public_words(str(error)))
    found = describe(path, picture, captioner, backbone, options).caption
    return Row(path.name, found.text, probability(found.log_prob), "")


def write_table(rows: Sequence[Row], path: Path) -> Path:
    """Write rows as CSV, atomically; cells that a spreadsheet would run as formulas are quoted."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(("picture", "caption", "probability", "problem"))
    for row in rows:
        prob = "" if row.prob is None else f"{row.prob:.3g}"
        writer.writerow((_inert(row.name), row.caption, prob, _inert(row.problem)))
    write_atomically(path, stream.getvalue().encode("utf-8-sig", "backslashreplace"))
    return path


def _inert(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
