"""A report as one HTML page: everything inside, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from stylecap.errors import InputError
from stylecap.images import load_picture, scale_picture, split_alpha

if TYPE_CHECKING:
    from pathlib import Path

    from stylecap.captioning.evaluation import Described, Report

_SHOWN = 12
_THUMBNAIL_PX = 200
_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
  color: #1c1c1c; background: #fff; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } thead th { border-bottom: 1px solid #888; }
small { color: #5a5a5a; } .cards { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
figure { margin: 0; } figure img { width: 100%; } figcaption strong { display: block; }
ul { margin: .3rem 0; padding-left: 1.1rem; color: #4a4a4a; font-size: .85rem; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #161616; }
  small, ul { color: #a8a8a8; } }
"""


def figure_rows(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table of a report: its head, and one row a figure."""
    head = (
        "figure",
        report.split,
        "95 %",
        "1st half",
        "2nd half",
        "people",
        "constant",
        "shuffled",
    )
    rows = []
    for name, measure in report.whole.items():
        cells = [name, _number(name, measure.value)]
        spread = "" if name == "words used" else f"{_number(name, measure.low)} to "
        cells.append(spread and spread + _number(name, measure.high))
        for half in (report.first, report.second):
            cells.append(_number(name, half[name].value))
        cells.append(_number(name, report.human.get(name)) if report.human else "-")
        for other in (report.constant, report.shuffled):
            cells.append(_number(name, other[name].value) if other and name in other else "-")
        rows.append(tuple(cells))
    return head, rows


def notes(report: Report) -> list[str]:
    """What a reader of the table has to know."""
    synonyms = "with WordNet's synonyms" if report.wordnet else "without synonyms (no WordNet here)"
    told = [
        "All figures times 100, but length ratio and words used. The interval holds 95 % of "
        "bootstrap samples of the pictures.",
        "BLEU as nltk's corpus_bleu, unsmoothed, with brevity penalty. CIDEr-D weighs words by "
        f"all references of {report.split}.",
        f"METEOR is nltk's, {synonyms}: not METEOR 1.5.",
        "1st half: every other picture; of dev, training chose weights and search by it. 2nd "
        "half: the rest, untouched.",
        "people: each reference against the others of its picture. shuffled: the same captions, "
        "each given to another picture.",
    ]
    if report.sentence:
        told.append(
            "constant: the best of the 50 most frequent training captions for every picture, "
            f"'{report.sentence}'."
        )
    return told


def report_page(report: Report) -> str:
    """The page.

    All text is escaped, thumbnails are embedded, and its policy forbids to load anything.
    """
    head, rows = figure_rows(report)
    ranked = sorted(report.described, key=lambda each: -each.cider)
    shown = min(_SHOWN, len(ranked))
    drawn = np.random.default_rng(0).permutation(len(ranked))[:shown]
    about, options = report.about, report.about["options"]
    search = options["method"]
    if search == "beam":
        search = (
            f"beam {options['beam']}, length penalty {options['length_penalty']:g}, match weight "
            f"{options['match_weight']:g}, consensus weight {options['consensus_weight']:g}"
        )
    summary = (
        f"{len(ranked)} pictures of {report.split}, backbone {about['backbone']}, "
        f"{about['decoders']} decoder(s), {about['vocabulary']} words, {search}"
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Captions of {escape(report.split)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Captions of {escape(report.split)}</h1><p>{escape(summary)}</p>",
        "<table><thead>",
        _row(head, "th"),
        "</thead><tbody>",
        *(_row(row, "td") for row in rows),
        "</tbody></table>",
        *(f"<p><small>{escape(note)}</small></p>" for note in notes(report)),
        *_section("Best", ranked[:shown]),
        *_section("Worst", ranked[::-1][:shown]),
        *_section("Random", [report.described[int(place)] for place in drawn]),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "words used":
        return f"{value:.0f}"
    return f"{value:.3f}" if name == "length ratio" else f"{100 * value:.1f}"


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _section(title: str, shown: Iterable[Described]) -> list[str]:
    return [f'<h2>{title}</h2><div class="cards">', *map(_card, shown), "</div>"]


def _card(each: Described) -> str:
    references = "".join(f"<li>{escape(text)}</li>" for text in each.references)
    return (
        f'<figure><img src="{_thumbnail(each.path)}" alt="{escape(each.caption)}">'
        f"<figcaption><strong>{escape(each.caption)}</strong>"
        f"<small>CIDEr-D {100 * each.cider:.0f}, {escape(each.path.name)}</small>"
        f"<ul>{references}</ul></figcaption></figure>"
    )


def _thumbnail(path: Path) -> str:
    """A small JPEG as a data URL; empty if the picture is gone."""
    try:
        picture = split_alpha(load_picture(path))[0]
    except InputError:
        return "data:,"
    stream = io.BytesIO()
    scale_picture(picture, _THUMBNAIL_PX).save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
