"""The viewer's HTTP server: routes to a session, errors as JSON, all behind the guard."""

import functools
import mimetypes
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import duckdb
import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.viewer.safety import App, Guard
from pipeline.viewer.selection import SelectionError, parse
from pipeline.viewer.session import NotHereError, Session
from pipeline.viewer.table import DamagedTableError
from schemas.folder import DatasetError

_PAGES = ("/", "/compare", "/dataset")
_MAX_BODY = 16 << 10
_MAX_SIDE = 4096
_SIDES = {"a": 0, "b": 1}


class _MarkRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /api/mark`: neither `keep` nor `note` removes the mark."""

    shard: str
    key: str
    region_id: str | None
    keep: bool | None = None
    note: str | None = None


def build(session: Session, *, host: str) -> App:
    """Return the server's ASGI application; `host` is the address it will be bound to."""
    get: dict[str, Callable[[Request], Any]] = {
        "/api/about": lambda request: session.about(),
        "/api/values": lambda request: session.values(),
        "/api/page": lambda request: session.page(parse(request.url.query)),
        "/api/compare": lambda request: session.compared_page(parse(request.url.query)),
        "/api/summary": lambda request: session.summary(parse(request.url.query)),
        "/api/differences": lambda request: session.differences(),
        "/api/overview/{side}": lambda request: session.overview(_side(request)),
        "/api/image/{shard}/{key}": lambda request: session.image(**request.path_params),
        "/api/record/{side}/{shard}/{key}": lambda request: session.record(_side(request), *_image_id(request)),
    }
    routes = [Route(path, functools.partial(_json, session, answer)) for path, answer in get.items()]
    routes += [Route(path, functools.partial(_asset, "index.html")) for path in _PAGES]
    routes += [Route(f"/assets/{name}", functools.partial(_asset, name)) for name in _assets()]
    routes.append(Route("/image/{side}/{shard}/{key}", functools.partial(_image, session)))
    routes.append(Route("/api/mark", functools.partial(_mark, session), methods=["POST"]))
    return Guard(Starlette(routes=routes), host=host)


def _side(request: Request) -> int:
    return _SIDES.get(request.path_params["side"], -1)


def _image_id(request: Request) -> tuple[str, str]:
    return request.path_params["shard"], request.path_params["key"]


async def _json(session: Session, answer: Callable[[Request], Any], request: Request) -> Response:
    return await _answer(session, lambda: _encoded(answer(request)))


async def _image(session: Session, request: Request) -> Response:
    wanted = request.query_params.get("side", "")
    max_side = min(int(wanted), _MAX_SIDE) if wanted.isascii() and wanted.isdigit() and int(wanted) else None

    def respond() -> Response:
        data, kind = session.pixels(_side(request), *_image_id(request), max_side=max_side)
        return Response(data, media_type=kind, headers={"cache-control": "private, max-age=300"})

    return await _answer(session, respond)


async def _mark(session: Session, request: Request) -> Response:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            return _error(413, f"more than {_MAX_BODY} bytes")
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return _error(415, "send JSON")
    try:
        wanted = msgspec.json.decode(body, type=_MarkRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _error(400, str(error))
    return await _answer(session, lambda: _encoded(session.mark(**msgspec.structs.asdict(wanted))))


async def _answer(session: Session, respond: Callable[[], Response]) -> Response:
    """Run `respond` in a thread; what goes wrong with the data is an answer too, and the server goes on."""
    try:
        return await run_in_threadpool(_retrying, session, respond)
    except SelectionError as error:
        return _error(400, str(error))
    except NotHereError as error:
        return _error(404, str(error))
    except DatasetError as error:
        return _error(422, str(error))
    except (duckdb.Error, OSError) as error:
        return _error(500, f"{type(error).__name__}: {error}")


def _retrying(session: Session, respond: Callable[[], Response]) -> Response:
    try:
        return respond()
    except DamagedTableError:
        session.forget()
        return respond()


def _encoded(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers={"cache-control": "no-store"})


def _error(status: int, message: str) -> Response:
    return Response(msgspec.json.encode({"error": message}), status, media_type="application/json")


def _assets() -> list[str]:
    """Return the names of the page's files: requests are matched with these, never joined to a path."""
    return sorted(entry.name for entry in files("pipeline.viewer").joinpath("assets").iterdir() if entry.is_file())


@functools.cache
def _asset_bytes(name: str) -> bytes:
    return files("pipeline.viewer").joinpath("assets", name).read_bytes()


async def _asset(name: str, request: Request) -> Response:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(_asset_bytes(name), media_type=kind, headers={"cache-control": "no-cache"})
