"""Tensors with a JSON header: they come back, and nothing else is taken for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stylecap.errors import InputError, OutputError
from stylecap.tensorfile import load_tensors, save_tensors


def test_what_is_saved_comes_back_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"a": torch.rand(3, 4).T, "b": torch.ones(2, dtype=torch.float16)}
    before = os.umask(0o022)
    try:
        save_tensors(path, {"format": 1, "words": ["ä"]}, tensors)
    finally:
        os.umask(before)
    header, found = load_tensors(path, "thing", 1, ("words",))
    assert header == {"format": 1, "words": ["ä"]}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    assert os.name != "posix" or path.stat().st_mode & 0o777 == 0o644


def test_other_files_are_refused_with_their_name(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match=r"a\.safetensors: cannot be read as a thing"):
        load_tensors(path, "thing", 1, ())
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(InputError, match="expected a thing of format 1, this is another file"):
        load_tensors(path, "thing", 1, ())
    save_tensors(path, {"format": 1}, {"a": torch.ones(1)})
    for version, needs in ((2, ()), (1, ("words",))):
        with pytest.raises(InputError, match="this is another file"):
            load_tensors(path, "thing", version, needs)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="cannot be read"):
        load_tensors(path, "thing", 1, ())


def test_a_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"format": 1}, {"a": torch.ones(1)})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        save_tensors(path, {"format": 1}, {"a": torch.zeros(1)})
    assert torch.equal(load_tensors(path, "thing", 1, ())[1]["a"], torch.ones(1))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
