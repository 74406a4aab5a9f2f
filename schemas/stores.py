"""The file system of a path or URL, and how long a store that does not answer is waited for: decided here alone.

The stores' libraries try again too, some of them in layers that multiply: a read through s3fs asks up to 125 times.
They are told to try briefly, and what fails then is tried again here, with growing pauses, for a minute in all. A store
that this process has never had an answer from is given a few seconds: its address is probably wrong. A store that was
given up is not asked again for some seconds, in which commands end.

    the longest a command waits = a minute, and one request of the library that had begun (up to a minute where the
    store takes connections and says nothing)
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from schemas.paths import as_path, is_url
from schemas.store_errors import StorageError, does_not_answer, in_words, pauses, trouble_behind

_Result = TypeVar("_Result")

_OPERATIONS = {
    *("call_s3", "cat_file", "cp_file", "exists", "find", "glob", "info", "isdir", "ls"),
    *("pipe_file", "put_file", "rm_file"),
}
"""What a store is asked by."""
_S3_TRIES = 2
"""Of s3fs, for what breaks half-way; of a read it tries both parts so often, and each once."""
_WITHOUT_GRPC = ("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
"""gcsfs asks by gRPC what kind of bucket it has before each request, and an emulator lets it wait a minute for that."""
_FIRST_PAUSES = 3
"""Of `pauses`, for a store that has never answered."""
_NOT_ASKED = 1 / 12
"""Of the patience: for so long after it was given up a store is not asked; for the rest, once an operation."""
_LEAST_S = 1.0
"""Of the patience, be the pauses ever so short."""
_TOLD_AFTER_S = 3.0
_TOLD_EVERY_S = 10.0
_log = logging.getLogger(__name__)
_asks_once: ContextVar[bool] = ContextVar("asks_once", default=False)


def open_fs(path: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path in it. A store's is a `Patient`.

    Raises ValueError for an unknown scheme and ImportError where its package is missing.
    """
    path = as_path(path)
    if not is_url(path):
        return LocalFileSystem(), path
    if os.environ.get("STORAGE_EMULATOR_HOST"):  # before gcsfs is imported
        os.environ.setdefault(*_WITHOUT_GRPC)
    fs, fs_path = url_to_fs(path)
    if isinstance(fs, LocalFileSystem):
        return fs, str(fs_path)
    scheme, _, rest = path.partition("://")
    return Patient(fs, f"{scheme}://{rest.partition('/')[0]}"), str(fs_path)


def protocols(fs: Any) -> frozenset[str]:
    """Return what fsspec calls a file system of `open_fs`, such as `s3` and `s3a`; of a chain, its outermost part.

    It is asked of the class: before fsspec 2025.9 a cache in front of a store gives itself out as the store.
    """
    named = type(fs._fs if isinstance(fs, Patient) else fs).protocol
    return frozenset([named] if isinstance(named, str) else named)


@contextmanager
def asking_once() -> Iterator[None]:
    """Ask stores once in this block, for what would be worse late than not at all."""
    token = _asks_once.set(True)
    try:
        yield
    finally:
        _asks_once.reset(token)


class _Store:
    """What this process knows of a store: whether it answers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_answered = False
        self.silent_since: float | None = None
        self.given_up: tuple[float, str] | None = None
        """When, and what was told of it."""
        self.told_at = 0.0

    def heard(self) -> None:
        """Take note of an answer."""
        self.has_answered, self.silent_since, self.given_up = True, None, None

    def check(self, now: float) -> None:
        """Raise StorageError where the store was given up a moment ago; if that is long ago, it gets patience again."""
        if self.given_up is None:
            return
        at, told = self.given_up
        if now - at < sum(pauses()) * _NOT_ASKED:
            raise StorageError(f"{told}; {self.name} was given up a moment ago")
        if now - at > sum(pauses()):
            self.silent_since, self.given_up = None, None

    def say(self, error: Exception, left_s: float) -> None:
        """Tell who waits why, once a trouble is more than a moment's."""
        now = time.monotonic()
        if self.silent_since is None or now - self.silent_since < _TOLD_AFTER_S or now - self.told_at < _TOLD_EVERY_S:
            return
        self.told_at = now
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        _log.warning("%s does not answer (%s): trying for %.0f s more", self.name, why, left_s)


_stores: dict[str, _Store] = {}


class Patient:
    """An fsspec file system of a store, whose operations wait while it does not answer.

    What the store answers, be it that a file is not there, is given at once and as it was. Raises StorageError where
    the store stays away.
    """

    def __init__(self, fs: Any, store: str) -> None:
        """Wrap a file system of fsspec; `store` names what is reached by it, such as `s3://bucket`."""
        self._fs, self._name = fs, store
        self._store = _stores.setdefault(store, _Store(store))
        _be_brief(fs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Patient, (self._fs, self._name)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._fs, name)
        return partial(self._do, value) if name in _OPERATIONS else value

    def anew(self) -> "Patient":
        """Return one with connections of its own: after a fork they must not be shared."""
        return Patient(type(self._fs)(*self._fs.storage_args, **self._fs.storage_options), self._name)

    def cat_ranges(self, paths: list[str], *arguments: Any, **options: Any) -> list[Any]:
        """Return ranges of files, asked for once. Errors may stand in their place, for the caller to ask again."""
        self._store.check(time.monotonic())
        found = cast(list[Any], self._fs.cat_ranges(paths, *arguments, **options))
        if not all(isinstance(each, Exception) and does_not_answer(each) for each in found):
            self._store.heard()
        return found

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file; its reads wait too."""
        file = self._do(self._fs.open, path, mode, **options)
        cache: Any = getattr(file, "cache", None)
        if hasattr(cache, "fetcher"):
            fetch = cache.fetcher
            cache.fetcher = lambda *range_: self.wait_for(lambda: fetch(*range_), path)
        return file

    def _do(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        where = next((each for each in arguments if isinstance(each, str)), "")
        return self.wait_for(lambda: operation(*arguments, **options), where)

    def wait_for(self, operation: Callable[[], _Result], path: str) -> _Result:
        """Return what an operation on `path` returns, tried again while the store does not answer."""
        if _asks_once.get():
            return operation()
        store, began = self._store, time.monotonic()
        store.check(began)
        left = list(pauses())[: None if store.has_answered else _FIRST_PAUSES]
        patience = max(sum(left), _LEAST_S)
        while True:
            try:
                result = operation()
            except Exception as error:
                if not does_not_answer(error):
                    store.heard()
                    raise
                now = time.monotonic()
                store.silent_since = store.silent_since or began
                rest = patience - (now - min(began, store.silent_since))
                if not left or rest <= 0:
                    raise self._give_up(error, path, now - began) from error
                store.say(error, rest)
                time.sleep(min(left.pop(0), rest))
            else:
                store.heard()
                return result

    def _give_up(self, error: Exception, path: str, waited_s: float) -> StorageError:
        where = path if "://" in path else f"{self._name.partition('://')[0]}://{path.lstrip('/')}"
        cause = trouble_behind(error) if isinstance(error, FileNotFoundError) else error
        told = str(cause if isinstance(cause, StorageError) else in_words(cause or error, where, reads=True))
        told += f" (tried for {waited_s:.0f} s)"
        self._store.given_up = (time.monotonic(), told)
        return StorageError(told)


def _be_brief(fs: Any) -> None:
    """Let the store's library try but a few times, and not for ever; what the environment says of it holds."""
    while fs is not None:
        named = protocols(fs)
        if "s3" in named:
            fs.retries = min(fs.retries, _S3_TRIES)
            if "AWS_MAX_ATTEMPTS" not in os.environ:
                fs.config_kwargs = {"retries": {"total_max_attempts": 1}, **fs.config_kwargs}
        elif "gs" in named:
            fs.requests_timeout = fs.requests_timeout or _silence(15)
        elif named & {"http", "https"}:
            fs.client_kwargs = {"timeout": _silence(60), **fs.client_kwargs}
        fs = vars(fs).get("fs")  # of a chain, such as filecache::s3://


def _silence(seconds: float) -> Any:
    """Return aiohttp's limit on how long nothing comes; none on the whole, which may be large."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
