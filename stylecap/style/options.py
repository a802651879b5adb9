"""What can be chosen about a stylization; every default stands here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stylecap.errors import OptionError
from stylecap.options import MAX_SEED, option, validate

#: Presets are nothing but values of options, chosen together.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "draft": {"size": 320, "steps": 90},
    "balanced": {},
    "fine": {"size": 768, "steps": 600, "scales": 4},
}

#: Content and style layers that a network starts with. AlexNet has no relu4_2.
DEFAULT_LAYERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vgg16": (("relu4_2",), ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")),
    "vgg19": (("relu4_2",), ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")),
    "alexnet": (("relu3",), ("relu1", "relu2", "relu3", "relu4", "relu5")),
}

AUTO = "auto"
_UNITS = {"GB": 10**9, "MB": 10**6}

COLORS = ("style", "keep-luminance", "match")
COLOR_METHODS = ("cholesky", "principal-axes", "optimal-transport")
INITS = ("content", "style", "noise", "image")


@dataclass(frozen=True, slots=True)
class StyleOptions:
    """Options of `stylecap.stylize`.

    Raises:
        OptionError: a value is not allowed; the message names field, value and range.
    """

    size: int = option(512, "long side of the result, in pixels", minimum=16, maximum=20_000)
    steps: int = option(
        300,
        "evaluations of the objective, shared evenly by the scales",
        minimum=1,
        maximum=100_000,
    )
    strength: float = option(
        0.85,
        "from 0 (the content alone) to 1 (the style alone); objective relative",
        minimum=0,
        maximum=1,
    )
    color: str = option(
        "style",
        "colours of the style, of the content (keep-luminance), "
        "or of the content given to the style before painting (match)",
        choices=COLORS,
    )
    style_scale: float = option(
        1.0,
        "size of the style's strokes: long side of the style over that of the result",
        minimum=0.1,
        maximum=4,
    )
    seed: int = option(0, "seed of everything that is random", minimum=0, maximum=MAX_SEED)
    blend: tuple[float, ...] = option(
        (), "one weight for each style image; equal if not given", minimum=0
    )
    early_stopping: bool = option(
        True,
        "go on to the next scale, or end, when the picture no longer changes visibly",
        advanced=True,
    )
    init: str = option(
        "content",
        "what the painting starts from (image: the picture given with --init-image)",
        choices=INITS,
        advanced=True,
    )
    scales: int = option(
        3,
        "sizes from coarse to fine, each twice the one before; fewer where they get too small",
        minimum=1,
        maximum=8,
        advanced=True,
    )
    objective: str = option(
        "relative",
        "relative (weighed by the strength) or gatys (the paper's, with its weights)",
        choices=("relative", "gatys"),
        advanced=True,
    )
    content_weight: float = option(
        1.0, "weight of the content loss; objective gatys", minimum=0, advanced=True
    )
    style_weight: float = option(
        3.0, "weight of the style loss; objective gatys", minimum=0, advanced=True
    )
    tv_weight: float = option(0.0, "weight of the total variation", minimum=0, advanced=True)
    backbone: str = option(
        "vgg16", "network whose features are matched", choices=tuple(DEFAULT_LAYERS), advanced=True
    )
    content_layers: tuple[str, ...] = option(
        (), "layers of the content loss; the backbone's usual ones if not given", advanced=True
    )
    style_layers: tuple[str, ...] = option(
        (), "layers of the style loss; the backbone's usual ones if not given", advanced=True
    )
    layer_weights: tuple[float, ...] = option(
        (), "one weight for each style layer; 1 if not given", minimum=0, advanced=True
    )
    pooling: str = option(
        "max",
        "pooling of the network",
        choices=("max", "average", "stochastic"),
        advanced=True,
    )
    optimizer: str = option("lbfgs", "optimiser", choices=("lbfgs", "adam"), advanced=True)
    learning_rate: float = option(
        0.03, "step size of adam, in units of the pixel range", minimum=1e-6, advanced=True
    )
    color_method: str = option(
        "optimal-transport",
        "how colours are matched; color match",
        choices=COLOR_METHODS,
        advanced=True,
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", advanced=True)
    precision: str = option(
        "auto",
        "precision of the network; losses are float32",
        choices=("auto", "float32", "bfloat16"),
        advanced=True,
    )
    memory: str = option(
        AUTO,
        "most memory to take, such as 4GB; where a picture needs more, it is computed in strips, "
        "which takes longer; auto: what is free",
        advanced=True,
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.memory != AUTO:
            parse_memory(self.memory)
        if self.layer_weights and len(self.layer_weights) != len(self.resolved_style_layers):
            raise OptionError(
                f"layer_weights: expected {len(self.resolved_style_layers)} values, one for each "
                f"of {', '.join(self.resolved_style_layers)}, got {len(self.layer_weights)}"
            )
        if self.blend and sum(self.blend) == 0:
            raise OptionError("blend: at least one weight must be above 0")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> StyleOptions:
        """Options of a preset, with changes.

        Raises:
            OptionError: unknown preset, or a changed value is not allowed.
        """
        if name not in PRESETS:
            raise OptionError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
        return replace(cls(), **{**PRESETS[name], **changes})

    @property
    def resolved_content_layers(self) -> tuple[str, ...]:
        """The layers given, or the backbone's usual ones."""
        return self.content_layers or DEFAULT_LAYERS[self.backbone][0]

    @property
    def resolved_style_layers(self) -> tuple[str, ...]:
        """The layers given, or the backbone's usual ones."""
        return self.style_layers or DEFAULT_LAYERS[self.backbone][1]


def recorded_options(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's record says of `StyleOptions`, by field.

    Args:
        recorded: the record's options; one that does not speak of early stopping made all steps.
    """
    values = {name: value for name, value in recorded.items() if name != "mask_colors"}
    return {"early_stopping": False, **values}


def parse_memory(text: str) -> int:
    """Bytes of ``"4GB"`` or ``"800MB"``.

    Raises:
        OptionError: it is something else.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?(GB|MB)", text.strip(), re.IGNORECASE)
    if match is None:
        raise OptionError(f"memory: expected auto or an amount such as 4GB or 800MB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])
