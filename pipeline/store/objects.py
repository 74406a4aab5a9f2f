"""OUTPUT on an object store: uploads, conditional puts and copies, each one request where the store can do it."""

import contextlib
import errno
import io
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.store import s3
from schemas.names import ATTEMPTS_DIR
from schemas.store_errors import StorageError, in_words
from schemas.stores import open_fs, protocols

_ANSWERS = (FileNotFoundError, FileExistsError)
"""Errors that answer a question: they are not the store's trouble."""
_READ_AHEAD = 1 << 20
"""Bytes that are fetched at once when little is read of an object."""


class ObjectStorage:
    """OUTPUT on an object store that fsspec reaches and that can put an object only if it is absent."""

    is_local = False
    poll_s = 5.0

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs: Any
        self._fs, self._root = open_fs(self.url)
        self._is_s3 = "s3" in protocols(self._fs)

    @property
    def scratch(self) -> Path:
        """A folder of this user on whatever machine this is asked on: the storage travels to workers."""
        return Path(tempfile.gettempdir()) / f"fineclip-attempts-{os.getuid()}"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else str(self._root)

    def _ask(self, name: str, operation: Any, *arguments: Any, **options: Any) -> Any:
        """Do an operation of the store on `name`, which waits where the store does not answer.

        Raises FileNotFoundError and FileExistsError as they are. Whatever else the store's library raises, OSError or
        not, is a StorageError.
        """
        try:
            return operation(*arguments, **options)
        except (*_ANSWERS, StorageError):
            raise
        except Exception as error:
            raise in_words(error, f"{self.url}/{name}") from error

    def check(self) -> None:
        """Create an object twice: the second time must be refused, or two jobs could mix their files.

        Raises StorageError where a store takes the condition and ignores it.
        """
        name = f"{ATTEMPTS_DIR}/probe.{secrets.token_hex(8)}"
        try:
            if self.create(name, b"first") and self.create(name, b"second"):
                raise StorageError(
                    f"{self.url}: the store replaces an object that was to be created only if it is absent "
                    "(If-None-Match, ifGenerationMatch), so two jobs could mix their files; choose an OUTPUT "
                    "that is local, or on a store that has conditional puts"
                )
        finally:
            self.remove(name)

    def create(self, name: str, data: bytes) -> bool:
        """Put if absent, as `decide` does."""
        try:
            self._ask(name, self._fs.pipe_file, self._path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def settle(self, path: Path, name: str) -> None:
        """Upload; the object appears whole when the upload ends."""
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self._ask(name, self._fs.put_file, str(path), self._path(name))
        path.unlink()

    def sync(self, folder: str) -> None:
        """Nothing to do: an object store is durable once it answers."""

    def decide(self, name: str, data: bytes) -> bool:
        """Put if absent (If-None-Match on S3, ifGenerationMatch=0 on Google Cloud Storage).

        The reply to a put may be lost, and the put then be refused when it is tried again: so what is there is read.
        """
        if self.create(name, data):
            return True
        try:
            return self.read(name) == data
        except FileNotFoundError:
            return False

    def publish(self, name: str, final_name: str) -> None:
        """Copy: the final object appears whole."""
        paths = self._path(name), self._path(final_name)
        if self._is_s3:
            self._ask(final_name, s3.copy, self._fs, *paths)
        else:
            self._ask(final_name, self._fs.cp_file, *paths)  # `copy` would expand wildcards in names

    def replace(self, name: str, data: bytes) -> None:
        """Put."""
        self._ask(name, self._fs.pipe_file, self._path(name), data)

    def read(self, name: str) -> bytes:
        """Return an object's bytes."""
        return bytes(self._ask(name, self._read_all, self._path(name)))

    def _read_all(self, path: str) -> bytes:
        if not self._is_s3:
            return bytes(self._fs.cat_file(path))
        try:
            return bytes(self._fs.cat_file(path, start=0))  # without a range, s3fs asks for the size first
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return bytes(self._fs.cat_file(path))  # an empty object has no range

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading by ranges."""
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{name}")
        return io.BufferedReader(_Ranges(self, name, size), _READ_AHEAD)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return the bytes from `start` up to `stop`, both within the object."""
        return bytes(self._ask(name, self._fs.cat_file, self._path(name), start=start, end=stop))

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes, or None."""
        self._fs.invalidate_cache()
        try:
            return int(self._ask(name, self._fs.info, self._path(name))["size"])
        except FileNotFoundError:
            return None

    def sizes(self, folder: str, after: str = "") -> dict[str, int]:
        """Return the sizes of the objects directly under `folder`."""
        try:
            found = self._ask(folder, self._list, self._path(folder), after)
        except FileNotFoundError:
            return {}
        return {name: found[name] for name in sorted(found) if name > after}

    def _list(self, path: str, after: str) -> dict[str, int]:
        if self._is_s3:
            return s3.list_after(self._fs, path, after)
        self._fs.invalidate_cache()
        entries = self._fs.ls(path, detail=True)
        files = {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in entries if entry["type"] == "file"}
        files.pop("", None)  # an empty object that stands for the folder
        return files

    def names(self, folder: str) -> list[str]:
        """Return the sorted object names directly under `folder`."""
        return list(self.sizes(folder))

    def remove(self, *names: str) -> None:
        """Delete; several in one request where the store can."""
        paths = [self._path(name) for name in names]
        if len(paths) > 1 and self._is_s3:
            self._ask(names[0], s3.remove, self._fs, paths)
            return
        for name, path in zip(names, paths, strict=True):
            with contextlib.suppress(FileNotFoundError):
                self._ask(name, self._fs.rm_file, path)

    def remove_folder(self, folder: str) -> None:
        """Nothing to do: an object store has no folders."""


class _Ranges(io.RawIOBase):
    """An object as a file, each read a range of it."""

    def __init__(self, storage: ObjectStorage, name: str, size: int) -> None:
        self._storage, self._name, self._size, self._position = storage, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        data = self._storage.read_range(self._name, self._position, stop)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
