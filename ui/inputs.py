"""Gradio's inputs for pictures, handing over files as they came.

Gradio would open and convert a picture; ours are opened by `stylecap.images`, with its limits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from stylecap.images import READABLE

from .words import Words


def picture(label: str, **more: Any) -> gr.Image:
    """One picture, given as its path or None."""
    made = gr.Image(
        label=label, type="filepath", sources=["upload", "clipboard"], buttons=[], **more
    )
    handing: gr.Image = _handing_over(made, _path)
    return handing


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


def as_it_comes(component: Any) -> Any:
    """A component whose value is not checked by gradio, which would do so in English."""
    return _handing_over(component, lambda value: value)


def _handing_over(component: Any, preprocess: Callable[[Any], Any]) -> Any:
    # On the object: gradio writes files beside the source of a class made of its own.
    component.preprocess = preprocess
    return component


def _path(payload: ImageData | None) -> Any:
    return None if payload is None else payload.path
