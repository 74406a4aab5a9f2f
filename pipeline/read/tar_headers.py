"""Headers of tars: what each stands for, and where the next one lies. By tarfile where a header is not a plain one."""

import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO, Self, cast

import msgspec

from pipeline.read.compression import CHUNK
from schemas.reasons import Reason
from schemas.tar import BLOCK, padding

_CHECKSUM = re.compile(rb"[ 0-7]{6}[ 0-7\0]{2}")
_CHECKSUM_AT = 148
_MAGIC = re.compile(rb"ustar")
_MAGIC_AT = 257
_GNU_MAGIC = b"ustar  \0"
_PREFIX_AT, _PREFIX_END = 345, 500
_NAME_BYTES = 100
_EXTENDED = re.compile(rb"\d+ [\w.]+=")
_CONTINUED = b"M"
"""The type of a file whose beginning is in another volume."""
HEADER_ERRORS = (
    tarfile.TarError,
    ValueError,  # numbers and maps of extended headers; an UnicodeError is one too
    IndexError,  # an extended header that the file ends in
    OverflowError,
    MemoryError,  # a header that asks for more than there is
    RecursionError,  # extended headers that follow each other without end
)


class TarEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a tar: where its bytes are."""

    name: str
    """Its path, without `./` and the like."""
    header: int
    """Where its header begins in the tar, extended headers included."""
    offset: int
    """Where its bytes begin in the tar."""
    size: int
    """Bytes."""
    problem: Reason | None = None
    """`truncated` where its bytes are not all there, `missing` for a link to nothing in the tar, `bad_record` for
    a part of a file and for a sparse one whose pieces overlap."""
    is_sparse: bool = False
    """Whether the tar holds its bytes without the holes between them."""
    beside_gap: bool = False
    """Whether it is the last before or the first after a gap: files of its sample may be missing."""


def read_headers(
    file: BinaryIO, start: int, stop: int
) -> Iterator[tuple[TarEntry | None, tarfile.TarInfo | None, int]]:
    """Yield what each header from `start` on stands for, up to the first block that is none.

    That is a file, which may be a link, or something else (None); and where the next header belongs.
    """
    position = start
    while position + BLOCK <= stop:
        file.seek(position)
        plain = _parse_plain(file.read(BLOCK))
        if plain is None:
            yield from _other_headers(file, position, stop)
            return
        name, size = plain
        offset = position + BLOCK
        problem = Reason.TRUNCATED if offset + size > stop else None
        entry = TarEntry(name=clean_name(name), header=position, offset=offset, size=size, problem=problem)
        position = offset + size + padding(size)
        yield entry, None, position


def is_header(file: BinaryIO, start: int, stop: int) -> bool:
    """Say whether a header begins at `start`."""
    return start < stop and next(read_headers(file, start, stop), None) is not None


def find_header(file: BinaryIO, start: int, stop: int, *, grid: int, reach: int | None = None) -> int | None:
    """Return where the first header from `start` on begins, which lies before `stop`; what it is of, before `reach`.

    Headers lie on a grid of blocks, which another tar may have shifted: those of today's formats are found anywhere.
    """
    for begin in range(start, stop, CHUNK):
        file.seek(begin)
        data = file.read(min(CHUNK + BLOCK, stop - begin))
        on_grid = range((grid - begin) % BLOCK, min(len(data) - BLOCK, CHUNK) + 1, BLOCK)
        found = {at for at in on_grid if data[at] and _CHECKSUM.match(data, at + _CHECKSUM_AT)}
        found |= {match.start() - _MAGIC_AT for match in _MAGIC.finditer(data, _MAGIC_AT)}
        for at in sorted(found):
            if is_header(file, begin + at, stop if reach is None else reach):
                return begin + at
    return None


def end_of_zeros(file: BinaryIO, start: int, stop: int) -> int:
    """Return where the zeros end that begin at `start`."""
    file.seek(min(start, stop))
    for begin in range(start, stop, CHUNK):
        data = file.read(min(CHUNK, stop - begin))
        if rest := data.lstrip(b"\0"):
            return begin + len(data) - len(rest)
    return max(start, stop)


def has_cut_name(file: BinaryIO, header: int) -> bool:
    """Say whether a header's name may be a stand-in for one that a header before it had, which was lost.

    The block before it is such a header's then, or was lost too.
    """
    file.seek(max(header - BLOCK, 0))
    before = file.read(min(header, BLOCK))
    name = file.read(_NAME_BYTES).rstrip(b"\0")
    if len(name) < _NAME_BYTES - 1 and b"?" not in name:
        return False
    return not any(before) or _EXTENDED.match(before) is not None or before.startswith(name)


def open_archive(file: BinaryIO) -> tarfile.TarFile:
    """Return the tar that begins where `file` is positioned."""
    return tarfile.open(fileobj=file, mode="r:", tarinfo=_Info, encoding="utf-8", errors="backslashreplace")


class _Info(tarfile.TarInfo):
    """A header. GNU tar keeps times, in incremental archives, where others keep the beginning of a long name."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block, as tarfile does."""
        info = super().frombuf(buf, encoding, errors)
        if _is_gnu(buf) and info.type not in tarfile.GNU_TYPES:
            prefix = bytes(buf[_PREFIX_AT:_PREFIX_END]).partition(b"\0")[0].decode(encoding, errors)
            info.name = info.name.removeprefix(f"{prefix}/") if prefix else info.name
        return info


def _is_gnu(block: bytes | bytearray) -> bool:
    return block[_MAGIC_AT : _MAGIC_AT + len(_GNU_MAGIC)] == _GNU_MAGIC


def _parse_plain(block: bytes) -> tuple[str, int] | None:
    """Return name and size from the header of a regular file as nearly all are; None for any other block.

    What tarfile makes of them, in a third of the time.
    """
    has_prefix = block[_PREFIX_AT : _PREFIX_AT + 1] != b"\0" and not _is_gnu(block)
    if block[156:157] not in (b"0", b"\0") or has_prefix:
        return None
    try:
        checksum = int(block[148:156].rstrip(b" \0"), 8)
        size = int(block[124:136].rstrip(b" \0"), 8)
        name = block[:_NAME_BYTES].partition(b"\0")[0].decode()
    except ValueError:
        return None
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != checksum or size < 0 or not name or name.endswith("/"):
        return None
    return name, size


def _other_headers(
    file: BinaryIO, start: int, stop: int
) -> Iterator[tuple[TarEntry | None, tarfile.TarInfo | None, int]]:
    """Yield as `read_headers` does, by tarfile, for headers of all formats and kinds."""
    file.seek(start)
    position = start
    with suppress(*HEADER_ERRORS), open_archive(file) as tar:
        while position < stop and (info := tar.next()) is not None and info.name and tar.offset > position:
            tar.members = []  # type: ignore[attr-defined]  # it keeps all headers; a tar may hold millions
            position = tar.offset
            is_link = info.islnk() or info.issym()
            yield None if info.isdev() or info.isdir() else _entry(info, stop), info if is_link else None, position


def _entry(info: tarfile.TarInfo, stop: int) -> TarEntry:
    """Return the entry of a header in a stretch that ends at `stop`."""
    pieces = _pieces(info)
    stored = info.size if pieces is None else sum(size for _, size in pieces)
    is_link = info.islnk() or info.issym()
    problem = None
    if info.type == _CONTINUED or (pieces is not None and not _is_sound(pieces, info.size)):
        problem = Reason.BAD_RECORD
    elif not is_link and info.offset_data + stored > stop:
        problem = Reason.TRUNCATED
    return TarEntry(
        name=clean_name(info.name),
        header=info.offset,
        offset=info.offset_data,
        size=info.size,
        problem=problem,
        is_sparse=pieces is not None,
    )


def _pieces(info: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """Return (offset, size) of each piece of a sparse file; None for one that is stored as it is."""
    return cast("list[tuple[int, int]] | None", info.sparse)


def _is_sound(pieces: Sequence[tuple[int, int]], size: int) -> bool:
    """Say whether the pieces of a sparse file of `size` bytes follow each other within it."""
    ends = [0, *(offset + length for offset, length in pieces)]
    starts = [*(offset for offset, _ in pieces), size]
    return all(length >= 0 for _, length in pieces) and all(a <= b for a, b in zip(ends, starts, strict=True))


def clean_name(name: str) -> str:
    """Return a name without `./`, `//`, a slash in front, and `x/..`."""
    return posixpath.normpath(name).lstrip("/")
