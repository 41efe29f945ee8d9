"""The web app, from memory: the inbox at `/`, the demo shop at `/demo`, the widget at `/widget.js`."""

from __future__ import annotations

import mimetypes
from pathlib import Path

import msgspec

from api.asgi import Scope, Send

NOT_BUILT = (
    b"<!doctype html><title>Cocolu Hub</title><p>The web app is not built: run <code>make web</code>, then reload.</p>"
)
IMMUTABLE = b"public, max-age=31536000, immutable"
REVALIDATE = b"no-cache"


class Page(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str
    caching: bytes

    async def respond(self, scope: Scope, send: Send, csp: bytes) -> None:
        headers = [
            (b"content-type", self.content_type.encode()),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", self.caching),
            (b"content-security-policy", csp),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ]
        if self.content_type.startswith("text/javascript"):
            # The widget is meant to be embedded by other origins.
            headers.append((b"cross-origin-resource-policy", b"cross-origin"))
        body = b"" if scope["method"] == "HEAD" else self.body
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Pages:
    def __init__(self, folder: Path, *, demo: bool) -> None:
        self._pages: dict[str, Page] = {}
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self._add(file, "/" + file.relative_to(folder).as_posix(), demo)

    def _add(self, file: Path, path: str, demo: bool) -> None:
        body = file.read_bytes()
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        if kind.startswith("text/") or kind.endswith("javascript"):
            kind = kind.replace("application/javascript", "text/javascript") + "; charset=utf-8"
        if file.suffix == ".html":
            path = {"/index.html": "/"}.get(path, path.removesuffix(".html"))
            if path == "/demo" and not demo:
                return
            if demo:
                body = body.replace(b'name="hub-demo" content="0"', b'name="hub-demo" content="1"')
        self._pages[path] = Page(body, kind, REVALIDATE)

    def find(self, path: str) -> Page | None:
        return self._pages.get(path)
