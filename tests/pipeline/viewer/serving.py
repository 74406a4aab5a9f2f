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
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def request(self, method, path, *, body=None, headers=None):
        """Send `path` exactly as it is given; `headers` may replace Host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True)
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
        own = {"Origin": self.url, "Content-Type": "application/json"} | headers
        sent = {name: value for name, value in own.items() if value is not None}
        return self.request("POST", "/api/mark", body=json.dumps(record).encode(), headers=sent)


@contextmanager
def serving(session, host: str = "127.0.0.1") -> Iterator[Client]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(build(session, host=host), lifespan="off", ws="none", log_level="warning")
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
