"""The chat page for browsers: its files, and the headers that keep it to itself.

Files and HTTP; knows nothing of models or replies. The page is a client like any other: all it knows it has asked the
APIs for.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from ...core import RequestError

__all__ = ["page", "router"]

FILES = Path(__file__).with_name("page")
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
NAMES = frozenset(file.name for file in FILES.iterdir())
HEADERS = {
    # Kept, and asked for again each time: a new release shows at once.
    "cache-control": "no-cache",
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "connect-src 'self'",
            "img-src 'self'",
            "script-src 'self'",
            "style-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # Nothing on the page may parse HTML: what a model writes is text.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def router() -> APIRouter:
    """The routes of what the page is made of."""
    routes = APIRouter()
    routes.add_api_route("/ui/{name}", _part, methods=["GET", "HEAD"], include_in_schema=False, response_model=None)
    return routes


def page(request: Request) -> Response:
    """What `/` answers a browser."""
    return _file("index.html", request, {"vary": "accept"})


async def _part(name: str, request: Request) -> Response:
    if name not in NAMES:
        raise RequestError(f"The page has no file {name}", None, "not_found", 404)
    return _file(name, request, {})


def _file(name: str, request: Request, more: dict[str, str]) -> Response:
    content, kind = (FILES / name).read_bytes(), TYPES[Path(name).suffix]
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "etag": tag, **more}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)
