"""Tars as tables of contents: one pass over the headers, then members by offset, in whatever order they lie.

Remote and compressed tars are copied to a temporary local file first, so that there is one way to read.
"""

import gzip
import os
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.read.items import unreadable_is_missing
from pipeline.read.location import Location
from schemas.reasons import Reason

_CHUNK = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file in a tar."""

    name: str
    """Its path, without `./` in front."""
    offset: int
    """Where its bytes begin in the tar."""
    size: int
    """Bytes."""
    problem: Reason | None = None
    """`truncated` where the tar ends before the member does, `missing` for a link to nothing in the tar."""


@dataclass(frozen=True, kw_only=True)
class OpenTar:
    """A tar, uncompressed and seekable, with its members in the order of their headers."""

    file: BinaryIO
    members: list[Member]
    problem: str | None
    """What is wrong with the tar as a whole: it was cut, or is not a tar. None for a whole one."""


@contextmanager
def open_tar(location: Location, uri: str) -> Iterator[OpenTar]:
    """Open a tar, local or remote, compressed with gzip or not (its first bytes tell, not its name).

    Raises SampleError, missing, where there is none, and OSError when the store fails.
    """
    with ExitStack() as stack:
        file = stack.enter_context(_opened(location, uri) if location.is_local else _downloaded(location, uri))
        problem = None
        if file.read(2) == b"\x1f\x8b":
            compressed, file = file, cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile()))
            problem = _decompress(compressed, file)
        members, tar_problem = walk(file)
        yield OpenTar(file=file, members=members, problem=problem or tar_problem)


def _opened(location: Location, uri: str) -> BinaryIO:
    with unreadable_is_missing(location, uri):
        return location.open(uri)


@contextmanager
def _downloaded(location: Location, uri: str) -> Iterator[BinaryIO]:
    with tempfile.TemporaryDirectory(prefix="fineclip-") as folder:
        path = Path(folder) / "tar"
        with unreadable_is_missing(location, uri):
            location.download(uri, str(path))
        with path.open("rb") as file:
            yield file


def _decompress(compressed: BinaryIO, plain: BinaryIO) -> str | None:
    """Copy what can be decompressed; returns what went wrong, if something did."""
    compressed.seek(0)
    with gzip.open(compressed) as stream:
        try:
            # read1 hands out what is there: read would lose up to a chunk before the cut
            while chunk := stream.read1(_CHUNK):
                plain.write(chunk)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            return f"the gzip stream breaks off: {error}"
    return None


def walk(file: BinaryIO) -> tuple[list[Member], str | None]:
    """Return the members of a tar, and what is wrong with it as a whole (None for nothing).

    Only headers are read. A tar without its end mark (a block of zeros) counts as cut: nothing else tells a file cut
    between two members from a whole one.
    """
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    members: list[Member] = []
    links: dict[int, str] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="backslashreplace") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it keeps all headers; a tar may hold millions
                if info.islnk() or info.issym():
                    links[len(members)] = _link_target(info)
                if info.isreg() or info.islnk() or info.issym():
                    members.append(_member(info, num_bytes))
            problem = _end_problem(file, tar.offset)
    except (tarfile.TarError, ValueError) as error:
        problem = f"the tar is cut or is none: {error}"
    return _with_links(members, links), problem


def _member(info: tarfile.TarInfo, num_bytes: int) -> Member:
    cut = info.isreg() and info.offset_data + info.size > num_bytes
    return Member(
        name=_clean(info.name),
        offset=info.offset_data,
        size=info.size,
        problem=Reason.TRUNCATED if cut else None,
    )


def _link_target(info: tarfile.TarInfo) -> str:
    folder = posixpath.dirname(info.name) if info.issym() else ""
    return _clean(posixpath.normpath(posixpath.join(folder, info.linkname)))


def _clean(name: str) -> str:
    return name.removeprefix("./").lstrip("/")


def _with_links(members: list[Member], links: dict[int, str]) -> list[Member]:
    """Give members that are links the bytes of the member they name (tars of folders store equal files once)."""
    if not links:
        return members
    files = {member.name: member for index, member in enumerate(members) if index not in links}
    resolved = list(members)
    for index, target in links.items():
        found = files.get(target)
        resolved[index] = (
            replace(members[index], problem=Reason.MISSING)
            if found is None
            else replace(found, name=members[index].name)
        )
    return resolved


def _end_problem(file: BinaryIO, offset: int) -> str | None:
    """Say what is wrong where tarfile stopped reading: it takes damage in the middle for the end, without a word."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block == bytes(tarfile.BLOCKSIZE):
        return None
    if len(block) < tarfile.BLOCKSIZE:
        return f"the tar ends at byte {offset + len(block)} without its end mark"
    return f"byte {offset} is no tar header"
