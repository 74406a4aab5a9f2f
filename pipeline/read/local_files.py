"""Local files as an INPUT has them: what a name leads to, opening it, walking a folder.

Past fsspec, whose own listing has no nanosecond times and whose open costs more than the read.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.read.base import SourceError

NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""Errors of a name that leads to no file; other errors are the store's."""
UNREADABLE = {*NOT_THERE, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL}
"""Errors of one file that no second try mends."""


def kind_of(path: str) -> str | None:
    """Return "file" or "directory", or None where there is nothing. Raises SourceError for what is neither."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - pathlib takes a loop of links for nothing
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SourceError(f"{path}: is neither a file nor a folder, but a pipe or a device; name a file")
    return "directory" if stat.S_ISDIR(mode) else "file"


def status_of(path: str) -> os.stat_result | None:
    """Return the status of what `path` leads to, None where that is nothing."""
    try:
        return os.stat(path)  # noqa: PTH116
    except ValueError:  # NUL is in no name
        return None
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise


def open_file(path: str) -> BinaryIO:
    """Open a file for reading. Raises OSError, also for a pipe or device, where a read could wait for ever."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except ValueError as error:  # NUL is in no name
        raise OSError(errno.EINVAL, str(error), path) from error
    if not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "is no file", path)
    return Path(path).open("rb")


def folder_that_is_there(path: str) -> str:
    """Return the longest beginning of an absolute `path` that is a folder, without a slash at its end."""
    folder = Path(path).parent
    while not folder.is_dir():
        folder = folder.parent
    return str(folder).removesuffix("/")


def walk(folder: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below `folder`, through links to folders too, but not around in circles.

    A link to nothing or to itself is yielded with its own status, so is a pipe: its image is to be missed, not passed
    over.
    """
    status = os.stat(folder)  # noqa: PTH116, as os.scandir: a folder may hold a million files
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            kind = _entry_kind(entry)
            if kind == "directory":
                yield from walk(entry.path, above | {here})
            else:
                yield entry.path, entry.stat(follow_symlinks=kind == "file")


def _entry_kind(entry: "os.DirEntry[str]") -> str | None:
    try:
        return "directory" if entry.is_dir() else "file" if entry.is_file() else None
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise
