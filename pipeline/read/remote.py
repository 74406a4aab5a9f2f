"""Remote files of an INPUT: asked for once, in as few requests as can be, and with a sentence where a store fails."""

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, BinaryIO, TypeVar, cast

from pipeline.errors import InputError
from pipeline.store import s3
from schemas.store_errors import (
    StorageError,
    full_disk,
    in_words,
    is_of_store,
    is_refused_range,
    trouble_behind,
)
from schemas.stores import open_fs, protocols
from schemas.streams import open_stream

_T = TypeVar("_T")
_RANGE = 16 << 20
"""Bytes of a tar that are fetched by one request."""
_PIECE = 1 << 20
"""Bytes of a reply that are written to a copy at once."""
_AT_ONCE = 4
"""Such requests in flight: with `_RANGE`, what bounds the memory of a copy."""
_seen: ContextVar[dict[Any, Any] | None] = ContextVar("seen", default=None)


@contextlib.contextmanager
def looked_up_once() -> Iterator[None]:
    """Within, a store is asked once where something lies and what is in a folder: planning looks from several sides.

    So what is recorded of an INPUT is what was planned, whatever is added to it meanwhile.
    """
    if _seen.get() is not None:
        yield
        return
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def once(question: object, ask: Callable[[], _T]) -> _T:
    """Return the answer to `question`, which is asked again only outside of `looked_up_once`."""
    seen = _seen.get()
    if seen is None:
        return ask()
    if question not in seen:
        seen[question] = ask()
    return cast(_T, seen[question])


@contextlib.contextmanager
def input_store(where: str) -> Iterator[None]:
    """Turn what the store of an INPUT raises, OSError or not, into an InputError that names `where`.

    FileNotFoundError goes through where it is meant, and what is no store's error.
    """
    try:
        yield
    except InputError:
        raise
    except StorageError as error:  # it says already what to do
        raise InputError(str(error), may_pass=error.may_pass) from error
    except Exception as error:
        trouble = trouble_behind(error) if isinstance(error, FileNotFoundError) else error
        if trouble is None or not is_of_store(trouble):
            raise
        told = in_words(trouble, where, reads=True)
        raise InputError(str(told), may_pass=told.may_pass) from error


def read_up_to(url: str, limit: int) -> bytes:
    """Return the first `limit` bytes of a remote file, or all of a smaller one, in one request.

    Raises FileNotFoundError, and InputError when the store fails.
    """
    fs, path = open_fs(url)
    with input_store(url):
        if is_web(url):
            return _read_stream(fs, path, limit)
        try:
            return bytes(fs.cat_file(path, start=0, end=limit))
        except FileNotFoundError:
            raise
        except Exception as error:
            if not is_refused_range(error):
                raise
            return bytes(fs.cat_file(path))  # an empty file has no range


def _read_stream(fs: Any, url: str, limit: int) -> bytes:
    """Return the beginning of what a web server sends; whether it knows the length, or ranges, does not matter."""
    data = bytearray()
    with fs.open(url, "rb", block_size=0, size=1) as stream:  # a size, be it wrong, saves the request for it
        while len(data) < limit and (more := stream.read(limit - len(data))):
            data += more
    return bytes(data)


def copied(url: str) -> BinaryIO:
    """Return a temporary copy of a remote file, which the caller closes.

    From S3 it comes in large ranges, a few of them at once; from elsewhere in one request, and where its connection
    breaks in another one for the rest. All is of one version of the file. Raises FileNotFoundError, and InputError when
    the store fails or the file is replaced meanwhile.
    """
    fs, path = open_fs(url)
    with contextlib.ExitStack() as stack:
        copy = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(prefix="fineclip-")))
        if "s3" in protocols(fs):
            _copy_ranges(fs, path, copy.fileno(), url)
        else:
            folder = tempfile.gettempdir()
            with input_store(url), full_disk(folder), open_stream(fs, path, url) as stream:
                shutil.copyfileobj(stream, copy, _PIECE)
                copy.seek(0)
        stack.pop_all()
        return copy


def _copy_ranges(fs: Any, path: str, descriptor: int, url: str) -> None:
    """Write an object of S3 to an open file; all ranges are of the version that the first one was of."""

    def fetch(start: int, etag: str | None = None) -> s3.Range:
        with input_store(url):
            found = s3.read_range(fs, path, start, _RANGE, etag=etag)
        with full_disk(tempfile.gettempdir()):
            _write_at(descriptor, found.data, start)
        return found._replace(data=b"")

    first = fetch(0)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ask = functools.partial(fetch, etag=first.etag)
        rest = (functools.partial(ask, start) for start in range(_RANGE, first.total, _RANGE))
        for _ in pool.map(lambda fetch_one: fetch_one(), rest):
            pass


def _write_at(descriptor: int, data: bytes, start: int) -> None:
    """Write all of `data` at a place of a file: a disk that is nearly full takes the beginning, and no error."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, start)
        rest, start = rest[written:], start + written


def is_web(path: str) -> bool:
    """Return True for an address of a web server, which may know neither lengths nor ranges, and lists nothing."""
    return path.startswith(("http://", "https://"))
