"""The viewer's HTTP server: routes to a session, errors as JSON, all behind the guard."""

import functools
import mimetypes
from collections.abc import Callable, Coroutine, Sequence
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
from pipeline.viewer.selection import SelectionError, parse, parse_box, parse_int
from pipeline.viewer.session import Session
from pipeline.viewer.table import DamagedTableError, NotHereError
from schemas.folder import DatasetError

_PAGES = ("/", "/crops", "/compare", "/dataset", "/audit", "/map")
_MAX_BODY = 16 << 10
_MAX_SIDE = 4096
_SIDES = {"a": 0, "b": 1}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _MarkRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /api/mark`: neither `keep` nor `note` removes the mark."""

    shard: str
    key: str
    region_id: str | None
    keep: bool | None = None
    note: str | None = None


class _EditRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /api/edit`: without a caption, the region's edit is taken back."""

    shard: str
    key: str
    region_id: str
    caption: str | None = None
    label: str | None = None


class _ChoiceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /api/choose`: thresholds by the name of their filter."""

    thresholds: dict[str, float]


def build(session: Session, *, host: str, token: str, host_names: Sequence[str] = ()) -> App:
    """Return the server's ASGI application.

    `host` is the address it will be bound to, `host_names` are more names that it goes by, and every path begins with
    `token`, after whatever prefix a portal leaves in it.
    """
    data: dict[str, Callable[[Request], Any]] = {
        "/api/about": lambda request: session.about(),
        "/api/values": lambda request: session.values(),
        "/api/page": lambda request: session.page(parse(request.url.query)),
        "/api/crops": lambda request: session.crops(parse(request.url.query)),
        "/api/compare": lambda request: session.compared_page(parse(request.url.query)),
        "/api/summary": lambda request: session.summary(parse(request.url.query)),
        "/api/differences": lambda request: session.differences(),
        "/api/overview/{side}": lambda request: session.overview(_side(request)),
        "/api/image/{shard}/{key}": lambda request: session.image(**request.path_params),
        "/api/audit": lambda request: session.audited(),
        "/api/drops": lambda request: session.drops(request.query_params),
        "/api/map": lambda request: session.map(),
        "/api/near/{shard}/{key}/{region_id}": lambda request: session.near(
            **request.path_params, by=request.query_params.get("by", "region")
        ),
        "/api/record/{side}/{shard}/{key}": lambda request: session.record(_side(request), *_image_id(request)),
    }
    routes = [Route(path, _answering(session, get)) for path, get in data.items()]
    routes += [Route(path, _asset("index.html")) for path in _PAGES]
    # Requests are matched with the names of the page's files, never joined to a path.
    assets = files("pipeline.viewer").joinpath("assets").iterdir()
    routes += [
        Route(f"/assets/{name}", _asset(name)) for name in sorted(file.name for file in assets if file.is_file())
    ]
    routes.append(Route("/image/{side}/{shard}/{key}", _answering(session, functools.partial(_image, session))))
    changes: tuple[tuple[str, type[msgspec.Struct], Callable[..., Any]], ...] = (
        ("/api/mark", _MarkRequest, session.mark),
        ("/api/edit", _EditRequest, session.edit),
        ("/api/choose", _ChoiceRequest, session.choose),
    )
    for path, kind, act in changes:
        routes.append(Route(path, functools.partial(_change, session, kind, act), methods=["POST"]))
    app = Starlette(routes=routes, exception_handlers={404: _not_found})
    app.router.redirect_slashes = False  # it would redirect to an address without the token
    return Guard(app, host=host, token=token, host_names=host_names)


def _side(request: Request) -> int:
    return _SIDES.get(request.path_params["side"], -1)


def _image_id(request: Request) -> tuple[str, str]:
    return request.path_params["shard"], request.path_params["key"]


def _asset(name: str) -> Handler:
    content = files("pipeline.viewer").joinpath("assets", name).read_bytes()
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return answer


def _answering(session: Session, get: Callable[[Request], Any]) -> Handler:
    async def answer(request: Request) -> Response:
        return await _answer(session, functools.partial(get, request))

    return answer


def _image(session: Session, request: Request) -> Response:
    image = (_side(request), *_image_id(request))
    side, box = request.query_params.get("side"), request.query_params.get("crop")
    max_side = None if side is None else parse_int("side", side, low=1, high=_MAX_SIDE)
    if box is None:
        data, kind = session.pixels(*image, max_side=max_side)
    else:
        data = session.crop(*image, box=parse_box("crop", box), max_side=max_side or _MAX_SIDE)
        kind = "image/jpeg"
    return Response(data, media_type=kind, headers={"cache-control": "private, max-age=300"})


async def _change(session: Session, kind: type[msgspec.Struct], act: Callable[..., Any], request: Request) -> Response:
    """Act on a request to change what a person has said of the data."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            return _error(413, f"more than {_MAX_BODY} bytes")
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return _error(415, "send JSON")
    try:
        wanted = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _error(400, str(error))
    return await _answer(session, lambda: act(**msgspec.structs.asdict(wanted)))


async def _answer(session: Session, get: Callable[[], Any]) -> Response:
    """Send what `get` returns in a thread; what goes wrong with the data is an answer too, and the server goes on."""

    def get_again() -> Any:
        try:
            return get()
        except DamagedTableError:
            session.forget()
            return get()

    try:
        found = await run_in_threadpool(get_again)
        if isinstance(found, Response):
            return found
        return Response(
            msgspec.json.encode(found), media_type="application/json", headers={"cache-control": "no-store"}
        )
    except SelectionError as error:
        return _error(400, str(error))
    except NotHereError as error:
        return _error(404, str(error))
    except DatasetError as error:
        return _error(422, str(error))
    except (duckdb.Error, OSError) as error:
        return _error(500, f"{type(error).__name__}: {error}")


def _error(status: int, message: str) -> Response:
    return Response(msgspec.json.encode({"error": message}), status, media_type="application/json")


async def _not_found(request: Request, error: Exception) -> Response:
    return _error(404, "there is nothing at this address")
