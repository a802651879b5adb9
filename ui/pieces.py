"""Pieces of HTML. Every text and address that is put in is escaped here.

A button's ``data-say`` is JSON that reaches Python as the event's data when it is pressed.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from stylecap.progress import Progress
from stylecap.server.faults import Fault

from .reasons import reason
from .words import Words

_PRESS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-say]');
  if (button) trigger('click', JSON.parse(button.dataset.say));
});
"""


def panel(value: str = "", **more: Any) -> gr.HTML:
    """A place for pieces, whose buttons can be heard with ``click``."""
    classes = ["sc-panel", *([more.pop("elem_classes")] if "elem_classes" in more else [])]
    return gr.HTML(value, js_on_load=_PRESS, apply_default_css=False, elem_classes=classes, **more)


def button(text: str, said: dict[str, Any], kind: str = "", **attributes: str) -> str:
    """A button that says something to Python."""
    more = "".join(f' {name.replace("_", "-")}="{escape(v)}"' for name, v in attributes.items())
    data = escape(json.dumps(said))
    return f'<button type="button" class="{kind}" data-say="{data}"{more}>{escape(text)}</button>'


def link(text: str, address: str, kind: str = "sc-button") -> str:
    """A link that downloads."""
    return f'<a class="{kind}" href="{escape(address)}" download>{escape(text)}</a>'


def alert(words: Words, fault: Fault) -> str:
    """One friendly sentence with the number under which the log has the rest."""
    text = f"<strong>{escape(words(f'fault.{fault.kind}'))}</strong>"
    if fault.reason and not fault.kind.startswith("busy"):
        text += f" {escape(reason(words, fault.reason))}"
    number = escape(words("fault.number", number=fault.number))
    return f'<p class="sc-alert" role="alert">{text} <small>{number}</small></p>'


def complaint(text: str) -> str:
    """A sentence that says what is missing."""
    return f'<p class="sc-alert" role="alert">{escape(text)}</p>'


def hint(text: str) -> str:
    """A quiet sentence."""
    return f'<p class="sc-hint">{escape(text)}</p>'


def notice(text: str) -> str:
    """A sentence that is read out when it appears."""
    return f'<p class="sc-notice" role="status">{escape(text)}</p>'


def progress(words: Words, event: Progress | None, place: int) -> str:
    """Where a job is, in words, with a bar."""
    if event is None:
        text = words("state.waiting", place=place) if place else words("state.starting")
        return f'<p class="sc-progress" role="status">{escape(text)}</p>'
    parts = [words("state.running", step=event.step, steps=event.steps)]
    stage = event.stage.replace(",", "").split()
    if len(stage) > 3 and stage[0] == "scale":
        parts.append(words("state.scale", scale=stage[1], scales=stage[3]))
    if event.loss is not None:
        parts.append(words("state.loss", loss=f"{event.loss:.3g}"))
    pace = event.seconds / max(1, event.step)
    parts.append(words("state.pace", pace=f"{pace:.2f}" if pace < 10 else f"{pace:.0f}"))
    if event.seconds_left is not None:
        parts.append(words("state.left", left=words.duration(event.seconds_left)))
    return (
        f'<div class="sc-progress"><progress max="1" value="{event.done:.3f}" '
        f'aria-label="{escape(parts[0])}"></progress>'
        f"<p>{escape(' · '.join(parts))}</p></div>"
    )


def stage(words: Words, address: str, size: tuple[int, int]) -> str:
    """The picture so far."""
    return (
        f'<figure class="sc-stage" style="--ratio:{size[1] / size[0]:.4f}">'
        f'<img src="{escape(address)}" alt="{escape(words("result.alt"))}"></figure>'
    )


def empty(*lines: str) -> str:
    """A place where something will be, and how it gets there."""
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="sc-stage sc-empty">{said}</div>'


def compared(
    words: Words, before: str, after: str, size: tuple[int, int], downloads: Sequence[str]
) -> str:
    """Photo and painting under one slider, and what can be done with them."""
    name = escape(words("compare"))
    return (
        f'<figure class="sc-stage sc-compare" style="--ratio:{size[1] / size[0]:.4f}">'
        f'<img src="{escape(after)}" alt="{escape(words("result.alt.done"))}">'
        f'<img class="sc-before" src="{escape(before)}" alt="{escape(words("before.alt"))}">'
        f'<input type="range" min="0" max="100" value="0" aria-label="{name}" title="{name}">'
        "<i></i></figure>"
        f'<div class="sc-actions">{"".join(downloads)}'
        f'<button type="button" class="sc-button" data-fullscreen>'
        f"{escape(words('fullscreen'))}</button></div>"
    )


def tiles(
    entries: Iterable[tuple[str, str, str]],
    label: str,
    chosen: Collection[str] = (),
    *,
    many: bool = False,
) -> str:
    """Small pictures to choose from.

    Args:
        entries: (name, text, address of the picture).
        label: of the whole group.
        chosen: names of those that are pressed.
        many: whether more than one can be.
    """
    made = [
        f'<button type="button" aria-pressed="{str(name in chosen).lower()}" '
        f'data-say="{escape(json.dumps({"style": name}))}">'
        f'<img src="{escape(address)}" alt="" loading="lazy"><span>{escape(text)}</span></button>'
        for name, text, address in entries
    ]
    return (
        f'<div class="sc-tiles{" sc-many" * many}" role="group" aria-label="{escape(label)}">'
        f"{''.join(made)}</div>"
    )


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    """A table; columns in ``numbers`` are aligned to the right."""
    kinds = ['class="sc-number"' if place in numbers else "" for place in range(len(head))]
    top = "".join(f'<th scope="col" {k}>{escape(t)}</th>' for t, k in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td {k}>{escape(t)}</td>" for t, k in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="sc-scroll" tabindex="0" role="region" aria-label="{escape(head[0])}">'
        f'<table class="sc-table"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def figures(entries: Iterable[tuple[str, str]]) -> str:
    """Small pictures with a line below each: (address, text)."""
    made = "".join(
        f'<figure><img src="{escape(address)}" alt="{escape(text)}" loading="lazy">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for address, text in entries
    )
    return f'<div class="sc-figures">{made}</div>'


def heading(text: str) -> str:
    """A heading inside a tab."""
    return f'<h3 class="sc-heading">{escape(text)}</h3>'


def code(title: str, text: str, copy: str, copied: str) -> str:
    """Lines to copy."""
    return (
        f'<div class="sc-code"><div><strong>{escape(title)}</strong>'
        f'<button type="button" class="sc-small" data-copy="{escape(text)}" '
        f'data-copied="{escape(copied)}">{escape(copy)}</button></div>'
        f'<pre tabindex="0">{escape(text)}</pre></div>'
    )


def percent(share: float) -> str:
    """A probability, readable also where it is tiny."""
    if share >= 0.0995:
        return f"{100 * share:.0f} %"
    return f"{100 * share:.2g} %" if share >= 1e-6 else "< 0.0001 %"


def inline(picture: Image.Image) -> str:
    """A picture inside its own address."""
    stream = io.BytesIO()
    flat = picture.width * picture.height <= 300 * 300
    picture.save(stream, "PNG" if flat else "WEBP", quality=85)
    kind = "png" if flat else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
