"""The OUTPUT folder, local or on an object store, reduced to the operations whose order makes commits safe.

Names are relative to OUTPUT, with `/` between folders. What each operation promises:

    settle    the finished file is durable under its name, or not there at all
    decide    exactly one caller creates the name, whole; the others learn that they came second
    publish   the file moves to its final name; doing it again is harmless
    replace   a small file changes from one whole content to another

Locally these are fsync, hard link and rename; on an object store an upload, a conditional put and a copy.
"""

import contextlib
import errno
import itertools
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import fsspec

from schemas.names import ATTEMPTS_DIR

TEMPORARY = "small"
"""What the names of temporary files in `_attempts/` begin with."""
_TRIES = 5
"""Of an operation whose temporary file other jobs sweep away."""


_CONDITIONAL_PUT = {"s3", "gs", "memory"}
"""Stores whose put can be told to fail where the object exists; fsspec's default looks first, and then writes."""


class StorageError(OSError):
    """OUTPUT cannot be read or written; the message names the file and what to do. Commands exit 5 on it."""

    exit_code = 5


class Storage(Protocol):
    """The operations on OUTPUT. Failures of the store raise OSError."""

    url: str

    @property
    def scratch(self) -> Path:
        """A local folder for files being written, on OUTPUT's own file system where that is local."""

    def settle(self, path: Path, name: str) -> None:
        """Make the finished local file `path` durable under `name`; `path` is gone afterwards."""

    def sync(self, folder: str) -> None:
        """Make the names in `folder` durable ("" is OUTPUT itself)."""

    def decide(self, name: str, data: bytes) -> bool:
        """Create `name` with `data` unless it exists; True for the one caller that created it."""

    def publish(self, name: str, final_name: str) -> None:
        """Move `name` to `final_name`, replacing it. Raises FileNotFoundError when `name` is not there."""

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

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""

    def remove_folder(self, folder: str) -> None:
        """Remove an empty folder; one that is not there, or in which another job keeps files, is no error."""


def open_storage(url: str) -> Storage:
    """Return the storage of the OUTPUT at `url` (a path or any fsspec URL). Creates nothing.

    Raises StorageError for a URL that fsspec does not know, and ImportError where the package for it is missing.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ValueError as error:
        raise StorageError(f"{url}: {error}; OUTPUT is a path or an fsspec URL such as gs://bucket/folder") from error
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if "file" in protocols:
        return LocalStorage(path)
    if not protocols & _CONDITIONAL_PUT:
        raise StorageError(
            f"{url}: fsspec's {fs.protocol} cannot create an object only if it is absent, which keeps two jobs from "
            f"mixing their files; choose an OUTPUT that is local or on one of {', '.join(sorted(_CONDITIONAL_PUT))}"
        )
    return ObjectStorage(url)


class LocalStorage:
    """OUTPUT on a POSIX file system (local disk or a network mount with hard links)."""

    def __init__(self, path: str) -> None:
        self.url = path
        self._root = Path(path)
        self.scratch = self._root / ATTEMPTS_DIR

    def _path(self, name: str) -> Path:
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from error
        return path

    def settle(self, path: Path, name: str) -> None:
        """Fsync the file, then rename it. The rename is durable after `sync` of its folder."""
        _fsync(path)
        path.rename(self._path(name))

    def sync(self, folder: str) -> None:
        """Fsync the folder."""
        _fsync(self._root / folder)

    def decide(self, name: str, data: bytes) -> bool:
        """Link a finished, synced file to `name`: the link fails if the name exists, and never shows half a file."""
        try:
            self._place(data, name, os.link)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise StorageError(
                    f"{self._root / name}: the file system of OUTPUT has no hard links; choose another OUTPUT"
                ) from error
            raise
        return True

    def publish(self, name: str, final_name: str) -> None:
        """Rename; durable after `sync` of the final name's folder."""
        (self._root / name).rename(self._path(final_name))

    def replace(self, name: str, data: bytes) -> None:
        """Write, fsync and rename over `name`."""
        self._place(data, name, os.replace)

    def _place(self, data: bytes, name: str, place: Callable[[Path, Path], None]) -> None:
        """Write and fsync a temporary file, `place` it under `name`, fsync the folder.

        A job that ends sweeps temporary files and empty folders away, those of another job too: then all is done again.
        """
        for attempt in itertools.count(1):
            temporary = self._path(f"{ATTEMPTS_DIR}/{TEMPORARY}.{secrets.token_hex(8)}")
            path = self._path(name)
            try:
                _write_synced(temporary, data)
                place(temporary, path)
                _fsync(path.parent)
                return
            except FileNotFoundError:
                if attempt == _TRIES:
                    raise
            finally:
                temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        return (self._root / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return (self._root / name).open("rb")

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or None."""
        with contextlib.suppress(FileNotFoundError):
            return (self._root / name).stat().st_size
        return None

    def names(self, folder: str) -> list[str]:
        """Return the sorted file names in `folder`."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._root / folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
        return []

    def remove(self, name: str) -> None:
        """Unlink."""
        (self._root / name).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """Remove the folder, which fails by itself where it is not empty."""
        with contextlib.suppress(OSError):
            (self._root / folder).rmdir()


class ObjectStorage:
    """OUTPUT on an object store that fsspec reaches and that can put an object only if it is absent."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs: Any
        self._fs, self._root = fsspec.core.url_to_fs(self.url)

    @property
    def scratch(self) -> Path:
        """A folder of this user on whatever machine this is asked on: the storage travels to workers."""
        return Path(tempfile.gettempdir()) / f"fineclip-attempts-{os.getuid()}"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else str(self._root)

    def settle(self, path: Path, name: str) -> None:
        """Upload; the object appears whole when the upload ends."""
        self._fs.put_file(str(path), self._path(name))
        path.unlink()

    def sync(self, folder: str) -> None:
        """Nothing to do: an object store is durable once it answers."""

    def decide(self, name: str, data: bytes) -> bool:
        """Put if absent (If-None-Match on S3, ifGenerationMatch=0 on Google Cloud Storage)."""
        try:
            self._fs.pipe_file(self._path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def publish(self, name: str, final_name: str) -> None:
        """Copy, then delete: the final object appears whole."""
        self._fs.copy(self._path(name), self._path(final_name))
        self.remove(name)

    def replace(self, name: str, data: bytes) -> None:
        """Put."""
        self._fs.pipe_file(self._path(name), data)

    def read(self, name: str) -> bytes:
        """Return an object's bytes."""
        return bytes(self._fs.cat_file(self._path(name)))

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading by ranges."""
        file: BinaryIO = self._fs.open(self._path(name), "rb")
        return file

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes, or None."""
        self._fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            return int(self._fs.info(self._path(name))["size"])
        return None

    def names(self, folder: str) -> list[str]:
        """Return the sorted object names directly under `folder`."""
        self._fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            entries = self._fs.ls(self._path(folder), detail=True)
            return sorted(entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file")
        return []

    def remove(self, name: str) -> None:
        """Delete."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def remove_folder(self, folder: str) -> None:
        """Nothing to do: an object store has no folders."""


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn an OSError of OUTPUT at `url` into a StorageError that says what a person can do."""
    remedies = {
        errno.ENOSPC: "the disk is full: free space, then run the same command again; finished shards are kept",
        errno.EDQUOT: "the quota is used up: free space, then run the same command again; finished shards are kept",
        errno.EROFS: "the file system is read-only: choose another OUTPUT",
        errno.EACCES: "permission denied: choose an OUTPUT that you may write",
        errno.EPERM: "permission denied: choose an OUTPUT that you may write",
        errno.ENOTDIR: "a file is in the way: choose another OUTPUT",
    }
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        remedy = remedies.get(error.errno or 0, "run the same command again once the cause is gone")
        raise StorageError(f"{error.filename or url}: {error.strerror or error}; {remedy}") from error
