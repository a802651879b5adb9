"""A running page for tests, and visitors that talk to it as a browser does, without one."""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image

from stylecap.captioning.captioner import Captioner
from stylecap.captioning.captioner_file import save_captioner
from stylecap.captioning.features import View
from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.vocabulary import SPECIALS, Vocabulary

WORDS = ("a", "dog", "cat", "runs", "sits", "on", "the", "grass", "beach", "red", "ball", "with")


def write_captioner(path: Path) -> Path:
    """A captioner that has learnt nothing, for AlexNet."""
    torch.manual_seed(0)
    vocabulary = Vocabulary([*SPECIALS, *WORDS])
    view = View(backbone="alexnet", layers=("relu5",), side_px=128, grid=3)
    shape = DecoderShape(words=len(vocabulary), channels=256, positions=9, units=16, heads=2)
    save_captioner(Captioner([CaptionDecoder(shape)], vocabulary, view), path)
    return path


def write_photo(path: Path, size: tuple[int, int] = (96, 72), seed: int = 0) -> Path:
    """A small picture with something in it; its suffix names the format."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (6, 8, 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(coarse.numpy()).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


class Server:
    """A page in a process of its own.

    Attributes:
        address: without a slash at the end.
        process: that serves it.
        errors: what it wrote to stderr so far.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stylecap", "ui", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.errors: list[str] = []
        assert self.process.stderr is not None and self.process.stdout is not None
        self._listener = threading.Thread(
            target=lambda: self.errors.extend(self.process.stderr or ()), daemon=True
        )
        self._listener.start()
        line = self.process.stdout.readline()
        assert "http" in line, "".join(self.errors)
        self.address = line.split("at ")[1].split(" ")[0].rstrip("/")

    @property
    def memory_mb(self) -> float:
        """Resident memory of the process."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def close(self) -> None:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._listener.join(5)
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()


@contextmanager
def running(*arguments: str) -> Iterator[Server]:
    """A page that runs as long as the block."""
    server = Server(arguments)
    try:
        yield server
    finally:
        server.close()


class Visitor:
    """A browser of its own, without a screen.

    Attributes:
        http: its cookies and connections.
        session: of its tab.
    """

    def __init__(self, address: str, language: str = "en") -> None:
        self.root = f"{httpx.URL(address).path.rstrip('/')}/{language}"
        self.http = httpx.Client(base_url=address.split("/paint")[0], timeout=120)
        self.http.get(f"{self.root}/").raise_for_status()
        self.config = self.http.get(f"{self.root}/config").json()
        self.session = secrets.token_hex(6)
        self._numbers = {d["api_name"]: d["id"] for d in self.config["dependencies"]}
        self._inputs = {d["api_name"]: d["inputs"] for d in self.config["dependencies"]}
        self._components = {c["id"]: c for c in self.config["components"]}

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def upload(self, data: bytes | Path, name: str = "photo.png") -> httpx.Response:
        """Send a file."""
        content = data.read_bytes() if isinstance(data, Path) else data
        files = {"files": (data.name if isinstance(data, Path) else name, content)}
        return self.http.post(f"{self.root}/gradio_api/upload", files=files)

    def given(self, data: bytes | Path, name: str = "photo.png") -> dict[str, Any]:
        """Send a file, and name it as an input does."""
        return as_input(self.upload(data, name).json()[0])

    def defaults(self, event: str) -> list[Any]:
        """What the inputs of an event hold at first."""
        return [self._components[i]["props"].get("value") for i in self._inputs[event]]

    def labelled(self, event: str, **changes: Any) -> list[Any]:
        """The first values of an event's inputs, some changed, by their labels."""
        values = self.defaults(event)
        labels = [self._components[i]["props"].get("label") for i in self._inputs[event]]
        for label, value in changes.items():
            values[labels.index(label.replace("_", " "))] = value
        return values

    def join(
        self,
        event: str,
        data: list[Any],
        said: Any = None,
        instead: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Ask for an event, with parts of the call replaced."""
        body = {
            "fn_index": self._numbers[event],
            "data": data,
            "session_hash": self.session,
            "event_data": said,
            **(instead or {}),
        }
        return self.http.post(f"{self.root}/gradio_api/queue/join", json=body)

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the server says to this tab, until all it was asked for is done."""
        address = f"{self.root}/gradio_api/queue/data"
        with self.http.stream("GET", address, params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    if message["msg"] == "close_stream":
                        return
                    yield message

    def updates(self, event: str, data: list[Any], said: Any = None) -> Iterator[Any]:
        """Ask for an event, and give its outputs as they come."""
        self.join(event, data, said).raise_for_status()
        for message in self.messages():
            if message["msg"] in ("process_generating", "process_completed"):
                yield message["output"].get("data")

    def call(self, event: str, data: list[Any], said: Any = None) -> str:
        """Ask for an event, and give everything that it answered as one text."""
        return json.dumps(list(self.updates(event, data, said)))

    def call_now(self, event: str, data: list[Any], said: Any = None) -> str:
        """Ask for an event that does not wait in the queue, and give its answer as a text."""
        body = {
            "fn_index": self._numbers[event],
            "data": data,
            "session_hash": self.session,
            "event_data": said,
        }
        return self.http.post(f"{self.root}/gradio_api/run/{event}", json=body).text

    def paint(self, photo: dict[str, Any] | None, **changes: Any) -> str:
        """Paint something small, and give all that was said."""
        return self.call("paint", self.painting(photo, **changes))

    def painting(self, photo: dict[str, Any] | None, **changes: Any) -> list[Any]:
        """Inputs of a small painting."""
        small = {"Long_side,_px": 64, "Steps": 6, "Network": "alexnet"}
        small |= {"Stop_when_nothing_visible_changes": False, **changes}
        return self.labelled("paint", Your_photo=photo, **small)


def as_input(path: str) -> dict[str, Any]:
    """How an input names a file."""
    return {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}


def png_address(picture: Image.Image) -> str:
    """A picture as the page sends a painted mask."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
