"""Hostile inputs: each ends with one line and a documented exit code, or a correct picture."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stylecap.cli.main import main
from stylecap.images import save_picture
from stylecap.record import RunRecord
from stylecap.weights import MANIFEST, find_weights

TINY = [
    "--size", "32", "--steps", "1", "--scales", "1", "--backbone", "alexnet",
    "--device", "cpu", "--precision", "float32", "--quiet",
]  # fmt: skip
SIDE = 40
Build = Callable[[Path], Any]


def noise(mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """A picture of any mode with something to see in it."""
    values = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(values).convert("RGB").convert(mode)


def saved(path: Path, picture: Image.Image | None = None, **options: Any) -> bytes:
    """Write a picture and give its bytes."""
    (picture or noise()).save(path, **options)
    return path.read_bytes()


def cut(path: Path, share: float = 0.5) -> None:
    """Write a picture of which only the first part is there."""
    data = saved(path)
    path.write_bytes(data[: int(len(data) * share)])


def png(width: int, height: int, data: bytes = b"\0" * 64) -> bytes:
    """A PNG file with any size in its header."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def flipped(path: Path) -> None:
    """Write a PNG with one wrong byte in its pixels."""
    data = bytearray(saved(path))
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def animated(path: Path) -> None:
    """Write a picture of three frames."""
    frames = [noise(), Image.new("RGB", (SIDE, SIDE), "red"), noise()]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)


def palette(path: Path) -> None:
    """Write a PNG with a palette and a transparent colour."""
    saved(path, noise("P"), transparency=3)


def rotated(path: Path) -> None:
    """Write a JPEG that lies on its side."""
    exif = Image.Exif()
    exif[274] = 6
    saved(path, exif=exif)


def float_tiff(path: Path) -> None:
    """Write a TIFF of floats, some of which are not numbers."""
    values = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    values[0, 0], values[1, 1] = np.nan, np.inf
    saved(path, Image.fromarray(values))


def deep_png(path: Path) -> None:
    """Write a grey PNG of 16 bits."""
    saved(path, Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)))


#: Name of the content file, how it is made, and the exit code.
CONTENTS: dict[str, tuple[str, Build, int]] = {
    "empty": ("a.png", lambda p: p.write_bytes(b""), 1),
    "one byte": ("a.png", lambda p: p.write_bytes(b"\x89"), 1),
    "only a signature": ("a.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), 1),
    "truncated png": ("a.png", cut, 1),
    "truncated jpeg": ("a.jpg", cut, 1),
    "truncated webp": ("a.webp", cut, 1),
    "truncated gif": ("a.gif", cut, 1),
    "truncated tiff": ("a.tif", cut, 1),
    "truncated bmp": ("a.bmp", cut, 1),
    "truncated avif": ("a.avif", cut, 1),
    "last tenth missing": ("a.png", lambda p: cut(p, 0.9), 1),
    "flipped byte": ("a.png", flipped, 1),
    "text": ("a.png", lambda p: p.write_text("not a picture\n"), 1),
    "html": ("a.jpg", lambda p: p.write_text("<html><body>404</body></html>"), 1),
    "svg": ("a.png", lambda p: p.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), 1),
    "pdf": ("a.png", lambda p: p.write_bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), 1),
    "postscript": ("a.eps", lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), 1),
    "zip": ("a.png", lambda p: p.write_bytes(b"PK\x03\x04" + bytes(100)), 1),
    "zeros": ("a.png", lambda p: p.write_bytes(bytes(1 << 20)), 1),
    "random bytes": ("a.png", lambda p: p.write_bytes(random.Random(3).randbytes(9999)), 1),
    "heic header": ("a.heic", lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + bytes(99)), 1),
    "bomb": ("a.png", lambda p: p.write_bytes(png(100_000, 100_000)), 1),
    "bomb of all bits": ("a.png", lambda p: p.write_bytes(png(2**31 - 1, 2**31 - 1)), 1),
    "header promises more": ("a.png", lambda p: p.write_bytes(png(500, 500)), 1),
    "no width": ("a.png", lambda p: p.write_bytes(png(0, 5)), 1),
    "gif bomb": ("a.gif", lambda p: p.write_bytes(b"GIF89a\xff\xff\xff\xff\0\0\0;"), 1),
    "bmp without end": ("a.bmp", lambda p: p.write_bytes(
        b"BM" + struct.pack("<IHHIIiiHH", 99, 0, 0, 54, 40, -5, 2**31 - 1, 1, 24) + bytes(24)), 1),
    "one pixel": ("a.png", lambda p: saved(p, noise(size=(1, 1))), 0),
    "wide line": ("a.png", lambda p: saved(p, noise(size=(10_000, 1))), 1),
    "tall line": ("a.png", lambda p: saved(p, noise(size=(1, 10_000))), 1),
    "folder": ("a.png", lambda p: p.mkdir(), 1),
    "missing": ("a.png", lambda p: None, 1),
    "pipe": ("a.png", lambda p: os.mkfifo(p), 1),
    "link to itself": ("a.png", lambda p: p.symlink_to(p), 1),
    "dangling link": ("a.png", lambda p: p.symlink_to(p.parent / "none.png"), 1),
    "link to a device": ("a.png", lambda p: p.symlink_to("/dev/zero"), 1),
    "good link": ("a.png", lambda p: p.symlink_to(p.parent / "style.png"), 0),
    "png named jpg": ("a.jpg", lambda p: saved(p, format="PNG"), 0),
    "jpg without suffix": ("a", lambda p: saved(p, format="JPEG"), 0),
    "gif named png": ("a.png", lambda p: saved(p, format="GIF"), 0),
    "animated gif": ("a.gif", animated, 0),
    "animated webp": ("a.webp", animated, 0),
    "animated png": ("a.png", animated, 0),
    "palette": ("a.png", palette, 0),
    "16 bits": ("a.png", deep_png, 0),
    "floats": ("a.tif", float_tiff, 0),
    "cmyk": ("a.jpg", lambda p: saved(p, noise("CMYK")), 0),
    "one bit": ("a.png", lambda p: saved(p, noise("1")), 0),
    "grey with alpha": ("a.png", lambda p: saved(p, noise("LA")), 0),
    "all transparent": ("a.png", lambda p: saved(p, Image.new("RGBA", (SIDE, SIDE))), 0),
    "one colour": ("a.png", lambda p: saved(p, Image.new("RGB", (SIDE, SIDE))), 0),
    "wrong profile": ("a.png", lambda p: saved(p, icc_profile=b"rubbish" * 9), 0),
    "wrong exif": ("a.jpg", lambda p: saved(p, exif=b"Exif\0\0rubbish" * 9), 0),
    "lying on its side": ("a.jpg", rotated, 0),
    "umlaut": ("Köln ÄÖÜ.png", saved, 0),
    "other scripts": ("日本 \u05d0\u05d1 🎨.png", saved, 0),
    "line break": ("a\nb.png", saved, 0),
    "line break, missing": ("a\nb\x1b[31m.png", lambda p: None, 1),
    "not unicode": (os.fsdecode(b"a\xff\xfe.png"), saved, 0),
    "not unicode, missing": (os.fsdecode(b"a\xff\xfe.png"), lambda p: None, 1),
    "percent": ("%s %d {0}.png", saved, 0),
    "name too long": ("a" * 300 + ".png", lambda p: None, 1),
    "no name": ("", lambda p: None, 1),
    "zero in the name": ("a\0b.png", lambda p: None, 1),
}  # fmt: skip

#: Words after ``stylize`` (good.png and style.png are sound), exit code, part of the message.
COMMANDS: dict[str, tuple[list[str], int, str]] = {
    "unknown style": (["good.png", "van-gogh"], 1, "built-in"),
    "style is a folder": (["good.png", "."], 1, "folder"),
    "style is damaged": (["good.png", "cut.png"], 1, "damaged"),
    "second style is damaged": (["good.png", "style.png", "cut.png"], 1, "damaged"),
    "mask is text": (["good.png", "style.png", "mosaic", "--mask", "text.png"], 1, "text"),
    "mask without black": (
        ["good.png", "style.png", "mosaic", "--mask", "white.png"], 1, "#000000"),
    "mask is missing": (["good.png", "style.png", "mosaic", "--mask", "no.png"], 1, "exist"),
    "same colour twice": (
        ["good.png", "style.png", "mosaic", "--mask", "white.png",
         "--mask-styles", "#ffffff,#ffffff"], 2, "colour"),
    "start is damaged": (["good.png", "style.png", "--init-image", "cut.png"], 1, "damaged"),
    "fine style is damaged": (
        ["good.png", "--fine-style", "cut.png", "--coarse-style", "mosaic"], 1, "damaged"),
    "missing folder": (["good.png", "style.png", "-o", "no/out.png"], 1, "folder"),
    "below a file": (["good.png", "style.png", "-o", "good.png/out.png"], 1, "folder"),
    "output is a folder": (["good.png", "style.png", "-o", "dir.png"], 1, "folder"),
    "output is the content": (["good.png", "style.png", "-o", "good.png"], 2, "input"),
    "output is the style": (["good.png", "style.png", "-o", "./style.png"], 2, "input"),
    "output is linked": (["good.png", "style.png", "-o", "link.png"], 2, "input"),
    "no suffix": (["good.png", "style.png", "-o", "out"], 1, "format"),
    "unknown suffix": (["good.png", "style.png", "-o", "out.exe"], 1, "format"),
    "output name too long": (["good.png", "style.png", "-o", "o" * 300 + ".png"], 1, "long"),
    "zero in the output": (["good.png", "style.png", "-o", "o\0.png"], 1, "zero byte"),
    "into a device": (["good.png", "style.png", "-o", "/dev/null/out.png"], 1, "folder"),
    "size too small": (["good.png", "style.png", "--size", "16"], 1, "size"),
    "unknown layer": (["good.png", "style.png", "--style-layers", "relu9_9"], 2, "relu9_9"),
    "too many weights": (["good.png", "style.png", "--blend", "1,2,3"], 2, "blend"),
    "unknown device": (["good.png", "style.png", "--device", "abacus"], 1, "abacus"),
    "no such device": (["good.png", "style.png", "--device", "cpu:x"], 1, "cpu:x"),
    "record is none": (["--from-record", "good.png"], 1, "no run record"),
    "record is rubbish": (["--from-record", "rubbish.png"], 1, "JSON"),
    "record climbs out": (["--from-record", "climbs.png"], 1, "without a folder"),
    "record without inputs": (["--from-record", "bare.png"], 1, "content"),
    "record of damaged file": (["--from-record", "cut.png"], 1, "no run record"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a style in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STYLECAP_DEBUG", raising=False)
    saved(tmp_path / "style.png")
    return tmp_path


def check(
    code: int, printed: Any, output: Path, before: set[Path], size: tuple[int, int] | None
) -> None:
    """What holds for every case: one line or a picture, and nothing else in the folder."""
    assert printed.out == ""
    assert "Traceback" not in printed.err and "unexpected" not in printed.err, printed.err
    added = set(output.parent.iterdir()) - before
    if code == 0:
        assert printed.err == ""
        assert added == {output}
        with Image.open(output) as picture:
            picture.load()
            assert size is None or picture.size == size
    else:
        assert code in (1, 2)
        assert printed.err.startswith("stylecap: error: ") and printed.err.count("\n") == 1
        assert printed.err.rstrip("\n").isprintable()
        assert added == set()


@pytest.mark.parametrize("case", CONTENTS)
def test_hostile_content(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, build, expected = CONTENTS[case]
    if "\0" not in name and len(name) < 255 and name:
        build(folder / name)
    before = set(folder.iterdir())
    output = folder / "out.png"
    code = main(["stylize", name, "style.png", "-o", str(output), *TINY])
    check(code, capsys.readouterr(), output, before, (32, 32))
    assert code == expected


@pytest.mark.parametrize("case", COMMANDS)
def test_hostile_command(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, expected, reason = COMMANDS[case]
    saved(folder / "good.png")
    (folder / "link.png").symlink_to("good.png")
    (folder / "dir.png").mkdir()
    (folder / "text.png").write_text("no picture")
    cut(folder / "cut.png")
    saved(folder / "white.png", Image.new("RGB", (SIDE, SIDE), "white"))
    record = json.loads(RunRecord("stylize", {}).to_json())
    for name, text in {
        "rubbish": "{",
        "bare": json.dumps(record),
        "climbs": json.dumps(
            {**record, "inputs": [{"role": "content", "name": "../x.png", "sha256": ""}]}
        ),
    }.items():
        save_picture(noise(), folder / f"{name}.png", record=text)
    before = set(folder.iterdir())
    output = folder / "out.png"
    where = [] if "-o" in words else ["-o", str(output)]
    tiny = TINY[:-1] if "--from-record" in words else TINY
    code = main(["stylize", *tiny, *where, *words])
    printed = capsys.readouterr()
    check(code, printed, output, before, (32, 32))
    assert code == expected
    assert reason in printed.err


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX systems")
def test_permissions_as_an_ordinary_user() -> None:
    """Root may write everywhere, so root tries it as somebody else."""
    place = Path(tempfile.mkdtemp(prefix="stylecap-permissions-"))
    try:
        saved(place / "style.png")
        saved(place / "secret.png")
        for name in ("locked", "closed", "open"):
            (place / name).mkdir()
        saved(place / "closed" / "a.png")
        saved(place / "open" / "kept.png")
        weights = find_weights("alexnet")
        (place / "weights").mkdir()
        for source in (weights, weights.with_name(MANIFEST)):
            shutil.copyfile(source, place / "weights" / source.name)
            (place / "weights" / source.name).chmod(0o644)
        kept = (place / "open" / "kept.png").read_bytes()
        for name, mode in [
            (".", 0o755), ("weights", 0o755), ("style.png", 0o644),
            ("secret.png", 0o000), ("locked", 0o555),
            ("closed", 0o000), ("open/kept.png", 0o444), ("open", 0o777),
        ]:  # fmt: skip
            (place / name).chmod(mode)
        cases = [
            (["secret.png", "style.png", "-o", "open/o.png"], 1, "permission"),
            (["style.png", "secret.png", "-o", "open/o.png"], 1, "permission"),
            (["style.png", "mosaic", "-o", "locked/o.png"], 1, "folder"),
            (["closed/a.png", "mosaic", "-o", "open/o.png"], 1, "ermission"),
            (["style.png", "mosaic", "-o", "closed/o.png"], 1, "ermission"),
            (["style.png", "mosaic", "-o", "open/kept.png"], 1, "read-only"),
            (["style.png", "mosaic", "watercolor", "-o", "open/o.png", "--mask", "secret.png"], 1,
             "permission"),
            (["style.png", "mosaic", "-o", "open/o.png", "--init-image", "secret.png"], 1,
             "permission"),
            (["--from-record", "secret.png", "-o", "open/o.png"], 1, "permission"),
            (["style.png", "mosaic", "-o", "open/o.png"], 0, ""),
        ]  # fmt: skip
        program = (
            "import contextlib, io, json, os, sys\n"
            "from stylecap.cli.main import main\n"
            "tiny, cases, user = json.loads(sys.stdin.read())\n"
            "# Import now what is imported late: perhaps only root may read the interpreter.\n"
            "assert main(['stylize', *tiny, *cases[-1]]) == 0\n"
            "again = ['--from-record', 'open/o.png', 'style.png', '-o', 'open/p.png']\n"
            "assert main(['stylize', *tiny, *again]) == 0\n"
            "os.remove('open/o.png'), os.remove('open/p.png')\n"
            "if user:\n"
            "    os.setgroups([]), os.setgid(user), os.setuid(user)\n"
            "for words in cases:\n"
            "    with contextlib.redirect_stderr(io.StringIO()) as stream:\n"
            "        code = main(['stylize', *tiny, *words])\n"
            "    print(json.dumps([code, stream.getvalue()]))\n"
        )
        user = 65534 if os.geteuid() == 0 else 0
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps([TINY, [words for words, _, _ in cases], user]),
            capture_output=True, text=True, cwd=place, timeout=120,
            env={
                **os.environ, "PYTHONPATH": str(root), "HOME": str(place),
                "XDG_CACHE_HOME": str(place / "cache"),
                "STYLECAP_WEIGHTS": str(place / "weights"),
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results = [json.loads(line) for line in done.stdout.splitlines()]
        for (words, code, reason), (found, message) in zip(cases, results, strict=True):
            assert (found, message.count("\n")) == (code, int(code != 0)), (words, message)
            assert reason in message and "Traceback" not in message, (words, message)
        assert {path.name for path in (place / "open").iterdir()} == {"kept.png", "o.png"}
        assert (place / "open" / "kept.png").read_bytes() == kept
    finally:
        (place / "closed").chmod(0o755)
        shutil.rmtree(place)


def test_a_run_is_repeated_bit_for_bit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(folder / "good.png")
    words = ["good.png", "style.png", "mosaic", "--blend", "1,2", "--init", "noise", "--seed", "5"]
    assert main(["stylize", *words, "-o", "one.png", *TINY, "--steps", "3"]) == 0
    assert main(["stylize", "--from-record", "one.png", "--quiet"]) == 0
    with Image.open("one.png") as one, Image.open("one-again.png") as two:
        assert one.tobytes() == two.tobytes()
    (folder / "good.png").unlink()
    assert main(["stylize", "--from-record", "one.png", "-o", "three.png"]) == 1
    assert "good.png" in capsys.readouterr().err
