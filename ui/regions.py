"""The tab Regions: a part of the photo is marked, with a style inside and one outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from stylecap.server.painting import PaintRequest, Restored
from stylecap.server.regions import COUNTS, SEEN, keep_seen, mark_again, propose, read_mask

from . import pieces
from .context import Context
from .inputs import picture
from .painting import Result, Settings, listen_for_stop, said_restored

_KEEP, _OWN = "keep", "own"


@dataclass(frozen=True, slots=True)
class RegionsTab:
    """What other tabs need of this one.

    Attributes:
        restored: components that `restoring` gives values for.
        settings: of the painting.
    """

    restored: list[Any]
    settings: Settings
    page: Context

    def restoring(self, owner: str, found: Restored) -> list[Any]:
        """Values that bring back how a picture was painted in regions.

        Raises:
            StylecapError: its photo or its mask cannot be used.
        """
        photo, canvas = gr.skip(), gr.skip()
        if found.content is not None:
            photo, canvas = str(found.content), _shown(self.page, owner, found.content, found)
        styles = [*found.styles, None, None]
        inside = _chosen(styles[0])
        outside = [_KEEP, gr.skip()] if found.keep_outside else _chosen(styles[1])
        status = said_restored(self.page, found, found.mask is None)
        settings = self.settings.show(found, ())
        return [photo, canvas, found, *inside, *outside, *settings, status]


def regions_tab(page: Context) -> RegionsTab:
    """Build the tab Regions."""
    words, site = page.words, page.site
    own = (words("regions.own"), _OWN)
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            photo = picture(words("photo"), height=150, elem_id="regions-photo")
            canvas = pieces.panel(pieces.hint(words("regions.hint")), elem_id="mask")
            told = pieces.panel()
            drawn = gr.Textbox(visible="hidden", elem_id="drawn", label="mask")
            before = gr.State(None)  # settings that were brought back, with photo and mask
            with gr.Row():
                with gr.Column(min_width=200):
                    inside, inside_own = _choice(
                        page, "regions.inside", [*page.style_names(), own], "stained-glass"
                    )
                with gr.Column(min_width=200):
                    keep = (words("regions.keep"), _KEEP)
                    outside, outside_own = _choice(
                        page, "regions.outside", [keep, *page.style_names(), own], _KEEP
                    )
            settings = Settings(page)
        with gr.Column(scale=7, min_width=320, elem_classes="sc-sticky"):
            go = gr.Button(words("paint"), variant="primary", size="lg", elem_id="paint-regions")
            result = Result(page, "regions.steps")

    async def show_photo(
        request: gr.Request, path: str | None, before: Restored | None
    ) -> list[str]:
        try:
            owner = page.owner(request)
            given = site.given(owner, path)
            if given is None:
                return [pieces.hint(words("regions.hint")), ""]
            shown = await page.quickly(request, lambda: _shown(page, owner, given, before))
            return [shown, ""]
        except Exception as error:
            return [pieces.hint(words("regions.hint")), page.alert(error)]

    async def divide(request: gr.Request, event: gr.EventData) -> list[Any]:
        said = event._data if isinstance(event._data, dict) else {}
        name, count = said.get("divide"), said.get("count")
        if not isinstance(name, str) or count not in COUNTS:
            return [gr.skip(), gr.skip()]
        try:
            owner = page.owner(request)
            labels = await page.quickly(request, lambda: propose(site, owner, name, count))
            return [_canvas(page, name, labels, count), ""]
        except Exception as error:
            return [gr.skip(), page.alert(error)]

    async def start(
        request: gr.Request,
        photo: str | None,
        drawn: str,
        inside: str,
        inside_own: str | None,
        outside: str,
        outside_own: str | None,
        *values: Any,
    ) -> AsyncIterator[list[Any]]:
        try:
            if photo is None or not drawn:
                yield result.complaint("need.photo" if photo is None else "need.mask")
                return
            owner = page.owner(request)
            _, options, begin = settings.read(owner, values)
            places = [(inside, inside_own), (outside, outside_own)][: 1 + (outside != _KEEP)]
            styles = [site.given(owner, own) if name == _OWN else name for name, own in places]
            chosen = tuple(style for style in styles if style is not None)
            if len(chosen) < len(places):
                yield result.complaint("need.style")
                return
            mask = read_mask(drawn)
            if len(set(mask.getextrema())) < 2:  # all of it, or nothing
                yield result.complaint("need.mask")
                return
            asked = PaintRequest(
                site.given(owner, photo),
                chosen,
                options,
                begin,
                mask=mask,
                keep_outside=outside == _KEEP,
            )
            async for update in result.run(request, asked):
                yield update
        except Exception as error:
            yield result.failure(error)

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    photo.change(show_photo, [photo, before], [canvas, told], api_name="show_photo", **private)
    canvas.click(divide, None, [canvas, told], api_name="divide", **private)
    go.click(
        start,
        [photo, drawn, inside, inside_own, outside, outside_own, *settings.inputs],
        result.outputs(go),
        # The browser puts what was painted in the place of the second input.
        js="(...inputs) => { inputs[1] = window.stylecap.mask(); return inputs; }",
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
        api_name="paint_regions",
    )
    listen_for_stop(page, result.stop)
    choices = [inside, inside_own, outside, outside_own]
    restored = [photo, canvas, before, *choices, *settings.inputs, result.status]
    return RegionsTab(restored, settings, page)


def _shown(page: Context, owner: str, photo: Path, before: Restored | None) -> str:
    """A canvas for a photo; for one that was brought back, with what was marked on it."""
    name = keep_seen(page.site, owner, photo)
    return _canvas(page, name, marked=mark_again(page.site, owner, name, photo, before))


def _canvas(page: Context, name: str, labels: str = "", count: int = 0, marked: str = "") -> str:
    """Where a mask is painted over a photo; ``page.js`` brings it to life.

    Args:
        page: of which language.
        name: of the folder with the photo.
        labels: file with the regions that were found in it.
        count: of those regions.
        marked: file with a mask to begin with.
    """
    words = page.words
    files = "".join(
        f' data-{key}="{escape(page.link(name, file))}"'
        for key, file in (("photo", SEEN), ("regions", labels), ("marked", marked))
        if file
    )
    tools = "".join(
        f'<button type="button" class="sc-small" data-mask="{action}">'
        f"{escape(words(f'mask.{action}'))}</button>"
        for action in ("erase", "undo", "clear", "invert")
    )
    numbers = "".join(
        pieces.button(
            str(number),
            {"divide": name, "count": number},
            "sc-small",
            aria_label=words("regions.count", n=number),
            aria_pressed=str(number == count).lower(),
        )
        for number in COUNTS
    )
    chips = "".join(
        f'<button type="button" data-region="{n}" aria-pressed="false"><canvas></canvas>'
        f"<span>{escape(words('regions.one', n=n + 1))}</span></button>"
        for n in range(count)
    )
    return (
        f"{pieces.hint(words('regions.hint'))}"
        f'<div class="sc-mask"{files}>'
        f'<canvas tabindex="0" role="img" aria-label="{escape(words("mask.canvas"))}"></canvas>'
        f'<div role="group" aria-label="{escape(words("regions.find"))}">'
        f"<span>{escape(words('regions.find'))}</span>{numbers}</div>"
        + (f'<div class="sc-chips" role="group">{chips}</div>' if chips else "")
        + f"<label>{escape(words('mask.brush'))}"
        '<input type="range" min="2" max="30" value="10" data-mask="brush"></label>'
        f"<div>{tools}</div></div>"
    )


def _choice(
    page: Context, key: str, choices: Sequence[tuple[str, str]], value: str
) -> tuple[gr.Dropdown, gr.Image]:
    """One of the built-in styles or a picture of the visitor's."""
    chosen = gr.Dropdown(list(choices), value=value, label=page.words(key), filterable=False)
    own = picture(page.words(f"{key}.own"), visible=False, height=150)
    chosen.change(
        lambda name: gr.update(visible=name == _OWN),
        chosen,
        own,
        queue=False,
        api_visibility="private",
    )
    return chosen, own


def _chosen(style: str | Path | None) -> list[Any]:
    """Values for a `_choice`: a style brought back, or what is there if there is none."""
    if style is None:
        return [gr.skip(), gr.skip()]
    if isinstance(style, str):
        return [style, gr.skip()]
    return [_OWN, gr.update(value=str(style), visible=True)]
