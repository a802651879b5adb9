"""Devices, precisions and threads: chosen once, checked, passed on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stylecap import runtime as module
from stylecap.cli.main import main
from stylecap.errors import DeviceError, OptionError
from stylecap.runtime import Runtime, available_devices, fastest_precision


def test_auto_is_the_first_device_here() -> None:
    chosen = Runtime.choose(precision="float32")
    assert chosen.device == available_devices()[0]
    assert available_devices()[-1] == "cpu"
    assert chosen.threads == torch.get_num_threads()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own, and a process that remembers nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module._remembered_share.cache_clear()
    yield tmp_path / "cache"
    module._remembered_share.cache_clear()


def measuring(monkeypatch: pytest.MonkeyPatch, share: float) -> list[None]:
    """Let the measurement give a share; the list grows with each that is made."""
    made: list[None] = []

    def answer() -> float:
        made.append(None)
        return share

    monkeypatch.setattr(module, "_bfloat16_share", answer)
    return made


@pytest.mark.parametrize(("share", "expected"), [(0.5, "bfloat16"), (0.9, "float32")])
@pytest.mark.usefixtures("folder")
def test_auto_precision_on_a_cpu_is_the_measured_one(
    share: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, share)
    assert Runtime.choose("cpu").precision == expected
    assert Runtime.choose("cpu", "float32").precision == "float32"
    assert f"{share:.2f}" in fastest_precision("cpu").reason


def test_the_measurement_is_a_share_that_repeats() -> None:
    first, second = module._bfloat16_share(), module._bfloat16_share()
    assert 0.05 < first < 50  # emulated, bfloat16 takes many times float32's time
    assert (first < module._CLEAR_WIN) == (second < module._CLEAR_WIN)


def test_a_machine_is_measured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = measuring(monkeypatch, 0.5)
    for _ in range(3):
        assert Runtime.choose("cpu").precision == "bfloat16"
        module._remembered_share.cache_clear()  # the next process
    assert len(made) == 1
    measuring(monkeypatch, 2.0)
    assert Runtime.choose("cpu").precision == "bfloat16"
    assert fastest_precision("cpu", again=True).name == "float32"
    assert Runtime.choose("cpu").precision == "float32"
    module._remembered_share.cache_clear()
    assert Runtime.choose("cpu").precision == "float32"
    assert [path.suffix for path in folder.rglob("*") if path.is_file()] == [".json"]


@pytest.mark.parametrize("change", ["processor", "torch"])
def test_another_machine_is_measured_anew(
    change: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = measuring(monkeypatch, 0.5)
    fastest_precision("cpu")
    module._remembered_share.cache_clear()
    if change == "processor":
        monkeypatch.setattr(module, "processor", lambda: ("AMD EPYC", "other flags"))
    else:
        monkeypatch.setattr(torch, "__version__", "9.9.9")
    fastest_precision("cpu")
    assert len(made) == 2
    assert len(list(folder.rglob("*.json"))) == 2


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{",
        b'{"values": {"share": "x"}}',
        b'{"key": {}, "values": {"share": 0.1}, "day": ""}',
    ],
)
def test_a_damaged_note_is_measured_and_written_again(
    damage: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = measuring(monkeypatch, 0.5)
    note = fastest_precision("cpu").note
    assert note is not None
    assert note.path is not None
    sound = json.loads(note.path.read_bytes())
    note.path.write_bytes(damage or json.dumps({**sound, "values": {"other": 1}}).encode())
    for count in (2, 2):
        module._remembered_share.cache_clear()
        assert Runtime.choose("cpu").precision == "bfloat16"
        assert len(made) == count


@pytest.mark.parametrize("kind", ["a file in the way", "no home"])
def test_without_a_folder_it_is_measured_each_time(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = measuring(monkeypatch, 0.5)
    if kind == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", missing_home)
    else:
        folder.write_text("not a folder")
    for count in (1, 2):
        chosen = fastest_precision("cpu")
        assert chosen.name == "bfloat16"
        assert chosen.note is not None
        assert chosen.note.path is None
        assert len(made) == count
        module._remembered_share.cache_clear()


def missing_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_the_command_says_what_was_chosen_and_measures_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = measuring(monkeypatch, 0.5)
    for flags, count in (([], 1), ([], 1), (["--again"], 2)):
        assert main(["runtime", "--device", "cpu", "--json", *flags]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["device"], told["precision"]) == ("cpu", "bfloat16")
        assert "0.50 of its time" in told["reason"]
        assert Path(told["kept"]).is_relative_to(folder)
        assert len(made) == count
    assert main(["runtime", "--device", "cpu"]) == 0
    assert "precision  bfloat16: a convolution in bfloat16 takes 0.50" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["abacus", "", "cuda:99", "cpu:1", "meta", "cpu:x"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(device: str) -> None:
    with pytest.raises(DeviceError) as refusal:
        Runtime.choose(device, "float32")
    assert repr(device) in str(refusal.value)
    assert f"available: {', '.join(available_devices())}" in str(refusal.value)


def test_other_values_are_refused() -> None:
    with pytest.raises(OptionError, match="precision: expected one of float32, bfloat16, got 'fl"):
        Runtime.choose("cpu", "float16")
    with pytest.raises(OptionError, match="threads: expected at least 1, got 0"):
        Runtime("cpu", "float32", 0)


def test_dtype_and_device_are_torchs() -> None:
    chosen = Runtime("cpu", "bfloat16", 1)
    assert chosen.dtype == torch.bfloat16
    assert chosen.torch_device == torch.device("cpu")


def test_threads_hold_within_the_block_and_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), Runtime("cpu", "float32", before + 1).using_threads():
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_free_memory_is_known_here() -> None:
    free = Runtime("cpu", "float32", 1).free_bytes()
    assert free is not None and 2**20 < free < 2**50


def test_a_container_may_have_less_memory_than_its_machine(tmp_path: Path) -> None:
    """The tightest of the groups, each less what it uses beyond pages that can be given up."""

    def write(folder: str, **files: object) -> None:
        for name, text in files.items():
            place = tmp_path / folder / name.replace("__", ".")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{text}\n")

    assert list(module._free_group_bytes(tmp_path)) == []
    write("proc/self", cgroup="0::/job/step")
    write("sys/fs/cgroup/job/step", memory__max="max", memory__current=7, memory__stat="anon 7")
    assert list(module._free_group_bytes(tmp_path)) == []
    stat = "anon 200\ninactive_file 50"
    write("sys/fs/cgroup/job", memory__max=1000, memory__current=300, memory__stat=stat)
    assert list(module._free_group_bytes(tmp_path)) == [750]
    write("sys/fs/cgroup", memory__max=100, memory__current=300, memory__stat=stat)
    assert list(module._free_group_bytes(tmp_path)) == [750, 0]
    write("proc/self", cgroup="5:cpu,cpuacct:/a\n4:memory:/docker/b")
    limit = {"memory__limit_in_bytes": 5000, "memory__usage_in_bytes": 1000}
    write("sys/fs/cgroup/memory", **limit, memory__stat=stat)
    assert list(module._free_group_bytes(tmp_path)) == [4050]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_too_little_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert module.is_out_of_memory(error) is expected
