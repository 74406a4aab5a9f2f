"""OUTPUT on a POSIX file system: fsync, hard link and rename."""

import contextlib
import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pipeline.store.scratch import scratch_token
from schemas.names import ATTEMPTS_DIR
from schemas.store_errors import StorageError

TEMPORARY = "small"
"""What the names of temporary files in `_attempts/` begin with."""
_TRIES = 5
"""Of an operation whose temporary file other jobs sweep away."""


class LocalStorage:
    """OUTPUT on a POSIX file system (local disk or a network mount with hard links)."""

    is_local = True
    poll_s = 0.5

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

    def check(self) -> None:
        """Make the folder. A file system without hard links says so when it is asked for one."""
        try:
            self._path(ATTEMPTS_DIR)  # makes the folder it lies in
        except FileNotFoundError as error:
            raise StorageError(f"{self._root}: no folder can be made there: choose another OUTPUT") from error

    def settle(self, path: Path, name: str) -> None:
        """Fsync the file, then rename it. The rename is durable after `sync` of its folder."""
        _fsync(path)
        path.rename(self._path(name))

    def sync(self, folder: str) -> None:
        """Fsync the folder."""
        _fsync(self._root / folder)

    def decide(self, name: str, data: bytes) -> bool:
        """Link a finished, synced file to `name`: the link fails if the name exists, and never shows half a file."""
        return self.create(name, data) or self._holds(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Link, as `decide` does."""
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

    def _holds(self, name: str, data: bytes) -> bool:
        """Return whether `name` holds `data`: over a network, the reply to a link that was made may be lost."""
        try:
            return self.read(name) == data
        except FileNotFoundError:
            return False

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
            temporary = self._path(f"{ATTEMPTS_DIR}/{TEMPORARY}.{scratch_token()}")
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

    def sizes(self, folder: str, after: str = "") -> dict[str, int]:
        """Return the sizes of the files in `folder`."""
        found = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._root / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it has gone while the folder was read
                    if entry.name > after and entry.is_file():
                        found[entry.name] = entry.stat().st_size
        return dict(sorted(found.items()))

    def remove(self, *names: str) -> None:
        """Unlink."""
        for name in names:
            (self._root / name).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """Remove the folder, which fails by itself where it is not empty."""
        with contextlib.suppress(OSError):
            (self._root / folder).rmdir()


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
