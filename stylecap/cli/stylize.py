"""`stylecap stylize`: paint a photo in the style of other pictures."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecap.cli.flags import add_options, given_options, plain_options, read_options
from stylecap.cli.quality import card_table
from stylecap.cli.terminal import (
    INTERRUPTED,
    Display,
    Interruption,
    duration,
    one_line,
    say,
    say_json,
)
from stylecap.errors import OptionError, RecordError
from stylecap.files import QUALITY, free_name, readable_size, same_place
from stylecap.style.builtin import STYLES
from stylecap.style.options import PRESETS, StyleOptions, recorded_options

if TYPE_CHECKING:
    from stylecap.backbone import Backbone
    from stylecap.painting import StyleResult
    from stylecap.progress import Progress, ShouldStop
    from stylecap.record import RunRecord

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_NO_MASK = "--mask-styles names the colours of a mask; give --mask FILE too"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.usage = "%(prog)s CONTENT STYLE [STYLE ...] [-o OUT] [options]"
    parser.add_argument(
        "pictures",
        metavar="CONTENT STYLE",
        nargs="*",
        help="the photo, then one or more style pictures or names from `stylecap styles`; "
        "with --from-record, files among which to look for the inputs",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help="where the result goes; its suffix names the format "
        "(default CONTENT-STYLE.png in this folder)",
    )
    add_options(parser, StyleOptions, presets=PRESETS)
    control = parser.add_argument_group("more pictures")
    control.add_argument(
        "--mask",
        metavar="FILE",
        type=Path,
        help="regions of the content, one flat colour for each style (white: first, black: second)",
    )
    control.add_argument(
        "--mask-styles",
        metavar="COLOUR,...",
        type=_colours,
        default=(),
        help="the regions' colours, as #rrggbb, one for each style",
    )
    control.add_argument(
        "--init-image", metavar="FILE", type=Path, help="picture that the painting starts from"
    )
    control.add_argument(
        "--fine-style", metavar="FILE", help="instead of STYLE: paint with its fine structure ..."
    )
    control.add_argument(
        "--coarse-style",
        metavar="FILE",
        help="... and this one's coarse structure; the mixture is kept beside OUT",
    )
    control.add_argument(
        "--from-record",
        metavar="PICTURE",
        type=Path,
        help="repeat the run that made this picture; other flags change it",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--estimate",
        action="store_true",
        help="only say what it would take, in time and memory, from a few steps measured here",
    )
    output.add_argument(
        "--save-every",
        metavar="N",
        type=_count,
        help="also save the picture so far every N steps, as OUT with -000123 in its name",
    )
    output.add_argument(
        "--quality",
        metavar="N",
        type=_quality,
        default=QUALITY,
        help=f"of JPEG, WebP, AVIF (1 to 100; default {QUALITY})",
    )
    output.add_argument(
        "--card",
        action="store_true",
        help="judge the painting as `stylecap quality` does, and keep the card in its record",
    )
    output.add_argument("--json", action="store_true", help="print the result as one JSON object")
    output.add_argument("--quiet", action="store_true", help="say nothing but errors")


@dataclass(slots=True)
class _Job:
    """What the command line asked for, checked, before anything is computed."""

    content: str | Path
    styles: list[Any]
    options: StyleOptions
    output: Path
    init_image: Path | None = None
    mask: Path | None = None
    mask_colors: Sequence[str] = ()
    backbone: Backbone | None = None
    remarks: list[str] = field(default_factory=list)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 130 if it was interrupted, with the picture so far saved."""
    begin = time.perf_counter()
    job = _repeated(arguments) if arguments.from_record else _new(arguments)
    if arguments.estimate:
        return _estimate(arguments, job, begin)
    from stylecap import painting

    judge = None
    if arguments.card:
        from stylecap.studio.quality import Judge

        if len(job.styles) > 1 and arguments.fine_style is None:
            raise OptionError("--card judges paintings of a single style")
        judge = Judge(job.options.backbone)
    with Display(quiet=arguments.quiet) as display:
        for message in job.remarks:
            display.tell(message)
        with Interruption(display, "the picture so far is kept") as interruption:
            if arguments.fine_style is not None:
                job.styles = [_mixed(arguments, job, display, interruption)]
                if interruption.requested:
                    return INTERRUPTED
            result = painting.stylize(
                job.content,
                job.styles if len(job.styles) > 1 else job.styles[0],
                job.options,
                backbone=job.backbone,
                init_image=job.init_image,
                mask=job.mask,
                mask_colors=job.mask_colors,
                judge=judge,
                on_progress=_watcher(display, job.output, arguments.save_every, arguments.quality),
                should_stop=interruption,
            )
            for message in result.messages:
                display.tell(message)
            # While it was painted another run may have taken the name that nobody chose.
            output = arguments.output or free_name(job.output.stem)
            result.save(output, quality=arguments.quality)
    _report(result, output, arguments)
    return INTERRUPTED if interruption.requested else 0


def _estimate(arguments: argparse.Namespace, job: _Job, begin: float) -> int:
    """Say what the run would take; ``begin`` is when the command did."""
    if arguments.fine_style is not None:
        raise OptionError("--estimate: not for mixed styles; give the mixture as STYLE")
    from stylecap.backbone import load_backbone
    from stylecap.estimate import estimate, measure_painting
    from stylecap.runtime import Runtime

    options = job.options
    if job.backbone is None:
        runtime = Runtime.choose(options.device, options.precision)
        job.backbone = load_backbone(options.backbone, runtime=runtime)
    around = time.perf_counter() - begin
    measured = measure_painting(
        job.content,
        job.styles,
        options,
        job.backbone,
        init_image=job.init_image,
        mask=job.mask,
        mask_colors=job.mask_colors,
    )
    around += measured.around
    found = estimate(measured.shape, len(job.styles), options, measured)
    (height, width), runtime, seconds = found.size, found.runtime, found.seconds + around
    if arguments.json:
        say_json(
            {
                "seconds": seconds,
                "around_seconds": around,
                "step_seconds": found.step_seconds,
                "steps": found.steps,
                "width": width,
                "height": height,
                "memory_bytes": found.memory_bytes,
                "free_bytes": runtime.free_bytes(),
                **asdict(runtime),
            }
        )
        return 0
    most = "at most " if options.early_stopping else ""
    say(
        f"{most}about {duration(seconds)} for {found.steps} steps; one of {width}x{height} takes "
        f"{found.step_seconds:.2f} s ({runtime.device}, {runtime.precision}, "
        f"{runtime.threads} threads)"
    )
    free = runtime.free_bytes()
    here = "" if free is None else f"; {readable_size(free)} are free"
    say(f"about {readable_size(found.memory_bytes)} of memory{here}")
    return 0


def _new(arguments: argparse.Namespace) -> _Job:
    pictures = arguments.pictures
    mixing = arguments.fine_style is not None or arguments.coarse_style is not None
    if mixing and (arguments.fine_style is None or arguments.coarse_style is None):
        raise OptionError("--fine-style and --coarse-style belong together; give both")
    if not pictures:
        raise OptionError("expected CONTENT and STYLE; see stylecap stylize --help")
    if mixing and len(pictures) > 1:
        raise OptionError("--fine-style and --coarse-style stand instead of STYLE; give only one")
    if not mixing and len(pictures) < 2:
        raise OptionError(
            "expected a STYLE after CONTENT: a picture, or a name from `stylecap styles`"
        )
    styles = [arguments.fine_style, arguments.coarse_style] if mixing else pictures[1:]
    changes: dict[str, Any] = {}
    if arguments.init_image is not None:
        if getattr(arguments, "init", "image") != "image":
            raise OptionError(f"--init-image needs --init image, got --init {arguments.init}")
        changes["init"] = "image"
    options = read_options(arguments, StyleOptions, presets=PRESETS, **changes)
    if options.init == "image" and arguments.init_image is None:
        raise OptionError("--init image needs a picture to start from; give --init-image FILE")
    count = 1 if mixing else len(styles)
    if options.blend and len(options.blend) != count:
        raise OptionError(
            f"--blend: expected {count} weights, one for each style, got {len(options.blend)}"
        )
    _check_masks(arguments, len(pictures) - 1)
    content = Path(pictures[0])
    output = arguments.output or free_name(
        "-".join([content.stem or "picture", *(Path(style).stem for style in styles)])
    )
    files = [Path(style) for style in styles if style not in STYLES]
    inputs = [content, *files, arguments.init_image, arguments.mask]
    _check_output(output, inputs, arguments.save_every, options.size)
    if mixing:
        _check_output(_mixture_of(output), inputs, None, options.size)
    return _Job(
        content,
        list(styles),
        options,
        output,
        arguments.init_image,
        arguments.mask,
        arguments.mask_styles,
    )


def _repeated(arguments: argparse.Namespace) -> _Job:
    from stylecap.cli.show_record import record_of

    if arguments.fine_style is not None or arguments.coarse_style is not None:
        raise OptionError("--from-record repeats a run with its own styles, without --fine-style")
    source: Path = arguments.from_record
    output = arguments.output or free_name(f"{source.stem}-again")
    given = [Path(picture) for picture in arguments.pictures if picture not in STYLES]
    others = [source, *given, arguments.init_image, arguments.mask]
    _check_output(output, others, arguments.save_every)
    record = record_of(source)
    if record.kind != "stylize":
        raise RecordError(f"{source}: records a run of {record.kind!r}, expected 'stylize'")
    options = _recorded_options(arguments, record, source)
    from stylecap.backbone import load_backbone
    from stylecap.inputs import inputs_from_record
    from stylecap.record import current_versions
    from stylecap.runtime import Runtime

    candidates = [*given, *(path for path in (arguments.init_image, arguments.mask) if path)]
    replaced = {"mask"} if arguments.mask else set()
    if arguments.init_image or options.init != "image":
        replaced.add("init")
    kept = tuple(entry for entry in record.inputs if entry.role not in replaced)
    inputs = inputs_from_record(replace(record, inputs=kept), candidates, source.parent)
    styles = list(inputs["style"])
    init_image = arguments.init_image or inputs.get("init_image")
    mask = arguments.mask or inputs.get("mask")
    if arguments.mask_styles and mask is None:
        raise OptionError(_NO_MASK)
    found = [Path(path) for path in (inputs["content"], *styles, init_image, mask) if path]
    _check_output(output, found, arguments.save_every, options.size)
    runtime = Runtime.choose(options.device, options.precision, record.threads)
    remarks = [
        f"made with {name} {version}, here is {here}: the result may differ slightly"
        for name, here in current_versions().items()
        if (version := record.versions.get(name, here)) != here
    ]
    if record.result.get("stopped"):
        remarks.append("that run was stopped before its end; this one makes all its steps")
    if record.result.get("outside"):
        remarks.append("outside the region that photo stayed as it was; here it is painted, too")
    return _Job(
        inputs["content"],
        styles,
        options,
        output,
        init_image,
        mask,
        arguments.mask_styles or tuple(record.options.get("mask_colors", ())),
        load_backbone(options.backbone, runtime=runtime),
        remarks,
    )


def _recorded_options(
    arguments: argparse.Namespace, record: RunRecord, source: Path
) -> StyleOptions:
    values = recorded_options(record.options)
    try:
        StyleOptions(**values)
    except (TypeError, OptionError) as error:
        reason = str(error).split("__init__() ")[-1]
        raise RecordError(f"{source}: its record cannot be repeated here ({reason})") from error
    # Another device has other precisions; the one recorded only fits the device recorded.
    if "device" in given_options(arguments, StyleOptions):
        values["precision"] = "auto"
    return read_options(arguments, StyleOptions, presets=PRESETS, base=values)


def _check_masks(arguments: argparse.Namespace, styles: int) -> None:
    if arguments.mask is None:
        if arguments.mask_styles:
            raise OptionError(_NO_MASK)
        return
    colours = len(arguments.mask_styles)
    if styles < 2:
        raise OptionError("--mask needs a STYLE for each of its regions, at least two")
    if colours == 0 and styles > 2:
        raise OptionError(f"--mask with {styles} styles needs --mask-styles, a colour for each")
    if colours not in (0, styles):
        raise OptionError(f"--mask-styles: expected {styles} colours, one a style, got {colours}")


def _check_output(
    output: Path, inputs: Sequence[Path | None], save_every: int | None, long_side_px: int = 1
) -> None:
    """Refuse an output that cannot be written, or that would overwrite an input."""
    from stylecap.images import check_writable

    check_writable(output, inputs, long_side_px=long_side_px)
    if save_every is None:
        return
    numbered = re.compile(re.escape(output.stem) + r"-[0-9]{6,}" + re.escape(output.suffix))
    for entry in filter(None, inputs):
        try:
            place = Path(os.path.realpath(entry))
        except (OSError, ValueError):  # loading it will say why
            continue
        if numbered.fullmatch(place.name) and same_place(place.parent, output.parent):
            raise OptionError(f"output: --save-every could overwrite the input {entry}")


def _mixed(
    arguments: argparse.Namespace, job: _Job, display: Display, should_stop: ShouldStop
) -> Path:
    """Mix the two styles, and keep the mixture as a file: the run's record can then name it."""
    from stylecap import painting
    from stylecap.images import save_picture, to_picture

    path = _mixture_of(job.output)
    mixed = painting.mix_styles(
        arguments.fine_style,
        arguments.coarse_style,
        job.options,
        backbone=job.backbone,
        on_progress=display,
        should_stop=should_stop,
    )
    save_picture(to_picture(mixed), path)
    display.tell(f"{path}: the mixed style")
    return path


def _mixture_of(output: Path) -> Path:
    return free_name(f"{output.stem}-style", output.parent)


def _watcher(
    display: Display, output: Path, every: int | None, quality: int
) -> Callable[[Progress], None]:
    """What to do at each progress event: show it, and save where it is time to."""
    saved = 0

    def watch(progress: Progress) -> None:
        nonlocal saved
        display(progress)
        if every is None or progress.preview is None or progress.step // every <= saved:
            return
        from stylecap.images import save_picture, to_picture

        saved = progress.step // every
        save_picture(
            to_picture(progress.preview()), _beside(output, f"{progress.step:06}"), quality=quality
        )

    return watch


def _beside(output: Path, word: str) -> Path:
    return output.with_name(f"{output.stem}-{word}{output.suffix}")


def _report(result: StyleResult, output: Path, arguments: argparse.Namespace) -> None:
    height, width = result.image.shape[-2:]
    if arguments.json:
        say_json(
            {
                "output": str(output),
                "width": width,
                "height": height,
                "steps": result.steps,
                "seconds": round(result.seconds, 3),
                "stopped": result.stopped,
                "device": result.device,
                "precision": result.precision,
                "loss": result.loss,
                "options": plain_options(result.options),
                "card": result.card and asdict(result.card),
            }
        )
    elif not arguments.quiet:
        stopped = ", stopped early" if result.stopped else ""
        say(
            one_line(
                f"{output}: {width}x{height}, {result.steps} steps "
                f"in {duration(result.seconds)}{stopped}"
            )
        )
        if result.card is not None:
            say(card_table(result.card))


def _colours(text: str) -> tuple[str, ...]:
    colours = tuple(part.strip() for part in text.split(","))
    for colour in colours:
        if not _COLOUR.fullmatch(colour):
            raise argparse.ArgumentTypeError(f"expected colours such as #ff8000, got {colour!r}")
    return colours


def _count(text: str) -> int:
    return _whole(text, 1, 1_000_000)


def _quality(text: str) -> int:
    return _whole(text, 1, 100)


def _whole(text: str, lowest: int, highest: int) -> int:
    number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0
    if not lowest <= number <= highest:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from {lowest} to {highest}, got {text[:80]!r}"
        )
    return number
