"""The tab Regions: a mask is painted on the photo, and a style chosen for inside and outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from html import escape
from typing import Any

import gradio as gr

from stylecap.server.painting import PaintRequest, keep_seen, read_mask

from . import pieces
from .context import Context
from .inputs import picture
from .painting import Result, Settings, listen_for_stop

_KEEP, _OWN = "keep", "own"


def regions_tab(page: Context) -> None:
    """Build the tab Regions."""
    words, site = page.words, page.site
    own = (words("regions.own"), _OWN)
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            photo = picture(words("photo"), height=150, elem_id="regions-photo")
            canvas = pieces.panel(mask_canvas(words, None), elem_id="mask")
            drawn = gr.Textbox(visible="hidden", elem_id="drawn", label="mask")
            with gr.Row(elem_classes="sc-pair"):
                with gr.Column(min_width=140):
                    inside, inside_own = _choice(
                        page, "regions.inside", [*page.style_names(), own], "stained-glass"
                    )
                with gr.Column(min_width=140):
                    keep = (words("regions.keep"), _KEEP)
                    outside, outside_own = _choice(
                        page, "regions.outside", [keep, *page.style_names(), own], _KEEP
                    )
            settings = Settings(page)
        with gr.Column(scale=7, min_width=320, elem_classes="sc-sticky"):
            go = gr.Button(words("paint"), variant="primary", size="lg", elem_id="paint-regions")
            result = Result(page)

    async def show_photo(request: gr.Request, path: str | None) -> str:
        try:
            owner = page.owner(request)
            given = site.given(owner, path)
            if given is None:
                return mask_canvas(words, None)
            name = await page.quickly(request, lambda: keep_seen(site, owner, given))
            return mask_canvas(words, page.link(name, "seen.webp"))
        except Exception as error:
            return page.alert(error)

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
            asked = PaintRequest(
                site.given(owner, photo),
                chosen,
                options,
                begin,
                mask=read_mask(drawn),
                keep_outside=outside == _KEEP,
            )
            async for update in result.run(request, asked):
                yield update
        except Exception as error:
            yield result.failure(error)

    photo.change(show_photo, photo, canvas, show_progress="hidden", api_visibility="private")
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


def mask_canvas(words: Any, address: str | None) -> str:
    """Where a mask is painted over a photo; ``page.js`` brings it to life."""
    if address is None:
        return pieces.hint(words("regions.hint"))
    tools = "".join(
        f'<button type="button" class="sc-small" data-mask="{action}">'
        f"{escape(words(f'mask.{action}'))}</button>"
        for action in ("undo", "clear", "invert")
    )
    return (
        f"{pieces.hint(words('regions.hint'))}"
        f'<div class="sc-mask" data-photo="{escape(address)}">'
        f'<canvas tabindex="0" role="img" aria-label="{escape(words("mask.canvas"))}"></canvas>'
        f"<label>{escape(words('mask.brush'))}"
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
