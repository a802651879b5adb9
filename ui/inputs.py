"""Gradio's inputs for pictures, handing over files as they came.

Gradio would open and convert a picture; ours are opened by `stylecap.images`, with its limits.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from .words import Words


def picture(label: str, **more: Any) -> gr.Image:
    """One picture, given as its path or None."""
    made = gr.Image(
        label=label, type="filepath", sources=["upload", "clipboard"], buttons=[], **more
    )
    # On the object: gradio writes files beside the source of a class made of its own.
    made.preprocess = _path  # type: ignore[method-assign]
    return made


def many(words: Words, name: str) -> list[gr.File]:
    """Several pictures and a folder of them, each given as a list of paths or None."""
    with gr.Row():
        return [
            gr.File(
                label=words(f"many.{count}"),
                file_count=count,
                height=160,
                min_width=140,
                elem_id=f"{name}-{count}",
            )
            for count in ("multiple", "directory")
        ]


def _path(payload: ImageData | None) -> Any:
    return None if payload is None else payload.path
