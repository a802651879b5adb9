"""Hashes of files, and writing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylecap.errors import InputError
from stylecap.files import file_sha256, free_name, same_place, write_atomically


def test_file_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_sha256(path).startswith("ba7816bf8f01cfea414140de5dae2223")
    for wrong in (tmp_path / "none", tmp_path, "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            file_sha256(wrong)


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_bytes(b"a")
    private.chmod(0o600)
    write_atomically(private, b"b")
    assert private.read_bytes() == b"b" and private.stat().st_mode & 0o777 == 0o600


def test_one_place_has_many_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "soft").symlink_to("a")
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"")
    for name in ("a", "soft", "hard"):
        assert same_place(tmp_path / name, tmp_path / ".." / tmp_path.name / "a")
    assert same_place(tmp_path / "none", tmp_path / "." / "none")
    for name in ("b", "none", "a\0b"):
        assert not same_place(tmp_path / name, tmp_path / "a")


def test_a_free_name_fits_into_a_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which counts bytes: a Korean syllable has three."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        path = free_name("가을" * 90)
        assert not path.exists() and path.name.startswith("가을"), number
        path.write_bytes(b"")
