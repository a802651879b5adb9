"""The run record: round trip, and refusal of what is not one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylecap.errors import RecordError
from stylecap.record import (
    FORMAT,
    ROLES,
    InputRecord,
    RunRecord,
    current_versions,
)

NAMES = st.text(min_size=1).filter(lambda name: name != ".." and Path(name).name == name)
HASHES = st.one_of(st.just(""), st.binary().map(lambda data: hashlib.sha256(data).hexdigest()))
INPUTS = st.builds(InputRecord, st.sampled_from(ROLES), NAMES, HASHES)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)
TEXTS = st.dictionaries(st.text(), st.text(), max_size=3)
RECORDS = st.builds(
    RunRecord, st.text(), OBJECTS, st.lists(INPUTS, max_size=3).map(tuple), TEXTS, TEXTS, OBJECTS
)
PLAIN = {"format": FORMAT, "kind": "stylize", "options": {}}


@given(RECORDS)
def test_round_trip(record: RunRecord) -> None:
    text = record.to_json()
    assert text.isascii() and "\n" not in text
    assert RunRecord.from_json(text) == record


def test_tuples_become_lists_and_infinities_none() -> None:
    record = RunRecord("stylize", {"blend": (1.0, float("inf"))}, result={"loss": float("nan")})
    assert record.options == {"blend": [1.0, None]}
    assert record.result == {"loss": None}


@given(st.text())
def test_any_text_is_refused_cleanly(text: str) -> None:
    with pytest.raises(RecordError):
        RunRecord.from_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "JSON"),
        ("[1]", "format"),
        ("{}", "format"),
        ("[" * 100_000, "JSON"),
        ('{"format": 1, "kind": "stylize", "options": {"x": NaN}}', "JSON"),
        (json.dumps({**PLAIN, "format": 2}), "format 2 is unknown"),
        (json.dumps({**PLAIN, "format": True}), "format True is unknown"),
        (json.dumps({**PLAIN, "format": "1"}), "format '1' is unknown"),
        (json.dumps({"format": FORMAT, "kind": "stylize"}), "options"),
        (json.dumps({**PLAIN, "colour": 1}), "colour"),
        (json.dumps({**PLAIN, "kind": 3}), "kind"),
        (json.dumps({**PLAIN, "options": [1]}), "options"),
        (json.dumps({**PLAIN, "weights": {"vgg16": 3}}), "weights"),
        (json.dumps({**PLAIN, "inputs": {"role": "content"}}), "inputs"),
        (json.dumps({**PLAIN, "inputs": [3]}), "inputs"),
        (json.dumps({**PLAIN, "inputs": [{"role": "content"}]}), "missing"),
    ],
)
def test_rubbish_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        RunRecord.from_json(text)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.png", "a/b.png", "a/", "", ".", ".."])
def test_an_input_has_no_folder(name: str) -> None:
    with pytest.raises(RecordError, match="without a folder"):
        InputRecord("content", name, "")


def test_an_input_has_a_known_role_and_a_hash() -> None:
    with pytest.raises(RecordError, match="role"):
        InputRecord("colour", "a.png", "")
    with pytest.raises(RecordError, match="sha256"):
        InputRecord("content", "a.png", "abc")


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(RecordError, match="cannot hold a"):
        RunRecord("stylize", {"mask": Path("m.png")})


def test_threads() -> None:
    assert RunRecord("stylize", {}, result={"threads": 3}).threads == 3
    assert RunRecord("stylize", {}).threads is None
    assert RunRecord("stylize", {}, result={"threads": "3"}).threads is None


def test_versions_are_texts() -> None:
    assert set(current_versions()) == {"stylecap", "torch", "python"}
    RunRecord("stylize", {}, versions=current_versions())
