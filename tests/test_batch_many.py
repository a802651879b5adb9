"""Two hundred jobs: what fails does not spread, memory does not grow; and a Ray cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecap.batch import BatchOptions, plan_jobs, run
from stylecap.batch.jobs import STATE
from stylecap.style.options import StyleOptions

from .test_batch import statuses
from .test_batch_killed import contents

QUICK = StyleOptions(backbone="alexnet", size=64, steps=3, scales=1, precision="float32")
FLAGS = ("--backbone", "alexnet", "--size", "64", "--steps", "3", "--precision", "float32")


def poison(folder: Path, names: list[str], kinds: tuple[str, ...]) -> dict[str, str]:
    """Spoil files in turns; returns a part of the reason expected for each."""
    reasons = {}
    for order, name in enumerate(names):
        path, kind = folder / name, kinds[order % len(kinds)]
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:200])
            reasons[name] = "damaged or incomplete"
        elif kind == "bomb":  # a header that promises 400 million pixels
            data = bytearray(path.read_bytes())
            data[16:24] = (20_000).to_bytes(4, "big") * 2
            data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
            path.write_bytes(data)
            reasons[name] = "more than the limit"
        elif kind == "text":
            path.write_text("not a picture")
            reasons[name] = "is text, not a picture"
        elif kind == "missing":
            path.unlink()
            reasons[name] = "does not exist"
        else:  # root may read everything, but nobody a folder as a file
            path.unlink()
            path.mkdir()
            reasons[name] = "is a folder"
    return reasons


def poisoned_run(tmp_path: Path, photos: int, styles: tuple[str, ...]) -> None:
    folder = contents(tmp_path / "photos", photos)
    names = sorted(path.name for path in folder.iterdir())
    manifest = tmp_path / "jobs.csv"
    rows = [f"photos/{name},{style}" for name in names for style in styles]
    manifest.write_text("\n".join(["content,style", *rows]))
    reasons = poison(folder, names[::10], ("truncated", "bomb", "text", "missing", "unreadable"))
    command = [sys.executable, "-m", "stylecap", "batch", str(manifest), "-o", str(tmp_path / "o")]
    ran = subprocess.run([*command, *FLAGS, "--json"], capture_output=True, text=True)
    assert ran.returncode == 3, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    failed = {e["content"]: e["reason"] for e in events if e["event"] == "failed"}
    summary = events[-1]
    assert summary["done"] == (photos - len(reasons)) * len(styles)
    assert summary["failed"] == len(reasons) * len(styles)
    assert {Path(content).name for content in failed} == reasons.keys()
    for content, reason in failed.items():
        assert reasons[Path(content).name] in reason
        assert "\n" not in reason
    page = (tmp_path / "o" / "report.html").read_text()
    assert all(f"{Path(name).stem}-mosaic.png" in page for name in names)


def test_one_spoiled_photo_in_ten_does_not_stop_the_others(tmp_path: Path) -> None:
    poisoned_run(tmp_path, 20, ("mosaic",))


@pytest.mark.slow
def test_two_hundred_jobs_with_a_spoiled_tenth(tmp_path: Path) -> None:
    poisoned_run(tmp_path, 100, ("mosaic", "linocut-leaves"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_does_not_grow(tmp_path: Path) -> None:
    folder = contents(tmp_path / "photos", 100)
    program = f"""
import resource
from stylecap.batch import plan_jobs, run
from stylecap.style.options import StyleOptions
jobs = plan_jobs([{str(folder)!r}], ["mosaic", "linocut-leaves"], {QUICK!r})
for number, result in enumerate(run(jobs, {str(tmp_path / "out")!r}), start=1):
    assert result.status == "done"
    if number in (10, 200):
        with open("/proc/self/statm") as numbers:
            print(int(numbers.read().split()[1]) * resource.getpagesize())
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    tenth, last = map(int, ran.stdout.split())
    print(f"resident after 10 jobs {tenth / 1e6:.0f} MB, after 200 {last / 1e6:.0f} MB")
    assert last <= 1.05 * tenth


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install '.[ray]'"
)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_workers_of_whom_one_is_killed(tmp_path: Path) -> None:
    folder = contents(tmp_path / "photos", 6)
    jobs = plan_jobs([folder], ["mosaic"], QUICK)
    alone = list(run(jobs, tmp_path / "alone"))
    killed: list[int] = []

    options = BatchOptions(workers=2, executor="ray", checkpoint_seconds=0)
    results = []
    for result in run(jobs, tmp_path / "out", options):
        results.append(result)
        if not killed:
            killed += [pid for pid in ray_painters() if not killed][:1]
            os.kill(killed[0], signal.SIGKILL)
    assert len(killed) == 1
    assert set(statuses(results).values()) == {"done"}
    assert len(results) == 6
    for before in alone:
        with (
            Image.open(tmp_path / "out" / before.job.output) as ours,
            Image.open(tmp_path / "alone" / before.job.output) as theirs,
        ):
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    assert not list((tmp_path / "out" / STATE).glob("work-*"))
    assert {r.status for r in run(jobs, tmp_path / "out")} == {"kept"}


def ray_painters() -> list[int]:
    """Processes of Ray that hold a painter and are at work."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::_Actor"):
            found.append(int(folder.name))
    return sorted(found)
