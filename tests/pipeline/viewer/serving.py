"""A viewer's server on a port of its own, in a thread, and requests as raw as a test needs them."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from pipeline.viewer.server import build

TOKEN = "a-token-of-tests"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    port: int

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self):
        return f"{self.origin}/{TOKEN}"

    def request(self, method, path, *, body=None, headers=None, prefix=f"/{TOKEN}"):
        """Send `path`, after `prefix`, exactly as it is given; `headers` may replace Host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, prefix + path, skip_host=True)
        sent = {"Host": f"127.0.0.1:{self.port}"} | ({"Content-Length": str(len(body))} if body else {})
        for name, value in (sent | (headers or {})).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def mark(self, record, **headers):
        own = {"Origin": self.origin, "Content-Type": "application/json"} | headers
        sent = {name: value for name, value in own.items() if value is not None}
        return self.request("POST", "/api/mark", body=json.dumps(record).encode(), headers=sent)


@contextmanager
def serving(session, host: str = "127.0.0.1", host_names=()) -> Iterator[Client]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = build(session, host=host, token=TOKEN, host_names=host_names)
        config = uvicorn.Config(app, lifespan="off", ws="none", log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
