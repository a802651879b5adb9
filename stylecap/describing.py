"""Describe: paths, pictures or tensors in; captions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from stylecap.backbone import Backbone, load_backbone
from stylecap.captioning.captioner import Caption, Captioner
from stylecap.captioning.captioner_file import load_captioner
from stylecap.captioning.features import check_backbone, squash
from stylecap.captioning.loading import map_ahead
from stylecap.captioning.options import CaptionOptions
from stylecap.errors import OptionError, StylecapError
from stylecap.images import to_image
from stylecap.inputs import Pictorial, open_picture
from stylecap.progress import ShouldStop


def caption(
    image: Pictorial,
    options: CaptionOptions | None = None,
    *,
    captioner: Captioner | None = None,
    backbone: Backbone | None = None,
) -> Caption:
    """Describe a picture in one sentence.

    Args:
        image: what is shown.
        options: `CaptionOptions()` if None.
        captioner: loaded before, to be used again; else loaded by the options.
        backbone: loaded before, perhaps for `stylize`; else the captioner's own kind is loaded.
    Raises:
        OptionError: the options' prefix holds a word that the captioner does not know.
        InputError: the picture cannot be read, or the backbone is not the captioner's.
        WeightsError: weights are missing or corrupt.
    Source: Vinyals et al. 2015; Lu et al. 2017.
    """
    captions = caption_many(image, options, captioner=captioner, backbone=backbone)
    found = next(captions)[1]
    if isinstance(found, StylecapError):
        raise found
    return found


def caption_many(
    pictures: Iterable[Pictorial] | Pictorial,
    options: CaptionOptions | None = None,
    *,
    captioner: Captioner | None = None,
    backbone: Backbone | None = None,
    batch: int = 16,
    should_stop: ShouldStop | None = None,
) -> Iterator[tuple[Pictorial, Caption | StylecapError]]:
    """Describe many pictures, reading the next ones while the network is busy.

    Args:
        pictures: as many as there are, or a single one; they are taken as they are needed.
        options: as in `caption`.
        captioner: as in `caption`.
        backbone: as in `caption`.
        batch: pictures that go through the network together.
        should_stop: asked before every batch; a stop ends the captions early.
    Returns:
        Each picture as it was given, in that order, with its caption or with the error that
        kept it from being read.
    Raises:
        As `caption`, at once; only what is wrong with one picture comes in its place.
    """
    if isinstance(pictures, str | Path | Image.Image | Tensor):
        pictures = [pictures]
    if batch < 1:
        raise OptionError(f"batch: expected at least 1, got {batch}")
    options = options or CaptionOptions()
    captioner = captioner or load_captioner(options.backbone)
    captioner.check(options)
    backbone = backbone or load_backbone(captioner.backbone_name, runtime=captioner.runtime)
    check_backbone(backbone, captioner.view)
    return _captions(pictures, options, captioner, backbone, batch, should_stop)


def _captions(
    pictures: Iterable[Pictorial],
    options: CaptionOptions,
    captioner: Captioner,
    backbone: Backbone,
    batch: int,
    should_stop: ShouldStop | None,
) -> Iterator[tuple[Pictorial, Caption | StylecapError]]:
    def read(source: Pictorial) -> tuple[Pictorial, Image.Image | StylecapError]:
        try:
            return source, squash(open_picture(source), captioner.view)
        except StylecapError as error:
            return source, error

    with closing(map_ahead(read, pictures, ahead=2 * batch)) as ahead:
        while chunk := list(islice(ahead, batch)):
            if should_stop is not None and should_stop():
                return
            images = [to_image(found) for _, found in chunk if isinstance(found, Image.Image)]
            described: Iterator[Caption] = iter(())
            if images:
                features = captioner.features(backbone, torch.cat(images))
                described = iter(captioner.describe(features, options))
            for source, found in chunk:
                yield source, found if isinstance(found, StylecapError) else next(described)
