"""Where an INPUT lies: the files meant by a path, pattern or URL, and how they are opened. All I/O is fsspec's.

Local files go past fsspec, whose own listing has no nanosecond times and whose open costs more than the read.
"""

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline.read.base import SourceError, SourceFile

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAGIC = re.compile(r"[*?\[]")
_REQUESTS = 16
"""Requests in flight at once when the files of a remote brace range are looked up."""


@dataclass(frozen=True, kw_only=True)
class Location:
    """A folder, local or remote, and which of its files are meant: `name`, those of `pattern`, or all below it."""

    root: str
    """An absolute path, or a URL; no slash at the end."""
    name: str | None = None
    """The one file meant."""
    pattern: str | None = None
    """Brace ranges and wildcards, relative to `root`."""

    @classmethod
    def of(cls, path: str) -> "Location":
        """Return the location a user means by `path`: a file, a folder, a glob, a brace range; local or a URL.

        Raises SourceError when there is no such file or folder. Files of a pattern are looked up by `files`.
        """
        path = _absolute(path)
        patterned = re.search(f"{_MAGIC.pattern}|{_BRACES.pattern}", path)
        # A name may look like a pattern, so a local file is looked for first; remote stores need not be asked.
        kind = None if patterned and not _is_local(path) else _kind(path)
        if kind is None and patterned:
            root = path[: patterned.start()].rpartition("/")[0]
            return cls(root=root, pattern=path[len(root) + 1 :])
        if kind is None:
            raise SourceError(f"{path}: no such file or folder; check the path")
        if kind == "directory":
            return cls(root=path.removesuffix("/"))
        root, _, name = path.rpartition("/")
        return cls(root=root, name=name)

    def related(self, path: str) -> "Location":
        """Return the location of an option's `path`: within this INPUT's folder, else in the current directory.

        Raises SourceError when it is in neither.
        """
        if not path.startswith("/") and "://" not in path and _kind(self.url(path)) is not None:
            return Location.of(self.url(path))
        try:
            return Location.of(path)
        except SourceError:
            raise SourceError(f"{path}: no such file or folder, neither in {self.root} nor from here") from None

    def url(self, uri: str) -> str:
        """Return the URL or absolute path of the file `uri`, which is relative to `root`."""
        return f"{self.root}/{uri}"

    def __str__(self) -> str:
        return self.url(self.name or self.pattern or "").removesuffix("/")

    @property
    def is_folder(self) -> bool:
        """True where all files below `root` are meant."""
        return self.name is None and self.pattern is None

    @property
    def is_local(self) -> bool:
        """True where plain `open` reaches the files."""
        return _is_local(self.url(""))

    def open(self, uri: str) -> BinaryIO:
        """Open a file for reading and seeking. Raises FileNotFoundError, and OSError when the store fails."""
        if self.is_local:
            return Path(self.url(uri)).open("rb")
        fs, path = url_to_fs(self.url(uri))
        return cast(BinaryIO, fs.open(path, "rb"))

    def download(self, uri: str, local_path: str) -> None:
        """Copy a file to `local_path`, streaming. Raises FileNotFoundError, and OSError when the store fails."""
        fs, path = url_to_fs(self.url(uri))
        fs.get_file(path, local_path)

    def files(self) -> list[SourceFile]:
        """Return the files meant, sorted by uri, but for hidden ones (a component that begins with a dot).

        Files that `name` or a brace range spells out and that are not there are listed too, with size 0 and no etag:
        they are to be missed when read, and noticed when they appear.
        """
        found = self._local_files() if self.is_local else self._remote_files()
        visible = {file.uri: file for file in found if not any(part.startswith(".") for part in file.uri.split("/"))}
        return [visible[uri] for uri in sorted(visible)]

    def lookup(self, uris: Iterable[str]) -> Iterator[SourceFile]:
        """Yield the files named by `uris` as they are now; those not there with size 0 and no etag."""
        if self.is_local:
            yield from map(self._local_file, uris)
            return
        with ThreadPoolExecutor(_REQUESTS) as pool:
            yield from pool.map(self._remote_file, uris)

    def _local_files(self) -> Iterator[SourceFile]:
        folder = self.url("")
        if self.is_folder:
            for path, status in _walk(folder, frozenset()):
                yield _source_file(path[len(folder) :], status.st_size, str(status.st_mtime_ns))
            return
        for uri in self._spelled_out():
            if self.name is None and _MAGIC.search(uri):
                yield from self._local_matches(uri)
            else:
                yield self._local_file(uri)

    def _local_matches(self, pattern: str) -> Iterator[SourceFile]:
        folder = self.url("")
        try:
            paths = [path for path in Path(folder).glob(pattern) if not path.is_dir()]
        except ValueError as error:
            raise SourceError(f"{folder}{pattern}: not a pattern that can be matched: {error}") from error
        yield from map(self._local_file, (str(path)[len(folder) :] for path in paths))

    def _local_file(self, uri: str) -> SourceFile:
        try:
            status = Path(self.url(uri)).stat()
        except (FileNotFoundError, NotADirectoryError):
            return _source_file(uri, 0, "")
        return _source_file(uri, status.st_size, str(status.st_mtime_ns))

    def _remote_files(self) -> Iterator[SourceFile]:
        fs, folder = url_to_fs(self.url(""))
        start = len(folder.rstrip("/")) + 1
        if self.is_folder:
            yield from (file_of_info(path[start:], info) for path, info in fs.find(folder, detail=True).items())
            return
        plain = []
        for uri in self._spelled_out():
            if self.name is None and _MAGIC.search(uri):
                matches = fs.glob(f"{folder.rstrip('/')}/{uri}", detail=True)
                yield from (file_of_info(p[start:], info) for p, info in matches.items() if info["type"] == "file")
            else:
                plain.append(uri)
        yield from self.lookup(plain)

    def _remote_file(self, uri: str) -> SourceFile:
        fs, path = url_to_fs(self.url(uri))
        try:
            return file_of_info(uri, fs.info(path))
        except FileNotFoundError:
            return _source_file(uri, 0, "")

    def _spelled_out(self) -> list[str]:
        return [self.name] if self.name is not None else expand_braces(self.pattern or "")


def expand_braces(pattern: str) -> list[str]:
    """Return what a pattern with numeric ranges, `{000..127}`, stands for; the digits of the start set the width."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise SourceError(f"{pattern}: the range {match[0]} runs backwards")
    heads = [f"{pattern[: match.start()]}{number:0{len(match[1])}d}" for number in range(first, last + 1)]
    tails = expand_braces(pattern[match.end() :])
    return [head + tail for head in heads for tail in tails]


def _absolute(path: str) -> str:
    """Return a URL as it is, a local path absolute (a worker's current directory may be another)."""
    if not path:
        raise SourceError("an INPUT is empty; give a path, a URL or a kind with a path")
    if "://" not in path:
        return str(Path(path).expanduser().absolute())
    try:
        fs, fs_path = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise SourceError(f"{path}: {error}") from error
    return str(fs_path) if isinstance(fs, LocalFileSystem) else path


def _is_local(path: str) -> bool:
    return path.startswith("/")


def _kind(path: str) -> str | None:
    """Return "file" or "directory" as fsspec calls them, or None where there is nothing."""
    if _is_local(path):
        local = Path(path)
        return ("directory" if local.is_dir() else "file") if local.exists() else None
    fs, remote_path = url_to_fs(path)
    try:
        return str(fs.info(remote_path)["type"])
    except FileNotFoundError:
        return None


def _walk(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below `folder`, through links to folders too, but not around in circles.

    A link to nothing is yielded with its own status: its image is to be missed, not passed over.
    """
    status = os.stat(folder)  # noqa: PTH116, as os.scandir: a folder may hold a million files
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path, above | {here})
            elif entry.is_file():
                yield entry.path, entry.stat()
            elif entry.is_symlink():
                yield entry.path, entry.stat(follow_symlinks=False)


def file_of_info(uri: str, info: dict[str, Any]) -> SourceFile:
    """Return the record of a remote file from what fsspec's `info` says; stores name their etag differently."""
    etag = next((info[name] for name in ("ETag", "etag", "mtime") if info.get(name) is not None), "")
    return _source_file(uri, int(info.get("size") or 0), str(etag))


def _source_file(uri: str, size: int, etag: str) -> SourceFile:
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{uri!r}: the file's name is not UTF-8 and cannot be recorded; rename it") from None
    return SourceFile(uri=uri, size=size, etag=etag)
