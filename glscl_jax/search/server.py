"""The page of an index, and what it asks for: JSON, pictures, videos.

GET /                 the page
GET /api/search       q, or like (a window's number); top, where: what fits best, as JSON
GET /api/schema       of that JSON
GET /frame/ROW        ?t=SECONDS: a picture of a window's video
GET /video/ROW        the file, whole or the asked range of it

Files are named by the numbers of windows alone: no path of a client's is ever opened.
"""

import asyncio
import contextlib
import errno
import hmac
import importlib.resources
import math
import os
import pathlib
import socket
from collections.abc import Mapping
from typing import Any

import jinja2

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import source
from glscl_jax.search import engine, question
from glscl_jax.search.batching import Batcher, Busy
from glscl_jax.search.index import MOST_HITS, Index
from glscl_jax.search.store import NOT_SHOWN
from glscl_jax.search.thumbnails import Thumbnails

_COOKIE = "glscl_token"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; media-src 'self'; connect-src 'self';"
        " style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}
_NUMBERS = {"type": "array", "items": _NUMBER}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "What /api/search answers",
    "type": "object",
    "required": ["query", "searched", "scored", "exact", "hits"],
    "properties": {
        "query": _TEXT,
        "searched": {"type": "integer"},
        "scored": {"type": "integer"},
        "exact": {"type": ["boolean", "null"]},
        "hits": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["rank", "score", "row", "video", "start", "end", "time"],
                "properties": {
                    "rank": {"type": "integer"},
                    "score": _NUMBER,
                    "row": {"type": "integer"},
                    "video": _TEXT,
                    "start": _NUMBER,
                    "end": _NUMBER,
                    "time": _NUMBER,
                    "times": _NUMBERS,
                    "weights": _NUMBERS,
                    "metadata": {"type": "object"},
                },
            },
        },
    },
}


def application(index: Index, *, token: str | None = None, hosts: list[str] | None = None):
    """The application (ASGI) of an index.

    Args:
      index: what is asked.
      token: without which nothing is answered; None for none.
      hosts: names by which it may be called; None for any.

    Raises:
      UserError: Starlette is not installed.
    """
    applications = engine.module("starlette.applications")
    routing = engine.module("starlette.routing")
    middleware = engine.module("starlette.middleware")
    trusted = engine.module("starlette.middleware.trustedhost")
    pages = _Pages(index, token)

    @contextlib.asynccontextmanager
    async def lifespan(_):
        yield
        await asyncio.to_thread(pages.batcher.close)

    around = []
    if hosts:
        # Else a page from elsewhere could have its own name lead here, and read the answers.
        around.append(middleware.Middleware(trusted.TrustedHostMiddleware, allowed_hosts=hosts))
    return applications.Starlette(
        routes=[
            routing.Route("/", pages.answered(pages.page)),
            routing.Route("/api/search", pages.answered(pages.search)),
            routing.Route("/api/schema", pages.answered(pages.schema)),
            routing.Route("/frame/{row}", pages.answered(pages.frame)),
            routing.Route("/video/{row}", pages.answered(pages.video)),
        ],
        middleware=around,
        lifespan=lifespan,
    )


class _Pages:
    """What each address answers."""

    def __init__(self, index: Index, token: str | None):
        self._index, self._token = index, token
        self._responses = engine.module("starlette.responses")
        self._thumbnails = Thumbnails(index.reading["pictures_rate"])
        self.batcher = Batcher(index)
        text = importlib.resources.files("glscl_jax.search").joinpath("page.html.j2")
        # What is put into it is other people's text.
        loader = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        self._page = loader.from_string(text.read_text(encoding="utf-8"))

    def answered(self, answer):
        """An endpoint: checks the token; what is wrong with a request is a line, and 4xx."""

        async def endpoint(request):
            try:
                self._check_token(request)
                response = await answer(request)
            except _NotHere as error:
                response = self._line(error, 404)
            except _Stranger as error:
                response = self._line(error, 403)
            except Busy as error:
                response = self._line(error, 503)
            except UserError as error:
                response = self._line(error, 400)
            response.headers.update(_HEADERS)
            return response

        return endpoint

    async def page(self, request):
        told = {"windows": len(self._index), "columns": self._index.columns}
        told["not_shown"] = NOT_SHOWN if self._index.is_prepared else ""
        response = self._responses.HTMLResponse(self._page.render(told))
        if self._token and "token" in request.query_params:
            response.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")
        return response

    async def schema(self, _):
        return self._responses.JSONResponse(SCHEMA)

    async def search(self, request):
        asked = request.query_params
        how: dict[str, Any] = {"top": _whole(asked, "top", 12, MOST_HITS)}
        if where := asked.get("where", "").strip():
            how["where"] = where
        if ("q" in asked) == ("like" in asked):
            raise UserError("give q, a sentence, or like, the number of a window")
        what = question.sentence(asked["q"]) if "q" in asked else _whole(asked, "like", 0, 2**53)
        answer = await asyncio.wrap_future(self.batcher.ask(what, **how))
        return self._responses.JSONResponse(answer.as_json())

    async def frame(self, request):
        path, record = await asyncio.to_thread(self._file, request)
        time = _seconds(request.query_params, record["start"])
        try:
            made = await asyncio.to_thread(self._thumbnails.jpeg, path, time)
        except UserError as error:
            raise _NotHere(str(error)) from error
        kept = {"Cache-Control": "private, max-age=3600"}
        return self._responses.Response(made, media_type="image/jpeg", headers=kept)

    async def video(self, request):
        path, _ = await asyncio.to_thread(self._file, request)
        if path.is_dir():
            raise _NotHere("a folder of pictures cannot be played")
        return self._responses.FileResponse(path)

    def _file(self, request) -> tuple[pathlib.Path, dict]:
        """The file of a window, which the index names."""
        if self._index.is_prepared:
            raise _NotHere(NOT_SHOWN)
        row = _whole(request.path_params, "row", 0, 2**53)
        record = self._index.record(row)
        if record is None:
            raise _NotHere(f"there is no window {row}")
        path = self._index.videos / record["video"]
        with contextlib.suppress(OSError):
            if path.exists() and not source.outside(self._index.videos, path):
                return path, record
        raise _NotHere(f"{record['video']} is not there any more: index the folder again")

    def _check_token(self, request) -> None:
        if self._token is None:
            return
        given = request.query_params.get("token") or request.cookies.get(_COOKIE) or ""
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise _Stranger("the token is missing or wrong: open the address that the server told")

    def _line(self, error: Exception, status: int):
        return self._responses.JSONResponse({"error": str(error)}, status_code=status)


class _NotHere(UserError):
    """What is asked for is not there."""


class _Stranger(UserError):
    """Who asks may not."""


def _whole(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number of a request.

    Raises:
      UserError: it is none, or out of its range.
    """
    text = given.get(name, str(default))
    least = 1 if name == "top" else 0
    if not (text.isascii() and text.isdigit() and len(text) < 17 and least <= int(text) <= most):
        raise UserError(f"{name} is {text[:40]!r}: give a whole number, {least} to {most}")
    return int(text)


def _seconds(given: Mapping[str, str], default: float) -> float:
    text = given.get("t", str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and 0 <= value < 1e7):
        raise UserError(f"t is {text[:40]!r}: give seconds, 0 or more")
    return value


def open_socket(host: str, port: int):
    """A socket that listens.

    Raises:
      UserError: the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(128)
    except (OSError, OverflowError) as error:
        opened.close()
        number = getattr(error, "errno", 0)
        told, other = os.strerror(number) if number else str(error), "--port"
        if number == errno.EADDRNOTAVAIL:
            other = "--host, an address of this machine"
        raise UserError(f"--host {host} --port {port}: {told}: give another {other}") from error
    return opened
