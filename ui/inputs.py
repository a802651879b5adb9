"""Gradio's inputs for pictures, handing over the file as it came.

Gradio would open and convert it; ours is opened by `stylecap.images`, with its limits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData


class _Picture(gr.Image):
    is_template = True  # the browser takes it for the component that it is made of

    def preprocess(self, payload: ImageData | None) -> Any:
        return None if payload is None else payload.path

    def postprocess(self, value: Any) -> Any:
        return None if value is None else ImageData(path=str(value), orig_name=Path(value).name)


def picture(label: str, **more: Any) -> gr.Image:
    """One picture, given as its path or None."""
    return _Picture(
        label=label, type="filepath", sources=["upload", "clipboard"], buttons=[], **more
    )


def pictures(label: str, **more: Any) -> gr.File:
    """Several picture files."""
    return gr.File(label=label, file_count="multiple", type="filepath", **more)
