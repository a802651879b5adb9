"""The FastAPI app around the page: health, the visitor's own files, the way to a language."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)

from stylecap import __version__
from stylecap.errors import OptionError, StylecapError
from stylecap.server.guard import Guard
from stylecap.server.options import PageOptions
from stylecap.server.painting import jpeg_of
from stylecap.server.site import Site, visitor

LANGUAGES = ("en", "ko")
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" '
    'rx="7" fill="#4338ca"/><path d="M6 20c6-12 10 6 20-8" stroke="#fbbf24" stroke-width="4" '
    'fill="none" stroke-linecap="round"/></svg>'
)
_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".csv": "text/csv; charset=utf-8",
    ".zip": "application/zip",
    ".json": "application/json",
}


def frame(site: Site) -> FastAPI:
    """The app without its pages, which are mounted under the languages."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(site.sweep_forever())
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.to_thread(site.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    root = site.options.root_path

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok", "version": __version__, **site.queue.counts()})

    @app.get("/")
    def welcome(request: Request) -> RedirectResponse:
        language = preferred_language(request.headers.get("accept-language", ""))
        return RedirectResponse(f"{root}/{language}/", 302, {"vary": "accept-language"})

    @app.get("/favicon.svg")
    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(_ICON, media_type="image/svg+xml")

    @app.get("/files/{name}/{file:path}")
    def own_file(name: str, file: str, request: Request, download: bool = False) -> Response:
        return _own_file(site, visitor(request), name, file, download=download)

    app.add_middleware(Guard, site=site)
    return app


def file_link(site: Site, name: str, file: str, *, download: bool = False) -> str:
    """Where a visitor's browser finds one of the visitor's own files."""
    return f"{site.options.root_path}/files/{name}/{quote(file)}" + "?download=1" * download


def preferred_language(header: str) -> str:
    """The first of `LANGUAGES` in an ``Accept-Language`` header, by its weights."""
    wanted = []
    for place, part in enumerate(header.split(",")[:20]):
        name, _, weight = part.strip().partition(";q=")
        try:
            weight_ = float(weight) if weight else 1.0
        except ValueError:
            weight_ = 0.0
        wanted.append((-weight_, place, name.lower().split("-")[0]))
    return next((name for _, _, name in sorted(wanted) if name in LANGUAGES), LANGUAGES[0])


def serve(app: FastAPI, options: PageOptions, ready: Callable[[str], None]) -> None:
    """Listen until the process is asked to end.

    Args:
        app: of `create_app`.
        options: where to listen.
        ready: called with the page's address when it answers.
    Raises:
        OptionError: the host or the port cannot be had.
    """
    import uvicorn

    listener = _listener(options)
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=3,
        limit_concurrency=1000,
        server_header=False,
        # Only a proxy on this machine is believed about where a request came from.
        forwarded_allow_ips="127.0.0.1",
    )
    server = uvicorn.Server(config)
    shown = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{shown}:{port}{options.root_path}/"

    def announce() -> None:
        while not server.started and not server.should_exit:
            threading.Event().wait(0.05)
        if server.started:
            ready(address)

    threading.Thread(target=announce, daemon=True).start()
    server.run(sockets=[listener])


def _listener(options: PageOptions) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError as error:
        raise OptionError(
            f"host, port: cannot listen on {options.host}:{options.port} "
            f"({error.strerror or error}); choose another --port"
        ) from error
    return listener


def _own_file(site: Site, owner: str, name: str, file: str, *, download: bool) -> Response:
    try:
        if file == "result.jpg":
            jpeg_of(site.history, owner, name)
        if file == "all.zip":
            site.batches.pack(owner, name)
        path = site.history.file(owner, name, file)
    except (StylecapError, OSError):
        path = None
    if path is None:
        return PlainTextResponse("There is nothing here.", 404)
    kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
    return FileResponse(
        path,
        media_type=kind,
        headers={"cache-control": "private, max-age=3600"},
        filename=site.history.download_name(owner, name, path) if download else None,
        content_disposition_type="attachment" if download else "inline",
    )
