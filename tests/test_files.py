"""Hashes of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylecap.errors import InputError
from stylecap.files import file_sha256


def test_file_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_sha256(path).startswith("ba7816bf8f01cfea414140de5dae2223")
    for wrong in (tmp_path / "none", tmp_path, "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            file_sha256(wrong)
