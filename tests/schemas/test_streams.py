"""A file read in one request: from web servers of every habit, through broken connections, and of one version."""

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from schemas.store_errors import StorageError
from schemas.stores import open_fs
from schemas.streams import open_stream

CONTENT = bytes(range(251)) * 20_000
"""5 MB: more than is read ahead, and than a socket holds."""


class FakeServer(http.server.BaseHTTPRequestHandler):
    """A web server of one file. What it does is said by the class's attributes, which a test's own class changes."""

    protocol_version = "HTTP/1.1"
    takes_ranges = True
    knows_length = True
    breaks: Iterator[int | None] = iter(())
    """After how many bytes of each reply the connection breaks."""
    tags: Iterator[str] = iter(())
    """The version that each reply is of, where it is not the first one's."""
    asked: list[str | None]
    status = 200

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range"))
        if self.path != "/x.tar" or self.status != 200:
            self.send_error(self.status if self.path == "/x.tar" else 404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.takes_ranges else 0
        part = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", next(self.tags, '"one"'))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.knows_length:
            self.send_header("Content-Length", str(len(part)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        ends = next(self.breaks, None)
        self._send(part if ends is None else part[:ends])
        if ends is None and not self.knows_length:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def _send(self, data: bytes) -> None:
        for at in range(0, len(data), 100_000):
            piece = data[at : at + 100_000]
            self.wfile.write(piece if self.knows_length else b"%x\r\n%s\r\n" % (len(piece), piece))


@contextmanager
def web(**habits: object) -> Iterator[tuple[str, list[str | None]]]:
    """Run a server; yield its file's address, and the ranges that are asked for."""
    asked: list[str | None] = []
    handler = type("Handler", (FakeServer,), {"asked": asked, **habits})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/x.tar", asked
        server.shutdown()
        thread.join()


def read(url: str) -> bytes:
    fs, path = open_fs(url)
    with open_stream(fs, path, url) as stream:
        return b"".join(iter(lambda: stream.read(300_000), b""))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)


@pytest.mark.parametrize("knows_length", [True, False])
def test_a_file_is_one_request(knows_length):
    with web(knows_length=knows_length) as (url, asked):
        assert read(url) == CONTENT
    assert asked == [None]


@pytest.mark.parametrize("knows_length", [True, False])
@pytest.mark.parametrize("takes_ranges", [True, False])
def test_a_broken_connection_goes_on_from_the_byte_that_came_last(takes_ranges, knows_length):
    """Once far on, once before a byte came; a server that sends all from the start is read past what is known."""
    breaks = iter([3_500_000, 0])
    with web(takes_ranges=takes_ranges, knows_length=knows_length, breaks=breaks) as (url, asked):
        assert read(url) == CONTENT
    assert asked[0] is None and len(asked) == 3
    assert all(re.fullmatch(r"bytes=[1-9]\d*-", str(named)) for named in asked[1:])


def test_a_file_that_is_replaced_meanwhile_is_refused():
    replaced = pytest.raises(StorageError, match=r"x\.tar: was replaced while it was read")
    with web(breaks=iter([3_000_000]), tags=iter(['"one"', '"two"'])) as (url, _), replaced:
        read(url)


def test_a_server_that_always_breaks_off_is_given_up_with_a_sentence():
    given_up = pytest.raises(StorageError, match=r"x\.tar: .*run the same command again")
    with web(breaks=iter([3_000_000, *[0] * 100])) as (url, asked), given_up:
        read(url)
    assert 2 <= len(asked) <= 7, "the reply that broke, and some that gave nothing"


def test_a_file_that_is_not_there():
    with web() as (url, asked), pytest.raises(FileNotFoundError):
        read(url.replace("x.tar", "y.tar"))
    assert len(asked) == 1


@pytest.mark.parametrize(("status", "remedy"), [(403, "permission denied"), (503, "run the same command again")])
def test_a_server_that_refuses(status, remedy):
    with web(status=status) as (url, _), pytest.raises(StorageError, match=remedy):
        read(url)


def test_an_answer_is_not_waited_for():
    with web(status=410) as (url, asked), pytest.raises(StorageError):
        read(url)
    assert len(asked) == 1


@pytest.mark.parametrize("where", [lambda path: str(path), lambda path: f"filecache::file://{path}"])
def test_other_files_are_read_as_fsspec_does(tmp_path: Path, where: Callable[[Path], str], monkeypatch):
    (tmp_path / "x.tar").write_bytes(CONTENT)
    monkeypatch.setitem(fsspec.config.conf, "filecache", {"cache_storage": str(tmp_path / "cache")})
    assert read(where(tmp_path / "x.tar")) == CONTENT
