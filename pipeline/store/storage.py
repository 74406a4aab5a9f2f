"""The OUTPUT folder, local or on an object store, reduced to the operations whose order makes commits safe.

Names are relative to OUTPUT, with `/` between folders. What each operation promises:

    settle    the finished file is durable under its name, or not there at all
    decide    the name is created once, whole; callers with other data learn that they came second
    publish   the file is under its final name, whole; doing it again is harmless
    replace   a small file changes from one whole content to another

Locally these are fsync, hard link and rename; on an object store an upload, a conditional put and a copy.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from pipeline.store.local import LocalStorage
from pipeline.store.objects import ObjectStorage
from schemas.names import ATTEMPTS_DIR, LEASES_DIR, PROPOSALS_DIR
from schemas.store_errors import StorageError, retried, storage_errors
from schemas.stores import open_fs, protocols

__all__ = [
    "LocalStorage",
    "ObjectStorage",
    "Storage",
    "StorageError",
    "at_work",
    "discard",
    "discards_gathered",
    "in_parallel",
    "open_storage",
    "retried",
    "storage_errors",
]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CONDITIONAL_PUT = {"s3", "gs", "memory"}
"""Stores whose put can be told to fail where the object exists; fsspec's default looks first, and then writes."""
_REQUESTS = 16
"""Requests in flight at once where many objects are read."""
_gathered: ContextVar[list[str] | None] = ContextVar("gathered", default=None)
"""What this thread is to remove with something else."""


class Storage(Protocol):
    """The operations on OUTPUT. Failures of the store raise OSError."""

    url: str
    is_local: bool
    poll_s: float
    """How often, in seconds, to look for what others have done: every look is a request."""

    @property
    def scratch(self) -> Path:
        """A local folder for files being written, on OUTPUT's own file system where that is local."""

    def check(self) -> None:
        """Try out what `decide` needs. Raises StorageError where the store cannot do it. Once a job is enough."""

    def settle(self, path: Path, name: str) -> None:
        """Make the finished local file `path` durable under `name`; `path` is gone afterwards."""

    def sync(self, folder: str) -> None:
        """Make the names in `folder` durable ("" is OUTPUT itself)."""

    def decide(self, name: str, data: bytes) -> bool:
        """Create `name` with `data` unless it exists; True if it holds `data` then.

        So of several callers with data of their own, exactly one is told True.
        """

    def create(self, name: str, data: bytes) -> bool:
        """Create `name` with `data` unless it exists; True if this call is known to have created it."""

    def publish(self, name: str, final_name: str) -> None:
        """Move or copy `name` to `final_name`, replacing it. Raises FileNotFoundError when `name` is not there."""

    def replace(self, name: str, data: bytes) -> None:
        """Write `data` under `name`, durably; a reader sees the old content or the new."""

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading at any place. Raises FileNotFoundError."""

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or None when it is not there."""

    def names(self, folder: str) -> list[str]:
        """Return the sorted file names in `folder` (not below it), without the folder; [] when it is not there."""

    def sizes(self, folder: str, after: str = "") -> dict[str, int]:
        """Return the sizes in bytes of the files in `folder` whose names come after `after`, sorted by name.

        One listing, that begins at `after` where the store can; {} when the folder is not there.
        """

    def remove(self, *names: str) -> None:
        """Remove files; one that is not there is no error."""

    def remove_folder(self, folder: str) -> None:
        """Remove an empty folder; one that is not there, or in which another job keeps files, is no error."""


def open_storage(url: str) -> Storage:
    """Return the storage of the OUTPUT at `url` (a path or any fsspec URL). Creates nothing.

    Raises StorageError for a URL that fsspec does not know, and ImportError where the package for it is missing.
    """
    try:
        fs, path = open_fs(url)
    except ValueError as error:
        raise StorageError(f"{url}: {error}; OUTPUT is a path or an fsspec URL such as gs://bucket/folder") from error
    named = protocols(fs)
    if "file" in named:
        return LocalStorage(path)
    if not named & _CONDITIONAL_PUT:
        raise StorageError(
            f"{url}: fsspec's {', '.join(sorted(named))} cannot create an object only if it is absent, which keeps two "
            "jobs from mixing their files; choose an OUTPUT that is local or on one of "
            f"{', '.join(sorted(_CONDITIONAL_PUT))}"
        )
    return ObjectStorage(url)


@contextlib.contextmanager
def at_work(storage: Storage) -> Iterator[None]:
    """Check OUTPUT, turn its OSErrors into StorageErrors, and leave no empty folder behind that was made meanwhile.

    So a command that is refused leaves nothing. What another job puts into a folder keeps it.
    """
    root = Path(storage.url)
    made = [folder for folder in (root, *root.parents) if not folder.exists()] if storage.is_local else []
    try:
        with storage_errors(storage.url):
            storage.check()
            yield
    finally:
        for name in (ATTEMPTS_DIR, LEASES_DIR, PROPOSALS_DIR):
            storage.remove_folder(name)
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def in_parallel(storage: Storage, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yield what `function`, which reads from `storage`, returns for each item, in order; several at once remotely."""
    if storage.is_local:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from pool.map(function, items)


@contextmanager
def discards_gathered() -> Iterator[list[str]]:
    """Yield a list that takes what `discard` is given within, for whoever ends the body to remove.

    So a store is asked once instead of twice. What is never removed so is swept up when the job ends.
    """
    names: list[str] = []
    token = _gathered.set(names)
    try:
        yield names
    finally:
        _gathered.reset(token)


def discard(storage: Storage, *names: str) -> None:
    """Remove files of OUTPUT that nobody looks for any more: at once, or on a store together with others."""
    gathered = _gathered.get()
    if gathered is None or storage.is_local:
        storage.remove(*names)
    else:
        gathered.extend(names)
