"""The tab History: what this browser painted, to be looked at, taken up again or deleted."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from stylecap.errors import InputError, StylecapError
from stylecap.record import RunRecord
from stylecap.server.commands import changed_options
from stylecap.server.history import Item
from stylecap.server.painting import options_of_record

from . import pieces
from .context import Context
from .painting import StyleTab, compared, outcome


def history_tab(page: Context, tab: gr.Tab, tabs: gr.Tabs, style: StyleTab) -> None:
    """Build the tab.

    Args:
        page: of which language.
        tab: this one, whose list is made anew when it is opened.
        tabs: all of them, to go to the one named ``style``.
        style: where settings are used again.
    """
    words, site = page.words, page.site
    hours = words("hours", n=f"{site.options.keep_hours:g}")
    pieces.panel(pieces.hint(words("history.hint", hours=hours)))
    listed = pieces.panel(elem_id="history")
    opened = pieces.panel(elem_id="opened", elem_classes="sc-result")
    with gr.Row():
        again = gr.Button(words("history.again"), visible=False, elem_id="again")
        delete = gr.Button(words("history.delete"), visible=False, elem_id="delete")
        delete_all = gr.Button(words("history.delete.all"), elem_id="delete-all", variant="stop")
    chosen = gr.State(None)

    def show(request: gr.Request) -> list[Any]:
        text = _list(page, page.owner(request), None)
        hidden = gr.update(visible=False)
        return [text, "", hidden, hidden, None]

    def open_item(request: gr.Request, event: gr.EventData) -> list[Any]:
        name = event._data.get("style") if isinstance(event._data, dict) else None
        owner = page.owner(request)
        try:
            item = site.history.item(owner, str(name))
        except StylecapError as error:
            return [page.alert(error), gr.skip(), gr.skip(), gr.skip(), gr.skip()]
        seen = gr.update(visible=True)
        return [gr.skip(), _item(page, owner, item), seen, seen, item.name]

    def use_again(request: gr.Request, name: str | None) -> list[Any]:
        owner = page.owner(request)
        try:
            path = site.history.path(owner, site.history.item(owner, str(name)), "result")
            if path is None:
                raise InputError("this picture is no longer kept")
            return [gr.Tabs(selected="style"), *style.restoring(owner, path), ""]
        except StylecapError as error:
            return [gr.skip(), *[gr.skip()] * len(style.restored), page.alert(error)]

    def remove(request: gr.Request, name: str | None) -> list[Any]:
        if isinstance(name, str):
            site.history.remove(page.owner(request), name)
        return show(request)

    def remove_all(request: gr.Request) -> list[Any]:
        site.history.remove(page.owner(request))
        return show(request)

    outputs = [listed, opened, again, delete, chosen]
    private: dict[str, Any] = {
        "api_visibility": "private", "show_progress": "hidden", "queue": False
    }  # fmt: skip
    tab.select(show, None, outputs, api_name="history", **private)
    listed.click(open_item, None, outputs, api_name="open", **private)
    again.click(use_again, chosen, [tabs, *style.restored, opened], api_name="again", **private)
    delete.click(remove, chosen, outputs, api_name="delete", **private)
    delete_all.click(remove_all, None, outputs, api_name="delete_all", **private)


def _list(page: Context, owner: str, chosen: str | None) -> str:
    items = page.site.history.items(owner)
    if not items:
        return pieces.hint(page.words("history.empty"))
    entries = [(i.name, i.title, page.link(i.name, i.files["small"])) for i in items]
    return pieces.tiles(entries, page.words("tab.history"), chosen)


def _item(page: Context, owner: str, item: Item) -> str:
    words = page.words
    width, height = _size(page, owner, item)
    options = options_of_record(RunRecord.from_json(item.record))
    shown = {name: getattr(options, name) for name in ("size", "steps", "strength", "seed")}
    rows = [
        (words.option(name), ", ".join(map(str, v)) if isinstance(v, tuple) else str(v))
        for name, v in {**shown, **changed_options(options)}.items()
        if name not in ("device", "precision")
    ]
    head = (words("record"), "")
    return (
        compared(page, item.name, (height, width))
        + f"<h3 class='sc-heading'>{escape(item.title)}</h3>"
        + pieces.notice(outcome(page, item))
        + pieces.table(head, rows)
    )


def _size(page: Context, owner: str, item: Item) -> tuple[int, int]:
    """(width, height) of an item."""
    path = page.site.history.path(owner, item, "before")
    if path is None:
        return 4, 3
    with Image.open(path) as picture:
        return picture.size
