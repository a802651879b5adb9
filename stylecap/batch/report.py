"""What came of a batch, to look at and to compute with: ``report.html`` and ``report.csv``."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from stylecap.batch.journal import Row, read_rows
from stylecap.errors import InputError
from stylecap.files import write_atomically
from stylecap.images import load_picture, split_alpha
from stylecap.style.options import StyleOptions

#: Figures of a card, in the order of the columns, and what their column is called on the page.
CARD = {
    "content_lpips": "content, LPIPS",
    "style": "style reached",
    "color_to_style": "colour to style",
    "color_to_content": "colour to content",
    "roughness": "roughness",
    "border": "border",
    "clipped": "clipped",
    "caption_drift": "caption drift",
}
HTML = "report.html"
CSV = "report.csv"
_THUMBNAIL_PX = 192
_MOST_THUMBNAILS = 1000  # inside the page; the pictures of later jobs are only linked
_COLUMNS = (
    *("output", "state", "content", "styles", "seconds", "steps", "loss", "content_loss"),
    *("style_loss", "content_caption", "result_caption", "error", "options"),
    *CARD,
)


def write_report(output: str | Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.csv`` of all shares of a batch so far.

    The page needs no other file and no network: a thumbnail of each result, its caption, its
    settings and time, sortable, failures first.

    Args:
        output: folder of the results.
    Returns:
        Paths of the page and of the table.
    Raises:
        OutputError: there is no batch, or they cannot be written.
    """
    folder = Path(output)
    rows = list(read_rows(folder))
    page, table = folder / HTML, folder / CSV
    write_atomically(table, _table(rows).encode("utf-8", "backslashreplace"))
    write_atomically(page, _page(folder, rows).encode("utf-8", "backslashreplace"))
    return page, table


def _table(rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(_COLUMNS)
    for row in rows:
        loss = row.ending.get("loss", {})
        writer.writerow(
            [
                row.output,
                row.state,
                row.asked["content"],
                ";".join(row.asked["styles"]),
                row.ending.get("seconds", ""),
                row.ending.get("steps", ""),
                loss.get("total", ""),
                loss.get("content", ""),
                sum(loss.get("style", {}).values()) if loss else "",
                row.ending.get("content_caption", ""),
                row.ending.get("result_caption", ""),
                row.ending.get("error", ""),
                json.dumps(_changed(row)),
                *(row.ending.get("card", {}).get(name, "") for name in CARD),
            ]
        )
    return stream.getvalue()


def _changed(row: Row) -> dict[str, object]:
    """The options that are not the usual ones."""
    usual = json.loads(json.dumps({n: getattr(_USUAL, n) for n in row.asked["options"]}))
    return {n: v for n, v in row.asked["options"].items() if v != usual[n]}


_USUAL = StyleOptions()


def _page(folder: Path, rows: Sequence[Row]) -> str:
    counts = Counter(row.state for row in rows)
    summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    failed = [row for row in rows if row.ending.get("error")]
    failures = "".join(
        f"<tr><td>{escape(row.output)}<td>{escape(row.asked['content'])}"
        f"<td>{escape(row.ending['error'])}"
        for row in failed
    )
    done = [row for row in rows if row.state == "done"]
    cards = "".join(_card(folder, row, n < _MOST_THUMBNAILS) for n, row in enumerate(done))
    judged = [row for row in done if row.ending.get("card")]
    return _PAGE.format(
        summary=escape(summary or "no jobs"),
        failures=_FAILURES.format(rows=failures) if failed else "",
        judged=_judged(judged) if judged else "",
        cards=cards,
    )


def _judged(rows: Sequence[Row]) -> str:
    """The cards as a table that a click on a column's name sorts."""
    head = "".join(
        f"<th><button type=button>{escape(title)}</button>"
        for title in ("result", "style", "seconds", *CARD.values())
    )
    return _CARDS.format(head=head, rows="\n".join(map(_judged_row, rows)))


def _judged_row(row: Row) -> str:
    card = row.ending["card"]
    numbers = [row.ending.get("seconds"), *(card.get(name) for name in CARD)]
    styles = ", ".join(Path(style).name for style in row.asked["styles"])
    cells = "".join(
        "<td>" if number is None else f'<td data-value="{number!r}">{number:.3g}'
        for number in numbers
    )
    name = f'<a href="{quote(row.output)}">{escape(row.output)}</a>'
    return f"<tr><td>{name}<td>{escape(styles)}{cells}"


def _card(folder: Path, row: Row, small: bool) -> str:
    seconds = float(row.ending.get("seconds", 0))
    loss = row.ending.get("loss", {}).get("total")
    styles = ", ".join(Path(style).name for style in row.asked["styles"])
    caption = row.ending.get("result_caption", "")
    before = row.ending.get("content_caption", "")
    settings = ", ".join(f"{name} {value}" for name, value in _changed(row).items())
    told = [
        f"<b>{escape(row.output)}</b>",
        f"{escape(Path(row.asked['content']).name)} in {escape(styles)}",
        *([f"<q>{escape(caption)}</q>"] if caption else []),
        *([f"photo: <q>{escape(before)}</q>"] if before else []),
        f"{seconds:.1f} s, {row.ending.get('steps', 0)} steps"
        + (f", loss {loss:.4g}" if isinstance(loss, float) else ""),
        *([escape(settings)] if settings else []),
    ]
    return (
        f'<figure data-name="{escape(row.output)}" data-style="{escape(styles)}" '
        f'data-seconds="{seconds}" data-loss="{loss if isinstance(loss, float) else 0}">'
        f'<a href="{quote(row.output)}">{_thumbnail(folder / row.output, row, small)}</a>'
        f"<figcaption>{'<br>'.join(told)}</figcaption></figure>\n"
    )


def _thumbnail(path: Path, row: Row, small: bool) -> str:
    words = escape(row.ending.get("result_caption") or row.output)
    if not small:
        return f"<span>{words}</span>"
    try:
        picture = split_alpha(load_picture(path))[0]
    except InputError:
        return "<span>the file is not there any more</span>"
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=75)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{words}" '
        f'width="{picture.width}" height="{picture.height}">'
    )


_FAILURES = """<h2>Failures</h2>
<table><tr><th>result<th>content<th>reason{rows}</table>"""

_CARDS = """<h2>Quality</h2>
<table id="cards"><thead><tr>{head}</thead><tbody>
{rows}
</tbody></table>"""

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>stylecap batch</title>
<style>
:root {{ color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif }}
body {{ margin: 1.5rem }}
main {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(208px, 1fr)) }}
figure {{ margin: 0; padding: 8px; border: 1px solid #8884; border-radius: 8px }}
figure img {{ display: block; margin: 0 auto 6px }}
figcaption, td {{ overflow-wrap: anywhere; font-size: 12px }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; padding: 2px 12px 2px 0; vertical-align: top }}
td[data-value] {{ text-align: right; font-variant-numeric: tabular-nums }}
th button {{ all: unset; cursor: pointer; text-decoration: underline dotted }}
th button:focus-visible {{ outline: 2px solid }}
th[aria-sort=ascending]::after {{ content: " \2191" }}
th[aria-sort=descending]::after {{ content: " \2193" }}
</style>
<h1>stylecap batch</h1>
<p>{summary}</p>
{failures}
{judged}
<p><label>sort by <select id="key">
<option value="name">name<option value="style">style
<option value="seconds">time<option value="loss">loss
</select></label></p>
<main>
{cards}</main>
<script>
document.getElementById("key").addEventListener("change", event => {{
  const key = event.target.value, main = document.querySelector("main");
  const numeric = key === "seconds" || key === "loss";
  const value = figure => numeric ? Number(figure.dataset[key]) : figure.dataset[key];
  [...main.children]
    .sort((a, b) => numeric ? value(b) - value(a) : value(a).localeCompare(value(b)))
    .forEach(figure => main.append(figure));
}});
document.querySelectorAll("#cards th").forEach((head, column) => {{
  head.firstChild.addEventListener("click", () => {{
    const body = document.querySelector("#cards tbody");
    const falling = head.getAttribute("aria-sort") === "ascending";
    document.querySelectorAll("#cards th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.value;
    const order = (a, b) => value(a) === undefined && value(b) === undefined
      ? a.cells[column].textContent.localeCompare(b.cells[column].textContent)
      : (Number(value(a)) || 0) - (Number(value(b)) || 0);
    [...body.rows].sort((a, b) => falling ? order(b, a) : order(a, b))
      .forEach(row => body.append(row));
  }});
}});
</script>
</html>
"""
