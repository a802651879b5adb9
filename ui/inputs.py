"""Gradio's inputs for pictures, handing over files as they came.

Gradio would open and convert a picture; ours are opened by `stylecap.images`, with its limits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from stylecap.images import READABLE

from .words import Words


def _path(payload: ImageData | None) -> str | None:
    return None if payload is None else payload.path


# In gradio's own class: it makes a component anew from its class whenever it is updated, so that on
# the object it would be lost, and it writes files beside the source of a class that is derived.
_Image: Any = gr.Image
_Image.preprocess = staticmethod(_path)


def picture(label: str, **more: Any) -> gr.Image:
    """One picture, given as its path or None."""
    return gr.Image(
        label=label, type="filepath", sources=["upload", "clipboard"], buttons=[], **more
    )


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


def all_given(files: list[str] | None, folder: list[str] | None) -> list[str]:
    """What `many` gives: every file, and of a folder the pictures that are not hidden."""
    inside = [
        path
        for path in folder or ()
        if Path(path).suffix.lower() in READABLE and not Path(path).name.startswith(".")
    ]
    return [*(files or ()), *inside]
