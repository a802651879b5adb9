"""Neural style transfer and captions from one pretrained convolutional backbone.

    import stylecap

    result = stylecap.stylize("photo.jpg", "night-swirls")
    result.save("painting.png")
    print(stylecap.caption("photo.jpg").text)

Everything is imported when it is first used, so that importing stylecap costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stylecap.backbone import BACKBONES, Backbone, layer_table, load_backbone
    from stylecap.captioning.captioner import Caption, Captioner, CaptionWord
    from stylecap.captioning.captioner_file import load_captioner
    from stylecap.captioning.drawing import draw_attention
    from stylecap.captioning.evaluation import Report, evaluate_captioner
    from stylecap.captioning.options import CaptionOptions, TrainOptions
    from stylecap.captioning.recipe import train_captioner
    from stylecap.describing import caption, caption_many
    from stylecap.errors import StylecapError
    from stylecap.inputs import inputs_from_record
    from stylecap.painting import StyleResult, mix_styles, stylize
    from stylecap.progress import Progress
    from stylecap.record import RunRecord
    from stylecap.runtime import Runtime
    from stylecap.studio.retrieval import evaluate_search
    from stylecap.style.builtin import STYLES, paint_style
    from stylecap.style.options import PRESETS, StyleOptions

_HOMES = {
    "BACKBONES": "stylecap.backbone",
    "Backbone": "stylecap.backbone",
    "Caption": "stylecap.captioning.captioner",
    "CaptionOptions": "stylecap.captioning.options",
    "CaptionWord": "stylecap.captioning.captioner",
    "Captioner": "stylecap.captioning.captioner",
    "PRESETS": "stylecap.style.options",
    "Report": "stylecap.captioning.evaluation",
    "Progress": "stylecap.progress",
    "RunRecord": "stylecap.record",
    "Runtime": "stylecap.runtime",
    "STYLES": "stylecap.style.builtin",
    "StyleOptions": "stylecap.style.options",
    "StyleResult": "stylecap.painting",
    "StylecapError": "stylecap.errors",
    "TrainOptions": "stylecap.captioning.options",
    "caption": "stylecap.describing",
    "caption_many": "stylecap.describing",
    "draw_attention": "stylecap.captioning.drawing",
    "evaluate_captioner": "stylecap.captioning.evaluation",
    "evaluate_search": "stylecap.studio.retrieval",
    "inputs_from_record": "stylecap.inputs",
    "layer_table": "stylecap.backbone",
    "load_backbone": "stylecap.backbone",
    "load_captioner": "stylecap.captioning.captioner_file",
    "mix_styles": "stylecap.painting",
    "paint_style": "stylecap.style.builtin",
    "stylize": "stylecap.painting",
    "train_captioner": "stylecap.captioning.recipe",
}

__all__ = [
    "BACKBONES",
    "PRESETS",
    "STYLES",
    "Backbone",
    "Caption",
    "CaptionOptions",
    "CaptionWord",
    "Captioner",
    "Progress",
    "Report",
    "RunRecord",
    "Runtime",
    "StyleOptions",
    "StyleResult",
    "StylecapError",
    "TrainOptions",
    "__version__",
    "caption",
    "caption_many",
    "draw_attention",
    "evaluate_captioner",
    "evaluate_search",
    "inputs_from_record",
    "layer_table",
    "load_backbone",
    "load_captioner",
    "mix_styles",
    "paint_style",
    "stylize",
    "train_captioner",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stylecap' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
