"""Options: every one is validated, and what is allowed comes through unchanged."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylecap.errors import OptionError
from stylecap.options import Option, options_of
from stylecap.style.options import DEFAULT_LAYERS, PRESETS, StyleOptions, recorded_options

OPTIONS = options_of(StyleOptions)


def wrong_values(declared: Option) -> list[Any]:
    """Values that an option must refuse."""
    wrong: list[Any] = [None, {}, b"x", object()]
    if declared.kind is str:
        wrong += [1, 1.5, True]
    else:
        wrong += ["1", 1 if declared.kind is bool else True, math.nan, math.inf, -math.inf, 1j]
    if declared.kind is int:
        wrong += [1.0, 10**30]
    if declared.choices:
        wrong += ["", declared.choices[0].upper() + "x"]
    if declared.minimum is not None:
        wrong.append(declared.kind(declared.minimum) - 1)
    if declared.maximum is not None:
        wrong.append(declared.kind(declared.maximum) + 1)
    if declared.many:
        return [*wrong, "abc", 1, *([value] for value in wrong)]
    return [*wrong, [], ()]


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_values_are_refused_by_name(name: str) -> None:
    for value in wrong_values(OPTIONS[name]):
        with pytest.raises(OptionError, match=f"^{name}: expected"):
            StyleOptions(**{name: value})


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_says_what_it_is(name: str) -> None:
    declared = OPTIONS[name]
    assert declared.flag == "--" + name.replace("_", "-")
    assert declared.help and "\n" not in declared.help
    assert declared.expected
    assert StyleOptions(**{name: declared.default}) == StyleOptions()


def test_every_field_is_an_option() -> None:
    assert [f.name for f in fields(StyleOptions)] == list(OPTIONS)


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    options = StyleOptions(blend=[1, 2], style_layers=["relu1_1"], strength=1)
    assert options.blend == (1.0, 2.0) and all(isinstance(x, float) for x in options.blend)
    assert options.style_layers == ("relu1_1",)
    assert isinstance(options.strength, float)
    assert hash(options) == hash(StyleOptions(blend=(1, 2), style_layers=("relu1_1",), strength=1))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str) -> None:
    options = StyleOptions.preset(preset)
    for name, value in PRESETS[preset].items():
        assert getattr(options, name) == value
    assert StyleOptions.preset(preset, size=100).size == 100


def test_presets_grow() -> None:
    draft, balanced, fine = (StyleOptions.preset(name) for name in ("draft", "balanced", "fine"))
    assert draft.steps < balanced.steps < fine.steps
    assert draft.size < balanced.size < fine.size


def test_a_record_that_does_not_speak_of_early_stopping_made_all_steps() -> None:
    old = recorded_options({"steps": 50, "mask_colors": ["#ffffff"]})
    assert StyleOptions(**old) == StyleOptions(steps=50, early_stopping=False)
    assert StyleOptions(**recorded_options(asdict(StyleOptions()))) == StyleOptions()


def test_refusals_over_several_fields() -> None:
    with pytest.raises(OptionError, match="preset: expected one of draft"):
        StyleOptions.preset("best")
    with pytest.raises(OptionError, match="layer_weights: expected 5 values"):
        StyleOptions(layer_weights=(1, 2))
    with pytest.raises(OptionError, match="layer_weights: expected 1 values"):
        StyleOptions(style_layers=("relu1_1",), layer_weights=(1, 2))
    with pytest.raises(OptionError, match="blend: at least one"):
        StyleOptions(blend=(0, 0))


@pytest.mark.parametrize("backbone", DEFAULT_LAYERS)
def test_default_layers_follow_the_backbone(backbone: str) -> None:
    options = StyleOptions(backbone=backbone)
    content, style = DEFAULT_LAYERS[backbone]
    assert (options.resolved_content_layers, options.resolved_style_layers) == (content, style)
    chosen = StyleOptions(backbone=backbone, content_layers=("x",), style_layers=("y",))
    assert (chosen.resolved_content_layers, chosen.resolved_style_layers) == (("x",), ("y",))


@given(
    size=st.integers(16, 20_000),
    steps=st.integers(1, 100_000),
    strength=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
    blend=st.lists(st.floats(0.001, 1e6), max_size=4),
)
def test_allowed_values_come_through(
    size: int, steps: int, strength: float, seed: int, blend: list[float]
) -> None:
    options = StyleOptions(size=size, steps=steps, strength=strength, seed=seed, blend=blend)
    assert (options.size, options.steps, options.strength) == (size, steps, strength)
    assert (options.seed, options.blend) == (seed, tuple(blend))


@given(
    st.sampled_from(list(OPTIONS)),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.floats()),
)
def test_any_value_is_taken_or_refused_by_name(name: str, value: Any) -> None:
    try:
        options = StyleOptions(**{name: value})
    except OptionError as error:
        assert name in str(error)
    else:
        assert StyleOptions(**{name: getattr(options, name)}) == options
