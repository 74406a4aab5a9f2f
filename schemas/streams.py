"""A file of a store from its first byte to its last in one request, whose reply is read as it comes.

fsspec reads in ranges, a request each. Here a request is made once; where its connection breaks, another one goes on
from the byte that came last, of the same version of the file. Nothing is kept beyond what was read ahead.
"""

import contextlib
import io
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem

from schemas.store_errors import REPLACED, StorageError, does_not_answer, in_words, is_of_store
from schemas.stores import protocols

_READ_AHEAD = 1 << 20
"""Bytes of a reply that are taken from the connection at once."""
_RANGE = 32 << 20
"""Bytes a request of stores whose replies cannot be read as they come."""
_NOT_FOUND, _PARTIAL = 404, 206


class _Reply(NamedTuple):
    """An open reply of a store."""

    read: Callable[[int], Awaitable[bytes]]
    close: Callable[[], Any]
    start: int
    """The byte of the file that it begins with: servers may ignore that another one was asked for."""
    end: int | None
    """How long the file is, where the server says so."""
    version: str | None


def open_stream(fs: Any, path: str, where: str) -> BinaryIO:
    """Open a file of a file system of `open_fs` to be read once, from end to end; `where` names it in errors.

    One request on S3, Google Cloud Storage and web servers; elsewhere ranges of 32 MiB. Raises FileNotFoundError.
    Reading raises StorageError where the store stays away, or the file is replaced meanwhile.
    """
    if isinstance(fs, LocalFileSystem):
        return cast(BinaryIO, fs.open(path, "rb"))
    ask = next((_ASK[protocol] for protocol in protocols(fs) & _ASK.keys()), None)
    if ask is None:
        return cast(BinaryIO, fs.open(path, "rb", block_size=_RANGE))
    stream = _Stream(fs, path, where, ask)
    stream.begin()
    return cast(BinaryIO, io.BufferedReader(stream, _READ_AHEAD))


class _Stream(io.RawIOBase):
    """The bytes of a file, one after the other."""

    def __init__(self, fs: Any, path: str, where: str, ask: Callable[[Any, str, int], Awaitable[_Reply]]) -> None:
        self._fs, self._path, self._where, self._ask = fs, path, where, ask
        self._reply: _Reply | None = None
        self._version: str | None = None
        self._at = 0

    def readable(self) -> bool:
        return True

    def begin(self) -> None:
        """Make the request, so that a file that is not there is known at once."""
        self._fs.wait_for(self._connect, self._where)

    def readinto(self, buffer: Any) -> int:
        data = self._fs.wait_for(lambda: self._read(len(buffer)), self._where)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._hang_up()
        super().close()

    def _connect(self) -> _Reply:
        """Return the reply in hand, or one that goes on from where the last one broke."""
        if self._reply is None:
            with self._errors():
                self._reply = sync(self._fs.loop, self._ask, self._fs, self._path, self._at)
                if self._at and self._reply.version != self._version:
                    raise StorageError(f"{self._where}: {REPLACED}")
                self._version = self._reply.version
                sync(self._fs.loop, _skip, self._reply, self._at - self._reply.start)
        return self._reply

    def _read(self, size: int) -> bytes:
        reply = self._connect()
        with self._errors():
            data = cast(bytes, sync(self._fs.loop, _up_to, reply, size))
            if not data and reply.end is not None and self._at < reply.end:
                raise ConnectionError(f"the connection ended at byte {self._at} of {reply.end}")
        self._at += len(data)
        return data

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Hang up on what fails, and say what it means."""
        try:
            yield
        except (FileNotFoundError, StorageError):
            self._hang_up()
            raise
        except Exception as error:
            self._hang_up()
            if not is_of_store(error):
                raise
            told = in_words(error, self._where, reads=True)
            told.may_pass = does_not_answer(error)
            raise told from error

    def _hang_up(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and its connections with it
                self._fs.loop.call_soon_threadsafe(reply.close)


async def _up_to(reply: _Reply, size: int) -> bytes:
    """Return `size` bytes of a reply, fewer at its end, and where its connection breaks: the next read says so."""
    data = bytearray()
    try:
        while len(data) < size and (more := await reply.read(size - len(data))):
            data += more
    except Exception:
        if not data:
            raise
    return bytes(data)


async def _skip(reply: _Reply, size: int) -> None:
    while size > 0 and (passed := await reply.read(min(size, _READ_AHEAD))):
        size -= len(passed)


async def _ask_s3(fs: Any, path: str, start: int) -> _Reply:
    bucket, key, version = fs.split_path(path)
    asked = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
    answer = await fs._call_s3("get_object", **asked, **({"Range": f"bytes={start}-"} if start else {}))
    body = answer["Body"]
    return _Reply(body.read, body.close, start, start + int(answer["ContentLength"]), answer.get("ETag"))


async def _ask_gcs(fs: Any, path: str, start: int) -> _Reply:
    await fs._set_session()
    headers = fs._get_headers({"Range": f"bytes={start}-"} if start else {})
    return await _ask_http(fs.session, fs.url(path), headers, path, start)


async def _ask_web(fs: Any, path: str, start: int) -> _Reply:
    options = dict(fs.kwargs)
    # A compressed reply would have another length, and its ranges would be of other bytes.
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    return await _ask_http(await fs.set_session(), fs.encode_url(path), headers, path, start, **options)


async def _ask_http(session: Any, url: Any, headers: Any, path: str, start: int, **options: Any) -> _Reply:
    # No limit on the whole reply: it is read as fast as the model trains.
    answer = await session.get(url, headers=headers, timeout=_patience(), **options)
    if answer.status == _NOT_FOUND:
        answer.close()
        raise FileNotFoundError(path)
    answer.raise_for_status()
    begins = start if answer.status == _PARTIAL else 0
    length = answer.content_length
    version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    return _Reply(answer.content.read, answer.close, begins, None if length is None else begins + length, version)


def _patience() -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)


_ASK = {"s3": _ask_s3, "gs": _ask_gcs, "http": _ask_web, "https": _ask_web}
"""By fsspec's protocol."""
