"""Decompressing what was compressed as a stream: gzip, bzip2, xz, Zstandard; one stream or several after each other."""

import bz2
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Protocol

import zstandard

from schemas.tar import BLOCK

CHUNK = 2**20
"""Bytes read at a time."""
_PIECE = 2**14
"""Bytes decompressed at a time: what bounds the memory that a stream of zeros takes."""


class _Decompressor(Protocol):
    """One stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


_DECOMPRESSORS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lzma.LZMADecompressor,
    b"\x28\xb5\x2f\xfd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}
"""By the bytes that a stream begins with."""
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_SKIPPABLE_HEAD = 8
"""Bytes of such a frame that say what it is and how many follow."""
_ERRORS = (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError, zstandard.ZstdError)
_LONGEST = max(map(len, _DECOMPRESSORS))
_ANY_MAGIC = re.compile(b"|".join(map(re.escape, _DECOMPRESSORS)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Break:
    """Where decompressed bytes do not follow from those before them."""

    offset: int
    """In the decompressed file."""
    problem: str
    num_lost: int
    """Compressed bytes that were of no use."""
    is_stream: bool = True
    """Whether a stream is damaged; False for bytes that are none."""


def is_compressed(file: BinaryIO) -> bool:
    """Return True for a file that begins as a compressed stream does."""
    file.seek(_behind_skippable(file, 0))
    return _decompressor(file.read(_LONGEST)) is not None


def _behind_skippable(file: BinaryIO, position: int) -> int:
    """Return where the first frame from `position` on begins that is no skippable one of Zstandard."""
    while True:
        file.seek(position)
        head = file.read(_SKIPPABLE_HEAD)
        if len(head) < _SKIPPABLE_HEAD or _SKIPPABLE.match(head) is None:
            return position
        position += _SKIPPABLE_HEAD + int.from_bytes(head[4:], "little")


def _decompressor(data: bytes) -> Callable[[], _Decompressor] | None:
    return next((make for magic, make in _DECOMPRESSORS.items() if data.startswith(magic)), None)


def decompress(packed: BinaryIO, plain: BinaryIO) -> list[Break]:
    """Copy the streams of `packed`, decompressed, to `plain`, as far as they can be read; return where bytes are lost.

    After what is damaged or no stream, copying goes on at the next stream that holds a tar. Zeros at the end are
    padding.
    """
    size = packed.seek(0, os.SEEK_END)
    breaks: list[Break] = []
    position = 0
    while position < size and not _only_zeros(packed, position):
        position = start = min(_behind_skippable(packed, position), size)
        begin = plain.tell()
        if start == size:
            break
        packed.seek(start)
        make = _decompressor(packed.read(_LONGEST))
        problem = "no stream begins there"
        if make is not None:
            position, problem = _feed(packed, plain, make(), start, size)
        if problem:
            resumed = _find_stream(packed, start + 1, position, size)
            if make is not None:
                # again: what was decompressed of the last piece is lost with its error, and what follows another
                # stream's beginning is nonsense
                plain.seek(begin)
                plain.truncate()
                position, _ = _feed(packed, plain, make(), start, resumed, careful_from=position)
                position = position if plain.tell() > begin else start
            problem = f"the compressed stream breaks off at byte {position:,}: {problem}"
            lost = resumed - position
            breaks.append(Break(offset=plain.tell(), problem=problem, num_lost=lost, is_stream=make is not None))
            position = resumed
    return breaks


def _feed(
    packed: BinaryIO,
    plain: BinaryIO,
    stream: _Decompressor,
    position: int,
    stop: int,
    careful_from: int | None = None,
) -> tuple[int, str]:
    """Copy a stream up to its end, or to `stop`; return where that is, and what went wrong there ("" for nothing)."""
    packed.seek(position)
    while not stream.eof:
        careful = careful_from is not None and position + _PIECE > careful_from
        data = packed.read(min(1 if careful else _PIECE, stop - position))
        if not data:
            return position, "it ends early"
        try:
            piece = stream.decompress(data)
        except _ERRORS as error:
            return position, str(error)
        plain.write(piece)
        position += len(data)
    return position - len(stream.unused_data), ""


def _only_zeros(file: BinaryIO, start: int) -> bool:
    file.seek(start)
    while data := file.read(CHUNK):
        if data.strip(b"\0"):
            return False
    return True


def _find_stream(packed: BinaryIO, start: int, reached: int, size: int) -> int:
    """Return where the next stream begins that decompresses to a tar's header; `size` if there is none.

    Where it begins before `reached`, it must go beyond: else it is a compressed file within the damaged stream.
    """
    for begin in range(start, size, CHUNK):
        packed.seek(begin)
        data = packed.read(CHUNK + _LONGEST)
        for match in _ANY_MAGIC.finditer(data):
            found, make = begin + match.start(), _DECOMPRESSORS[match[0]]
            head = BytesIO()
            stream, reached_in = make(), found
            while reached_in < size and head.tell() < BLOCK and not stream.eof:
                piece = min(reached_in + BLOCK, size)
                reached_in, _ = _feed(packed, head, stream, reached_in, piece)
                if reached_in < piece:
                    break
            with suppress(tarfile.HeaderError):
                tarfile.TarInfo.frombuf(head.getvalue()[:BLOCK], "utf-8", "replace")
                if found >= reached or _feed(packed, _Nowhere(), make(), found, size)[0] >= reached:
                    return found
    return size


class _Nowhere(BytesIO):
    """A file that forgets what is written to it."""

    def write(self, data: object, /) -> int:
        return 0
