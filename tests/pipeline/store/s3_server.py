"""moto's S3 behind a door that counts requests and can slam: server errors, resets, replies that get lost."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn
from urllib.parse import unquote
from urllib.request import Request, urlopen

import fsspec
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from schemas import stores

BUCKET = "bucket"
Trouble = Literal["500", "reset", "lost reply", "ignores conditions"]
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with which closing a socket resets the connection."""


class _Silent(WSGIRequestHandler):
    def log(self, *arguments: Any) -> None:
        pass


@dataclass
class S3Server:
    """What was asked of the server, and what it does to those who ask."""

    asked: list[str] = field(default_factory=list)
    """`METHOD /bucket/name` of each request, in order; a listing is `LIST`, a copy `COPY`, a bulk delete `POST`."""
    trouble: Callable[[str], Trouble | None] = lambda request: None
    """What befalls a request."""
    url: str = ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer a request (WSGI)."""
        request = _named(environ)
        self.asked.append(request)
        trouble = self.trouble(request)
        if trouble == "ignores conditions":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if trouble == "500":
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if trouble == "reset":
            _hang_up(environ)
        answer = self._app(environ, (lambda *_: None) if trouble == "lost reply" else start_response)
        if trouble == "lost reply":
            _hang_up(environ)
        return answer

    _app = DomainDispatcherApplication(create_backend_app)

    def empty(self) -> None:
        """Forget every bucket. s3fs before 2026 does not find, and so remove, every object that a test names."""
        urlopen(Request(f"{self.url}/moto-api/reset", method="POST")).close()

    def count(self, *beginnings: str) -> int:
        """Return how many requests began so."""
        return sum(request.startswith(beginnings) for request in self.asked)


def _named(environ: dict[str, Any]) -> str:
    method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    if "list-type" in query:
        named = dict(part.split("=", 1) for part in query.split("&"))
        return " ".join(filter(None, (f"LIST {path}?{named['prefix']}", unquote(named.get("start-after", ""))[4:])))
    if "HTTP_X_AMZ_COPY_SOURCE" in environ:
        method = "COPY"
    return f"{method} {path}"


def _hang_up(environ: dict[str, Any]) -> NoReturn:
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    os.close(connection.detach())
    raise ConnectionResetError


@contextmanager
def serve(host: str = "127.0.0.1") -> Iterator[S3Server]:
    """Run a server with an empty bucket."""
    server = S3Server()
    http = make_server(host, 0, server, threaded=True, request_handler=_Silent)
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # of connections that were reset on purpose
    server.url = f"http://{host}:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.empty()  # moto's state is the process's
    server.asked.clear()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def point_s3fs_at(url: str, patch: pytest.MonkeyPatch) -> None:
    """Make `s3://` mean the server at `url`, with credentials that moto takes, in this process and its children."""
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    forget_s3fs()


def forget_credentials(patch: pytest.MonkeyPatch) -> None:
    """Leave nothing by which the client could log in."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.delenv(name)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("HOME", "/nonexistent")
    forget_s3fs()


def forget_s3fs() -> None:
    """Let `s3://` be opened anew: fsspec keeps its file systems with their settings, and we what failed."""
    stores._stores.clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
