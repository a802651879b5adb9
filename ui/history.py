"""The tab History: what this browser painted, to be looked at, taken up again or deleted."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from stylecap.errors import InputError, StylecapError
from stylecap.record import RunRecord
from stylecap.server.commands import changed_options
from stylecap.server.history import Item
from stylecap.server.painting import options_of_record, restore_from

from . import pieces
from .context import Context
from .painting import StyleTab, commands, compared, outcome
from .regions import RegionsTab


def history_tab(
    page: Context, tab: gr.Tab, tabs: gr.Tabs, style: StyleTab, regions: RegionsTab
) -> None:
    """Build the tab.

    Args:
        page: of which language.
        tab: this one, whose list is made anew when it is opened.
        tabs: all of them, to go to one of the two that follow.
        style: where settings are used again.
        regions: where those of paintings in regions are.
    """
    words, site = page.words, page.site
    hours = words("hours", n=f"{site.options.keep_hours:g}")
    pieces.panel(pieces.hint(words("history.hint", hours=hours)))
    listed = pieces.panel(elem_id="history")
    opened = pieces.panel(elem_id="opened", elem_classes="sc-result")

    def show(request: gr.Request) -> list[str]:
        return [_list(page, page.owner(request)), ""]

    def choose(request: gr.Request, event: gr.EventData) -> list[Any]:
        owner, said = page.owner(request), _said(event)
        if said.get("delete") == "all":
            site.batches.remove_all(owner)
            return [*show(request)]
        try:
            item = site.history.item(owner, str(said.get("style")))
            return [gr.skip(), _item(page, owner, item)]
        except StylecapError as error:
            return [gr.skip(), page.alert(error)]

    def act(request: gr.Request, event: gr.EventData) -> list[Any]:
        owner, said = page.owner(request), _said(event)
        same_style, same_regions = ([gr.skip()] * len(tab.restored) for tab in (style, regions))
        same = [gr.skip(), *same_style, *same_regions]
        if isinstance(said.get("delete"), str):
            site.history.remove(owner, said["delete"])
            return [*same, *show(request)]
        try:
            item = site.history.item(owner, str(said.get("again")))
            path = site.history.path(owner, item, "result")
            if path is None:
                raise InputError("this picture is no longer kept")
            found = restore_from(path, owner, site)
            if found.masked:
                values = [*same_style, *regions.restoring(owner, found)]
                return [gr.Tabs(selected="regions"), *values, gr.skip(), ""]
            values = [*style.restoring(found), *same_regions]
            return [gr.Tabs(selected="style"), *values, gr.skip(), ""]
        except StylecapError as error:
            return [*same, gr.skip(), page.alert(error)]

    private: dict[str, Any] = {
        "api_visibility": "private", "show_progress": "hidden", "queue": False
    }  # fmt: skip
    tab.select(show, None, [listed, opened], api_name="history", **private)
    listed.click(choose, None, [listed, opened], api_name="open", **private)
    changed = [tabs, *style.restored, *regions.restored, listed, opened]
    opened.click(act, None, changed, api_name="act", **private)


def _said(event: gr.EventData) -> dict[str, Any]:
    return event._data if isinstance(event._data, dict) else {}


def _list(page: Context, owner: str) -> str:
    words = page.words
    items = page.site.history.items(owner)
    if not items:
        return pieces.empty(words("history.empty"))
    entries = [(i.name, i.title, page.link(i.name, i.files["small"])) for i in items]
    delete = pieces.button(
        words("history.delete.all"),
        {"delete": "all"},
        "sc-small",
        data_confirm=words("history.delete.sure"),
    )
    return pieces.tiles(entries, words("tab.history")) + f'<div class="sc-actions">{delete}</div>'


def _item(page: Context, owner: str, item: Item) -> str:
    words = page.words
    record = RunRecord.from_json(item.record)
    options = options_of_record(record)
    shown = {name: getattr(options, name) for name in ("size", "steps", "strength", "seed")}
    rows = [
        (words.option(name), ", ".join(map(str, v)) if isinstance(v, tuple) else str(v))
        for name, v in {**shown, **changed_options(options)}.items()
    ]
    buttons = [
        pieces.button(words("history.again"), {"again": item.name}, "sc-button sc-primary"),
        pieces.button(words("history.delete"), {"delete": item.name}, "sc-button"),
    ]
    return (
        f'<div class="sc-item"><div>{compared(page, item, _size(page, owner, item))}</div><div>'
        + pieces.heading(item.title)
        + pieces.notice(outcome(page, record))
        + pieces.table((words("record"), ""), rows)
        + f'<div class="sc-actions">{"".join(buttons)}</div>'
        + f'<div class="sc-about">{commands(page, record)}</div></div></div>'
    )


def _size(page: Context, owner: str, item: Item) -> tuple[int, int]:
    """(height, width) of an item."""
    path = page.site.history.path(owner, item, "before")
    if path is None:
        return 3, 4
    with Image.open(path) as picture:
        return picture.height, picture.width
