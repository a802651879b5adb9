"""The tab Caption: a sentence, where each word came from, other words tried, whole folders."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from stylecap.captioning.options import CaptionOptions
from stylecap.embedded import write_alt_text
from stylecap.errors import LimitError, OutputError, WeightsError
from stylecap.images import save_picture
from stylecap.server import describing, faults
from stylecap.server.describing import Described
from stylecap.server.painting import open_picture

from . import pieces
from .context import Context
from .controls import Controls
from .inputs import all_given, many, picture
from .reasons import reason

_NOT_HERE = ("backbone", "prefix", "seed")  # the captioner's own; clicked words; one picture


def caption_tab(page: Context) -> None:
    """Build the tab."""
    words, site = page.words, page.site
    seen = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            photo = picture(words("caption.photo"), height=340, elem_id="caption-photo")
            go = gr.Button(words("describe"), variant="primary", size="lg", elem_id="describe")
            with gr.Accordion(words("caption.settings"), open=False):
                controls = Controls(CaptionOptions, words)
                controls.add_others(without=_NOT_HERE)
            with gr.Accordion(words("caption.folder"), open=False):
                files = many(words, "caption-files")
                go_all = gr.Button(words("caption.folder.go"), elem_id="describe-all")
        with gr.Column(scale=7, min_width=320):
            sentence = pieces.panel(pieces.empty(words("caption.empty")), elem_id="sentence")
            detail = pieces.panel(elem_id="word")
            others = pieces.panel(elem_id="others")
            alt = gr.Button(words("caption.alt"), visible=False, elem_id="alt")
            alt_link = pieces.panel()
            listed = pieces.panel(elem_id="captions")

    async def describe(request: gr.Request, path: str | None, *values: Any) -> list[Any]:
        try:
            given = site.given(page.owner(request), path)
            if given is None:
                text = pieces.complaint(words("need.photo"))
                return [None, text, "", "", gr.update(visible=False), ""]
            options = controls.read(values)

            def work() -> Described:
                captioner = site.captioner()
                picture = open_picture(given, site.options)
                backbone = site.backbone(captioner.backbone_name)
                return describing.describe(given, picture, captioner, backbone, options)

            found = await page.quickly(request, work)
            return _shown(page, found)
        except Exception as error:
            return [None, _failure(page, error), "", "", gr.update(visible=False), ""]

    def look(found: Described | None, event: gr.EventData) -> list[Any]:
        place = _place(found, event)
        if found is None or place is None:
            return [gr.skip(), gr.skip()]
        return [_sentence(page, found, place), _word(page, found, place)]

    async def try_word(
        request: gr.Request, found: Described | None, event: gr.EventData
    ) -> list[Any]:
        same = [gr.skip()] * 6
        place = _place(found, event)
        word = event._data.get("word") if isinstance(event._data, dict) else None
        if found is None or place is None or not isinstance(word, str):
            return same
        try:
            changed = await page.quickly(
                request,
                lambda: describing.describe_with(found, site.captioner(), place, word),
            )
            return _shown(page, changed, place)
        except Exception as error:
            return [found, gr.skip(), page.alert(error), gr.skip(), gr.skip(), ""]

    async def put_alt(request: gr.Request, found: Described | None) -> str:
        if found is None:
            return ""
        try:
            owner = page.owner(request)
            given = site.given(owner, str(found.path))
            text = found.caption.text
            name, file, changed = await page.quickly(
                request, lambda: _with_alt(page, owner, given, text)
            )
            made = pieces.link(words("caption.alt.done"), page.link(name, file, download=True))
            return made + (pieces.hint(words("caption.alt.other")) if changed else "")
        except Exception as error:
            return page.alert(error)

    async def describe_all(
        request: gr.Request,
        files: list[str] | None,
        folder: list[str] | None,
        *values: Any,
    ) -> AsyncIterator[str]:
        rows: list[describing.Row] = []
        failed, count = "", 0
        try:
            owner = page.owner(request)
            given = [site.given(owner, path) for path in all_given(files, folder)]
            count = len(given)
            if not given:
                yield pieces.complaint(words("need.files"))
                return
            if count > site.options.max_files:
                raise LimitError(
                    f"folder: this page describes up to {site.options.max_files} pictures at a "
                    f"time, got {count}"
                )
            options = replace(controls.read(values), alternatives=1)
            for path in given:
                work = partial(describing.describe_file, path, site, options)
                rows.append(await page.quickly(request, work))
                yield _rows(page, rows, count)
        except Exception as error:
            failed = _failure(page, error)
        try:
            if rows:  # those that are described are kept, whatever became of the others
                made = site.history.new_folder(owner)
                describing.write_table(rows, made / "captions.csv")
                address = page.link(made.name, "captions.csv", download=True)
                failed += pieces.link(words("caption.folder.csv"), address)
        except Exception as error:
            failed += _failure(page, error)
        yield failed + (_rows(page, rows, count) if rows else "")

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    outputs = [seen, sentence, detail, others, alt, alt_link]
    given = [photo, *controls.components]
    go.click(describe, given, outputs, api_name="describe", **private)
    photo.upload(describe, given, outputs, **private)
    sentence.click(look, seen, [sentence, detail], api_name="look", queue=False, **private)
    detail.click(try_word, seen, outputs, api_name="try_word", **private)
    alt.click(put_alt, seen, alt_link, api_name="put_alt", **private)
    go_all.click(
        describe_all, [*files, *controls.components], listed, api_name="describe_all", **private
    )


def _shown(page: Context, found: Described, place: int | None = None) -> list[Any]:
    detail = "" if place is None else _word(page, found, place)
    return [
        found,
        _sentence(page, found, place),
        detail,
        _others(page, found),
        gr.update(visible=True),
        "",
    ]


def _sentence(page: Context, found: Described, chosen: int | None = None) -> str:
    words = page.words
    made = []
    for place, each in enumerate(found.caption.words):
        name = words("caption.word", word=each.word, prob=pieces.percent(each.prob))
        made.append(
            f'<button type="button" data-say="{{&quot;place&quot;: {place}}}" '
            f'aria-pressed="{str(place == chosen).lower()}" aria-label="{escape(name)}">'
            f"{escape(each.word)}<small>{pieces.percent(each.prob)}</small></button>"
        )
    text = found.caption.text
    return (
        f'<p class="sc-sentence" lang="en">{escape(text)}'
        f'<button type="button" class="sc-small" data-copy="{escape(text)}" '
        f'data-copied="{escape(words("caption.copied"))}">{escape(words("caption.copy"))}</button>'
        f'</p><div class="sc-words" role="group" lang="en" '
        f'aria-label="{escape(words("caption.words"))}">{"".join(made)}</div>'
    )


def _word(page: Context, found: Described, place: int) -> str:
    words = page.words
    each = found.caption.words[place]
    made = ""
    picture = describing.heat_map(found, place)
    if picture is not None:
        title = words("caption.looked", word=each.word)
        made += pieces.heading(title)
        made += (
            f'<div class="sc-seen"><img src="{pieces.inline(picture)}" alt="{escape(title)}"></div>'
        )
    made += pieces.heading(words("caption.instead", word=each.word))
    made += pieces.hint(words("caption.instead.hint"))
    buttons = "".join(
        pieces.button(
            f"{word} · {pieces.percent(prob)}", {"place": place, "word": word}, "sc-small"
        )
        for word, prob in each.alternatives
        if word != each.word
    )
    return made + f'<div class="sc-actions" lang="en">{buttons}</div>'


def _others(page: Context, found: Described) -> str:
    words = page.words
    rows = [
        (text, pieces.percent(describing.probability(log_prob)))
        for text, log_prob in found.caption.alternatives
    ]
    head = (words("caption.text"), words("caption.prob"))
    top = pieces.heading(words("caption.others")) + pieces.hint(words("caption.others.hint"))
    return top + pieces.table(head, rows, numbers=(1,))


def _rows(page: Context, rows: list[describing.Row], count: int) -> str:
    words = page.words
    shown = [
        (
            row.name,
            row.caption or reason(words, row.problem),
            "" if row.prob is None else pieces.percent(row.prob),
        )
        for row in rows
    ]
    head = (words("caption.file"), words("caption.text"), words("caption.prob"))
    told = pieces.notice(words("batch.count", done=len(rows), all=count))
    return told + pieces.table(head, shown, numbers=(2,))


def _place(found: Described | None, event: gr.EventData) -> int | None:
    place = event._data.get("place") if isinstance(event._data, dict) else None
    if found is None or not isinstance(place, int) or isinstance(place, bool):
        return None
    return place if 0 <= place < len(found.caption.words) else None


def _with_alt(page: Context, owner: str, path: Path, text: str) -> tuple[str, str, bool]:
    """A copy of a picture with its alt text: (folder, file, whether it became a PNG)."""
    folder = page.site.history.new_folder(owner)
    copy = folder / path.name.lstrip(".")
    shutil.copyfile(path, copy)
    try:
        write_alt_text(copy, text)
        return folder.name, copy.name, False
    except OutputError:
        plain = copy.with_suffix(".png")
        save_picture(open_picture(path, page.site.options), plain)
        write_alt_text(plain, text)
        return folder.name, plain.name, True


def _failure(page: Context, error: BaseException) -> str:
    if isinstance(error, WeightsError):
        faults.note(error)
        return pieces.notice(page.words("caption.none"))
    return page.alert(error)
