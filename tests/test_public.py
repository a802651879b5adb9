"""What `import stylecap` offers, and how little it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import stylecap

NAMES = {
    *("BACKBONES", "PRESETS", "STYLES", "Backbone", "Caption", "CaptionOptions", "CaptionWord"),
    *("Captioner", "Progress", "RunRecord", "Runtime", "StyleOptions", "StyleResult"),
    *("StylecapError", "__version__", "caption", "inputs_from_record", "layer_table"),
    *("load_backbone", "load_captioner", "mix_styles", "paint_style", "stylize"),
}


def test_names_are_kept() -> None:
    """A name may be added; one that is taken away breaks somebody's program."""
    assert set(stylecap.__all__) >= NAMES
    assert dir(stylecap) == sorted(stylecap.__all__)


@pytest.mark.parametrize("name", stylecap.__all__)
def test_every_name_is_there_and_described(name: str) -> None:
    found = getattr(stylecap, name)
    if callable(found):
        assert found.__module__.startswith("stylecap.")
        assert found.__doc__ and found.__doc__.strip()


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'stylecap' has no attribute 'paint'"):
        vars(stylecap)["__getattr__"]("paint")


def test_importing_costs_nothing() -> None:
    program = (
        "import sys, time; begin = time.process_time(); import stylecap; "
        "seconds = time.process_time() - begin; "
        "heavy = {'torch', 'numpy', 'PIL', 'gradio', 'nltk', 'rich'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}') if heavy else print(seconds)"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seconds.append(float(done.stdout))
    assert min(seconds) < 0.05
