"""The tab Style, and what tabs that paint share: what is asked for, how it goes on, what came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from stylecap.errors import StylecapError
from stylecap.files import readable_size
from stylecap.record import BUILTIN, RunRecord
from stylecap.server import faults
from stylecap.server.commands import command_line, python_lines
from stylecap.server.history import Item
from stylecap.server.jobs import Job
from stylecap.server.painting import (
    MACHINES,
    PaintRequest,
    Restored,
    check_request,
    expected,
    options_of_record,
    paint,
    record_of,
    restore_from,
)
from stylecap.server.site import default_preset, within_limits
from stylecap.style.options import PRESETS, StyleOptions

from . import pieces
from .context import Context
from .controls import Controls
from .inputs import picture

_SIMPLE = ("strength", "color", "size", "seed")
_FIRST_STYLE = "night-swirls"


class Settings:
    """The controls of a painting; must be made inside a layout.

    Args:
        page: whose limits hold.
        extra: whether several styles can be mixed.
        start: whether a picture to start from can be given.
    """

    def __init__(self, page: Context, *, extra: bool = False, start: bool = True) -> None:
        words, limits = page.words, page.site.options
        chosen = default_preset()
        most = {"size": limits.max_size, "steps": limits.max_steps}
        self.first = within_limits(StyleOptions.preset(chosen), limits)
        self._page = page
        self.controls = Controls(StyleOptions, words, asdict(self.first), most)
        self.preset = gr.Radio(
            [(words(f"preset.{name}"), name) for name in PRESETS],
            value=chosen,
            label=words("preset"),
            info=_presets(page),
            elem_classes="option-preset",
        )
        self.controls.add("strength", "color")
        with gr.Row():
            self.controls.add("size", "seed")
        with gr.Accordion(words("more"), open=False):
            self.more_styles = gr.Dropdown(
                page.style_names(),
                multiselect=True,
                label=words("more.styles"),
                info=words("more.styles.info"),
                visible=extra,
            )
            self.more_files = gr.File(
                label=words("more.own"), file_count="multiple", height=150, visible=extra
            )
            left_out = [*MACHINES, *(() if extra else ("blend",)), *(() if start else ("init",))]
            self.controls.add_others(without=left_out)
            self.start = picture(words("init.picture"), visible=False, height=200)
        self.inputs = [
            self.more_styles, self.more_files, self.start, *self.controls.components
        ]  # fmt: skip
        self._connect()

    def _connect(self) -> None:
        limits = self._page.site.options
        named = self.controls.by_name
        changed = sorted({name for preset in PRESETS.values() for name in preset})

        def choose(preset: str) -> list[Any]:
            options = within_limits(StyleOptions.preset(preset), limits)
            return [getattr(options, name) for name in changed]

        self.preset.input(
            choose,
            self.preset,
            [named[name] for name in changed],
            queue=False,
            api_visibility="private",
        )
        if "init" in named:
            named["init"].change(
                lambda init: gr.update(visible=init == "image"),
                named["init"],
                self.start,
                queue=False,
                api_visibility="private",
            )

    def read(self, owner: str, values: Sequence[Any]) -> tuple[list[str | Path], Any, Path | None]:
        """Further styles, options and the start picture that `inputs` give.

        Raises:
            OptionError, InputError: a value is not allowed.
        """
        site = self._page.site
        more_styles, more_files, start, *chosen = values
        names = [str(name) for name in more_styles or ()]
        files = [site.given(owner, path) for path in more_files or ()]
        options = self.controls.read(chosen)
        begin = site.given(owner, start) if options.init == "image" else None
        return [*names, *files], options, begin

    def show(self, found: Restored, more: Sequence[str | Path]) -> list[Any]:
        """Values for `inputs` that say restored settings."""
        names = [style for style in more if isinstance(style, str)]
        files = [str(style) for style in more if isinstance(style, Path)]
        start = None if found.start is None else str(found.start)
        options = within_limits(found.options, self._page.site.options)
        return [names, files or None, start, *self.controls.show(options)]


class Result:
    """Where a painting appears; must be made inside a layout.

    Args:
        page: of which language.
        steps: key of the words that say how one gets there.
    """

    def __init__(self, page: Context, steps: str = "result.steps") -> None:
        self._page = page
        empty = pieces.empty(page.words("result.empty"), page.words(steps))
        self.stage = pieces.panel(empty, elem_classes="sc-result")
        self.status = pieces.panel()
        self.stop = gr.Button(page.words("stop"), visible=False, elem_classes="sc-stop")
        self.about = pieces.panel(elem_classes="sc-about")

    def outputs(self, go: gr.Button) -> list[Any]:
        """What `run` changes, with the button that starts it."""
        return [self.stage, self.status, self.stop, self.about, go]

    async def run(self, request: gr.Request, asked: PaintRequest) -> AsyncIterator[list[Any]]:
        """Put a painting into the line, and show how it goes on until it is done."""
        page, words, site = self._page, self._page.words, self._page.site
        check_request(asked, site.options)
        session = str(request.session_hash)
        job = site.queue.submit(page.owner(request), session, lambda job: paint(asked, job, site))
        same = gr.skip()
        shown = None
        yield [same, pieces.progress(words, None, 0), gr.update(visible=True), "", _off()]
        async for place in page.changes(job):
            if job.found.get("shown") != shown:
                shown = job.found["shown"]
                address = page.link(job.found["name"], shown)
                stage: Any = pieces.stage(words, address, job.found["size"])
            else:
                stage = same
            yield [stage, pieces.progress(words, job.progress, place), same, same, same]
        yield self._end(job)

    def failure(self, error: BaseException) -> list[Any]:
        """Say that it did not work."""
        return [gr.skip(), self._page.alert(error), gr.update(visible=False), "", _on()]

    def complaint(self, key: str) -> list[Any]:
        """Say what is missing."""
        text = pieces.complaint(self._page.words(key))
        return [gr.skip(), text, gr.update(visible=False), gr.skip(), _on()]

    def _end(self, job: Job) -> list[Any]:
        page, words = self._page, self._page.words
        if job.error is not None:
            return self.failure(job.error)
        item = job.result
        if item is None:
            text = pieces.notice(words("state.cancelled"))
            return [gr.skip(), text, gr.update(visible=False), "", _on()]
        record = RunRecord.from_json(item.record)
        stage = compared(page, item, job.found["size"])
        status = pieces.notice(outcome(page, record))
        about = _captions(page, job.found.get("captions", ())) + commands(page, record)
        return [stage, status, gr.update(visible=False), about, _on()]


def compared(page: Context, item: Item, size: tuple[int, int]) -> str:
    """A finished painting of (height, width) with its photo and its downloads."""
    words = page.words
    kinds = [("download.png", "result.png"), ("download.jpeg", "result.jpg")]
    if "mask" in item.files:
        kinds.append(("download.mask", item.files["mask"]))
    downloads = [
        pieces.link(words(key), page.link(item.name, file, download=True)) for key, file in kinds
    ]
    before, after = page.link(item.name, "before.webp"), page.link(item.name, "result.png")
    return pieces.compared(words, before, after, size, downloads)


def outcome(page: Context, record: RunRecord) -> str:
    """How many steps a painting really took."""
    words, result = page.words, record.result
    time = words.duration(result["seconds"])
    if result["stopped"]:
        steps = record.options["steps"]
        return words("state.stopped", steps=result["steps"], of=steps, time=time)
    return words("state.done", steps=result["steps"], time=time)


def commands(page: Context, record: RunRecord) -> str:
    """The same painting from the command line and from Python, folded.

    Empty where the photo was kept outside a region, which only the page does.
    """
    if record.result.get("outside"):
        return ""
    words = page.words
    names: dict[str, list[str]] = {"content": [], "style": [], "init": [], "mask": []}
    for entry in record.inputs:
        names[entry.role].append(entry.name.removeprefix(BUILTIN))
    start, mask = (next(iter(names[role]), None) for role in ("init", "mask"))
    given = (names["content"][0], names["style"], options_of_record(record), start, mask)
    lines = (
        ("command.shell", command_line(*given)),
        ("command.python", python_lines(*given)),
    )
    shown = "".join(
        pieces.code(words(key), text, words("caption.copy"), words("caption.copied"))
        for key, text in lines
    )
    return f"<details><summary>{escape(words('command'))}</summary>{shown}</details>"


def _captions(page: Context, captions: Sequence[str]) -> str:
    if len(captions) != 2:
        return ""
    words = page.words
    rows = "".join(
        f"<dt>{escape(words(key))}</dt><dd>{escape(text)}</dd>"
        for key, text in zip(("caption.before", "caption.after"), captions, strict=True)
    )
    return pieces.heading(words("caption.heading")) + f'<dl class="sc-captions">{rows}</dl>'


@dataclass(frozen=True, slots=True)
class StyleTab:
    """What other tabs need of this one.

    Attributes:
        restored: components that `restoring` gives values for.
        settings: of the painting.
    """

    restored: list[Any]
    settings: Settings
    page: Context

    def restoring(self, found: Restored) -> list[Any]:
        """Values that bring back how a picture was painted; of one in regions, the inside."""
        page, site = self.page, self.page.site
        first, more = found.styles[:1], found.styles[1:]
        content = gr.skip() if found.content is None else str(found.content)
        style, gallery = gr.skip(), gr.skip()
        if first:
            style = str(site.tile(first[0]) if isinstance(first[0], str) else first[0])
            gallery = style_tiles(page, [str(name) for name in first])
        settings = self.settings.show(found, () if found.masked else more)
        return [content, style, gallery, *settings, said_restored(page, found, found.masked)]


def said_restored(page: Context, found: Restored, unmarked: bool) -> str:
    """That settings are back, and what is not."""
    text = page.words("restored")
    if found.missing:
        text += " " + page.words("restored.missing", names=", ".join(found.missing))
    if unmarked:
        text += " " + page.words("restored.masked")
    return pieces.notice(text)


def style_tab(page: Context) -> StyleTab:
    """Build the tab Style."""
    words, site = page.words, page.site
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            with gr.Row(elem_classes="sc-pair"):
                photo = picture(words("photo"), height=230, min_width=140, elem_id="photo")
                first = str(site.tile(_FIRST_STYLE))
                style = picture(
                    words("style"), height=230, min_width=140, elem_id="style", value=first
                )
            pieces.panel(pieces.hint(words("styles.hint")))
            gallery = pieces.panel(style_tiles(page, [_FIRST_STYLE]), elem_id="styles")
            settings = Settings(page, extra=True)
        with gr.Column(scale=7, min_width=320, elem_classes="sc-sticky"):
            go = gr.Button(words("paint"), variant="primary", size="lg", elem_id="paint")
            forecast = pieces.panel(elem_id="expected")
            result = Result(page)
    _listen_for_changes(page, forecast, photo, settings)
    site.prepare(_FIRST_STYLE, settings.first)
    tab = StyleTab([photo, style, gallery, *settings.inputs, result.status], settings, page)

    async def start(
        request: gr.Request, photo: str | None, style: str | None, *values: Any
    ) -> AsyncIterator[list[Any]]:
        try:
            if photo is None or style is None:
                yield result.complaint("need.photo" if photo is None else "need.style")
                return
            owner = page.owner(request)
            more, options, begin = settings.read(owner, values)
            content = site.given(owner, photo)
            first = _as_style(page, owner, style)
            asked = PaintRequest(content, (first, *more), options, begin)
            async for update in result.run(request, asked):
                yield update
        except Exception as error:
            yield result.failure(error)

    def choose(event: gr.EventData, *values: Any) -> Any:
        name = event._data.get("style") if isinstance(event._data, dict) else None
        try:
            tile = str(site.tile(str(name)))
        except StylecapError:
            return gr.skip()
        with suppress(StylecapError):  # a setting that cannot be used is told when it is
            site.prepare(str(name), settings.controls.read(values))
        return tile

    def bring_back(request: gr.Request, path: str | None) -> list[Any]:
        nothing = [gr.skip()] * len(tab.restored)
        try:
            owner = page.owner(request)
            given = site.given(owner, path)
            if given is None or record_of(given) is None:
                return nothing
            return tab.restoring(restore_from(given, owner, page.site))
        except StylecapError as error:
            faults.note(error)  # a picture without a readable record is a photo like others
            return nothing

    go.click(
        start,
        [photo, style, *settings.inputs],
        result.outputs(go),
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
        api_name="paint",
    )
    listen_for_stop(page, result.stop)
    gallery.click(
        choose,
        settings.controls.components,
        style,
        queue=False,
        api_visibility="private",
        api_name="choose",
    )
    style.upload(
        lambda: style_tiles(page, []), None, gallery, queue=False, api_visibility="private"
    )
    style.clear(lambda: style_tiles(page, []), None, gallery, queue=False, api_visibility="private")
    photo.upload(bring_back, photo, tab.restored, api_visibility="private", api_name="bring_back")
    return tab


def _listen_for_changes(page: Context, forecast: Any, photo: Any, settings: Settings) -> None:
    """Say beside the button what the painting will take, whenever that changes."""

    def forecast_for(request: gr.Request, photo: str | None, *values: Any) -> str:
        try:
            owner = page.owner(request)
            content = page.site.given(owner, photo)
            if content is None:
                return ""
            more, options, _ = settings.read(owner, values)
            found = expected(content, 1 + len(more), options, page.site)
        except StylecapError:  # pressing the button will say what is wrong
            return ""
        if found is None:
            return ""
        time, memory = page.words.duration(found.seconds), readable_size(found.memory_bytes)
        return pieces.hint(page.words("expected", time=time, memory=memory))

    changing = ("size", "steps", "scales", "style_scale", "backbone", "optimizer")
    named = settings.controls.by_name
    gr.on(
        [photo.change, *(named[name].change for name in changing)],
        forecast_for,
        [photo, *settings.inputs],
        forecast,
        queue=False,
        trigger_mode="always_last",
        show_progress="hidden",
        api_visibility="private",
        api_name="expect",
    )


def listen_for_stop(page: Context, stop: gr.Button) -> None:
    """Let a button stop the tab's jobs."""

    def end(request: gr.Request) -> Any:
        page.site.queue.stop(page.owner(request), str(request.session_hash))
        return gr.update(visible=False)

    stop.click(end, None, stop, queue=False, api_visibility="private", api_name="stop")


def _as_style(page: Context, owner: str, path: str) -> str | Path:
    """What a picture in a style's place stands for: a built-in style, or itself."""
    given = page.site.given(owner, path)
    return given.stem if given.parent == page.site.history.shared else given


def style_tiles(page: Context, chosen: Collection[str], *, many: bool = False) -> str:
    """The built-in styles, to choose one or many."""
    entries = [
        (name, text, f"{page.site.options.root_path}/tiles/{name}.webp")
        for text, name in page.style_names()
    ]
    return pieces.tiles(entries, page.words("styles.builtin"), chosen, many=many)


def _presets(page: Context) -> str:
    """What the presets stand for, within the page's limits."""
    parts = []
    for name in PRESETS:
        options = within_limits(StyleOptions.preset(name), page.site.options)
        values = {"name": page.words(f"preset.{name}"), "size": options.size}
        parts.append(page.words("preset.info", **values, steps=options.steps))
    return " · ".join(parts)


def _on() -> Any:
    return gr.update(interactive=True)


def _off() -> Any:
    return gr.update(interactive=False)
