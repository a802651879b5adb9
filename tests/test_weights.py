"""Weight files: where they are looked for, what is refused, what may be brought."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import load_file, save_file

from stylecap import weights
from stylecap.cli.main import main
from stylecap.errors import WeightsError
from stylecap.files import file_sha256
from stylecap.weights import (
    FETCHABLE,
    MANIFEST,
    WeightFile,
    fetch,
    find_weights,
    load_weights,
    registry,
    weight_folders,
    weights_sha256,
    write_manifest,
)

ROOT = Path(__file__).resolve().parents[1]


def shelf(folder: Path, *names: str, value: float = 1.0) -> Path:
    """A folder of tiny weight files with their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name in names:
        path = folder / f"{name}.safetensors"
        save_file({"features.0.weight": torch.full((2, 2), value)}, path)
        entries[name] = WeightFile(
            name, path.name, path.stat().st_size, file_sha256(path), "MIT", "a test", "none"
        )
    write_manifest(folder, entries)
    return folder


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package, a checkout and a user's folder that are all empty."""
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "checkout" / "stylecap" / "weights.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    return tmp_path


def test_the_places_are_searched_in_order(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(house / "named"))
    places = [
        house / "named",
        house / "checkout" / "stylecap" / "_weights",
        house / "checkout" / "weights",
        house / "cache" / "stylecap" / "weights",
    ]
    assert weight_folders() == places
    for number, place in reversed(list(enumerate(places))):
        shelf(place, "net", value=number)
        assert find_weights("net") == place / "net.safetensors"
        assert load_weights("net")["features.0.weight"][0, 0] == number
    given = shelf(house / "given", "net", value=9)
    assert find_weights("net", given).parent == given
    assert weights_sha256("net", given) == file_sha256(given / "net.safetensors")
    monkeypatch.delenv(weights.VARIABLE)
    assert weight_folders() == places[1:]


def test_a_folder_given_is_the_only_one(house: Path) -> None:
    shelf(house / "checkout" / "weights", "net")
    with pytest.raises(WeightsError, match=r"'net' are not here; looked in .*given; available"):
        find_weights("net", house / "given")


def test_absence_names_all_places_and_what_is_here(house: Path) -> None:
    shelf(house / "checkout" / "weights", "alexnet", "vgg16")
    with pytest.raises(WeightsError) as refusal:
        find_weights("vgg19")
    for place in weight_folders():
        assert str(place) in str(refusal.value)
    assert "available without internet: alexnet, vgg16" in str(refusal.value)
    assert "`stylecap weights fetch vgg19` brings it" in str(refusal.value)


def test_truncated_and_corrupt_files_are_refused_by_name_and_hash(tmp_path: Path) -> None:
    path = shelf(tmp_path, "net") / "net.safetensors"
    data = path.read_bytes()
    promised = hashlib.sha256(data).hexdigest()
    path.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=rf"net: .*has {len(data) - 1} bytes, expected"):
        load_weights("net", tmp_path)
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    path.write_bytes(damaged)
    with pytest.raises(WeightsError) as refusal:
        load_weights("net", tmp_path)
    assert "weights net" in str(refusal.value) and "corrupt" in str(refusal.value)
    assert hashlib.sha256(damaged).hexdigest() in str(refusal.value)
    assert promised in str(refusal.value)
    path.unlink()
    with pytest.raises(WeightsError, match=r"net\.safetensors is missing"):
        load_weights("net", tmp_path)
    path.write_bytes(data)
    assert load_weights("net", tmp_path)["features.0.weight"].shape == (2, 2)


def test_what_is_damaged_is_brought_again_from_where_it_came(tmp_path: Path) -> None:
    for name, again in (
        ("net", "install stylecap again"),
        ("vgg19", "stylecap weights fetch vgg19"),
    ):
        shelf(tmp_path, name)
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
        with pytest.raises(WeightsError, match=again):
            find_weights(name, tmp_path)


def test_nobodys_home_is_no_place_for_weights(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(weights, "cache_folder", nobody)
    shelf(house / "checkout" / "weights", "net")
    assert find_weights("net").parent == house / "checkout" / "weights"


def test_a_command_refuses_corrupt_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shelf(tmp_path, "alexnet") / "alexnet.safetensors"
    path.write_bytes(path.read_bytes()[::-1])
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    photo, output = str(ROOT / "samples" / "chelsea.jpg"), tmp_path / "o.png"
    words = ["--backbone", "alexnet", "--size", "64", "--precision", "float32", "--quiet"]
    assert main(["stylize", photo, photo, "-o", str(output), *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("stylecap: error: weights alexnet: ") and error.count("\n") == 1
    assert not output.exists()
    assert main(["weights", "verify"]) == 1
    assert "not sound: weights alexnet" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "3", "null", '[{"name": "x"}]', '{"a": 1}', "\xff"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match=r"manifest\.json is not a manifest"):
        registry(tmp_path)


def test_the_shipped_manifest_is_complete() -> None:
    known = registry(ROOT / "weights")
    assert {"vgg16", "alexnet", "lpips-vgg16", "lpips-alexnet"} <= set(known)
    on_disk = {path.name for path in (ROOT / "weights").glob("*.safetensors")}
    assert on_disk == {entry.file for entry, _ in known.values()}
    for name, (entry, _) in known.items():
        assert find_weights(name, ROOT / "weights").stat().st_size == entry.bytes
        assert entry.licence and entry.source and entry.command
    assert [entry["name"] for entry in json.loads((ROOT / "weights" / MANIFEST).read_text())] == (
        sorted(known)
    )


def test_offline_the_error_says_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    with pytest.raises(WeightsError) as refusal:
        fetch("vgg19", folder=tmp_path / "kept")
    message = str(refusal.value)
    assert "https://download.pytorch.org/models/vgg19-" in message
    assert "Temporary failure in name resolution" in message
    assert "available without internet:" in message and "vgg16" in message
    assert "--file" in message
    assert not (tmp_path / "kept").exists()


def test_a_download_is_checked_read_safely_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, **options: Any) -> dict[str, torch.Tensor]:
        assert options["check_hash"] is True and options["weights_only"] is True
        assert url.endswith("vgg19-dcbb9e9d.pth")
        return {"features.0.weight": torch.ones(2), "classifier.0.weight": torch.ones(3)}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    path = fetch("vgg19", folder=tmp_path)
    assert list(load_file(path)) == ["features.0.weight"]
    assert find_weights("vgg19", tmp_path) == path
    assert "vgg19-dcbb9e9d.pth" in registry(tmp_path)["vgg19"][0].source
    assert list(load_file(fetch("vgg19-classifier", folder=tmp_path))) == [
        "classifier.0.weight",
        "features.0.weight",
    ]
    assert set(registry(tmp_path)) == {"vgg19", "vgg19-classifier"}
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_every_fetchable_name_has_a_hash_at_torchvision() -> None:
    for name in FETCHABLE:
        promised = weights._torchvision_url(name).rsplit("-", 1)[1].removesuffix(".pth")
        assert len(promised) == 8 and int(promised, 16) > 0


def test_a_pth_is_read_only_with_the_known_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vgg19.pth"
    torch.save({"features.0.weight": torch.ones(2)}, path)
    calls: list[dict[str, Any]] = []
    read = torch.load

    def spy(*arguments: Any, **options: Any) -> Any:
        calls.append(options)
        return read(*arguments, **options)

    monkeypatch.setattr(torch, "load", spy)
    with pytest.raises(WeightsError, match=r"begins with dcbb9e9d; give safetensors instead"):
        fetch("vgg19", path, tmp_path / "kept")
    assert not calls and not (tmp_path / "kept").exists()
    known = f"https://example.org/vgg19-{file_sha256(path)[:8]}.pth"
    monkeypatch.setattr(weights, "_torchvision_url", lambda name: known)
    assert load_file(fetch("vgg19", path, tmp_path / "kept"))["features.0.weight"].tolist() == [
        1,
        1,
    ]
    assert [call["weights_only"] for call in calls] == [True]
    with pytest.raises(WeightsError, match=r"none\.pth: cannot be read"):
        fetch("vgg19", tmp_path / "none.pth", tmp_path / "kept")


def test_a_safetensors_file_is_taken_or_refused(tmp_path: Path) -> None:
    given, kept = tmp_path / "mine.safetensors", tmp_path / "kept"
    save_file({"features.0.weight": torch.ones(2), "extra": torch.ones(1)}, given)
    assert list(load_file(fetch("vgg19", given, kept))) == ["features.0.weight"]
    assert registry(kept)["vgg19"][0].source == "mine.safetensors"  # never a whole path
    save_file({"layer1.weight": torch.ones(2)}, given)
    with pytest.raises(WeightsError, match=r"expected torchvision's tensor names.*no tensors"):
        fetch("vgg19", given, kept)
    given.write_bytes(b"rubbish")
    with pytest.raises(WeightsError, match="is not safetensors"):
        fetch("vgg19", given, kept)
    with pytest.raises(WeightsError, match="is not safetensors"):
        fetch("vgg19", tmp_path / "none.safetensors", kept)


def test_what_cannot_be_fetched_is_refused_with_the_names() -> None:
    with pytest.raises(WeightsError) as refusal:
        fetch("resnet")
    for name in ("alexnet", "vgg16", *FETCHABLE):
        assert name in str(refusal.value)
