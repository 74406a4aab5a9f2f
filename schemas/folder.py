"""The bytes of a data set folder, local or behind any fsspec URL: listing, small files, ranges, streams, tables.

A `Folder` can be pickled and survives a fork: open files and connections belong to the process that opened them.
"""

import functools
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from schemas.store_errors import does_not_answer, is_refused_range, library_errors, read_errors
from schemas.stores import Patient, open_fs, protocols
from schemas.streams import open_stream

WHOLE_FILE = 8 << 20
"""Bytes a remote file is fetched by when it is read from end to end."""
ONE_SAMPLE = 256 << 10
"""Bytes a remote file is fetched by when one sample of it is wanted."""
_OPEN_FILES = 64
"""Local tars kept open a process, at most: a quarter of the files that it may open, where that is less."""
_NOT_LISTED = {"http", "https"}
"""Web servers name no files reliably, even where they show a page of links."""


class DatasetError(ValueError):
    """A data set cannot be read; the message names the file, and what to do. Commands exit 2 on it."""

    exit_code = 2


class _Descriptor:
    """An open file, closed when its last holder lets go: leaving the cache never closes it under a reader."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_checked = False
        """Whether `read_range` was told that it is the file that is meant."""

    def __del__(self) -> None:
        os.close(self.number)


def _local_sizes(root: str) -> dict[str, int]:
    """Return size by name of the files of a folder, a tenth of the time that fsspec takes."""
    sizes = {}
    with os.scandir(root) as entries:
        for entry in entries:
            if not entry.is_dir():
                with suppress(FileNotFoundError):  # removed since, or a link to nowhere
                    sizes[entry.name] = entry.stat().st_size
    return sizes


@contextmanager
def _arrow_errors(where: str) -> Iterator[None]:
    """Turn what Arrow says of a file's contents into a DatasetError: a plain OSError without a number, or its own."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        raise DatasetError(f"{where}: not a readable Parquet file: {error}") from error


def _open_descriptor(path: str) -> _Descriptor:
    return _Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


class Folder:
    """A folder that is only read. Names are those of files right in it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Take a local path or an fsspec URL; nothing is read yet. Raises DatasetError for unusable URLs."""
        self.url = os.fspath(path)
        try:
            fs, self._root = open_fs(self.url)
        except (ValueError, ImportError) as error:
            raise DatasetError(f"{self.url}: cannot be opened: {error}") from error
        self._adopt(fs)

    def _adopt(self, fs: Any) -> None:
        self._fs = fs
        self._pid = os.getpid()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _OPEN_FILES if limit == resource.RLIM_INFINITY else min(_OPEN_FILES, limit // 4)
        self._descriptor: Callable[[str], _Descriptor] = functools.lru_cache(most)(_open_descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_descriptor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._adopt(self._fs)

    @property
    def fs(self) -> Any:
        """The fsspec file system, made anew in a forked process (connections and event loops are not shared)."""
        if self._pid != os.getpid():
            self._adopt(self._fs.anew() if isinstance(self._fs, Patient) else LocalFileSystem())
        return self._fs

    def path(self, name: str) -> str:
        """Return a file's path as the file system has it."""
        return f"{self._root.rstrip('/')}/{name}"

    def where(self, name: str) -> str:
        """Return a file's address as messages give it."""
        return f"{self.url.rstrip('/')}/{name}"

    def sizes(self) -> dict[str, int] | None:
        """Return the size in bytes of each file by name, fresh from the store, or None where there is no listing.

        Raises DatasetError when the folder is not there.
        """
        fs = self.fs
        if protocols(fs) & _NOT_LISTED:
            return None
        fs.invalidate_cache(self._root)
        try:
            with read_errors(self.url):
                if isinstance(fs, LocalFileSystem):
                    return _local_sizes(self._root)
                entries = fs.ls(self._root, detail=True)
        except NotImplementedError:
            return None
        except FileNotFoundError as error:
            raise DatasetError(f"{self.url}: no such folder; give the OUTPUT of `fineclip annotate`") from error
        except NotADirectoryError as error:
            raise DatasetError(f"{self.url}: a file, no folder; give the OUTPUT of `fineclip annotate`") from error
        if [entry["name"] for entry in entries if entry["type"] == "file"] == [self._root]:
            raise DatasetError(f"{self.url}: a file, no folder; give the OUTPUT of `fineclip annotate`")
        named = ((entry["name"].rsplit("/", 1)[-1], entry) for entry in entries if entry["type"] != "directory")
        return {name: entry["size"] for name, entry in named if name}  # stores may show the folder itself, as ""

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or None when it is not there."""
        try:
            with read_errors(self.where(name)):
                self.fs.invalidate_cache(self._root)  # what a listing said may have changed since
                return cast(int, self.fs.info(self.path(name))["size"])
        except FileNotFoundError:
            return None

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the contents of small files, None for those that are not there; remote ones are read at once."""
        start = 0 if "s3" in protocols(self.fs) else None  # without a range, s3fs asks for the size first
        with read_errors(self.url):
            contents = self.fs.cat_ranges([self.path(name) for name in names], start, None, on_error="return")
        return [self._content(name, content) for name, content in zip(names, contents, strict=True)]

    def _content(self, name: str, content: bytes | Exception) -> bytes | None:
        """Return what was read of a file, None where it is not there. Raises what went wrong otherwise."""
        if not isinstance(content, Exception):
            return content
        try:
            with read_errors(self.where(name)):
                if is_refused_range(content) or does_not_answer(content):  # an empty file has no range
                    return cast(bytes, self.fs.cat_file(self.path(name)))
                raise content
        except FileNotFoundError:
            return None

    def read_range(self, name: str, *, offset: int, size: int, check: Callable[[], None] = lambda: None) -> bytes:
        """Return `size` bytes from `offset` of a file. Raises DatasetError when it is not there or ends before.

        `check` is called after a local file was opened, and raises where it may be another than was meant; it stays
        open then for what is read next. Remote files are not kept open: whoever reads them looks at what they get.
        """
        path = self.path(name)
        try:
            with read_errors(self.where(name)):
                if isinstance(self.fs, LocalFileSystem):
                    descriptor = self._descriptor(path)  # held: another thread may push it out of the cache
                    if not descriptor.is_checked:
                        check()
                        descriptor.is_checked = True
                    data = os.pread(descriptor.number, size, offset)
                else:
                    data = self.fs.cat_file(path, start=offset, end=offset + size)
        except FileNotFoundError as error:
            raise self._missing(name) from error
        if len(data) != size:
            raise DatasetError(
                f"{self.where(name)}: {len(data)} bytes at byte {offset} where {size} were asked for; "
                "the file is cut, or its server ignores byte ranges"
            )
        return data

    @contextmanager
    def stream(self, name: str, *, offset: int = 0, fetch_size: int = WHOLE_FILE) -> Iterator[BinaryIO]:
        """Open a file for reading on from `offset`, remotely `fetch_size` bytes a request.

        Raises DatasetError when it is not there.
        """
        try:
            with read_errors(self.where(name)):
                file = self._open(name, block_size=fetch_size)
        except FileNotFoundError as error:
            raise self._missing(name) from error
        with file, library_errors(self.where(name)):
            file.seek(offset)
            yield file

    @contextmanager
    def whole(self, name: str) -> Iterator[BinaryIO]:
        """Open a file that is read once, from its first byte to its last: on a store in one request.

        Raises DatasetError when it is not there; reading raises StorageError where the store fails.
        """
        try:
            with read_errors(self.where(name)):
                file = open_stream(self.fs, self.path(name), self.where(name))
        except FileNotFoundError as error:
            raise self._missing(name) from error
        with file:
            yield file

    def table(self, name: str, *, columns: Sequence[str], check: Callable[[pa.Schema, str], None]) -> pa.Table:
        """Return `columns` of a Parquet file; the others are not read.

        `check` is given the file's schema and address, and raises when it is not what it must be. Raises DatasetError
        when the file is not there or not Parquet.
        """
        with self._parquet(name) as file:
            check(file.schema_arrow, self.where(name))
            return file.read(columns=list(columns))

    def schema(self, name: str) -> pa.Schema:
        """Return the schema of a Parquet file. Raises DatasetError when the file is not there or not Parquet."""
        with self._parquet(name) as file:
            return file.schema_arrow

    @contextmanager
    def _parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        local = isinstance(self.fs, LocalFileSystem)
        where = self.where(name)
        try:
            with read_errors(where), _arrow_errors(where):
                # Arrow reads a local path itself, without a call back into Python for every range.
                opened = nullcontext(self.path(name)) if local else self._open(name)
                with opened as source, pq.ParquetFile(source, pre_buffer=not local) as file:
                    yield file
        except FileNotFoundError as error:
            raise self._missing(name) from error

    def _open(self, name: str, **options: Any) -> Any:
        """Open a file; one that has appeared since the store was listed is there, too."""
        try:
            return self.fs.open(self.path(name), "rb", **options)
        except FileNotFoundError:
            self.fs.invalidate_cache(self._root)
            return self.fs.open(self.path(name), "rb", **options)

    def _missing(self, name: str) -> DatasetError:
        return DatasetError(f"{self.where(name)}: not there; fetch the whole data set, or write the shard again")
