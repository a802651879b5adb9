"""Every command of the README is run, the long ones shortened by appending flags."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import stylecap
from stylecap.cli.main import COMMANDS, build_parser, main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
_SHELL = [line for kind, text in _BLOCKS if kind == "bash" for line in text.splitlines() if line]
_INLINE = re.findall(r"`(stylecap [^`]*[^`. ])`", README)
#: Flags after which a command of the README is done in a moment.
SHORTER = {
    "stylize": "--backbone alexnet --size 64 --steps 2 --scales 1 --precision float32 --quiet",
    "styles": "--size 32",
}
#: Commands that serve for ever, train, need files of yours, or bring what is not here: their flags
#: are checked.
PARSED_ONLY = re.compile(
    r"ui|train-|evaluate-|weights fetch|classify|detect|batch|.*holiday/|.*my-captioner"
)
#: What is only named in a sentence, such as `stylecap index`, is left out.
COMMAND_LINES = sorted(
    {re.sub(r"\s+#.*", "", line) for line in _SHELL if line.startswith("stylecap ")}
    | {line for line in _INLINE if line.count(" ") > 1 or line.split()[1] in ("styles", "layers")}
)
#: Flags in the first column of the table of controls stand for `stylecap stylize` with them.
CONTROLS = sorted(
    flags
    for row in re.search(r"## Controls\n(.*?)\n## ", README, re.DOTALL)[1].splitlines()
    for flags in re.findall(r"`(--[a-z][^`]*)`", row.split("(")[0])
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    for order, name in enumerate(("photo.jpg", "painting.jpg", "a.jpg", "b.jpg")):
        source = ROOT / "samples" / ("chelsea.jpg", "coffee.jpg")[order % 2]
        shutil.copyfile(source, tmp_path / name)
    shutil.copyfile(ROOT / "samples" / "coffee.jpg", tmp_path / "out.png")
    (tmp_path / "photos").mkdir()
    for name in ("chelsea.jpg", "rocket.jpg"):
        shutil.copyfile(ROOT / "samples" / name, tmp_path / "photos" / name)
    mask = Image.new("RGB", (90, 60), "white")
    mask.paste("black", (45, 0, 90, 60))
    mask.save(tmp_path / "mask.png")
    return tmp_path


def run(line: str) -> None:
    """Run one line as a user would, but quickly."""
    words = shlex.split(line)
    assert words.pop(0) == "stylecap"
    assert words[0].startswith("-") or words[0] in COMMANDS, f"there is no command {words[0]}"
    if PARSED_ONLY.match(" ".join(words)) and "--help" not in words:
        build_parser(words[0]).parse_args(words)
        return
    if "--from-record" in words:
        words = [*words, "samples/chelsea.jpg"]
    else:
        words += shlex.split(SHORTER.get(words[0], "")) if "--help" not in words else []
    if words[:1] == ["styles"] and "--sheet" not in words:
        words = ["styles"]
    assert main(words) == 0


@pytest.mark.real_weights
@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_runs(line: str, folder: Path) -> None:
    if re.search(r"show-record|--from-record", line):  # what the first one of the README made
        run("stylecap stylize samples/chelsea.jpg night-swirls -o cat.png")
    if line.startswith("stylecap search"):
        run("stylecap index photos")
    run(line)


@pytest.mark.real_weights
@pytest.mark.parametrize("flags", CONTROLS)
def test_every_control_is_taken_by_stylize(flags: str, folder: Path) -> None:
    run(f"stylecap stylize photo.jpg mosaic -o o.png {flags}")
    assert (folder / "o.png").is_file()


def test_scripts_of_the_readme_are_there() -> None:
    named = {line.split()[0] for line in _SHELL if line.startswith("./scripts/")}
    assert named >= {"./scripts/quickstart", "./scripts/test"}
    for script in named:
        assert (ROOT / script).stat().st_mode & 0o111


def test_linked_files_are_there_and_small() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert "docs/styles.jpg" in links
    for link in links:
        assert (ROOT / link).is_file(), link
        if link.endswith((".jpg", ".png")):
            assert (ROOT / link).stat().st_size < 200_000, link
            with Image.open(ROOT / link) as figure:
                figure.load()


@pytest.mark.real_weights
@pytest.mark.parametrize(
    "text", [text for kind, text in _BLOCKS if kind == "python"], ids=lambda text: text[:40]
)
def test_python_of_the_readme_runs(
    text: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = stylecap.stylize

    def shortened(content: Any, style: Any, options: Any = None, **given: Any) -> Any:
        return really(content, style, stylecap.StyleOptions(size=64, steps=2, scales=1), **given)

    monkeypatch.setattr(stylecap, "stylize", shortened, raising=False)
    before = set(folder.iterdir())
    exec(compile(text, "README.md", "exec"), {"stylecap": stylecap})
    if ".save(" in text:
        assert set(folder.iterdir()) > before
