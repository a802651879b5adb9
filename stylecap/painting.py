"""Paint: paths, pictures or tensors in; paintings with their records out."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from stylecap.backbone import Backbone, load_backbone
from stylecap.errors import DeviceError, OptionError, StylecapError
from stylecap.files import QUALITY, reason_of
from stylecap.images import (
    join_alpha,
    resize_image,
    save_picture,
    scale_picture,
    split_alpha,
    to_image,
    to_picture,
)
from stylecap.inputs import (
    Pictorial,
    listed_styles,
    read_input,
    reference_image,
    region_colors,
    style_image,
)
from stylecap.progress import OnProgress, ShouldStop
from stylecap.record import InputRecord, RunRecord, current_versions
from stylecap.runtime import Runtime, is_out_of_memory
from stylecap.studio.quality import Judge, QualityCard
from stylecap.style.cache import StyleCache
from stylecap.style.checkpoint import Checkpoint, OnCheckpoint
from stylecap.style.control import regions_of
from stylecap.style.descent import Subject, Transfer
from stylecap.style.options import AUTO, StyleOptions
from stylecap.style.transfer import mix_scales, transfer_together


@dataclass(frozen=True, slots=True)
class StyleResult:
    """A painting and how it came about.

    Attributes:
        image: (1, 3, H, W), RGB in [0, 1], float32, on the CPU.
        alpha: transparency of the content, at its own size, or None.
        loss: of the image: ``content``, ``style`` per layer, ``tv`` and ``total``.
        steps: evaluations of the objective really made.
        seconds: time that the optimisation took.
        stopped: it was asked to stop before the last step.
        messages: what a person should know.
        options: with device and precision as they were chosen, and the memory if it was short.
        record: all that is needed to repeat the run; saved inside the picture.
        card: what the judge found, if there was one; it is in the record, too.
    """

    image: Tensor
    alpha: Image.Image | None
    loss: dict[str, Any]
    steps: int
    seconds: float
    stopped: bool
    messages: tuple[str, ...]
    options: StyleOptions
    record: RunRecord
    card: QualityCard | None = None

    @property
    def device(self) -> str:
        """Where it was computed."""
        return self.options.device

    @property
    def precision(self) -> str:
        """Precision of the network."""
        return self.options.precision

    @property
    def picture(self) -> Image.Image:
        """The painting in 8 bits, with the content's transparency put back."""
        return join_alpha(to_picture(self.image), self.alpha)

    def save(self, path: str | Path, quality: int = QUALITY) -> Path:
        """Write the picture with the record inside, atomically.

        Args:
            path: its suffix names the format.
            quality: of the lossy formats, 1 to 100.
        Raises:
            OutputError: it cannot be written there.
        """
        save_picture(self.picture, path, quality=quality, record=self.record.to_json())
        return Path(path)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A painting before its first stroke: everything that it is made from, read.

    Attributes:
        subject: content and start at the size of the result, and who is told of the painting.
        styles: each (1, 3, H', W').
        regions: (R, 1, H, W) of the mask, or None.
        alpha: transparency of the content, or None.
        options: of the painting.
        inputs: what was read, in order.
        mask_colors: as given to `sketch`.
    """

    subject: Subject
    styles: tuple[Tensor, ...]
    regions: Tensor | None
    alpha: Image.Image | None
    options: StyleOptions
    inputs: tuple[InputRecord, ...]
    mask_colors: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result, in pixels."""
        return self.subject.content.shape[-2], self.subject.content.shape[-1]

    @property
    def kind(self) -> Hashable:
        """Equal for sketches that can be painted together: all but contents and starts."""
        shared = tuple(entry for entry in self.inputs if entry.role in ("style", "mask"))
        return self.options, self.size, shared, self.mask_colors


def stylize(
    content: Pictorial,
    style: Pictorial | Sequence[Pictorial],
    options: StyleOptions | None = None,
    *,
    backbone: Backbone | None = None,
    init_image: Pictorial | None = None,
    mask: str | Path | Image.Image | None = None,
    mask_colors: Sequence[str] = (),
    judge: Judge | None = None,
    cache: StyleCache | None = None,
    resume: Checkpoint | None = None,
    on_progress: OnProgress | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    should_stop: ShouldStop | None = None,
) -> StyleResult:
    """Paint a picture in the manner of one or several others.

    Args:
        content: what is shown.
        style: in which manner: a picture, the name of a built-in style, or several of them.
        options: `StyleOptions()` if None.
        backbone: loaded before, to be used again; else loaded by the options. Its runtime
            replaces the options' device and precision.
        init_image: what to start from; needs and implies ``init="image"``.
        mask: a picture with one flat colour for each style, which paints that region.
        mask_colors: ``"#rrggbb"`` for each style; white and black if there are two.
        judge: judges the painting; only paintings of a single style can be judged.
        cache: remembers style images and their Gram matrices for the next paintings.
        resume: a checkpoint of the same run; the result is the one that it would have had.
        on_progress: called after every step.
        on_checkpoint: called after every step, before ``on_progress``, with a function that
            gives a checkpoint to keep.
        should_stop: asked before every step; a stop is a normal return with the picture so far
            and ``stopped=True``.
    Raises:
        OptionError: an option cannot have its value, or contradicts another.
        InputError: a picture cannot be read or used.
        WeightsError: the backbone's weights are missing or corrupt.
        DeviceError: the device is not here, or has too little memory.
        RecordError: the checkpoint is of another run.
    Source: Gatys et al. 2016 and 2017.
    """
    cache = cache or StyleCache()
    begun = sketch(
        content,
        style,
        options,
        init_image=init_image,
        mask=mask,
        mask_colors=mask_colors,
        cache=cache,
        resume=resume,
        on_progress=on_progress,
        on_checkpoint=on_checkpoint,
    )
    (result,) = paint([begun], backbone, judge=judge, cache=cache, should_stop=should_stop)
    return result


def sketch(
    content: Pictorial,
    style: Pictorial | Sequence[Pictorial],
    options: StyleOptions | None = None,
    *,
    init_image: Pictorial | None = None,
    mask: str | Path | Image.Image | None = None,
    mask_colors: Sequence[str] = (),
    cache: StyleCache | None = None,
    resume: Checkpoint | None = None,
    on_progress: OnProgress | None = None,
    on_checkpoint: OnCheckpoint | None = None,
) -> Sketch:
    """Read everything that a painting is made from; arguments and errors as of `stylize`."""
    options = options or StyleOptions()
    cache = cache or StyleCache()
    if init_image is not None:
        options = replace(options, init="image")
    styles = listed_styles(style)
    inputs: list[InputRecord] = []
    photo, alpha = split_alpha(read_input(content, "content", inputs))
    image = to_image(scale_picture(photo, options.size))
    height, width = image.shape[-2:]
    references = [style_image(s, options, inputs, cache) for s in styles]
    start = None
    if init_image is not None:
        start = to_image(split_alpha(read_input(init_image, "init", inputs))[0])
        start = resize_image(start, (height, width))
    regions = None
    if mask is not None:
        labels = split_alpha(read_input(mask, "mask", inputs))[0]
        labels = labels.resize((width, height), Image.Resampling.NEAREST)
        regions = regions_of(to_image(labels), region_colors(mask_colors, len(styles)))
    return Sketch(
        subject=Subject(image, start, resume, on_progress, on_checkpoint),
        styles=tuple(references),
        regions=regions,
        alpha=alpha,
        options=options,
        inputs=tuple(inputs),
        mask_colors=tuple(mask_colors),
    )


def paint(
    sketches: Sequence[Sketch],
    backbone: Backbone | None = None,
    *,
    judge: Judge | None = None,
    cache: StyleCache | None = None,
    should_stop: ShouldStop | None = None,
) -> list[StyleResult]:
    """Paint sketches together, as one batch: on a GPU faster than one after the other.

    Args:
        sketches: all of one `Sketch.kind`; those to resume all after the same step.
        backbone: as in `stylize`.
        judge: as in `stylize`.
        cache: as in `stylize`.
        should_stop: as in `stylize`.
    Returns:
        One for each sketch, the same as if it had been painted alone, to within rounding.
    Raises:
        OptionError: the sketches are of several kinds.
        As `stylize`; what is wrong with one of them keeps all from being painted.
    """
    if len({each.kind for each in sketches}) != 1:
        raise OptionError("sketches: expected one size, and the same options, styles and mask")
    first = sketches[0]
    backbone, options = _backbone(backbone, first.options)
    with _memory_errors(options):
        transfers = transfer_together(
            [each.subject for each in sketches],
            first.styles,
            options,
            backbone,
            regions=first.regions,
            cache=cache,
            should_stop=should_stop,
        )
    results = []
    for each, done in zip(sketches, transfers, strict=True):
        chosen = options if done.memory == AUTO else replace(options, memory=done.memory)
        recorded = asdict(chosen)
        if first.regions is not None:
            recorded["mask_colors"] = list(each.mask_colors)
        record, card, messages = _record(recorded, each.inputs, backbone, done), None, done.messages
        if judge is not None:
            try:  # it is painted, whatever comes of this
                card = _judged(judge, each.subject.content, first.styles, done, options)
                record = replace(record, result={**record.result, "card": asdict(card)})
            except (StylecapError, MemoryError, RuntimeError) as error:
                messages = (*messages, f"not judged: {reason_of(error)}")
        results.append(
            StyleResult(
                image=done.image,
                alpha=each.alpha,
                loss=done.loss,
                steps=done.steps,
                seconds=done.seconds,
                stopped=done.stopped,
                messages=messages,
                options=chosen,
                record=record,
                card=card,
            )
        )
    return results


def mix_styles(
    fine: Pictorial,
    coarse: Pictorial,
    options: StyleOptions | None = None,
    *,
    backbone: Backbone | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Tensor:
    """Make a style with the strokes of one picture and the forms of another.

    Args:
        fine: picture or built-in style whose fine structure is wanted.
        coarse: picture or built-in style whose coarse structure is wanted.
        options: size, steps, device and layers; `StyleOptions()` if None.
        backbone: as in `stylize`.
        on_progress: as in `stylize`.
        should_stop: as in `stylize`.
    Returns:
        (1, 3, H, W) in [0, 1], to be given to `stylize` as a style.
    Raises:
        As `stylize`.
    Source: Gatys et al. 2017, section 6.1.
    """
    options = options or StyleOptions()
    unrecorded: list[InputRecord] = []
    fine_image, coarse_image = (
        reference_image(read_input(s, "style", unrecorded, options.seed), options)
        for s in (fine, coarse)
    )
    backbone, options = _backbone(backbone, options)
    with _memory_errors(options):
        return mix_scales(
            fine_image,
            coarse_image,
            options,
            backbone,
            on_progress=on_progress,
            should_stop=should_stop,
        ).image


def _backbone(backbone: Backbone | None, options: StyleOptions) -> tuple[Backbone, StyleOptions]:
    """The backbone given or asked for, and the options with its device and precision."""
    if backbone is None:
        runtime = Runtime.choose(options.device, options.precision)
        backbone = load_backbone(options.backbone, runtime=runtime)
    chosen = backbone.runtime
    return backbone, replace(options, device=chosen.device, precision=chosen.precision)


def _record(
    options: dict[str, Any], inputs: tuple[InputRecord, ...], backbone: Backbone, done: Transfer
) -> RunRecord:
    return RunRecord(
        kind="stylize",
        options=options,
        inputs=inputs,
        weights={backbone.name: backbone.weights_sha256},
        versions=current_versions(),
        result={
            "steps": done.steps,
            "seconds": round(done.seconds, 3),
            "stopped": done.stopped,
            "loss": done.loss,
            "messages": list(done.messages),
            "threads": backbone.runtime.threads,
        },
    )


def _judged(
    judge: Judge, content: Tensor, styles: Sequence[Tensor], done: Transfer, options: StyleOptions
) -> QualityCard:
    if len(styles) > 1:
        raise OptionError("the card is for paintings of a single style")
    if done.stopped:
        raise OptionError("it was stopped before its end")
    photo, painted, manner = map(to_picture, (content, done.image, styles[0]))
    return judge(photo, painted, manner, style_scale=options.style_scale)


@contextmanager
def _memory_errors(options: StyleOptions) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"out of memory on {options.device} at --size {options.size}; choose a smaller size"
        ) from error
