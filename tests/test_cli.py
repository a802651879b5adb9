"""The command line: flags to options, errors to exit codes, one line for every failure."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import stylecap
from stylecap.cli import terminal
from stylecap.cli.flags import add_options, read_options
from stylecap.cli.main import COMMANDS, Parser, main
from stylecap.errors import InputError, OptionError, RecordError
from stylecap.files import file_sha256
from stylecap.images import save_picture
from stylecap.inputs import inputs_from_record
from stylecap.options import options_of
from stylecap.progress import Progress
from stylecap.record import InputRecord, RunRecord
from stylecap.style.options import PRESETS, StyleOptions

RECORD = RunRecord(
    "stylize",
    {"size": 40, "steps": 7, "blend": (1.0, 2.0), "device": "cpu", "precision": "float32"},
    versions={"torch": "1.0"},
    result={"threads": 3},
)


class FakeApi(types.ModuleType):
    """Stands for `stylecap.painting`: records what it is given and returns at once."""

    def __init__(self) -> None:
        super().__init__("stylecap.painting")
        self.calls: list[dict[str, Any]] = []
        self.mixed: list[tuple[Any, ...]] = []
        self.error: BaseException | None = None
        self.loss: dict[str, Any] = {
            "content": 0.5,
            "style": {"relu1_1": 1.5},
            "tv": 0.0,
            "total": 2.0,
        }
        self.interrupts = 0
        self.inputs: dict[str, Any] = {}

    def stylize(
        self,
        content: Any,
        style: Any,
        options: Any = None,
        *,
        on_progress: Any = None,
        should_stop: Any = None,
        **given: Any,
    ) -> Any:
        self.calls.append({"content": content, "style": style, "options": options, **given})
        if self.error is not None:
            raise self.error
        picture = torch.zeros(1, 3, 30, 40)
        for step in range(1, options.steps + 1):
            on_progress(
                Progress(
                    step, options.steps, 0.1 * step, "scale 1 of 1", 2.0, preview=lambda: picture
                )
            )
            if step <= self.interrupts:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            if should_stop():
                break

        def save(path: Path, quality: int = 95) -> Path:
            save_picture(Image.new("RGB", (40, 30)), path, quality=quality)
            return path

        return SimpleNamespace(
            image=picture,
            loss=self.loss,
            steps=step,
            seconds=0.5,
            stopped=should_stop(),
            messages=("memory was short",),
            device="cpu",
            precision="float32",
            options=replace(options, device="cpu", precision="float32"),
            save=save,
            card=None,
        )

    def mix_styles(self, fine: Any, coarse: Any, options: Any, **_: Any) -> Any:
        self.mixed.append((fine, coarse, options))
        return torch.ones(1, 3, 8, 8)

    def inputs_from_record(self, record: Any, given: Any, beside: Path) -> dict[str, Any]:
        self.calls.append({"record": record, "given": list(given), "beside": beside})
        return self.inputs


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeApi:
    """A fake API, in an empty current folder that holds two pictures."""
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "stylecap.painting", fake)
    monkeypatch.setattr(stylecap, "painting", fake, raising=False)
    monkeypatch.setattr("stylecap.inputs.inputs_from_record", fake.inputs_from_record)
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "paint.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    return fake


@pytest.fixture(autouse=True)
def _no_debug(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("STYLECAP_DEBUG", raising=False)
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def size_of(path: str | Path) -> tuple[int, int]:
    """(width, height) of a picture file."""
    with Image.open(path) as picture:
        return picture.size


def refused(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 2) -> str:
    """Run a command that must fail with one line on stderr; gives the line."""
    assert main(argv) == code
    printed = capsys.readouterr()
    assert printed.err.startswith("stylecap: error: ") and printed.err.count("\n") == 1
    assert printed.out == ""
    return printed.err


def test_stylize_passes_everything_on(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    argv = "stylize photo.png paint.png mosaic -o out.jpg --preset draft --size 99 --blend 1,2"
    argv += " --style-layers relu1_1,relu2_1 --mask photo.png --mask-styles #ff0000,#00FF00"
    assert main([*argv.split(), "--quality", "80"]) == 0
    (call,) = api.calls
    assert call["options"] == StyleOptions.preset(
        "draft", size=99, blend=(1, 2), style_layers=("relu1_1", "relu2_1")
    )
    assert (str(call["content"]), call["style"]) == ("photo.png", ["paint.png", "mosaic"])
    assert call["mask"] == Path("photo.png")
    assert call["mask_colors"] == ("#ff0000", "#00FF00")
    assert size_of("out.jpg") == (40, 30)
    printed = capsys.readouterr()
    assert printed.out == "out.jpg: 40x30, 90 steps in 0 s\n"
    assert "memory was short" in printed.err


def test_one_style_is_not_a_list(api: FakeApi) -> None:
    assert main(["stylize", "photo.png", "mosaic", "--quiet"]) == 0
    assert api.calls[0]["style"] == "mosaic"
    assert api.calls[0]["options"] == StyleOptions()


def test_json_is_one_object(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.loss["total"] = float("nan")
    assert main(["stylize", "photo.png", "paint.png", "-o", "o.png", "--json", "--steps", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == [
        "output",
        "width",
        "height",
        "steps",
        "seconds",
        "stopped",
        "device",
        "precision",
        "loss",
        "options",
        "card",
    ]
    assert (printed["output"], printed["width"], printed["height"]) == ("o.png", 40, 30)
    assert printed["loss"] == {"content": 0.5, "style": {"relu1_1": 1.5}, "tv": 0.0, "total": None}
    assert set(printed["options"]) == set(options_of(StyleOptions))
    assert printed["options"]["steps"] == 3


def test_quiet_says_nothing(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stylize", "photo.png", "paint.png", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_progress_lines_come_every_tenth(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stylize", "photo.png", "paint.png", "--steps", "100"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "step" in line]
    assert 10 <= len(lines) <= 11
    assert lines[-1] == "stylecap: scale 1 of 1, step 100 of 100, loss 2, 0 s left"


def test_default_name_never_overwrites(api: FakeApi) -> None:
    for expected in ("photo-paint.png", "photo-paint-2.png", "photo-paint-3.png"):
        assert not Path(expected).exists()
        assert main(["stylize", "photo.png", "paint.png", "--quiet"]) == 0
        assert Path(expected).exists()


def test_a_name_that_another_run_took_meanwhile_is_left_to_it(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = api.stylize

    def beside(*given: Any, **named: Any) -> Any:
        Path("photo-paint.png").write_text("another run's")
        return real(*given, **named)

    monkeypatch.setattr(api, "stylize", beside)
    assert main(["stylize", "photo.png", "paint.png", "--json", "--quiet"]) == 0
    assert Path("photo-paint.png").read_text() == "another run's"
    assert json.loads(capsys.readouterr().out)["output"] == "photo-paint-2.png"


def test_save_every(api: FakeApi) -> None:
    argv = ["stylize", "photo.png", "paint.png", "-o", "o.jpg", "--steps", "7", "--quiet"]
    assert main([*argv, "--save-every", "3"]) == 0
    assert sorted(path.name for path in Path().glob("o*")) == [
        "o-000003.jpg",
        "o-000006.jpg",
        "o.jpg",
    ]


def test_init_image_sets_init(api: FakeApi) -> None:
    argv = ["stylize", "photo.png", "paint.png", "--quiet", "--init-image", "paint.png"]
    assert main(argv) == 0
    assert api.calls[0]["options"].init == "image"
    assert api.calls[0]["init_image"] == Path("paint.png")


def test_mixed_styles_are_kept_beside_the_output(api: FakeApi) -> None:
    argv = ["stylize", "photo.png", "--fine-style", "mosaic", "--coarse-style", "paint.png"]
    for _ in range(2):
        assert main([*argv, "-o", "o.jpg", "--quiet"]) == 0
    assert api.mixed[0][:2] == ("mosaic", "paint.png")
    assert [call["style"] for call in api.calls] == [Path("o-style.png"), Path("o-style-2.png")]
    with Image.open("o-style.png") as mixture:
        assert mixture.getpixel((0, 0)) == (255, 255, 255)


def test_a_stop_while_styles_are_mixed_keeps_the_mixture(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, should_stop: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert should_stop()
        return torch.ones(1, 3, 8, 8)

    monkeypatch.setattr(api, "mix_styles", interrupted)
    argv = ["stylize", "photo.png", "--fine-style", "mosaic", "--coarse-style", "paint.png"]
    assert main([*argv, "-o", "o.jpg", "--quiet"]) == 130
    assert size_of("o-style.png") == (8, 8)
    assert not Path("o.jpg").exists() and not api.calls


def test_from_record(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    save_picture(Image.new("RGB", (9, 9)), "old.png", record=RECORD.to_json())
    api.inputs = {
        "content": Path("photo.png"),
        "style": [Path("paint.png"), "mosaic"],
        "init_image": None,
        "mask": None,
    }
    argv = ["stylize", "--from-record", "old.png", "--backbone", "alexnet", "--steps", "5"]
    assert main([*argv, "photo.png"]) == 0
    search, call = api.calls
    assert search == {"record": RECORD, "given": [Path("photo.png")], "beside": Path()}
    assert call["style"] == [Path("paint.png"), "mosaic"]
    expected = StyleOptions(
        size=40, steps=5, blend=(1, 2), device="cpu", precision="float32", backbone="alexnet"
    )
    # The record is older than early stopping: that run made all its steps.
    assert call["options"] == replace(expected, early_stopping=False)
    runtime = call["backbone"].runtime
    assert (runtime.device, runtime.precision, runtime.threads) == ("cpu", "float32", 3)
    assert Path("old-again.png").exists()
    assert "made with torch 1.0" in capsys.readouterr().err


def test_from_record_with_another_mask_and_start(
    api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is replaced, or not used any more, need not be there."""
    monkeypatch.setattr("stylecap.inputs.inputs_from_record", inputs_from_record)
    for name in ("mask.png", "start.png"):
        Image.new("RGB", (8, 6), "red" if name == "mask.png" else "blue").save(name)
    files = {"content": "photo.png", "style": "paint.png", "init": "start.png", "mask": "mask.png"}
    inputs = tuple(InputRecord(role, name, file_sha256(name)) for role, name in files.items())
    given = {**RECORD.options, "init": "image", "mask_colors": ["#ff0000", "#0000ff"]}
    masked = replace(RECORD, options=given, inputs=inputs)
    save_picture(Image.new("RGB", (9, 9)), "old.png", record=masked.to_json())
    argv = ["stylize", "--from-record", "old.png"]
    assert main(argv) == 0
    Path("mask.png").unlink()
    assert main([*argv, "--mask", "paint.png"]) == 0
    Path("start.png").unlink()
    assert main([*argv, "--mask", "paint.png", "--init-image", "photo.png"]) == 0
    assert main([*argv, "--mask", "paint.png", "--init", "content"]) == 0
    assert [(call["init_image"], call["mask"]) for call in api.calls] == [
        (Path("start.png"), Path("mask.png")),
        (Path("start.png"), Path("paint.png")),
        (Path("photo.png"), Path("paint.png")),
        (None, Path("paint.png")),
    ]
    assert {call["mask_colors"] for call in api.calls} == {("#ff0000", "#0000ff")}
    capsys.readouterr()
    assert "cannot find init start.png" in refused(capsys, *argv, "--mask", "paint.png", code=1)
    plain = replace(RECORD, inputs=inputs[:2])
    save_picture(Image.new("RGB", (9, 9)), "plain.png", record=plain.to_json())
    argv = ["stylize", "--from-record", "plain.png", "--mask-styles", "#ff0000"]
    assert "give --mask FILE too" in refused(capsys, *argv)


def test_from_record_refuses(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (9, 9)).save("plain.png")
    again = ["stylize", "--from-record"]
    assert "no run record" in refused(capsys, *again, "plain.png", code=1)
    assert "does not exist" in refused(capsys, *again, "none.png", code=1)
    for record, reason in [
        (replace(RECORD, kind="caption"), "caption"),
        (replace(RECORD, options={"size": "big"}), "size: expected"),
        (replace(RECORD, options={"colour": 1}), "colour"),
        (replace(RECORD, options={"backbone": "resnet"}), "backbone: expected"),
    ]:
        save_picture(Image.new("RGB", (9, 9)), "old.png", record=record.to_json())
        assert reason in refused(capsys, *again, "old.png", code=1)
    save_picture(Image.new("RGB", (9, 9)), "old.png", record='{"format": 9}')
    assert "format 9" in refused(capsys, *again, "old.png", code=1)
    assert "input" in refused(capsys, *again, "old.png", "-o", "old.png")
    assert "--size" in refused(capsys, *again, "old.png", "--size", "x")
    save_picture(Image.new("RGB", (9, 9)), "old.png", record=RECORD.to_json())
    api.inputs = {"content": Path("photo.png"), "style": [Path("paint.png")]}
    assert "input" in refused(capsys, *again, "old.png", "-o", "paint.png")


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ("", "expected a command"),
        ("--wrong", "unrecognized arguments"),
        ("paint", "invalid choice"),
        ("stylize", "expected CONTENT and STYLE"),
        ("stylize photo.png", "expected a STYLE"),
        ("stylize photo.png paint.png --size", "--size"),
        ("stylize photo.png paint.png --siz 9", "--siz"),
        ("stylize photo.png paint.png --size big", "a whole number from 16"),
        ("stylize photo.png paint.png --size 3", "size: expected"),
        ("stylize photo.png paint.png --size 1e3", "--size"),
        ("stylize photo.png paint.png --size 99999999999999999999", "size: expected"),
        ("stylize photo.png paint.png --strength nan", "strength: expected"),
        ("stylize photo.png paint.png --strength -1", "strength: expected"),
        ("stylize photo.png paint.png --strength 1e999", "strength: expected"),
        ("stylize photo.png paint.png --blend 1,,2", "--blend"),
        ("stylize photo.png paint.png --blend 0,0", "blend: at least one"),
        ("stylize photo.png paint.png --color red", "color: expected one of style"),
        ("stylize photo.png paint.png --backbone resnet", "backbone: expected one of"),
        ("stylize photo.png paint.png --preset best", "preset: expected one of draft"),
        ("stylize photo.png paint.png --init image", "--init-image"),
        ("stylize photo.png paint.png --init noise --init-image paint.png", "--init image"),
        ("stylize photo.png paint.png --mask-styles #000000", "--mask FILE"),
        ("stylize photo.png paint.png mosaic --mask m.png --mask-styles red,#000000", "#ff8000"),
        ("stylize photo.png paint.png mosaic --mask m.png --mask-styles #000000", "expected 2"),
        ("stylize photo.png paint.png --mask m.png", "at least two"),
        ("stylize photo.png paint.png mosaic watercolor --mask m.png", "--mask-styles"),
        ("stylize photo.png paint.png --blend 1,2", "--blend: expected 1 weights"),
        ("stylize photo.png --fine-style mosaic", "belong together"),
        ("stylize photo.png --fine-style mosaic --coarse-style mosaic --blend 1,2", "--blend"),
        ("stylize photo.png mosaic --fine-style mosaic --coarse-style mosaic", "instead of STYLE"),
        ("stylize photo.png mosaic --from-record a.png --fine-style mosaic", "--from-record"),
        ("stylize photo.png paint.png --save-every 0", "--save-every"),
        ("stylize photo.png paint.png --save-every -3", "--save-every"),
        ("stylize photo.png paint.png --quality 101", "--quality"),
        ("stylize photo.png paint.png -o photo.png", "is an input"),
        ("stylize photo.png paint.png -o ./paint.png", "is an input"),
        ("stylize photo.png mosaic -o paint.png --init-image paint.png", "is an input"),
        ("layers resnet", "expected one of vgg16"),
        ("layers vgg16 --size 0x9", "at least"),
        ("layers vgg16 --size big", "HEIGHTxWIDTH"),
        ("layers", "required"),
        ("styles --size 64", "--sheet"),
        ("styles --sheet a.png --size 5", "32 to 1024"),
        ("weights", "required"),
        ("weights steal", "invalid choice"),
        ("show-record", "required"),
    ],
)
def test_wrong_usage(
    api: FakeApi, capsys: pytest.CaptureFixture[str], argv: str, reason: str
) -> None:
    before = sorted(Path().iterdir())
    assert reason in refused(capsys, *argv.split())
    assert sorted(Path().iterdir()) == before and not api.calls


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("o.xyz", "not a format"),
        ("none/o.png", "folder does not exist"),
        ("folder.png", "is a folder"),
        ("x" * 300 + ".png", "too long"),
    ],
)
def test_the_output_is_checked_before_any_work(
    api: FakeApi, capsys: pytest.CaptureFixture[str], output: str, reason: str
) -> None:
    Path("folder.png").mkdir()
    error = refused(capsys, "stylize", "photo.png", "paint.png", "-o", output, code=1)
    assert reason in error
    assert not api.calls


def test_a_picture_too_large_for_webp_is_refused_before_it_is_painted(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["stylize", "photo.png", "paint.png", "-o", "o.webp", "--size", "16384"]
    assert "WebP holds at most 16383" in refused(capsys, *argv, code=1)
    argv = ["batch", "photo.png", "--style", "mosaic", "-o", "out", "--format", "webp"]
    assert "WebP holds at most 16383" in refused(capsys, *argv, "--size", "16384", code=1)
    assert not api.calls


@pytest.mark.parametrize(
    "argv",
    [
        "masks photo.png -o photo.png",
        "masks photo.png --match paint.png -o paint.png",
        "masks photo.png -o o.png --preview photo.png",
        "masks photo.png -o o.png --preview o.png",
        "masks photo.png -o o.png --match paint.png --preview o-style-2.png",
        "detect photo.png -o photo.png",
        "detect photo.png --preview photo.png",
        "align photo.png -o photo.png",
        "features photo.png --layer conv1_1 -o photo.png",
        "features --folder . --channel 1 --layer conv1_1 -o paint.png",
        "search . --like photo.png -o photo.png",
    ],
)
def test_no_command_writes_over_what_it_reads(
    argv: str, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("photo.png").read_bytes()
    assert "is an input too" in refused(capsys, *argv.split())
    assert Path("photo.png").read_bytes() == before


def test_an_output_that_is_linked_to_an_input_is_refused(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("soft.png").symlink_to("photo.png")
    os.link("photo.png", "hard.png")
    for name in ("soft.png", "hard.png"):
        assert "input" in refused(capsys, "stylize", "photo.png", "paint.png", "-o", name)
    Path("o-000010.png").write_bytes(Path("photo.png").read_bytes())
    argv = ["stylize", "o-000010.png", "paint.png", "-o", "o.png", "--save-every", "5"]
    assert "overwrite the input" in refused(capsys, *argv)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InputError("a.png: is\nempty\x1b[31m"), 1, r"a.png: is empty\x1b[31m"),
        (RecordError("gone"), 1, "gone"),
        (OptionError("size: wrong"), 2, "size: wrong"),
        (RuntimeError("boom\nbang"), 1, "unexpected RuntimeError: boom bang; run with STYLECAP_D"),
        (MemoryError(), 1, "too little memory"),
        (OSError(28, "No space left on device", "o.png"), 1, "o.png: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_exit_codes(
    api: FakeApi,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    reason: str,
) -> None:
    api.error = error
    assert reason in refused(capsys, "stylize", "photo.png", "paint.png", code=code)


def test_debug_shows_the_traceback(
    api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLECAP_DEBUG", "1")
    api.error = RuntimeError("boom")
    assert main(["stylize", "photo.png", "paint.png"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_one_interrupt_keeps_the_picture(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.interrupts = 1
    assert main(["stylize", "photo.png", "paint.png", "-o", "o.png", "--json"]) == 130
    printed = capsys.readouterr()
    assert json.loads(printed.out)["stopped"] is True
    assert "Ctrl-C again" in printed.err
    assert size_of("o.png") == (40, 30)


def test_a_second_interrupt_leaves_at_once(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.interrupts = 2
    monkeypatch.setattr(terminal.Interruption, "__call__", lambda _: False)
    assert main(["stylize", "photo.png", "paint.png", "-o", "o.png", "--quiet"]) == 130
    assert not Path("o.png").exists()


def test_a_bar_is_drawn_on_a_terminal(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["stylize", "photo.png", "paint.png", "--steps", "20"]) == 0
    assert "20/20" in screen.getvalue() and "loss 2" in screen.getvalue()


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_asking_is_no_error(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert "stylecap" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: stylecap {command}" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert command in capsys.readouterr().out


def test_every_option_has_a_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stylize", "--help"]) == 0
    text = re.sub(r"\s+", "", capsys.readouterr().out)
    for declared in options_of(StyleOptions).values():
        assert declared.flag in text
        if isinstance(declared.default, str):
            assert f"default{declared.default})" in text


@pytest.mark.parametrize("words", [["--help"], ["stylize", "--help"], ["styles"], ["--version"]])
def test_help_is_quick_and_imports_little(words: list[str]) -> None:
    """Measured in processor time, since other programs may be using the machine."""
    program = (
        "import sys, time; from stylecap.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'PIL', 'gradio', 'numpy', 'rich'} & set(sys.modules);"
        "print(time.process_time(), file=sys.stderr);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True)
        assert done.returncode == 0, done.stderr
        times.append(float(done.stderr))
    assert min(times) < 0.3


def test_a_reader_that_leaves_is_no_trouble() -> None:
    program = "from stylecap.cli.main import main; import sys; sys.exit(main(['styles']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "vgg16", "--size", "224x224"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"conv1_1 +224x224x64 +1,792 +86,704,128 +3 +1", lines[2])
    assert re.fullmatch(r"total +14,714,688 +15,346,630,656", lines[-1])
    assert main(["layers", "alexnet", "--size", "63x127", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["height"], printed["width"]) == (63, 127)
    assert printed["layers"][0]["output"] == [64, 15, 31]
    assert printed["parameters"] == sum(layer["parameters"] for layer in printed["layers"])


def test_styles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["styles"]) == 0
    assert "night-swirls" in capsys.readouterr().out
    sheet = tmp_path / "sheet.png"
    assert main(["styles", "--sheet", str(sheet), "--size", "32"]) == 0
    assert size_of(sheet)[0] > 4 * 32
    capsys.readouterr()
    assert "does not exist" in refused(capsys, "styles", "--sheet", "/none/a.png", code=1)


def test_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["weights", "list"]) == 0
    text = capsys.readouterr().out
    assert "BSD-3-Clause" in text and "vgg19" in text
    assert main(["weights", "verify", "alexnet"]) == 0
    assert "alexnet: ok" in capsys.readouterr().out
    assert "vgg16" in refused(capsys, "weights", "verify", "resnet", code=1)
    assert "cannot be fetched" in refused(capsys, "weights", "fetch", "resnet", code=1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rubbish = tmp_path / "a.safetensors"
    rubbish.write_bytes(b"rubbish")
    argv = ["weights", "fetch", "vgg19", "--file", str(rubbish)]
    assert "not safetensors" in refused(capsys, *argv, code=1)


def test_show_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.png"
    save_picture(Image.new("RGB", (3, 3)), path, record=RECORD.to_json())
    assert main(["show-record", str(path)]) == 0
    assert RunRecord.from_json(capsys.readouterr().out) == RECORD


def test_flags_fill_in_order() -> None:
    parser = Parser()
    add_options(parser, StyleOptions, presets=PRESETS)
    arguments = parser.parse_args(["--preset", "draft", "--size", "50"])
    options = read_options(
        arguments, StyleOptions, presets=PRESETS, base={"seed": 4, "steps": 1}, init="noise"
    )
    assert options == StyleOptions(size=50, steps=90, seed=4, init="noise")


@given(st.text())
def test_a_message_is_one_printable_line(text: str) -> None:
    assert terminal.one_line(text).isprintable()


@given(st.lists(st.text(max_size=8), max_size=5))
def test_any_words_end_in_a_documented_code(words: list[str]) -> None:
    assert main(["layers", *words]) in (0, 1, 2)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.4, "59 s"), (185, "3:05"), (3723, "1:02:03")]
)
def test_duration(seconds: float, words: str) -> None:
    assert terminal.duration(seconds) == words


def test_a_table_is_aligned() -> None:
    assert terminal.table(("a", "b"), [("ccc", "1"), ("d", "22")], right=(1,)) == (
        "a     b\nccc   1\nd    22"
    )
