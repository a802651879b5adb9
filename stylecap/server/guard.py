"""What stands before every request: who asks, what may be asked, and whose files are named.

Gradio serves a file to whoever knows its path, takes paths from requests, and fetches addresses
named in them. Behind this guard only the routes that the page itself uses exist, a path is only
accepted from, and served to, the visitor whose it is, and where the store lies stays unknown: to
the browser it is a folder called ``/store``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, unquote

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stylecap.server.history import owner_of
from stylecap.server.site import COOKIE, Site

_SECRET = re.compile(r"[A-Za-z0-9_-]{20,80}")
_LANGUAGE = re.compile(r"/(en|ko)/?")
_OPEN = re.compile(
    r"/(en|ko)/((assets|static|svelte)/.*|theme\.css)|/favicon\.(svg|ico)|"
    r"/look/[a-z.]+|/tiles/[a-z-]+\.webp"
)
_GRADIO = re.compile(
    r"/(en|ko)/(config|gradio_api/(upload|upload_progress|queue/join|queue/data|cancel|reset|"
    r"startup-events|run/[a-z_]{1,40}|heartbeat/[A-Za-z0-9_-]{1,64}|file=.*))"
)
_FILE = re.compile(r"(/(?:en|ko)/gradio_api/file=)(.*)", re.DOTALL)
_JOIN = re.compile(r"/(en|ko)/gradio_api/(queue/join|run/[a-z_]{1,40}|cancel|reset)")
_UPLOAD = re.compile(r"/(en|ko)/gradio_api/upload")
_OWN = re.compile(r"/files/[^/]+/.+")
_STORE = "/store"
_MAX_CALL_BYTES = 4_000_000
_FREE_BYTES = 500_000_000  # less than this on the disk, and nothing more is taken in
_YEAR_SECONDS = 31_536_000
# Nothing is ever fetched from elsewhere, whatever a library's next version may try.
_HEADERS = {
    "content-security-policy": (
        "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; "
        "form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class Guard:
    """ASGI middleware around the whole app.

    Args:
        app: what is guarded.
        site: whose files and options count.
    """

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site = app, site
        folder = str(site.history.folder)
        self._folder = folder
        # As it stands in HTML and headers, in JSON, and in addresses.
        spellings = {folder, json.dumps(folder)[1:-1], quote(folder)}
        self._spelled = [spelling.encode() for spelling in spellings]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._guard(scope, receive, send)

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope, path = self._placed(scope)
        if path == "/healthz":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._site.options.auth and not self._knows(headers.get(b"authorization", b"")):
            challenge = {"www-authenticate": 'Basic realm="stylecap", charset="UTF-8"'}
            await _refuse(401, "Name and password, please.", scope, receive, send, challenge)
            return
        secret = _secret(headers.get(b"cookie", b""))
        language = _LANGUAGE.fullmatch(path)
        if language or path == "/":
            await self._page(scope, receive, send, secret, language[1] if language else None)
            return
        if not (_OPEN.fullmatch(path) or _GRADIO.fullmatch(path) or _OWN.fullmatch(path)):
            await _refuse(404, "There is nothing here.", scope, receive, send)
            return
        if secret is None and not _OPEN.fullmatch(path):
            await _refuse(403, "Reload the page and allow its cookie.", scope, receive, send)
            return
        owner = owner_of(secret or "")
        decorated = _decorated(send, {})
        named = _FILE.fullmatch(path)
        if named:
            file = self._really(unquote(named[2]))
            if not self._site.may_read(owner, file):
                await _refuse(404, "There is nothing here.", scope, receive, send)
                return
            path = self._site.options.root_path + named[1] + file
            changed = {"path": path, "raw_path": quote(path).encode()}
            await self._app({**scope, **changed}, receive, decorated)
        elif _JOIN.fullmatch(path):
            await self._call(scope, receive, send, owner)
        elif _UPLOAD.fullmatch(path):
            await self._upload(scope, receive, send, owner, headers)
        elif _GRADIO.fullmatch(path):
            await self._app(scope, receive, self._hiding(decorated))
        else:
            await self._app(scope, receive, decorated)

    def _knows(self, authorization: bytes) -> bool:
        kind, _, coded = authorization.partition(b" ")
        try:
            given = base64.b64decode(coded, validate=True)
        except binascii.Error:
            return False
        expected = self._site.options.auth.encode()
        return kind.lower() == b"basic" and secrets.compare_digest(given, expected)

    def _placed(self, scope: Scope) -> tuple[Scope, str]:
        """A request with the root path, whether or not a proxy kept it, and its path below it."""
        root = self._site.options.root_path
        path = str(scope["path"])
        if root:
            path = path.removeprefix(root) if path.startswith(f"{root}/") else path
            whole = root + path
            raw = quote(whole).encode()
            scope = {**scope, "path": whole, "raw_path": raw, "root_path": root}
        return scope, path

    async def _page(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        secret: str | None,
        language: str | None,
    ) -> None:
        """The page itself: a new visitor gets a cookie, and Gradio its language."""
        added = {}
        if secret is None:
            root = self._site.options.root_path or "/"
            added["set-cookie"] = (
                f"{COOKIE}={secrets.token_urlsafe(24)}; Path={root}; Max-Age={_YEAR_SECONDS}; "
                "HttpOnly; SameSite=Lax"
            )
        if language is None:
            await self._app(scope, receive, _decorated(send, added))
            return
        status, headers, body = await _answer(self._app, scope, receive)
        body = _in_language(body, language, self._site.options.root_path)
        decorated = self._hiding(_decorated(send, added))
        await decorated({"type": "http.response.start", "status": status, "headers": headers})
        await decorated({"type": "http.response.body", "body": body})

    async def _call(self, scope: Scope, receive: Receive, send: Send, owner: str) -> None:
        """A call of the page: read it, and see that the files it names are the visitor's."""
        body = await _read(receive, _MAX_CALL_BYTES)
        if body is None:
            await _refuse(413, "That is too much at once.", scope, receive, send)
            return
        try:
            call = json.loads(body, parse_constant=_refuse_constant)
            paths = [self._really(path) for path in _paths(call)]
        except (ValueError, RecursionError):
            await _refuse(400, "This is no call of the page.", scope, receive, send)
            return
        if not all(self._site.may_read(owner, path) for path in paths):
            await _refuse(403, "This picture is no longer here.", scope, receive, send)
            return
        body = json.dumps(self._found(call)).encode()
        length = str(len(body)).encode()
        headers = [(n, v) for n, v in scope["headers"] if n.lower() != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", length)]}
        await self._app(scope, _again(body, receive), self._hiding(_decorated(send, {})))

    async def _upload(
        self, scope: Scope, receive: Receive, send: Send, owner: str, headers: dict[bytes, bytes]
    ) -> None:
        limits = self._site.options
        length = headers.get(b"content-length", b"")
        most = limits.max_megabytes * limits.max_files * 1_000_000
        if not length.isdigit() or int(length) > most:
            await _refuse(413, "That is too much at once.", scope, receive, send)
            return
        if shutil.disk_usage(self._site.history.folder).free < int(length) + _FREE_BYTES:
            await _refuse(507, "The disk is full; try again later.", scope, receive, send)
            return
        status, answered, body = await _answer(self._app, scope, receive)
        if status == 200:
            for path in json.loads(body):
                self._site.remember_upload(owner, path)
        decorated = self._hiding(_decorated(send, {}))
        await decorated({"type": "http.response.start", "status": status, "headers": answered})
        await decorated({"type": "http.response.body", "body": body})

    def _really(self, path: Any) -> str:
        """The path that a browser's path stands for; one outside the store leads nowhere."""
        inside = isinstance(path, str) and path.startswith(f"{_STORE}/")
        return self._folder + path.removeprefix(_STORE) if inside else ""

    def _found(self, call: Any) -> Any:
        """A call with the paths that the browser's stand for."""
        if isinstance(call, dict):
            return {
                name: self._really(value)
                if name == "path" and value is not None
                else self._found(value)
                for name, value in call.items()
            }
        return [self._found(value) for value in call] if isinstance(call, list) else call

    def _hiding(self, send: Send) -> Send:
        """A ``send`` that replaces the store's folder by its name in the browser."""
        start: Message | None = None

        async def hiding(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body = message.get("body", b"")
            for spelled in self._spelled:
                body = body.replace(spelled, _STORE.encode())
            if start is not None:
                kept = [(n, v) for n, v in start["headers"] if n.lower() != b"content-length"]
                if not message.get("more_body", False):
                    kept.append((b"content-length", str(len(body)).encode()))
                await send({**start, "headers": kept})
                start = None
            await send({**message, "body": body})

        return hiding


def _secret(header: bytes) -> str | None:
    try:
        cookie = SimpleCookie(header.decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return cookie.value if cookie and _SECRET.fullmatch(cookie.value) else None


def _paths(call: Any) -> Iterator[Any]:
    """Everything in a call that gradio would take for a file's path or address."""
    if isinstance(call, dict):
        for name, value in call.items():
            if name == "path" and value is not None:
                yield value
            yield from _paths(value)
    elif isinstance(call, list):
        for value in call:
            yield from _paths(value)


def _in_language(body: bytes, language: str, root_path: str) -> bytes:
    """Make Gradio's own words appear in the page's language, whatever the browser prefers."""
    head = (
        f'<head><script>for (const [name, value] of [["language", "{language}"], '
        f'["languages", ["{language}"]]]) Object.defineProperty(navigator, name, '
        f'{{get: () => value}});</script><link rel="icon" href="{root_path}/favicon.svg">'
        f'<link rel="stylesheet" href="{root_path}/look/page.css">'
        f'<script src="{root_path}/look/page.js"></script>'
    )
    body = body.replace(b'lang="en"', f'lang="{language}"'.encode(), 1)
    body = body.replace(b'<link rel="manifest" href="/manifest.json" />', b"", 1)
    return body.replace(b"<head>", head.encode(), 1)


async def _answer(
    app: ASGIApp, scope: Scope, receive: Receive
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Ask the app, and keep its answer."""
    status, headers, body = 500, [], bytearray()

    async def collect(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message.get("headers", []))
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))

    # Compressed pages could not be looked into.
    plain = [(n, v) for n, v in scope["headers"] if n.lower() != b"accept-encoding"]
    await app({**scope, "headers": plain}, receive, collect)
    return status, headers, bytes(body)


async def _read(receive: Receive, most: int) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body.extend(message.get("body", b""))
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body once more, then what really comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _decorated(send: Send, added: dict[str, str]) -> Send:
    async def decorated(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = {**_HEADERS, **added}.items()
            coded = [(name.encode(), value.encode()) for name, value in extra]
            message = {**message, "headers": [*message.get("headers", []), *coded]}
        await send(message)

    return decorated


async def _refuse(
    status: int,
    words: str,
    scope: Scope,
    receive: Receive,
    send: Send,
    headers: dict[str, str] | None = None,
) -> None:
    await PlainTextResponse(words, status, headers)(scope, receive, _decorated(send, {}))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
