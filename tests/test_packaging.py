"""Wheel and source archive: built, looked into, installed elsewhere and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LARGEST_BYTES = 95_000_000  # of a file that the package index takes without asking


def run(*words: object, cwd: Path, **environment: str) -> str:
    """Run a program outside the checkout, without anything that points back to it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "STYLECAP"))}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env={**clean, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.mark.slow
def test_wheel_and_source_archive_carry_what_they_need(built: Path) -> None:
    (wheel,), (archive,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.stat().st_size < LARGEST_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "stylecap" in tops  # and its .dist-info: no top-level `ui`
    for file in (ROOT / "weights").iterdir():
        assert f"stylecap/_weights/{file.name}" in names
    for file in (ROOT / "ui").glob("*.py"):
        assert f"stylecap/_ui/{file.name}" in names
    assert "stylecap/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    with tarfile.open(archive) as source:
        inside = {name.split("/", 1)[1] for name in source.getnames() if "/" in name}
    for needed in ("weights/manifest.json", "hatch_build.py", "pyproject.toml", "README.md"):
        assert needed in inside
    assert {"LICENSE", "CHANGELOG.md", "scripts/quickstart", "samples/chelsea.jpg"} <= inside


def environment(folder: Path) -> Path:
    """A fresh environment that borrows the heavy requirements; gives its folder of programs."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    # Searched after the environment's own packages. An editable stylecap there is not taken
    # over, since .pth files inside a borrowed folder are not followed.
    (packages_of(scripts) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def packages_of(scripts: Path) -> Path:
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(run(scripts / "python", "-c", program, cwd=scripts).strip())


@pytest.mark.slow
def test_the_installed_wheel_paints_from_another_folder(built: Path, tmp_path: Path) -> None:
    scripts = environment(tmp_path / "env")
    (wheel,) = built.glob("*.whl")
    run(scripts / "python", "-m", "pip", "install", "--no-deps", "--quiet", wheel, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    home = {"HOME": str(elsewhere), "XDG_CACHE_HOME": str(elsewhere / "cache")}
    command = scripts / "stylecap"
    listed = run(command, "weights", "list", cwd=elsewhere, **home)
    assert str(packages_of(scripts) / "stylecap" / "_weights") in listed
    assert str(ROOT) not in listed
    flags = ["--size", "96", "--steps", "6", "--json", "-o", "o.png"]
    photo = ROOT / "samples" / "chelsea.jpg"
    told = json.loads(run(command, "stylize", photo, "night-swirls", *flags, cwd=elsewhere, **home))
    assert (told["steps"], told["width"], told["height"]) == (6, 96, 64)
    assert told["loss"]["total"] < 0.85  # where it began
    assert (elsewhere / "o.png").stat().st_size > 5_000
    assert json.loads(run(command, "show-record", "o.png", cwd=elsewhere))["kind"] == "stylize"


@pytest.mark.slow
def test_an_editable_install_reads_the_checkout(tmp_path: Path) -> None:
    scripts = environment(tmp_path / "env")
    flags = ["--no-deps", "--quiet", "--editable"]
    run(scripts / "python", "-m", "pip", "install", *flags, ROOT, cwd=tmp_path)
    listed = run(scripts / "stylecap", "weights", "list", cwd=tmp_path)
    assert str(ROOT / "weights" / "vgg16.safetensors") in listed and "_weights" not in listed
    assert not (ROOT / "stylecap" / "_weights").exists()  # a copy would go stale
