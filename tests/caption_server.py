"""A server of chat completions for tests: real HTTP on this machine, made-up captions, faults on request."""

import base64
import hashlib
import io
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

MODEL = "fake-captioner"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came in."""

    at: float
    """Monotonic seconds."""
    headers: dict[str, str]
    """By name in lower case."""
    body: dict[str, Any]
    image: bytes
    """The encoded crop."""

    @property
    def prompt(self) -> str:
        return next(part["text"] for part in self.body["messages"][0]["content"] if part["type"] == "text")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the crop, in pixels."""
        return Image.open(io.BytesIO(self.image)).size

    @property
    def is_test_image(self) -> bool:
        """Whether this is what the captioner asks to see if the server is there."""
        pixels = np.asarray(Image.open(io.BytesIO(self.image)))
        return pixels.shape == (64, 64, 3) and bool((pixels == 128).all())


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What to answer instead of a caption."""

    status: int = 200
    body: str = '{"error": {"message": "a fault on request"}}'
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    hang_up: bool = False
    """Close the connection without an answer."""


def caption_of(image: bytes) -> str:
    """The caption of an encoded crop: made from its bytes alone."""
    width, height = Image.open(io.BytesIO(image)).size
    return f"A picture of {width} by {height} pixels, number {hashlib.sha256(image).hexdigest()[:8]}."


class FakeCaptionServer:
    """Listens while started; `stop` and `start` again is a restart on the same port.

    `fault` is asked at each request: None for the ordinary answer. `stop` breaks off requests under way, as a server
    that is killed does.
    """

    def __init__(
        self, fault: Callable[[Asked], Answer | None] = lambda asked: None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.fault = fault
        self.models: str | bytes = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        """What is answered when the models are asked for."""
        self._host = host
        self.asked: list[Asked] = []
        self._port = port
        self._http: _Http | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}/v1"

    @property
    def crops(self) -> list[Asked]:
        """What was asked about crops, tests of the server left out."""
        return [asked for asked in self.asked if not asked.is_test_image]

    def start(self) -> None:
        self._http = _Http((self._host, self._port), self)
        self._port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        if self._http is not None and self._thread is not None:
            self._http.shutdown()
            self._thread.join()
            self._http.break_off()
            self._http.server_close()
            self._http = None

    def __enter__(self) -> "FakeCaptionServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Http(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], fake: FakeCaptionServer) -> None:
        self.fake = fake
        self.stopping = threading.Event()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def break_off(self) -> None:
        self.stopping.set()
        with self._lock:
            for connection in self._open:
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side went away, or this one was stopped: what such tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_GET(self) -> None:
        if self.path == "/version":
            self._send(200, '{"version": "fake 1"}', {})
            return
        self._send(200 if self.path == "/v1/models" else 404, self.server.fake.models, {})

    def do_POST(self) -> None:
        if self.path != "/v1/chat/completions":
            self._send(404, '{"error": {"message": "no such page"}}', {})
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(at=time.monotonic(), headers=headers, body=body, image=_image(body))
        self.server.fake.asked.append(asked)
        answer = self.server.fake.fault(asked)
        if answer is None:
            self._send(200, _completion(asked), {})
            return
        self.server.stopping.wait(answer.after_s)
        if answer.hang_up or self.server.stopping.is_set():
            self.close_connection = True
        elif answer.status == 200 and answer.after_s:
            self._send(200, _completion(asked), {})
        else:
            self._send(answer.status, answer.body, {"Content-Type": answer.content_type, **answer.headers})

    def _send(self, status: int, body: str | bytes, headers: dict[str, str]) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


def _image(body: dict[str, Any]) -> bytes:
    url = next(part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url")
    return base64.b64decode(url.partition(",")[2])


def _completion(asked: Asked) -> str:
    text = caption_of(asked.image)
    token = {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}
    logprobs = {"content": [token], "refusal": None} if asked.body.get("logprobs") else None
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "logprobs": logprobs,
        "message": {"role": "assistant", "content": text, "refusal": None},
    }
    completion = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}
    return json.dumps(completion)


if __name__ == "__main__":
    delay_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    FakeCaptionServer(lambda asked: time.sleep(delay_s), port=int(sys.argv[1])).start()
    signal.pause()  # a main thread that has ended can start no thread for a request, from Python 3.12
