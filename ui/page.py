"""The whole page, once for each language, and the app that serves it."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import FileResponse

from stylecap.server.jobs import BATCH
from stylecap.server.options import PageOptions
from stylecap.server.site import Site, visitor
from stylecap.server.web import frame
from stylecap.style.builtin import STYLES

from .batches import batch_tab
from .caption import caption_tab
from .context import Context
from .explore import explore_tab
from .history import history_tab
from .painting import style_tab
from .regions import regions_tab
from .words import LANGUAGES, Words

_FOLDER = Path(__file__).parent
_EVENTS_AT_ONCE = 64  # more than that, and gradio itself says that it is busy


def create_app(options: PageOptions) -> FastAPI:
    """The app with its pages, ready for `stylecap.server.web.serve`.

    Gradio keeps uploads where ``GRADIO_TEMP_DIR`` says, one place in a process: so the variable
    is set here, and a process serves one page at a time.
    """
    site = Site(options)
    os.environ["GRADIO_TEMP_DIR"] = str(site.history.folder)
    gr.set_static_paths([site.history.shared, site.history.folder / "own"])
    app = frame(site)
    app.state.site = site

    @app.get("/look/{name}")
    def look(name: str) -> FileResponse:
        known = name if name in ("page.css", "page.js") else "page.css"
        return FileResponse(_FOLDER / known, headers={"cache-control": "no-cache"})

    @app.get("/tiles/{name}.webp")
    def tile(name: str) -> FileResponse:
        known = name if name in STYLES else next(iter(STYLES))
        return FileResponse(site.tile(known), headers={"cache-control": "max-age=3600"})

    for language in LANGUAGES:
        page = build_page(site, language)
        gr.mount_gradio_app(
            app,
            page,
            f"/{language}",
            root_path=f"{options.root_path}/{language}",
            footer_links=[],
            run_history=False,
            show_error=False,
            max_file_size=options.max_megabytes * 1_000_000,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=_theme(),
        )
    site.queue.submit("", "", site.warm_up)
    site.queue.submit("", "", site.measure, lane=BATCH)
    site.batches.resume()
    return app


def build_page(site: Site, language: str) -> gr.Blocks:
    """The page in one language."""
    words = Words(language)
    page = Context(site, words)
    with gr.Blocks(title=words("title"), fill_width=True, analytics_enabled=False) as blocks:
        gr.HTML(_header(page), apply_default_css=False, js_on_load=None, elem_classes="sc-plain")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(words("tab.style"), id="style"):
                style = style_tab(page)
            with gr.Tab(words("tab.regions"), id="regions"):
                regions = regions_tab(page)
            with gr.Tab(words("tab.caption"), id="caption"):
                caption_tab(page)
            with gr.Tab(words("tab.batch"), id="batch") as batch:
                batch_tab(page, batch)
            with gr.Tab(words("tab.explore"), id="explore"):
                explore_tab(page)
            with gr.Tab(words("tab.history"), id="history") as history:
                history_tab(page, history, tabs, style, regions)

        def leave(request: gr.Request) -> None:
            site.queue.stop(visitor(request), str(request.session_hash))

        blocks.unload(leave)
        blocks.queue(max_size=_EVENTS_AT_ONCE, default_concurrency_limit=16, api_open=False)
    made: gr.Blocks = blocks
    return made


def _header(page: Context) -> str:
    words, root = page.words, page.site.options.root_path
    others = " ".join(
        f'<a href="{root}/{code}/" lang="{code}" hreflang="{code}"'
        + (' aria-current="true"' if code == words.language else "")
        + f">{escape(name)}</a>"
        for code, name in LANGUAGES.items()
    )
    return (
        f'<header class="sc-header"><div><h1><img src="{root}/favicon.svg" alt="" width="28" '
        f'height="28">{escape(words("title"))}</h1><p>{escape(words("tagline"))}</p></div>'
        f'<nav aria-label="{escape(words("language"))}">{others}'
        f'<button type="button" class="sc-small" data-dark>{escape(words("dark"))}</button>'
        "</nav></header>"
    )


def _theme() -> Any:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans KR", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=fonts,
        font_mono=["ui-monospace", "monospace"],
    )
    # Gradio's own quiet texts and buttons are too pale to be read easily.
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_800",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
