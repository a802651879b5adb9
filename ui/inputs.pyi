"""Gradio's inputs for pictures, handing over the file as it came.

Gradio would open and convert it; ours is opened by `stylecap.images`, with its limits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.image_editor import EditorData
from gradio.data_classes import ImageData

from gradio.events import Dependency

class Picture(gr.Image):
    """A picture given as a path, or None."""

    is_template = True

    def __init__(self, label: str, **more: Any) -> None:
        super().__init__(
            label=label, type="filepath", sources=["upload", "clipboard"], buttons=[], **more
        )

    def preprocess(self, payload: ImageData | None) -> Any:
        """The file's path."""
        return None if payload is None else payload.path

    def postprocess(self, value: Any) -> Any:
        """Show a file of the store."""
        return None if value is None else ImageData(path=str(value), orig_name=Path(value).name)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


class MaskEditor(gr.ImageEditor):
    """A photo to paint on: the paths of the photo and of the painted layer."""

    is_template = True

    def preprocess(self, payload: EditorData | None) -> Any:
        """(path of the photo, paths of the layers)."""
        if payload is None:
            return None, []
        photo = payload.background.path if payload.background else None
        return photo, [layer.path for layer in payload.layers if layer is not None]
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def pictures(label: str, **more: Any) -> gr.File:
    """Several picture files."""
    return gr.File(label=label, file_count="multiple", type="filepath", **more)
class _Picture(gr.Image):
    is_template = True  # the browser takes it for the component that it is made of

    def preprocess(self, payload: ImageData | None) -> Any:
        return None if payload is None else payload.path

    def postprocess(self, value: Any) -> Any:
        return None if value is None else ImageData(path=str(value), orig_name=Path(value).name)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

    