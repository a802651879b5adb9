"""Many jobs: their names, their journal, their failures, their executors, their report."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylecap.batch import (
    BatchOptions,
    Job,
    JobEvent,
    JobResult,
    driver,
    painter,
    plan_jobs,
    read_manifest,
    run,
)
from stylecap.batch.groups import grouped
from stylecap.batch.jobs import STATE, check_jobs, check_output, name_result
from stylecap.batch.journal import Journal, read_rows
from stylecap.batch.painter import Task
from stylecap.batch.report import write_report
from stylecap.batch.shards import parse_shard, shard_from
from stylecap.cli.main import main
from stylecap.embedded import read_embedded
from stylecap.errors import DeviceError, InputError, OptionError, OutputError, WeightsError
from stylecap.images import load_picture, save_picture, to_image, to_picture
from stylecap.record import RunRecord
from stylecap.runtime import Runtime
from stylecap.style import transfer
from stylecap.style.checkpoint import load_checkpoint
from stylecap.style.memory import estimate_bytes
from stylecap.style.options import StyleOptions

from .small import photo

QUICK = StyleOptions(backbone="alexnet", size=64, steps=2, scales=1, precision="float32")
FLAGS = ("--backbone", "alexnet", "--size", "64", "--steps", "2", "--precision", "float32")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos, one of them in a folder."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b.png", "trip/c.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_picture(to_picture(photo(64, number)), folder / name)
    return folder


def outputs(jobs: list[Job]) -> list[str]:
    return [job.output for job in jobs]


# --- jobs and their names


def test_every_content_with_every_style_in_its_folder(photos: Path) -> None:
    jobs = plan_jobs([photos], ["mosaic", photos / "b.png"], QUICK)
    assert outputs(jobs) == [
        *("a-mosaic.png", "a-b.png", "b-mosaic.png", "b-b.png"),
        *("trip/c-mosaic.png", "trip/c-b.png"),
    ]
    assert {job.options for job in jobs} == {QUICK}


def test_patterns_keep_folders_and_results_are_no_contents(photos: Path) -> None:
    jobs = plan_jobs([f"{photos}/**/*.png"], ["mosaic"], leave_out=photos / "trip", suffix=".jpg")
    assert outputs(jobs) == ["a-mosaic.jpg", "b-mosaic.jpg"]
    assert outputs(plan_jobs([f"{photos}/*/c.png"], ["mosaic"])) == ["trip/c-mosaic.png"]
    alone = plan_jobs([photos / "a.png", photos / "trip"], ["mosaic"], leave_out=photos)
    assert outputs(alone) == ["a-mosaic.png", "c-mosaic.png"]
    with pytest.raises(OptionError, match="is the folder of the contents too"):
        plan_jobs([photos], ["mosaic"], leave_out=photos)
    with pytest.raises(InputError, match="no picture found besides the results"):
        plan_jobs([f"{photos}/*/c.png"], ["mosaic"], leave_out=photos / "trip")


def test_zip_pairs_one_to_one(photos: Path) -> None:
    jobs = plan_jobs([photos], ["mosaic", "linocut-leaves", "watercolor"], pair="zip")
    assert outputs(jobs) == ["a-mosaic.png", "b-linocut-leaves.png", "trip/c-watercolor.png"]
    with pytest.raises(OptionError, match="2 styles for 3 contents"):
        plan_jobs([photos], ["mosaic", "watercolor"], pair="zip")
    with pytest.raises(InputError, match="'mosai' is neither a file nor a built-in style"):
        plan_jobs([photos], ["mosai"])
    with pytest.raises(OptionError, match="expected one of all, zip"):
        plan_jobs([photos], ["mosaic"], pair="cross")


def test_names_alike_are_told_apart_whatever_the_order(photos: Path) -> None:
    save_picture(to_picture(photo(64, 9)), photos / "a.jpg")
    save_picture(to_picture(photo(64, 9)), photos / "A.webp")
    forth = plan_jobs([photos], ["mosaic"])
    back = plan_jobs([photos / "trip", *sorted(photos.glob("*.*"), reverse=True)], ["mosaic"])
    names = {job.content: job.output for job in forth}
    assert {job.content: job.output for job in back} == {
        **names,
        str(photos / "trip/c.png"): "c-mosaic.png",
    }
    assert len({name.casefold() for name in names.values()}) == len(names) == 5
    assert names[str(photos / "b.png")] == "b-mosaic.png"
    other = plan_jobs([photos], ["mosaic"], replace(QUICK, steps=9))
    assert outputs(other) == outputs(forth), "a name depends on the options"


def test_the_same_content_twice_is_one_job(photos: Path) -> None:
    assert outputs(plan_jobs([photos / "a.png", photos / "a.png"], ["mosaic"])) == ["a-mosaic.png"]


@given(st.text(min_size=1, max_size=120))
def test_any_name_becomes_one_that_can_be_written(stem: str) -> None:
    below = PurePosixPath("folder") / f"{stem}.png"
    check_output(name_result(below, ("mosaic", stem), ".png"))


def job(output: str, content: str = "a.png") -> Job:
    return Job(content, ("mosaic",), QUICK, output)


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([job("x.png"), job("X.png", "b.png")], "X.png is the result of two jobs, a.png and b.png"),
        ([job("../x.png")], "expected a name below the output folder"),
        ([job("/x.png")], "expected a name below the output folder"),
        ([job(".stylecap/x.png")], "without hidden parts"),
        ([job("x.exe")], "ends in one of"),
        ([job("x.png", "out/x.png")], "output: x.png is an input too"),
    ],
)
def test_outputs_that_would_destroy_are_refused(jobs: list[Job], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_jobs(jobs, Path("out"))


MANIFESTS = {
    "jobs.csv": "content,style,steps,preset,output\n"
    "a.png,mosaic,7,,\n"
    "trip/c.png,mosaic;b.png,,draft,both.jpg\n",
    "jobs.jsonl": '{"content": "a.png", "style": "mosaic", "steps": 7}\n\n'
    '{"content": "trip/c.png", "style": ["mosaic", "b.png"], "preset": "draft", '
    '"output": "both.jpg"}\n',
    "jobs.toml": '[[job]]\ncontent = "a.png"\nstyle = "mosaic"\nsteps = 7\n'
    '[[job]]\ncontent = "trip/c.png"\nstyle = ["mosaic", "b.png"]\npreset = "draft"\n'
    'output = "both.jpg"\n',
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_row_is_a_job_with_its_own_options(photos: Path, name: str) -> None:
    (photos / name).write_text(MANIFESTS[name])
    first, second = read_manifest(photos / name, {"seed": 3, "steps": 5})
    assert (first.content, first.styles) == (str(photos / "a.png"), ("mosaic",))
    assert first.output == "a-mosaic.png"
    assert first.options == StyleOptions(seed=3, steps=7)
    assert second.styles == ("mosaic", str(photos / "b.png"))
    assert second.output == "both.jpg"
    assert second.options == StyleOptions.preset("draft", seed=3)


def test_a_row_can_have_a_mask_and_a_start(photos: Path) -> None:
    row = {"content": "a.png", "style": ["mosaic", "b.png"], "mask": "m.png", "init_image": "b.png"}
    (photos / "one.jsonl").write_text(json.dumps({**row, "mask_colors": "#ff0000;#0000ff"}))
    (made,) = read_manifest(photos / "one.jsonl")
    assert made.mask == str(photos / "m.png")
    assert made.mask_colors == ("#ff0000", "#0000ff")
    assert made.options.init == "image"
    assert [role for role, _ in made.inputs] == ["content", "style", "style", "init", "mask"]
    mask = Image.new("RGB", (64, 64), "#ff0000")
    mask.paste("#0000ff", (32, 0, 64, 64))
    mask.save(photos / "m.png")
    made = replace(made, options=replace(QUICK, init="image"))
    assert statuses(paint([made], photos / "out")) == {made.output: "done"}
    assert statuses(paint([made], photos / "out")) == {made.output: "kept"}
    mask.paste("#0000ff", (16, 0, 64, 64))
    mask.save(photos / "m.png")
    assert statuses(paint([made], photos / "out")) == {made.output: "done"}


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("m.csv", "content,stile\na.png,x\n", OptionError, "line 2: unknown field 'stile'"),
        ("m.csv", "content,style,steps\na.png,mosaic,many\n", OptionError, "line 2: steps: exp"),
        ("m.csv", "content,style\na.png,mosaic,9\n", InputError, "line 2 has more cells"),
        ("m.csv", "style\nmosaic\n", OptionError, "content: expected the path"),
        ("m.csv", "content\na.png\n", OptionError, "style: expected a picture"),
        ("m.csv", "content,style\n", InputError, "names no job"),
        ("m.jsonl", '{"content": "a.png"}\n{]\n', OptionError, "line 1: style"),
        ("m.jsonl", "\n{]\n", InputError, "line 2: "),
        ("m.jsonl", "[1]\n", InputError, "line 1: expected fields"),
        ("m.toml", "job = 3\n", InputError, "nothing but"),
        ("m.toml", "[[job]]\ncontent = 3\n", OptionError, "job 1: content: expected a text"),
        ("m.toml", "[[job]]\nstrength = 7\ncontent='a'\nstyle='b'", OptionError, "strength"),
        ("m.txt", "", InputError, "expected a manifest that ends in"),
    ],
)
def test_a_bad_manifest_is_refused_with_its_row(
    photos: Path, name: str, text: str, error: type[Exception], message: str
) -> None:
    (photos / name).write_text(text)
    with pytest.raises(error, match=message):
        read_manifest(photos / name)


def test_names_fit_into_every_file_system(tmp_path: Path) -> None:
    """255 bytes, not letters; with the hash of jobs that are called alike."""
    long = "가" * 83  # 249 bytes
    content = tmp_path / f"{long}.png"
    to_picture(photo(16, 1)).save(content)
    (job,) = plan_jobs([content], ["night-swirls"], QUICK)
    assert len(job.output.encode()) <= 215 and job.output.endswith(".png")
    styles = [str(tmp_path / f"{letter * 80}.png") for letter in "abc"]
    for style in styles:
        shutil.copy(content, style)
    (tmp_path / "m.jsonl").write_text(json.dumps({"content": content.name, "style": styles}))
    (job,) = read_manifest(tmp_path / "m.jsonl")
    assert len(job.output.encode()) <= 215
    with pytest.raises(OptionError, match="at most 255 bytes"):
        check_jobs([replace(job, output="a" * 252 + ".png")], tmp_path / "out")


def test_a_manifest_reads_truths_and_presets(tmp_path: Path) -> None:
    rows = ("a.png,mosaic,false,", "a.png,mosaic,Yes,balanced")
    head = "content,style,early_stopping,preset"
    (tmp_path / "m.csv").write_text("\n".join([head, *rows]))
    plain, named = read_manifest(tmp_path / "m.csv", {"seed": 3}, preset="draft")
    assert plain.options == StyleOptions.preset("draft", seed=3, early_stopping=False)
    assert named.options == StyleOptions.preset("balanced", seed=3, early_stopping=True)
    (tmp_path / "m.csv").write_text("content,style,early_stopping\na.png,mosaic,maybe")
    with pytest.raises(OptionError, match="early_stopping: expected true or false, got 'maybe'"):
        read_manifest(tmp_path / "m.csv")


# --- shares


def test_shards() -> None:
    assert parse_shard("2/4") == (2, 4)
    for text in ("0/4", "5/4", "2", "1/0", "a/b"):
        with pytest.raises(OptionError, match="expected i/n"):
            parse_shard(text)
    assert shard_from({}) == ((1, 1), "")
    assert shard_from({"RANK": "0", "WORLD_SIZE": "2"}) == ((1, 2), "RANK=0, WORLD_SIZE=2")
    assert shard_from({"RANK": "0"}) == ((1, 1), "")


@pytest.mark.parametrize(
    ("task", "first", "last", "step", "shard"),
    [("0", "0", "3", "1", (1, 4)), ("7", "1", "10", "3", (3, 4)), ("10", "1", "10", "3", (4, 4))],
)
def test_a_slurm_array_is_a_shard(
    task: str, first: str, last: str, step: str, shard: tuple[int, int]
) -> None:
    names = ("ID", "MIN", "MAX", "STEP")
    values = (task, first, last, step)
    environment = {f"SLURM_ARRAY_TASK_{n}": v for n, v in zip(names, values, strict=True)}
    assert shard_from(environment)[0] == shard
    environment["SLURM_ARRAY_TASK_ID"] = "2" if step == "3" else "9"
    with pytest.raises(OptionError, match="give no equal shares"):
        shard_from(environment)
    del environment["SLURM_ARRAY_TASK_MIN"]
    with pytest.raises(OptionError, match="say --shard"):
        shard_from(environment)


# --- running


def paint(jobs: list[Job], output: Path, **given: object) -> list[JobResult]:
    options = BatchOptions(**given)
    return list(run(jobs, output, options))


def test_results_events_and_what_is_left(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    events: list[JobEvent] = []
    results = list(run(jobs, out, on_event=events.append))
    assert [result.status for result in results] == ["done"] * 3
    assert [result.path for result in results] == [out / name for name in outputs(jobs)]
    assert all(result.steps == 2 and result.loss["total"] > 0 for result in results)
    kinds = [event.kind for event in events if event.job == jobs[0]]
    assert kinds == ["queued", "started", "progress", "progress", "done"]
    assert sorted(p.name for p in (out / STATE).iterdir()) == [
        "journal-1of1.sqlite",
        "lock-1of1.sqlite",
    ]
    again = list(run(jobs, out))
    assert [result.status for result in again] == ["kept"] * 3
    assert [replace(r, status="done") for r in again] == results


def statuses(results: list[JobResult]) -> dict[str, str]:
    return {result.job.output: result.status for result in results}


def test_only_what_changed_is_done_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    style = tmp_path / "style.png"
    save_picture(to_picture(photo(64, 5)), style)
    paint(plan_jobs([photos], ["mosaic", style], QUICK), out)
    jobs = plan_jobs([photos], ["mosaic", style], QUICK)

    (photos / "a.png").touch()  # the same bytes
    os.replace(photos / "b.png", tmp_path / "b.png")
    os.replace(tmp_path / "b.png", photos / "b.png")
    assert set(statuses(paint(jobs, out)).values()) == {"kept"}

    save_picture(to_picture(photo(64, 6)), photos / "a.png")
    assert {n for n, s in statuses(paint(jobs, out)).items() if s == "done"} == {
        "a-mosaic.png",
        "a-style.png",
    }
    save_picture(to_picture(photo(64, 7)), style)
    assert {n for n, s in statuses(paint(jobs, out)).items() if s == "done"} == {
        *("a-style.png", "b-style.png", "trip/c-style.png")
    }
    (out / "b-mosaic.png").unlink()
    jobs[-1] = replace(jobs[-1], options=replace(QUICK, strength=0.5))
    assert {n for n, s in statuses(paint(jobs, out)).items() if s == "done"} == {
        "b-mosaic.png",
        jobs[-1].output,
    }
    elsewhere = [replace(job, options=replace(job.options, device="cpu")) for job in jobs]
    assert set(statuses(paint(elsewhere, out)).values()) == {"kept"}
    assert set(statuses(paint(jobs[:1], out, overwrite=True)).values()) == {"done"}


@pytest.mark.parametrize("begun", [0, 1])
def test_a_wrong_command_forgets_nothing_that_was_done(
    begun: int, photos: Path, tmp_path: Path
) -> None:
    """Other options, or all again, and soon stopped; then the right ones."""
    out = tmp_path / "out"
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    before = {result.job.output: result.loss for result in paint(jobs, out)}
    wrong = [replace(job, options=replace(job.options, strength=0.3)) for job in jobs]
    for asked, options in ((wrong, BatchOptions()), (jobs, BatchOptions(overwrite=True))):
        steps: list[JobEvent] = []

        def watch(event: JobEvent, steps: list[JobEvent] = steps) -> None:
            steps.extend([event] if event.progress else [])

        stopped = run(
            asked, out, options, on_event=watch, should_stop=lambda s=steps: len(s) >= begun
        )
        assert list(stopped) == []
        again = paint(jobs, out)
        assert {result.status for result in again} == {"kept"}
        assert {result.job.output: result.loss for result in again} == before


def test_photos_that_are_away_for_a_while_are_not_painted_again(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    paint(jobs, out)
    photos.rename(tmp_path / "unmounted")
    assert set(statuses(paint(jobs, out)).values()) == {"failed"}
    (tmp_path / "unmounted").rename(photos)
    assert set(statuses(paint(jobs, out)).values()) == {"kept"}


def test_results_of_other_batches_are_no_contents(photos: Path) -> None:
    """In folders below the photos; unless such a folder is what is asked for."""
    paint(plan_jobs([photos], ["mosaic"], QUICK), photos / "painted" / "mosaic")
    jobs = plan_jobs([photos], ["crosshatch"], QUICK, leave_out=photos / "painted" / "crosshatch")
    assert len(jobs) == 3
    assert len(plan_jobs([photos / "painted" / "mosaic"], ["crosshatch"], QUICK)) == 3


def test_a_lost_device_ends_the_run_and_fails_no_job(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fail all that follow, too."""
    jobs = plan_jobs([photos], ["mosaic"], QUICK)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patched:
        patched.setattr(painter.painting, "paint", broken)
        with pytest.raises(DeviceError, match=r"illegal memory access.*run the same again"):
            paint(jobs, tmp_path / "out")
    assert {row.state for row in read_rows(tmp_path / "out")} == {"queued", "running"}
    assert set(statuses(paint(jobs, tmp_path / "out")).values()) == {"done"}


def test_a_bad_file_is_one_failure_and_is_tried_again(photos: Path, tmp_path: Path) -> None:
    whole = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(whole[:300])
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    results = paint(jobs, tmp_path / "out")
    assert statuses(results) == {
        "a-mosaic.png": "done",
        "b-mosaic.png": "failed",
        "trip/c-mosaic.png": "done",
    }
    assert "damaged or incomplete PNG" in results[1].error
    assert results[1].path is None
    (photos / "b.png").write_bytes(whole)
    assert sorted(statuses(paint(jobs, tmp_path / "out")).values()) == ["done", "kept", "kept"]


def test_a_stop_keeps_a_checkpoint_from_which_the_job_resumes(photos: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([photos], ["mosaic"], replace(QUICK, steps=6))
    whole = paint(jobs, tmp_path / "whole")
    steps: list[int] = []

    def count(event: JobEvent) -> None:
        if event.progress is not None:
            steps.append(event.progress.step)

    out = tmp_path / "out"
    first = list(run(jobs, out, on_event=count, should_stop=lambda: len(steps) >= 9))
    assert statuses(first) == {"a-mosaic.png": "done"}
    assert [path.suffix for path in (out / STATE / "work-1of1").iterdir()] == [".safetensors"]
    assert [row.state for row in read_rows(out)] == ["done", "running", "queued"]
    second = list(run(jobs, out, on_event=count))
    assert statuses(second) == {
        "a-mosaic.png": "kept",
        "b-mosaic.png": "done",
        "trip/c-mosaic.png": "done",
    }
    assert steps == [*range(1, 7), *range(1, 4), *range(4, 7), *range(1, 7)]
    assert not (out / STATE / "work-1of1").exists()
    for job in jobs:
        ours, theirs = (load_picture(tmp_path / d / job.output) for d in ("out", "whole"))
        assert ours.tobytes() == theirs.tobytes()
    assert [r.loss for r in second] == [r.loss for r in whole]


def test_a_checkpoint_of_another_precision_is_not_used(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = plan_jobs([photos / "a.png"], ["mosaic"], replace(QUICK, steps=6, precision="auto"))
    steps = iter(range(100))
    assert not list(run(jobs, out, BatchOptions(), should_stop=lambda: next(steps) >= 4))
    (checkpoint,) = (out / STATE / "work-1of1").glob("*.checkpoint.safetensors")
    before = load_checkpoint(checkpoint).runtime.precision
    other = {"float32": "bfloat16", "bfloat16": "float32"}[before]
    asked = [replace(jobs[0], options=replace(jobs[0].options, precision=other))]
    (result,) = run(asked, out)
    record = RunRecord.from_json(str(read_embedded(result.path)))
    assert record.options["precision"] == other and record.result["steps"] == 6


def test_a_checkpoint_of_what_has_changed_is_not_used(photos: Path, tmp_path: Path) -> None:
    job = plan_jobs([photos / "a.png"], ["mosaic"], replace(QUICK, steps=6))[0]
    steps: list[int] = []

    def count(event: JobEvent) -> None:
        if event.progress is not None:
            steps.append(event.progress.step)

    list(run([job], tmp_path / "out", on_event=count, should_stop=lambda: len(steps) == 3))
    changed = replace(job, options=replace(job.options, strength=0.4))
    (result,) = run([changed], tmp_path / "out", on_event=count)
    assert steps == [1, 2, 3, 1, 2, 3, 4, 5, 6]
    (alone,) = run([changed], tmp_path / "alone")
    assert result.loss == alone.loss


def test_a_foreign_file_is_not_replaced(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a-mosaic.png").write_text("mine")
    jobs = plan_jobs([photos / "a.png", photos / "b.png"], ["mosaic"], QUICK)
    for expected in ("done", "kept"):
        found = statuses(paint(jobs, out))
        assert found["a-mosaic.png"] == "failed" and found["b-mosaic.png"] == expected
        assert (out / "a-mosaic.png").read_text() == "mine"
    assert statuses(paint(jobs[:1], out, overwrite=True)) == {"a-mosaic.png": "done"}


def test_a_second_run_on_the_folder_says_so_and_leaves(photos: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    first = run(jobs, tmp_path / "out")
    next(first)
    for shard in ((1, 1), (1, 2)):
        with pytest.raises(OutputError, match=rf"process {os.getpid()} on .* share 1/1"):
            next(run(jobs, tmp_path / "out", shard=shard))
    first.close()
    assert len(list(run(jobs, tmp_path / "out"))) == 3


def test_a_sparse_slurm_array_gives_no_shares() -> None:
    environment = {f"SLURM_ARRAY_TASK_{name}": value for name, value in (
        ("ID", "5"), ("MIN", "1"), ("MAX", "7"), ("STEP", "1"), ("COUNT", "3")
    )}  # fmt: skip
    with pytest.raises(OptionError, match="give no equal shares"):
        shard_from(environment)
    assert shard_from({**environment, "SLURM_ARRAY_TASK_COUNT": "7"})[0] == (5, 7)


def test_a_share_says_that_another_one_saw_other_jobs(photos: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    notes: list[str] = []

    def told(shard: tuple[int, int], some: list[Job]) -> list[str]:
        notes.clear()
        list(run(some, tmp_path / "out", shard=shard, on_event=lambda e: notes.append(e.message)))
        return [note for note in notes if "another share saw other jobs" in note]

    assert not told((1, 2), jobs) and not told((2, 2), jobs)
    assert told((2, 2), jobs[:-1]) and not told((1, 1), jobs)


def test_a_picture_that_cannot_get_its_name_is_one_failure(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, *others = plan_jobs([photos], ["mosaic"], QUICK)
    lost = replace(first, output="sub/first.png")
    out.mkdir()
    (out / "sub").write_text("no folder")
    assert statuses(list(run([lost, *others], out))) == {
        "sub/first.png": "failed", **dict.fromkeys(outputs(others), "done")
    }  # fmt: skip
    (out / "sub").unlink()
    assert statuses(list(run([lost, *others], out)))["sub/first.png"] == "done"


def test_a_picture_that_cannot_be_described_is_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(painter.Painter, "_caption", fails)
    notes: list[str] = []
    jobs = plan_jobs([photos / "a.png"], ["mosaic"], QUICK)
    options = BatchOptions(caption=True)
    (result,) = run(
        jobs, tmp_path / "out", options, on_event=lambda event: notes.append(event.message)
    )
    assert result.status == "done" and result.result_caption == ""
    assert "not described: no room" in notes


def test_shares_are_disjoint_and_merged_by_the_report(photos: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    out = tmp_path / "out"
    theirs, nobodys = (out / STATE / work / "x.png" for work in ("work-2of2", "work-1of3"))
    for path in (theirs, nobodys):
        path.parent.mkdir(parents=True)
        path.touch()
    one = run(jobs, out, shard=(1, 2))
    first = [next(one)]
    assert theirs.exists(), "a share may not touch what another one is working on"
    assert not nobodys.parent.exists()
    second = list(run(jobs, out, shard=(2, 2)))  # at the same time
    first += list(one)
    assert [r.job.output for r in first] == ["a-mosaic.png", "trip/c-mosaic.png"]
    assert [r.job.output for r in second] == ["b-mosaic.png"]
    write_report(out)
    with open(out / "report.csv", newline="") as lines:
        assert [row["state"] for row in csv.DictReader(lines)] == ["done"] * 3
    # Another number of shares finds what is done already.
    assert {r.status for r in run(jobs, out, shard=(1, 1))} == {"kept"}


def test_a_picture_painted_with_other_options_by_other_shares_is_not_kept(
    photos: Path, tmp_path: Path
) -> None:
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    larger = [replace(job, options=replace(QUICK, size=48)) for job in jobs]
    out = tmp_path / "out"
    list(run(jobs, out))
    for share in (1, 2):
        assert {r.status for r in run(larger, out, shard=(share, 2))} == {"done"}
    write_report(out)
    with open(out / "report.csv", newline="") as lines:
        assert len(list(csv.DictReader(lines))) == 3
    assert {r.status for r in run(larger, out)} == {"kept"}
    assert {r.status for r in run(jobs, out)} == {"done"}
    assert {r.status for r in run(larger, out)} == {"done"}


def test_a_full_disk_stops_cleanly(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    batch = run(jobs, tmp_path / "out")
    assert next(batch).status == "done"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("stylecap.images.os.fsync", full)
        with pytest.raises(OutputError, match="no space left on the disk, 2 of 3 jobs are missing"):
            next(batch)
    assert sorted(statuses(paint(jobs, tmp_path / "out")).values()) == ["done", "done", "kept"]
    assert {p.name for p in (tmp_path / "out").rglob("*mosaic*")} == {
        *("a-mosaic.png", "b-mosaic.png", "c-mosaic.png")
    }


def test_a_journal_that_cannot_grow_stops_cleanly(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Journal] = []

    class Small(Journal):
        def __init__(self, output: Path, shard: tuple[int, int]) -> None:
            super().__init__(output, shard)
            self._database.execute("PRAGMA max_page_count = 1")  # means: not one page more
            opened.append(self)

    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    with monkeypatch.context() as patched:
        patched.setattr(driver, "Journal", Small)
        with pytest.raises(OutputError, match=r"no space left on the disk, \d of 3 jobs are miss"):
            list(run(jobs, tmp_path / "out"))
    assert len(opened) == 1
    assert set(statuses(paint(jobs, tmp_path / "out")).values()) <= {"done", "kept"}


def test_missing_weights_are_said_before_any_work(photos: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([photos], ["mosaic"], replace(QUICK, backbone="vgg19"))
    with pytest.raises(WeightsError, match="vgg19"):
        next(run(jobs, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_captions_of_contents_are_made_once_and_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = plan_jobs([photos], ["mosaic", "watercolor"], QUICK)
    seen: list[object] = []

    def caption(image: object, **given: object) -> SimpleNamespace:
        seen.append(image)
        return SimpleNamespace(text=image.name if isinstance(image, Path) else "a painting")

    fake = SimpleNamespace(backbone_name="alexnet", runtime=Runtime("cpu", "float32", 1))
    monkeypatch.setattr(driver, "find_weights", lambda name: name)
    monkeypatch.setattr(painter, "load_captioner", lambda name, **given: fake)
    monkeypatch.setattr(painter.describing, "caption", caption)
    results = paint(jobs, tmp_path / "out", caption=True)
    assert [r.content_caption for r in results] == [
        *("a.png", "a.png", "b.png", "b.png", "c.png", "c.png")
    ]
    assert {r.result_caption for r in results} == {"a painting"}
    assert len(seen) == 3 + 6
    assert paint(jobs, tmp_path / "out", caption=True)[0].content_caption == "a.png"


def test_styles_and_network_are_loaded_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    measured: list[int] = []
    real_load, real_grams = painter.load_backbone, transfer.style_grams

    def load(name: str, **given: object) -> object:
        loaded.append(name)
        return real_load(name, **given)

    def grams(*given: object) -> dict[str, torch.Tensor]:
        measured.append(1)
        return real_grams(*given)

    monkeypatch.setattr(painter, "load_backbone", load)
    monkeypatch.setattr(transfer, "style_grams", grams)
    paint(plan_jobs([photos], ["mosaic", "watercolor"], QUICK), tmp_path / "out")
    assert loaded == ["alexnet"]
    assert len(measured) == 2


# --- workers


def test_workers_give_the_same_pictures_and_a_dead_one_is_replaced(
    photos: Path, tmp_path: Path
) -> None:
    jobs = plan_jobs([photos], ["mosaic"], replace(QUICK, steps=60))
    share = max(1, torch.get_num_threads() // 2)  # what each of two workers has
    with Runtime("cpu", "float32", share).using_threads():
        alone = paint(jobs, tmp_path / "alone")
    killed: list[int] = []

    def kill(event: JobEvent) -> None:
        if event.progress is not None and not killed:
            import multiprocessing

            child = multiprocessing.active_children()[event.worker]
            killed.append(child.pid or 0)
            os.kill(child.pid or 0, signal.SIGKILL)

    together = list(
        run(jobs, tmp_path / "out", BatchOptions(workers=2, checkpoint_seconds=0), on_event=kill)
    )
    assert len(killed) == 1
    assert sorted(r.job.output for r in together) == sorted(outputs(jobs))
    assert {r.status for r in together} == {"done"}
    assert {r.job.output: r.loss for r in together} == {r.job.output: r.loss for r in alone}


def test_tasks_whose_worker_dies_are_tried_again_one_by_one_and_fail() -> None:
    from stylecap.batch.executors import Waiting

    tasks = [Task(job(f"{name}.png"), Path("p"), Path("c")) for name in "xy"]
    waiting = Waiting([tasks], retries=1)
    assert waiting.next() == tasks
    assert list(waiting.again(tasks, "exit code -9")) == []
    assert [waiting.next(), waiting.next()] == [[tasks[0]], [tasks[1]]]
    (ended,) = waiting.again(tasks[:1], "exit code -9")
    assert ended.task is tasks[0]
    assert ended.status == "failed"
    assert "died 2 times (exit code -9)" in ended.error
    assert waiting.next() is None


# --- together


def test_groups_differ_only_in_what_is_painted(photos: Path) -> None:
    wide = Image.new("RGB", (90, 60))
    wide.save(photos / "w.png")
    wide.resize((30, 20)).save(photos / "x.png")  # of the same size when it is painted
    (photos / "y.png").write_text("no picture")
    jobs = plan_jobs([photos], ["mosaic", "watercolor"], QUICK)
    jobs[2] = replace(jobs[2], options=replace(QUICK, strength=0.5))
    groups = [outputs(group) for group in grouped(jobs, 2)]
    assert groups == [
        ["a-mosaic.png", "trip/c-mosaic.png"],
        ["a-watercolor.png", "b-watercolor.png"],
        ["trip/c-watercolor.png"],
        ["b-mosaic.png"],  # the one with its own options
        ["w-mosaic.png", "x-mosaic.png"],
        ["w-watercolor.png", "x-watercolor.png"],
        ["y-mosaic.png"],
        ["y-watercolor.png"],
    ]
    assert [outputs(group) for group in grouped(jobs, 1)] == [[job.output] for job in jobs]


def test_a_gpu_gets_several_at_a_time_and_every_worker_its_share() -> None:
    def together(on_gpu: bool, jobs: int, workers: int = 1, **given: int) -> int:
        executor = SimpleNamespace(on_gpu=on_gpu, workers=workers)
        return driver._together(BatchOptions(**given), executor, jobs)

    assert together(False, 200) == 1
    assert together(True, 200) == 16
    assert together(True, 20, workers=8) == 3
    assert together(True, 200, together=5) == together(False, 200, together=5) == 5


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures were painted at a time."""
    sizes: list[int] = []
    real = painter.painting.transfer_together

    def watched(subjects: list[object], *given: object, **named: object) -> object:
        sizes.append(len(subjects))
        return real(subjects, *given, **named)

    monkeypatch.setattr(painter.painting, "transfer_together", watched)
    return sizes


def assert_same_pictures(jobs: list[Job], ours: Path, theirs: Path) -> None:
    """To within rounding, which is one of 255 after few steps."""
    for each in jobs:
        one, other = (
            to_image(load_picture(folder / each.output)) * 255 for folder in (ours, theirs)
        )
        assert (one - other).abs().max() <= 1, each.output


def assert_not_mixed_up(jobs: list[Job], ours: Path, theirs: Path) -> None:
    """After many steps rounding has grown: every picture is by far the nearest to its own."""
    alone = {each.output: to_image(load_picture(theirs / each.output)) for each in jobs}
    for each in jobs:
        painted = to_image(load_picture(ours / each.output))
        distance = {
            output: float((painted - other).abs().mean())
            for output, other in alone.items()
            if other.shape == painted.shape
        }
        nearest, second = sorted(distance, key=distance.__getitem__)[:2]
        assert nearest == each.output and 2 * distance[nearest] < distance[second], distance


def test_a_bad_file_of_a_group_is_one_failure(
    photos: Path, tmp_path: Path, batches: list[int]
) -> None:
    whole = (photos / "b.png").read_bytes()
    save_picture(to_picture(photo(64, 7)), photos / "d.png")
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    paint([job for job in jobs if job.output != "b-mosaic.png"], tmp_path / "alone")
    (photos / "b.png").write_bytes(whole[:-30])  # its size can still be read
    events: list[JobEvent] = []
    results = list(run(jobs, tmp_path / "out", BatchOptions(together=4), on_event=events.append))
    assert batches == [1, 1, 1, 3]
    assert statuses(results) == {
        "b-mosaic.png": "failed",
        "a-mosaic.png": "done",
        "d-mosaic.png": "done",
        "trip/c-mosaic.png": "done",
    }
    for each in results:
        kinds = [event.kind for event in events if event.job == each.job]
        steps = ["progress"] * 2 if each.status == "done" else []
        assert kinds == ["queued", "started", *steps, each.status]
    good = [each.job for each in results if each.status == "done"]
    assert_same_pictures(good, tmp_path / "out", tmp_path / "alone")


def test_only_as_many_as_fit_into_memory_are_together(
    photos: Path, tmp_path: Path, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    runtime = Runtime("cpu", "float32", 1)
    free = 2.9 * estimate_bytes((64, 64), QUICK, runtime)
    monkeypatch.setattr(Runtime, "free_bytes", lambda self: free)
    assert set(statuses(paint(jobs, tmp_path / "out", together=3)).values()) == {"done"}
    assert batches == [2, 1]


def test_what_fails_together_is_tried_apart(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    sizes: list[int] = []
    real = painter.painting.transfer_together

    def fails(subjects: list[object], *given: object, **named: object) -> object:
        sizes.append(len(subjects))
        if len(subjects) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(sizes) == 4:
            raise DeviceError("not a number")
        return real(subjects, *given, **named)

    monkeypatch.setattr(painter.painting, "transfer_together", fails)
    results = paint(jobs, tmp_path / "out", together=3)
    assert sizes == [3, 1, 2, 1, 1]
    assert [(each.job.output, each.error) for each in results] == [
        ("a-mosaic.png", ""),
        ("b-mosaic.png", "not a number"),
        ("trip/c-mosaic.png", ""),
    ]


def test_a_stopped_group_resumes_with_those_after_the_same_step(
    photos: Path, tmp_path: Path, batches: list[int]
) -> None:
    jobs = plan_jobs([photos], ["mosaic"], replace(QUICK, steps=6))
    paint(jobs, tmp_path / "alone")
    out = tmp_path / "out"
    steps: list[tuple[str, int]] = []

    def count(event: JobEvent) -> None:
        if event.progress is not None and event.job is not None:
            steps.append((event.job.output, event.progress.step))

    options = BatchOptions(together=3)
    assert not list(run(jobs, out, options, on_event=count, should_stop=lambda: len(steps) >= 6))
    kept = sorted((out / STATE / "work-1of1").iterdir())
    assert [load_checkpoint(path).steps for path in kept] == [2, 2, 2]
    kept[0].unlink()
    again = run(jobs, out, options, on_event=count, should_stop=lambda: len(steps) >= 100)
    assert set(statuses(list(again)).values()) == {"done"}
    assert batches == [1, 1, 1, 3, 1, 2] or batches == [1, 1, 1, 3, 2, 1]
    assert len(steps) == 6 + 6 + 2 * 4
    assert_same_pictures(jobs, out, tmp_path / "alone")
    assert not (out / STATE / "work-1of1").exists()


def test_a_group_whose_worker_dies_is_painted_one_by_one(photos: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([photos], ["mosaic"], replace(QUICK, steps=25))
    paint(jobs, tmp_path / "alone")
    killed: list[int] = []
    started: list[str] = []

    def kill(event: JobEvent) -> None:
        if event.kind == "started" and event.job is not None:
            started.append(event.job.output)
        if event.progress is not None and not killed:
            import multiprocessing

            (child,) = multiprocessing.active_children()
            killed.append(child.pid or 0)
            os.kill(child.pid or 0, signal.SIGKILL)

    options = BatchOptions(workers=2, together=3, checkpoint_seconds=0)
    results = list(run(jobs, tmp_path / "out", options, on_event=kill))
    assert len(killed) == 1
    assert set(statuses(results).values()) == {"done"}
    assert sorted(started) == sorted(outputs(jobs) * 2)
    assert_not_mixed_up(jobs, tmp_path / "out", tmp_path / "alone")


# --- report


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))


def test_the_report_shows_all_and_is_self_contained(photos: Path, tmp_path: Path) -> None:
    hostile = "<script>alert(1)<&script>'.png"
    os.replace(photos / "a.png", photos / hostile)
    (photos / "b.png").write_text("<b>no picture</b>")
    out = tmp_path / "out"
    paint(plan_jobs([photos], ["mosaic"], QUICK), out)
    with Journal(out, (1, 1)) as journal:
        row = journal.find(["trip/c-mosaic.png", "none"]).get("trip/c-mosaic.png")
        assert row is not None
        journal.put([replace(row, ending={**row.ending, "result_caption": "a <i>cat</i>"})])
    page, table = write_report(out)
    text = page.read_text(encoding="utf-8")
    seen = Page()
    seen.feed(text)
    assert [tag for tag, _ in seen.tags].count("script") == 1  # its own
    assert "a &lt;i&gt;cat&lt;/i&gt;" in text
    assert "&lt;script&gt;alert(1)" in text
    assert "1 failed" in text
    assert "is text, not a picture" in text
    sources = [given.get("src") or "" for tag, given in seen.tags if tag == "img"]
    assert len(sources) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    links = [given["href"] for tag, given in seen.tags if tag == "a"]
    assert "trip/c-mosaic.png" in links
    assert "http:" not in text
    assert "https:" not in text
    with open(table, newline="", encoding="utf-8") as lines:
        rows = {row["output"]: row for row in csv.DictReader(lines)}
    assert rows["trip/c-mosaic.png"]["result_caption"] == "a <i>cat</i>"
    assert json.loads(rows["b-mosaic.png"]["options"])["backbone"] == "alexnet"
    assert "is text" in rows["b-mosaic.png"]["error"]


def test_a_report_needs_a_batch(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no batch"):
        write_report(tmp_path)


# --- the command


def command(*arguments: object) -> int:
    return main(["batch", *map(str, arguments)])


def test_the_command_from_end_to_end(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = (photos, "--style", "mosaic", "-o", out, *FLAGS)
    assert command(*arguments) == 0
    said = capsys.readouterr()
    assert "3 jobs: 3 done in" in said.out
    assert "3 of 3, trip/c-mosaic.png in" in said.err
    (photos / "b.png").write_text("text")
    assert command(*arguments, "--json") == 3
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == [
        *("kept", "kept", "queued", "started", "failed", "finished")
    ]
    assert "is text, not a picture" in events[4]["reason"]
    assert events[0]["path"] == str(out / "a-mosaic.png")
    assert events[-1] | {"seconds": 0} == {
        "event": "finished",
        "jobs": 3,
        "done": 0,
        "kept": 2,
        "failed": 1,
        "missing": 0,
        "seconds": 0,
        "report": str(out / "report.html"),
    }
    assert command(photos / "b.png", "--style", "mosaic", "-o", out, *FLAGS) == 1


def test_the_command_paints_together(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], batches: list[int]
) -> None:
    folders = {together: tmp_path / together for together in ("1", "3")}
    for together, out in folders.items():
        arguments = (photos, "--style", "mosaic", "-o", out, *FLAGS, "--json")
        assert command(*arguments, "--together", together) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        kinds = [event["event"] for event in events]
        assert kinds[:3] == ["queued"] * 3
        assert kinds[3:6] == (
            ["started"] * 3 if together == "3" else ["started", "done", "started"]
        )
        assert kinds.count("done") == 3
    assert batches == [1, 1, 1, 3]
    jobs = plan_jobs([photos], ["mosaic"], QUICK)
    assert_same_pictures(jobs, folders["3"], folders["1"])
    records = [
        RunRecord.from_json(read_embedded(folder / "b-mosaic.png") or "")
        for folder in folders.values()
    ]
    assert records[0].inputs == records[1].inputs
    assert records[0].options == records[1].options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected CONTENT"),
        (("x",), "expected -o OUTDIR"),
        (("x", "-o", "out"), "expected --style STYLE"),
        (("x.csv", "y", "-o", "out"), "one manifest alone"),
        (("x", "-o", "out", "--style", "mosaic", "--shard", "3/2"), "shard: expected i/n"),
        (("x", "-o", "out", "--style", "mosaic", "--workers", "0"), "workers: expected"),
        (("x", "-o", "o", "--style", "mosaic", "--ray-address", "a"), "needs executor ray"),
        (("x", "-o", "out", "--style", "mosaic", "--init", "image"), "only a manifest's rows"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err


def test_an_inherited_share_is_always_told(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    out = tmp_path / "out"
    assert command(photos, "--style", "mosaic", "-o", out, *FLAGS, "--quiet") == 0
    said = capsys.readouterr()
    assert "share 2 of 2 (RANK=1, WORLD_SIZE=2): 1 of 3 jobs" in said.err
    assert [path.name for path in out.glob("*.png")] == ["b-mosaic.png"]


def test_what_failed_is_named_even_where_little_is_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "b.png").write_text("no picture")
    out = tmp_path / "out"
    assert command(photos, "--style", "mosaic", "-o", out, *FLAGS, "--quiet") == 3
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "b-mosaic.png" in said.err and "is text, not a picture" in said.err


def test_a_full_disk_is_a_failure_whatever_was_done(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, real = tmp_path / "out", os.fsync

    def full(descriptor: int) -> None:
        if (out / "a-mosaic.png").exists():
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("stylecap.files.os.fsync", full)
    assert command(photos, "--style", "mosaic", "-o", out, *FLAGS) == 1
    said = capsys.readouterr()
    assert "no space left on the disk" in said.err
    assert (out / "a-mosaic.png").exists()


def test_a_dry_run_lists_and_measures(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (photos, "--style", "mosaic", "-o", tmp_path / "out", *FLAGS, "--dry-run")
    assert command(*arguments) == 0
    said = capsys.readouterr().out
    assert "trip/c.png + mosaic -> trip/c-mosaic.png" in said
    assert "3 jobs, about" in said
    assert command(*arguments, "--json") == 0
    *listed, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert [event["job"] for event in listed] == outputs(plan_jobs([photos], ["mosaic"]))
    assert found["seconds_one_worker"] > 3 * found["step_seconds"]  # two steps each
    assert (found["height"], found["width"]) == (64, 64)
    assert found["memory_bytes"] > 64 * 64 * 3 * 4
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_a_checkpoint_and_is_130(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["batch", str(photos), "--style", "mosaic", "-o", str(out), *FLAGS, "--json"]
    arguments[arguments.index("--steps") + 1] = "100000"
    arguments += ["--checkpoint-seconds", "0"]
    checkpoints = (out / STATE / "work-1of1").glob("*.checkpoint.safetensors")
    with subprocess.Popen(
        [sys.executable, "-m", "stylecap", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        events = _events(process.stdout)
        assert next(e for e in events if e["event"] == "started")["job"] == "a-mosaic.png"
        while not list((out / STATE).glob("work-1of1/*.checkpoint.safetensors")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        last = list(events)[-1]
    assert process.returncode == 130
    assert (last["event"], last["missing"]) == ("finished", 3)
    assert load_checkpoint(next(checkpoints)).steps >= 1


def _events(lines: Iterator[str]) -> Iterator[dict[str, object]]:
    return map(json.loads, lines)
