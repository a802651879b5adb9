"""Paint for the page: check a request against the limits, run it, keep what comes of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from stylecap.backbone import architecture
from stylecap.embedded import read_embedded
from stylecap.errors import InputError, LimitError, OptionError, RecordError
from stylecap.files import file_sha256
from stylecap.images import (
    fit_long_side,
    load_picture,
    picture_size,
    resize_picture,
    save_picture,
    scale_picture,
    split_alpha,
    to_picture,
)
from stylecap.record import BUILTIN, RunRecord
from stylecap.server.faults import log
from stylecap.server.history import History, Item
from stylecap.server.jobs import Job
from stylecap.server.options import PageOptions
from stylecap.style.builtin import STYLES
from stylecap.style.options import StyleOptions, recorded_options

if TYPE_CHECKING:
    from stylecap.estimate import Estimate
    from stylecap.painting import StyleResult
    from stylecap.progress import Progress
    from stylecap.server.site import Site

PREVIEW_SECONDS = 1.0  # from one preview to the next
_PREVIEW_SIDE_PX = 1024
_SMALL_SIDE_PX = 320
MASK_COLORS = ("#ffffff", "#000000")
#: Options that are not a visitor's to choose: what is best on this machine.
MACHINES = ("device", "precision", "memory")
_KEPT = "photo"  # what a record says of the outside of a region


@dataclass(frozen=True, slots=True)
class PaintRequest:
    """What somebody asked for, before anything was checked.

    Attributes:
        content: file of the photo.
        styles: names of built-in styles and files, at least one.
        options: of the painting.
        init_image: file to start from, for ``init="image"``.
        mask: white where the first style goes; the second style, or the photo, elsewhere.
        keep_outside: with a mask and a single style: the photo stays as it is elsewhere.
    """

    content: Path
    styles: tuple[str | Path, ...]
    options: StyleOptions
    init_image: Path | None = None
    mask: Image.Image | None = None
    keep_outside: bool = False


def check_request(request: PaintRequest, limits: PageOptions) -> None:
    """Refuse what is beyond the limits of the page.

    Raises:
        LimitError: size, steps, layers or styles.
        OptionError: no style, or options that do not fit them.
    """
    options = request.options
    if options.size > limits.max_size:
        raise LimitError(f"size: this page paints up to {limits.max_size} px, got {options.size}")
    if options.steps > limits.max_steps:
        raise LimitError(f"steps: this page makes up to {limits.max_steps}, got {options.steps}")
    layers = len(architecture(options.backbone))
    asked = max(len(options.style_layers), len(options.content_layers))
    if asked > layers:
        raise LimitError(f"layers: {options.backbone} has {layers} layers, got {asked}")
    count = len(request.styles)
    if not count:
        raise OptionError("style: choose one of the built-in styles, or add a picture of yours")
    if count > limits.max_styles:
        raise LimitError(f"style: this page mixes up to {limits.max_styles} styles, got {count}")
    unknown = [s for s in request.styles if isinstance(s, str) and s not in STYLES]
    if unknown:  # the library would take it for a path
        raise OptionError(f"style: there is no built-in style {unknown[0]!r}")
    if options.blend and len(options.blend) != count:
        raise OptionError(f"blend: expected {count} weights, one a style, got {len(options.blend)}")
    if (options.init == "image") != (request.init_image is not None):
        raise OptionError("init: to start from a picture, choose 'image' and add that picture")


def open_picture(path: Path, limits: PageOptions) -> Image.Image:
    """Read a picture of a visitor within the limits.

    Raises:
        LimitError, InputError: see `load_picture`.
    """
    _check_megabytes(path, limits)
    return load_picture(path, max_pixels=limits.max_megapixels * 1_000_000)


def check_file(path: Path, limits: PageOptions) -> None:
    """Refuse what `open_picture` would, as far as a header tells; what is no picture passes.

    Raises:
        LimitError: it has too many bytes or pixels.
    """
    _check_megabytes(path, limits)
    try:
        height, width = picture_size(path)
    except InputError:
        return
    if height * width > limits.max_megapixels * 1_000_000:
        raise LimitError(
            f"{path.name}: {width}x{height} pixels are more than this page's "
            f"{limits.max_megapixels} megapixels; give a smaller picture"
        )


def _check_megabytes(path: Path, limits: PageOptions) -> None:
    if path.is_file() and path.stat().st_size > limits.max_megabytes * 1_000_000:
        raise LimitError(f"{path.name}: larger than {limits.max_megabytes} MB; give a smaller file")


def expected(content: Path, styles: int, options: StyleOptions, site: Site) -> Estimate | None:
    """What a painting will take, roughly and at once; None where that is not known yet.

    Raises:
        InputError: the photo cannot be read.
    """
    from stylecap.estimate import estimate

    measured = site.cost(options.backbone)
    if measured is None:
        return None
    return estimate(picture_size(content), styles, options, measured)


def paint(request: PaintRequest, job: Job, site: Site) -> Item:
    """Run a request and keep its result in the history; for the worker.

    ``job.found`` gets ``name`` (of the item), ``size`` (height, width), ``shown`` (the latest
    file to look at), and at the end ``item`` and ``captions``. A stop keeps the picture so far.

    Raises:
        StylecapError: as `stylecap.stylize`.
    """
    from stylecap.painting import stylize

    folder = site.history.new_folder(job.owner)
    try:
        photo = open_picture(request.content, site.options)
        files = _keep_inputs(request, folder, site.options)
        height, width = fit_long_side((photo.height, photo.width), request.options.size)
        plain = split_alpha(resize_picture(photo, (height, width)))[0]
        save_picture(plain, folder / "before.webp", quality=90)
        job.found = {"name": folder.name, "size": (height, width), "shown": "before.webp"}
        mask = None
        styles: list[Any] = list(request.styles)
        if request.mask is not None:
            mask = folder / "mask.png"
            save_picture(request.mask.convert("RGB"), mask)
            files["mask"] = mask.name
            if request.keep_outside:
                styles = [*styles, request.content]
        result = stylize(
            request.content,
            styles if len(styles) > 1 else styles[0],
            request.options,
            backbone=site.backbone(request.options.backbone),
            cache=site.styles,
            init_image=request.init_image,
            mask=mask,
            mask_colors=MASK_COLORS if mask else (),
            on_progress=_Watcher(job, folder, (height, width)),
            should_stop=job.should_stop,
        )
        if request.mask is not None and request.keep_outside:
            result = _outside_kept(result, plain, request.mask)
        result.save(folder / "result.png")
        painted = split_alpha(result.picture)[0]
        save_small(painted, folder / "small.webp")
        _forget_previews(folder)
        files |= {"result": "result.png", "before": "before.webp", "small": "small.webp"}
        item = site.history.add(folder, _title(request), result.record.to_json(), files)
        captions = _captions(site, (photo, painted))
        job.found = {**job.found, "shown": "result.png", "item": item, "captions": captions}
        return item
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def save_small(picture: Image.Image, path: Path) -> None:
    """Keep a painting as it is shown among others."""
    save_picture(scale_picture(picture, _SMALL_SIDE_PX, enlarge=False), path, quality=85)


def jpeg_of(history: History, owner: str, name: str) -> Path:
    """An item's result as JPEG with the record inside, made when first asked for.

    Raises:
        InputError: the picture is no longer kept.
    """
    item = history.item(owner, name)
    source = history.path(owner, item, "result")
    if source is None:
        raise InputError("this picture is no longer kept; paint it again")
    target = source.with_suffix(".jpg")
    if not target.is_file():
        save_picture(load_picture(source), target, record=item.record)
    return target


def record_of(path: Path) -> RunRecord | None:
    """How a picture was made, if it was painted by stylecap and says so.

    Raises:
        InputError: it cannot be opened.
        RecordError: its record is damaged or of another version.
    """
    text = read_embedded(path)
    return None if text is None else RunRecord.from_json(text)


@dataclass(frozen=True, slots=True)
class Restored:
    """A painting's settings, and those of its inputs that are still here.

    Attributes:
        options: as they were, `MACHINES` left to this machine.
        content: file, or None if it has to be given again.
        styles: built-in names and files in their order.
        missing: names of pictures that are not here.
        masked: it was painted in regions.
        mask: file that says where, or None if they have to be marked again.
        start: file that it was painted from, if that was not the photo.
        keep_outside: outside its region the photo stayed as it was.
    """

    options: StyleOptions
    content: Path | None
    styles: tuple[str | Path, ...]
    missing: tuple[str, ...]
    masked: bool
    mask: Path | None
    start: Path | None
    keep_outside: bool


def options_of_record(record: RunRecord) -> StyleOptions:
    """A painting's options, `MACHINES` left to this machine.

    Raises:
        RecordError: it is of another kind of run, or its options are not known here.
    """
    if record.kind != "stylize":
        raise RecordError(f"record: of a run of {record.kind!r}, expected 'stylize'")
    values = recorded_options(record.options)
    try:
        return StyleOptions(**{**values, **dict.fromkeys(MACHINES, "auto")})
    except (TypeError, OptionError) as error:
        reason = str(error).split("__init__() ")[-1]
        raise RecordError(f"record: its options are of another version ({reason})") from error


def restore(record: RunRecord, candidates: Sequence[Path]) -> Restored:
    """Bring back the settings of a record, with its inputs found among files by their hashes.

    Raises:
        RecordError: it is of another kind of run, or its options are not known here.
    """
    options = options_of_record(record)
    by_hash = {}
    for path in candidates:
        with suppress(InputError):  # it may just have been deleted
            by_hash[file_sha256(path)] = path
    content: Path | None = None
    mask: Path | None = None
    start: Path | None = None
    styles: list[str | Path] = []
    missing = []
    keep_outside = record.result.get("outside") == _KEPT
    photos = {entry.sha256 for entry in record.inputs if entry.role == "content"}
    entries = [  # without the photo itself as the style outside
        entry
        for entry in record.inputs
        if not (keep_outside and entry.role == "style" and entry.sha256 in photos)
    ]
    for entry in entries:
        builtin = entry.name.removeprefix(BUILTIN)
        found = by_hash.get(entry.sha256)
        if entry.role == "mask":
            mask = found
        elif entry.role == "style" and builtin != entry.name and builtin in STYLES:
            styles.append(builtin)
        elif found is None:
            missing.append(entry.name)
        elif entry.role == "content":
            content = found
        elif entry.role == "init":
            start = found
        elif entry.role == "style":
            styles.append(found)
    if options.init == "image" and start is None:
        options = replace(options, init="content")
    if options.blend and len(options.blend) != len(styles):
        options = replace(options, blend=())
    masked = any(entry.role == "mask" for entry in entries)
    return Restored(
        options, content, tuple(styles), tuple(missing), masked, mask, start, keep_outside
    )


def restore_from(path: Path, owner: str, site: Site) -> Restored:
    """Bring back the settings that a picture carries, with inputs of the visitor's history.

    Raises:
        InputError: it cannot be opened.
        OptionError: it does not say how it was painted.
        RecordError: see `restore`.
    """
    record = record_of(path)
    if record is None:
        raise OptionError("record: this picture does not say how it was painted")
    return restore(record, site.history.inputs(owner))


class _Watcher:
    """Keeps the latest progress of a job and, now and then, a preview on disk."""

    def __init__(self, job: Job, folder: Path, size: tuple[int, int]) -> None:
        self._job, self._folder = job, folder
        height, width = size
        long_side = min(max(size), _PREVIEW_SIDE_PX)
        self._size = fit_long_side((height, width), long_side)
        self._next, self._count = 0.0, 0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.preview is not None and now >= self._next:
            picture = resize_picture(to_picture(progress.preview()), self._size)
            self._count += 1
            name = f"preview-{self._count}.webp"
            save_picture(picture, self._folder / name, quality=80)
            self._job.found = {**self._job.found, "shown": name}
            (self._folder / f"preview-{self._count - 5}.webp").unlink(missing_ok=True)
            self._next = time.monotonic() + PREVIEW_SECONDS
        self._job.progress = replace(progress, preview=None)
        self._job.give_way()


def _captions(site: Site, pictures: Sequence[Image.Image]) -> tuple[str, ...]:
    """What the captioner says of each picture; () if there is none here."""
    from stylecap.describing import caption

    try:
        captioner = site.captioner()
        backbone = site.backbone(captioner.backbone_name)
        return tuple(
            caption(each, captioner=captioner, backbone=backbone).text for each in pictures
        )
    except Exception as error:  # the painting is there all the same
        log.info("no captions beside paintings: %s", error)
        return ()


def _title(request: PaintRequest) -> str:
    styles = [style if isinstance(style, str) else style.stem for style in request.styles]
    return ", ".join([request.content.stem, *styles])[:200]


def _keep_inputs(request: PaintRequest, folder: Path, limits: PageOptions) -> dict[str, str]:
    """Copy the inputs beside the result, byte for byte, so that its record finds them again."""
    files = {}
    given = [("content", request.content), ("init", request.init_image)]
    given += [(f"style{n}", s) for n, s in enumerate(request.styles) if isinstance(s, Path)]
    for role, path in given:
        if path is None:
            continue
        if role != "content":
            open_picture(path, limits)
        shutil.copyfile(path, folder / f"{role}-{path.name}"[-200:])
        files[role] = f"{role}-{path.name}"[-200:]
    return files


def _outside_kept(result: StyleResult, photo: Image.Image, mask: Image.Image) -> StyleResult:
    """Lay the photo over everything that was not painted, with a soft edge."""
    from PIL import ImageFilter

    from stylecap.images import to_image

    height, width = result.image.shape[-2:]
    soft = mask.convert("L").resize((width, height), Image.Resampling.BILINEAR)
    soft = soft.filter(ImageFilter.GaussianBlur(max(1.0, max(height, width) / 128)))
    joined = Image.composite(to_picture(result.image), photo, soft)
    record = replace(result.record, result={**result.record.result, "outside": _KEPT})
    return replace(result, image=to_image(joined), record=record)


def _forget_previews(folder: Path) -> None:
    """Delete previews but the last ones, which a page may be about to fetch."""
    previews = sorted(folder.glob("preview-*.webp"), key=lambda path: path.stat().st_mtime)
    for path in previews[:-3]:
        path.unlink(missing_ok=True)
