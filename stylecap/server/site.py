"""What all visitors of one running page share: networks, the line of jobs, the pictures kept."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from stylecap.errors import InputError, WeightsError
from stylecap.files import cache_folder
from stylecap.server import faults
from stylecap.server.batches import Batches
from stylecap.server.history import History, owner_of
from stylecap.server.jobs import QUICK, BusyError, JobQueue
from stylecap.server.options import PageOptions
from stylecap.style.builtin import STYLES
from stylecap.style.cache import StyleCache
from stylecap.style.options import StyleOptions

if TYPE_CHECKING:
    from stylecap.backbone import Backbone
    from stylecap.captioning.captioner import Captioner
    from stylecap.estimate import Measured
    from stylecap.server.jobs import Job

COOKIE = "stylecap"
_NETWORKS = 3  # kept loaded at a time
_TILES = Path(__file__).parent / "tiles"  # painted by `paint_style`, for that takes a while
_SWEEP_SECONDS = 300
_STYLE_BYTES = 32 * 2**20  # of styles kept ready


class Site:
    """Everything behind the page; made once, used by all requests and the worker.

    Args:
        options: of the page.
    """

    def __init__(self, options: PageOptions) -> None:
        self.options = options
        folder = Path(options.folder or cache_folder() / "page")
        self.history = History(folder.expanduser(), options.keep_hours * 3600)
        for style in STYLES:
            shutil.copyfile(_TILES / f"{style}.webp", self.tile(style))
        self.queue = JobQueue(options.max_waiting, options.max_each)
        self.batches = Batches(self)
        self.styles = StyleCache(_STYLE_BYTES)
        self._uploads: dict[str, set[str]] = {}
        self._networks: OrderedDict[str, Backbone] = OrderedDict()
        self._captioner: Captioner | None = None
        self._costs: dict[str, Measured] = {}
        self._lock = threading.RLock()

    # networks; for the worker

    def backbone(self, name: str) -> Backbone:
        """A network, loaded when it is first asked for.

        Raises:
            OptionError, WeightsError: as `stylecap.load_backbone`.
        """
        from stylecap.backbone import load_backbone

        with self._lock:
            if name not in self._networks:
                self._networks[name] = load_backbone(name)
            self._networks.move_to_end(name)
            while len(self._networks) > _NETWORKS:
                self._networks.popitem(last=False)
            return self._networks[name]

    def captioner(self) -> Captioner:
        """The captioner, loaded when it is first asked for.

        Raises:
            WeightsError: there is none here, or its file is none.
        """
        from stylecap.captioning.captioner_file import load_captioner

        with self._lock:
            if self._captioner is None:
                try:
                    self._captioner = load_captioner(self.options.captioner)
                except InputError as error:  # to a visitor, an input is a picture
                    raise WeightsError(str(error)) from error
            return self._captioner

    def warm_up(self, job: Job) -> None:
        """Load what most visitors need first; for the worker."""
        self.backbone("vgg16")
        with suppress(Exception):  # whoever asks for a caption is told why there is none
            self.captioner()

    def measure(self, job: Job) -> None:
        """See how fast the networks are, if this machine does not remember; for the worker."""
        from stylecap.estimate import measure_network

        for name in ("vgg16", "alexnet"):
            job.give_way()
            with suppress(Exception):  # only the line beside the button is missing then
                self._costs[name] = measure_network(self.backbone(name))

    def cost(self, name: str) -> Measured | None:
        """How fast a network is here, once it was measured."""
        return self._costs.get(name)

    def prepare(self, style: str, options: StyleOptions) -> None:
        """Paint a built-in style that is likely to be asked for next, if the line is short."""
        from stylecap.inputs import prepare_style

        if options.size > self.options.max_size:
            return
        with suppress(BusyError):
            self.queue.submit("", "", lambda _: prepare_style(style, options, self.styles), QUICK)

    # pictures

    def tile(self, style: str) -> Path:
        """A built-in style as a small picture.

        Raises:
            InputError: there is no such style.
        """
        if style not in STYLES:
            raise InputError("style: there is no built-in style of that name")
        return self.history.shared / f"{style}.webp"

    def forget_uploads(self, owner: str) -> None:
        """Delete what a visitor sent, unless others sent the same file."""
        with self._lock:
            for path, owners in list(self._uploads.items()):
                owners.discard(owner)
                if not owners:
                    del self._uploads[path]
                    with suppress(OSError):
                        os.unlink(path)

    def remember_upload(self, owner: str, path: str) -> None:
        """Note whose an uploaded file is."""
        with self._lock:
            self._uploads.setdefault(os.path.realpath(path), set()).add(owner)

    def may_read(self, owner: str, path: str | Path) -> bool:
        """Whether a visitor may see a file of the store: shared, kept for or sent by them."""
        if "\0" in str(path):
            return False
        real = os.path.realpath(path)
        with self._lock:
            sent = owner in self._uploads.get(real, ())
        return (sent and os.path.isfile(real)) or self.history.may_read(owner, Path(path))

    @overload
    def given(self, owner: str, path: str) -> Path: ...

    @overload
    def given(self, owner: str, path: str | None) -> Path | None: ...

    def given(self, owner: str, path: str | None) -> Path | None:
        """A file that came with a request, if it is the visitor's to use.

        Raises:
            InputError: it is not.
        """
        if path is None:
            return None
        if not isinstance(path, str) or not self.may_read(owner, path):
            raise InputError("this picture is no longer here; add it again")
        return Path(path)

    # its life

    async def sweep_forever(self) -> None:
        """Delete what is too old, now and every few minutes."""
        while True:
            await asyncio.to_thread(self.sweep)
            await asyncio.sleep(min(_SWEEP_SECONDS, self.history.keep_seconds / 4 + 1))

    def sweep(self) -> None:
        """Delete what is too old, and forget uploads that are gone."""
        try:
            self.history.sweep()
        except OSError as error:
            faults.note(error)
        with self._lock:
            for path in [path for path in self._uploads if not os.path.exists(path)]:
                del self._uploads[path]

    def close(self) -> None:
        """Stop all jobs."""
        self.queue.close()


def visitor(request: Any) -> str:
    """Whose request this is, by its cookie.

    Args:
        request: of starlette, FastAPI or gradio.
    Raises:
        InputError: it carries no cookie.
    """
    secret = request.cookies.get(COOKIE) if request is not None else None
    if not secret:
        raise InputError("this visitor is unknown; reload the page and allow its cookie")
    return owner_of(str(secret))


def default_preset() -> str:
    """What to begin with on this machine: a draft where there is only a CPU."""
    from stylecap.runtime import available_devices

    return "balanced" if available_devices()[0] != "cpu" else "draft"


def within_limits(options: StyleOptions, limits: PageOptions) -> StyleOptions:
    """Options cut to what the page allows."""
    size, steps = min(options.size, limits.max_size), min(options.steps, limits.max_steps)
    return replace(options, size=size, steps=steps)
