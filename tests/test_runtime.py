"""Devices, precisions and threads: chosen once, checked, passed on."""

from __future__ import annotations

import pytest
import torch

from stylecap import runtime as module
from stylecap.errors import DeviceError, OptionError
from stylecap.runtime import Runtime, available_devices


def test_auto_is_the_first_device_here() -> None:
    chosen = Runtime.choose(precision="float32")
    assert chosen.device == available_devices()[0]
    assert available_devices()[-1] == "cpu"
    assert chosen.threads == torch.get_num_threads()


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_on_a_cpu_is_the_measured_one(
    fast: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_cpu_prefers_bfloat16", lambda: fast)
    assert Runtime.choose("cpu").precision == expected
    assert Runtime.choose("cpu", "float32").precision == "float32"


def test_the_measurement_is_made_once_and_decides() -> None:
    module._cpu_prefers_bfloat16.cache_clear()
    answers = {module._cpu_prefers_bfloat16() for _ in range(3)}
    assert len(answers) == 1
    assert module._cpu_prefers_bfloat16.cache_info().misses == 1


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
