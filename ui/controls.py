"""Controls for options, all made by `control` from what the dataclass declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import gradio as gr

from stylecap.errors import OptionError
from stylecap.options import Option, options_of

from .words import Words

Options = TypeVar("Options")
_SLIDER_SPAN = 5000  # a longer range is typed


def _as_it_came(payload: Any) -> Any:
    return payload


# Out of its range, a number is the dataclass's to refuse, in the page's language; see `inputs` for
# why this is done to gradio's classes.
_NUMBERS: tuple[Any, ...] = (gr.Slider, gr.Number)
for _kind in _NUMBERS:
    _kind.preprocess = staticmethod(_as_it_came)


def control(declared: Option, words: Words, value: Any, most: float | None = None) -> Any:
    """The control of one option.

    Args:
        declared: its kind, range and choices.
        words: for label and help.
        value: to begin with.
        most: a limit of the page below the option's own.
    """
    shown: dict[str, Any] = {
        "label": words.option(declared.name),
        "info": words.help(declared.name, declared.help) or None,
        "value": as_shown(declared, value),
        "interactive": True,
        "elem_classes": f"option-{declared.name}",
    }
    least = declared.minimum
    most = declared.maximum if most is None else most
    if declared.kind is bool:
        return gr.Checkbox(**shown)
    if declared.choices:
        named = [(words.choice(declared.name, choice), choice) for choice in declared.choices]
        few = len(named) <= 3
        return gr.Radio(named, **shown) if few else gr.Dropdown(named, filterable=False, **shown)
    if declared.optional and _is_typed(declared):  # an empty Number is a 0 in the browser
        return gr.Textbox(lines=1, max_length=50, placeholder=words("option.unset"), **shown)
    if declared.many or declared.kind is str:
        return gr.Textbox(lines=1, max_length=500, **shown)
    whole = declared.kind is int
    span = None if least is None or most is None else (least, most)
    if span is not None and span[1] - span[0] <= _SLIDER_SPAN:
        return gr.Slider(*span, step=1 if whole else 0.01, buttons=[], **shown)
    return gr.Number(minimum=least, maximum=most, precision=0 if whole else None, **shown)


def as_shown(declared: Option, value: Any) -> Any:
    """An option's value as its control shows it."""
    if not _is_typed(declared):
        return value
    values = value if declared.many else () if value is None else (value,)
    return ", ".join(f"{v:.12g}" if isinstance(v, float) else str(v) for v in values)


def as_given(declared: Option, value: Any) -> Any:
    """What a control sends, as the option's value; checked by the dataclass afterwards.

    Raises:
        OptionError: a text is not made of what the option expects.
    """
    if _is_typed(declared):
        try:
            parts = [part.strip() for part in (value or "").split(",")]
            given = tuple(declared.kind(part) for part in parts if part)
            if declared.many:
                return given
            (single,) = given or (None,)
            return single
        except (ValueError, AttributeError):
            raise OptionError(
                f"{declared.name}: expected {declared.expected}, got {str(value)[:80]!r}"
            ) from None
    if value is None and not declared.optional:
        return declared.default
    if declared.kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_typed(declared: Option) -> bool:
    """Whether its control is a text that stands for numbers or names."""
    return declared.many or (declared.optional and declared.kind is not str)


class Controls:
    """The controls of some of a dataclass's options, in the order in which they were made.

    Args:
        options_class: whose options they are.
        words: for labels.
        values: to begin with, where not the default.
        most: limits of the page, by name.
    """

    def __init__(
        self,
        options_class: type,
        words: Words,
        values: Mapping[str, Any] | None = None,
        most: Mapping[str, float] | None = None,
    ) -> None:
        self._class = options_class
        self._declared = options_of(options_class)
        self._words = words
        self._values = values or {}
        self._most = most or {}
        self.by_name: dict[str, Any] = {}

    def add(self, *names: str) -> None:
        """Make controls here."""
        for name in names:
            declared = self._declared[name]
            value = self._values.get(name, declared.default)
            self.by_name[name] = control(declared, self._words, value, self._most.get(name))

    def add_others(self, *, without: Sequence[str] = ()) -> None:
        """Make controls here for all other options."""
        self.add(*(name for name in self._declared if name not in (*self.by_name, *without)))

    @property
    def components(self) -> list[Any]:
        """All controls, as inputs and outputs of events."""
        return list(self.by_name.values())

    def read(self, values: Sequence[Any], **changes: Any) -> Any:
        """The options that the controls' values say.

        Raises:
            OptionError: a value is not allowed.
        """
        given = {
            name: as_given(self._declared[name], value)
            for name, value in zip(self.by_name, values, strict=True)
        }
        return self._class(**{**given, **changes})

    def show(self, options: Any) -> list[Any]:
        """Values for all controls that say these options."""
        return [as_shown(self._declared[name], getattr(options, name)) for name in self.by_name]
