"""What every tab is built with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from stylecap.server import faults
from stylecap.server.jobs import QUICK, BusyError, Job
from stylecap.server.site import Site, visitor
from stylecap.server.web import file_link
from stylecap.style.builtin import STYLES

from . import pieces
from .words import Words

_LOOK_SECONDS = 0.15  # how often a job is looked at for something new
_QUICK_SESSION = ""  # a quick job belongs to no tab: it is over before one could close


@dataclass(frozen=True, slots=True)
class Context:
    """A page of one language.

    Attributes:
        site: behind all pages.
        words: of the page's language.
    """

    site: Site
    words: Words

    def owner(self, request: gr.Request) -> str:
        """Whose request it is.

        Raises:
            InputError: nobody's.
        """
        return visitor(request)

    def link(self, name: str, file: str, *, download: bool = False) -> str:
        """The address of a file of the visitor's own."""
        return file_link(self.site, name, file, download=download)

    def alert(self, error: BaseException) -> str:
        """An error as one sentence of the page; the rest goes to the log."""
        fault = faults.note(error)
        if isinstance(error, BusyError) and error.own:
            fault = faults.Fault("busy.own", fault.number, "")
        return pieces.alert(self.words, fault)

    def style_names(self) -> list[tuple[str, str]]:
        """(what it is called on the page, name) of the built-in styles."""
        return [(self.words.style(name), name) for name in STYLES]

    async def quickly(self, request: gr.Request, work: Callable[[], Any]) -> Any:
        """Compute something short in the worker, between the steps of what runs there.

        Raises:
            BusyError: too much is waiting.
            BaseException: what the work raised.
        """
        job = self.site.queue.submit(
            self.owner(request), _QUICK_SESSION, lambda _: work(), lane=QUICK
        )
        while not job.ended:
            await asyncio.sleep(0.03)
        if job.error is not None:
            raise job.error
        return job.result

    async def changes(self, job: Job) -> AsyncIterator[int]:
        """Something new about a job, as its place in the line; until it ends."""
        seen: tuple[Any, ...] = ()
        while not job.ended:
            place = self.site.queue.place(job)
            now = (place, job.progress, job.found.get("shown"))
            if now != seen:
                seen = now
                yield place
            await asyncio.sleep(_LOOK_SECONDS)
