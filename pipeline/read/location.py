"""Where an INPUT lies: the files meant by a path, pattern or URL, and how they are opened. All I/O is fsspec's."""

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.read.base import SourceError, SourceFile
from pipeline.read.local_files import folder_that_is_there, kind_of, open_file, status_of, walk
from pipeline.read.remote import copied, input_store, is_web, once, read_up_to
from schemas.paths import as_path, is_url, printable
from schemas.stores import open_fs

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAGIC = re.compile(r"[*?\[]")
_PATTERN = f"{_MAGIC.pattern}|{_BRACES.pattern}"
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
    allow: tuple[str, ...] = ()
    """Folders outside of `root` that names in data files may lead to."""

    @classmethod
    def of(cls, path: str) -> "Location":
        """Return the location a user means by `path`: a file, a folder, a glob, a brace range; local or a URL.

        Raises SourceError when there is no such file or folder. Files of a pattern are looked up by `files`.
        """
        path = _absolute(path)
        patterned = re.search(_PATTERN, path)
        # A name may look like a pattern, so a local file is looked for first; remote stores need not be asked.
        kind = None if patterned and not _is_local(path) else _kind(path)
        if kind is None and patterned:
            root = path[: patterned.start()].rpartition("/")[0]
            root = folder_that_is_there(path) if _is_local(path) else root  # a part of its name is no pattern
            if re.search(_PATTERN, path[len(root) :]):
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
        if not path.startswith("/") and not is_url(path) and _kind(self.url(path)) is not None:
            return Location.of(self.url(path))
        try:
            return Location.of(path)
        except SourceError:
            raise SourceError(f"{path}: no such file or folder, neither in {self.root} nor from here") from None

    def related_folder(self, path: str) -> "Location":
        """Return the location of a folder that an option names, as `related` does.

        Raises SourceError for a file. A web server cannot tell folders: what is named there is taken for one.
        """
        url = path if is_url(path) else self.url(path)
        if is_web(url) and not path.startswith("/"):
            return Location(root=url.removesuffix("/"))
        location = self.related(path)
        if not location.is_folder:
            raise SourceError(f"{location}: is a file, where the name of a folder belongs")
        return location

    def allowing(self, folders: Iterable[str]) -> "Location":
        """Return the location with folders outside of it from which files may be read (see `pipeline.read.names`)."""
        paths = [as_path(folder).removesuffix("/") for folder in folders]
        real = [os.path.realpath(path) for path in paths if _is_local(path)]
        return replace(self, allow=tuple(dict.fromkeys([*paths, *real])))

    def allows(self, uri: str) -> bool:
        """Return whether `uri` may be read: what lies in `root`, and below the folders allowed. An address never."""
        if is_url(uri):
            return False
        if not _leads_out(uri):
            return True
        path = self.url(uri)
        return any(path.startswith(f"{folder}/") for folder in self.allow)

    def url(self, uri: str) -> str:
        """Return the URL or absolute path of the file `uri`, which is relative to `root`."""
        if not _leads_out(uri):
            return f"{self.root}/{uri}"
        scheme, separator, root = self.root.rpartition("://")
        return f"{scheme}{separator}{posixpath.normpath(f'{root}/{uri}')}"

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

    @property
    def can_list(self) -> bool:
        """False where files have to be named: web servers list none."""
        return not is_web(self.root)

    def open(self, uri: str) -> BinaryIO:
        """Open a file for reading from end to end. Raises FileNotFoundError, and OSError when the store fails.

        What is no file (a pipe, a device) is an OSError: a read of it would wait for ever. Raises NotAllowedError.
        """
        self._check_allowed(uri)
        if self.is_local:
            return open_file(self.url(uri))
        fs, remote_path = open_fs(self.url(uri))
        with input_store(self.url(uri)):
            if self.can_list:
                return cast(BinaryIO, fs.open(remote_path, "rb"))
            size = fs.info(remote_path)["size"]
            # reads of a stream whose server states no length would come short
            return copied(self.url(uri)) if size is None else cast(BinaryIO, fs.open(remote_path, "rb", size=size))

    def _check_allowed(self, uri: str) -> None:
        if not self.allows(uri):
            what = "is an address, and addresses are not fetched: download it first"
            what = what if is_url(uri) else "lies outside INPUT; --read.allow DIR lets files below DIR be read"
            raise NotAllowedError(f"{printable(uri)} {what}")

    def read(self, uri: str, limit: int) -> bytes:
        """Return a file's bytes, no more than the first `limit`: remotely in one request. Raises as `open`."""
        if not self.is_local:
            self._check_allowed(uri)
            return read_up_to(self.url(uri), limit)
        with self.open(uri) as file:
            return file.read(limit)

    def open_ranges(self, uri: str) -> BinaryIO:
        """Open a file for reading at any place; where a web server ignores ranges, a copy. Raises as `open`."""
        file = self.open(uri)
        if is_web(self.root) and hasattr(file, "_fetch_range"):
            try:
                file._fetch_range(1, 2)
            except ValueError:
                file.close()
                return copied(self.url(uri))
        return file

    def open_whole(self, uri: str) -> BinaryIO:
        """Open a file all of which is read, here and there: where it is remote, a local copy. Raises as `open`."""
        if self.is_local:
            return self.open(uri)
        self._check_allowed(uri)
        return copied(self.url(uri))

    def files(self) -> list[SourceFile]:
        """Return the files meant, sorted by uri, but for hidden ones (a component that begins with a dot).

        Files that `name` or a brace range spells out and that are not there are listed too, with size 0 and no etag:
        they are to be missed when read, and noticed when they appear.
        """
        found = self._local_files() if self.is_local else once(("files", self), lambda: list(self._remote_files()))
        # stores show a folder as an empty object, whose name ends in a slash, where a tool has made one
        named = (file for file in found if file.uri and not file.uri.endswith("/"))
        visible = {file.uri: file for file in named if not any(part.startswith(".") for part in file.uri.split("/"))}
        return [visible[uri] for uri in sorted(visible)]

    def find(self, uris: Collection[str]) -> list[SourceFile]:
        """Return the files named by `uris`, sorted; by one listing of the folder where its store lists files."""
        found = [file for file in self.files() if file.uri in uris] if self.can_list else []
        found += self.lookup(sorted({*uris} - {file.uri for file in found}))
        return sorted(found, key=lambda file: file.uri)

    def lookup(self, uris: Iterable[str]) -> Iterator[SourceFile]:
        """Yield the files named by `uris` as they are now; those not there with size 0 and no etag."""
        if self.is_local:
            yield from map(self._local_file, uris)
            return
        wanted = tuple(uris)
        yield from once(("lookup", self, wanted), lambda: self._looked_up(wanted))

    def _looked_up(self, uris: tuple[str, ...]) -> list[SourceFile]:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return list(pool.map(self._remote_file, uris))

    def _local_files(self) -> Iterator[SourceFile]:
        folder = self.url("")
        if self.is_folder:
            for path, status in walk(folder):
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
        status = status_of(self.url(uri)) if self.allows(uri) else None
        if status is None:
            return _source_file(uri, 0, "")
        return _source_file(uri, status.st_size, str(status.st_mtime_ns))

    def _remote_files(self) -> Iterator[SourceFile]:
        if not self.can_list and (self.is_folder or _MAGIC.search(self.pattern or "")):
            raise SourceError(
                f"{self}: a web server lists no files; name them ({self.root}/{{000..127}}.tar), give a COCO file with "
                "images= their folder, or copy the folder here first"
            )
        fs, folder = open_fs(self.url(""))
        start = len(folder.rstrip("/")) + 1
        fs.invalidate_cache()  # what was listed earlier in this process may have changed since
        if self.is_folder:
            with input_store(self.url("")):
                found = fs.find(folder, detail=True)
            yield from (file_of_info(path[start:], info) for path, info in found.items())
            return
        plain = []
        for uri in self._spelled_out():
            if self.name is None and _MAGIC.search(uri):
                with input_store(self.url("")):
                    matches = fs.glob(f"{folder.rstrip('/')}/{uri}", detail=True)
                yield from (file_of_info(p[start:], info) for p, info in matches.items() if info["type"] == "file")
            else:
                plain.append(uri)
        yield from self.lookup(plain)

    def _remote_file(self, uri: str) -> SourceFile:
        fs, path = open_fs(self.url(uri))
        try:
            with input_store(self.url(uri)):
                return file_of_info(uri, fs.info(path))
        except FileNotFoundError:
            return _source_file(uri, 0, "")

    def _spelled_out(self) -> list[str]:
        return [self.name] if self.name is not None else expand_braces(self.pattern or "")


class NotAllowedError(OSError):
    """A name in a data file leads to what may not be read."""


def _leads_out(uri: str) -> bool:
    return ".." in uri and posixpath.normpath(uri).startswith("..") and ".." in uri.split("/")


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
    path = as_path(path)
    if is_url(path):
        try:
            open_fs(path)
        except (ImportError, ValueError) as error:
            raise SourceError(f"{path}: {error}") from error
    return path


def _is_local(path: str) -> bool:
    return path.startswith("/")


def _kind(path: str) -> str | None:
    """Return "file" or "directory" as fsspec calls them, or None where there is nothing."""
    if _is_local(path):
        return kind_of(path)
    if is_web(path) and path.endswith("/"):
        return "directory"
    return once(("kind", path), lambda: _remote_kind(path))


def _remote_kind(path: str) -> str | None:
    fs, remote_path = open_fs(path)
    try:
        with input_store(path):
            info = fs.info(remote_path)
            # some tools leave an empty object of the folder's name beside what is in it
            hides = (
                info["type"] == "file" and info.get("size") == 0 and not is_web(path) and fs.isdir(f"{remote_path}/")
            )
            return "directory" if hides else str(info["type"])
    except FileNotFoundError:
        return None


def file_of_info(uri: str, info: dict[str, Any]) -> SourceFile:
    """Return the record of a remote file from what fsspec's `info` says; stores name their etag differently."""
    etag = next((info[name] for name in ("ETag", "etag", "mtime", "Last-Modified") if info.get(name) is not None), "")
    if info.get("size") is None:
        etag = etag or "of unknown size"
    return _source_file(uri, int(info.get("size") or 0), str(etag))


def _source_file(uri: str, size: int, etag: str) -> SourceFile:
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{uri!r}: the file's name is not UTF-8 and cannot be recorded; rename it") from None
    return SourceFile(uri=uri, size=size, etag=etag)
