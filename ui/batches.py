"""The tab Batch: many photos in several styles, painted while nobody looks."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from stylecap.server.batches import DONE, FAILED, GOING, Batch
from stylecap.style.builtin import STYLES

from . import pieces
from .context import Context
from .inputs import all_given, many
from .painting import Settings, style_tiles
from .reasons import reason

_LOOK_SECONDS = 2.0
_FIRST_STYLES = ["night-swirls"]


def batch_tab(page: Context, tab: gr.Tab) -> None:
    """Build the tab."""
    words, site = page.words, page.site
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            pieces.panel(pieces.hint(words("batch.hint")))
            photos = many(words, "batch-photos")
            pieces.panel(pieces.hint(words("batch.styles.hint")))
            styles = gr.State(_FIRST_STYLES)
            gallery = pieces.panel(style_tiles(page, _FIRST_STYLES, many=True))
            own = gr.File(label=words("batch.own"), file_count="multiple", height=150)
            settings = Settings(page, start=False)
        with gr.Column(scale=7, min_width=320, elem_classes="sc-sticky"):
            go = gr.Button(words("batch.go"), variant="primary", size="lg", elem_id="batch-go")
            told = pieces.panel()
            listed = pieces.panel(_empty(page), elem_id="batches")
    timer = gr.Timer(_LOOK_SECONDS, active=False)

    def look(request: gr.Request) -> list[Any]:
        owner = page.owner(request)
        batches = site.batches.all_of(owner)
        going = any(batch.state == GOING for batch in batches)
        text = "".join(_batch(page, batch) for batch in batches) or _empty(page)
        return [text, gr.Timer(active=going)]

    def choose(chosen: list[str], event: gr.EventData) -> list[Any]:
        name = event._data.get("style") if isinstance(event._data, dict) else None
        now = [style for style in STYLES if (style in chosen) != (style == name)]
        return [now, style_tiles(page, now, many=True)]

    def start(
        request: gr.Request,
        files: list[str] | None,
        folder: list[str] | None,
        styles: list[str] | None,
        own: list[str] | None,
        *values: Any,
    ) -> list[Any]:
        try:
            owner = page.owner(request)
            paths = [site.given(owner, path) for path in all_given(files, folder)]
            manners: list[str | Path] = [*map(str, styles or ())]
            manners += [site.given(owner, path) for path in own or ()]
            for key, given in (("need.photos", paths), ("need.style", manners)):
                if not given:
                    text = pieces.complaint(words(key))
                    return [text, gr.skip(), gr.skip()]
            _, options, _ = settings.read(owner, values)
            site.batches.start(owner, paths, manners, options)
            return ["", *look(request)]
        except Exception as error:
            return [page.alert(error), gr.skip(), gr.skip()]

    def act(request: gr.Request, event: gr.EventData) -> list[Any]:
        said = event._data if isinstance(event._data, dict) else {}
        owner = page.owner(request)
        for what, action in (("stop", site.batches.stop), ("remove", site.batches.remove)):
            if isinstance(said.get(what), str):
                action(owner, said[what])
        return look(request)

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    go.click(
        start,
        [*photos, styles, own, *settings.inputs],
        [told, listed, timer],
        api_name="start_batch",
        **private,
    )
    gallery.click(choose, styles, [styles, gallery], queue=False, api_name="choose_many", **private)
    tab.select(look, None, [listed, timer], api_name="look_batches", queue=False, **private)
    timer.tick(look, None, [listed, timer], queue=False, **private)
    listed.click(act, None, [listed, timer], api_name="act_batch", queue=False, **private)


def _empty(page: Context) -> str:
    return pieces.empty(page.words("batch.none"), page.words("batch.steps"))


def _batch(page: Context, batch: Batch) -> str:
    """One batch: where it is, what it made, what failed, what can be done."""
    words = page.words
    done = [each for each in batch.painted if not each.error]
    failed = [each for each in batch.painted if each.error]
    parts = [words("batch.count", done=len(done), all=batch.count)]
    if failed:
        parts.append(words("batch.failures", n=len(failed)))
    parts.append(_state(page, batch))
    share = len(batch.painted) / max(1, batch.count)
    small = [
        f'<a href="{escape(page.link(batch.name, f"out/{each.output}"))}" target="_blank">'
        f'<img src="{escape(page.link(batch.name, each.small))}" alt="{escape(each.output)}" '
        f'loading="lazy"><span>{escape(each.output)}</span></a>'
        for each in done
    ]
    # A photo that cannot be read fails in every style, for the same reason.
    reasons = dict.fromkeys(reason(words, each.error) for each in failed)
    wrong = "".join(f"<li>{escape(each)}</li>" for each in reasons)
    buttons = ""
    if done:
        address = page.link(batch.name, "all.zip", download=True)
        buttons += pieces.link(words("batch.zip"), address)
    if batch.state == GOING:
        buttons += pieces.button(words("batch.stop"), {"stop": batch.name}, "sc-button")
    buttons += pieces.button(
        words("batch.remove"),
        {"remove": batch.name},
        "sc-button",
        data_confirm=words("batch.remove.sure"),
    )
    return (
        f'<section class="sc-batch"><progress max="1" value="{share:.3f}" '
        f'aria-label="{escape(parts[0])}"></progress><p>{escape(" · ".join(parts))}</p>'
        + (f'<div class="sc-gallery">{"".join(small)}</div>' if small else "")
        + (f'<ul class="sc-alert">{wrong}</ul>' if wrong else "")
        + f'<div class="sc-actions">{buttons}</div></section>'
    )


def _state(page: Context, batch: Batch) -> str:
    words = page.words
    if batch.state != GOING:
        text = words({DONE: "batch.done", FAILED: "batch.failed"}.get(batch.state, "batch.stopped"))
        return f"{text}: {reason(words, batch.error)}" if batch.error else text
    now = page.site.batches.progress(batch.name)
    if now is None:
        return words("batch.waiting")
    place, progress = now
    if place:
        return words("state.waiting", place=place)
    if progress is None:
        return words("batch.running")
    own_left = progress.seconds_left or 0
    others = batch.count - len(batch.painted) - 1
    seconds = own_left + others * (progress.seconds + own_left)
    step = words("state.running", step=progress.step, steps=progress.steps)
    return f"{step} · {words('state.left', left=words.duration(seconds))}"
