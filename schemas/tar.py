"""The tar of a shard: the layout that the writer follows and the reader insists on.

    KEY.jpg | KEY.png | KEY.webp      the stored image
    KEY.txt                           its caption, where it has one
    KEY.json                          its ImageRecord

Members of a sample are adjacent and in that order. Headers hold a name, a size and constants, so that equal samples
give equal bytes whoever writes them, and whenever. Two zero blocks end the file; nothing fills it up to tape size.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from schemas.folder import DatasetError
from schemas.names import IMAGE_SUFFIXES

BLOCK = 512
"""Headers take one block of this many bytes, and contents are filled up to whole blocks."""

END = bytes(2 * BLOCK)
"""What ends a tar."""

_MAX_NAME = 100
"""Bytes of the header's name field. Longer names would need a PAX header: another member, and slower to read."""
_MAX_SIZE = 8**11 - 1
"""The largest size that eleven octal digits can say: 8 GiB less one."""

_SIZE = slice(124, 135)
"""Where the header says the size."""
_BEFORE_SIZE = b"0000644\x00" + 2 * b"0000000\x00"
"""Mode, owner, group."""
_MTIME = b"00000000000\0"
_AFTER_CHECKSUM = (b"0" + bytes(100) + b"ustar\x0000" + bytes(32) + bytes(32)).ljust(BLOCK - 156, b"\0")
"""Type "regular file", no link, the format's name and version, nobody's names, no devices."""
_HEADER = re.compile(rb".{124}[0-7]{11}\0.{121}ustar.*", re.DOTALL)
_CONSTANT_SUM = sum(_BEFORE_SIZE + b"\0" + _MTIME + b" " * 8 + _AFTER_CHECKSUM)
"""The checksum counts its own eight bytes as spaces; the name and the size's digits are added to this."""


def tar_member_header(name: str, size: int) -> bytes:
    """Return the 512-byte ustar header of a regular file of `size` bytes: mtime 0, owner 0, mode 0644.

    Raises ValueError for names that are not 1 to 100 ASCII characters and for sizes of 8 GiB or more, which ustar
    cannot say.
    """
    if not (0 < len(name) <= _MAX_NAME and name.isascii() and "\0" not in name):
        raise ValueError(f"{name!r}: a tar member's name has 1 to {_MAX_NAME} ASCII characters; shorten the key")
    if not 0 <= size <= _MAX_SIZE:
        raise ValueError(f"{name}: {size} bytes; a tar member has at most {_MAX_SIZE}")
    name_bytes, digits = name.encode("ascii"), b"%011o" % size
    checksum = _CONSTANT_SUM + sum(name_bytes) + sum(digits)
    numbers = _BEFORE_SIZE + digits + b"\0" + _MTIME + b"%06o\0 " % checksum
    return name_bytes.ljust(_MAX_NAME, b"\0") + numbers + _AFTER_CHECKSUM


def member_size(header: bytes) -> int | None:
    """Return the size that a header of `tar_member_header` states; None for what is no such header."""
    return int(header[_SIZE], 8) if _HEADER.fullmatch(header) else None


def padding(size: int) -> int:
    """Return how many zero bytes follow contents of `size` bytes."""
    return -size % BLOCK


class Readable(Protocol):
    """What is asked of a stream: a file, or one that does something with the bytes as they pass."""

    def read(self, size: int, /) -> bytes:
        """Return the next `size` bytes, fewer at the end."""


@dataclass(frozen=True, kw_only=True)
class RawSample:
    """The members of one sample as bytes, nothing decoded."""

    key: str
    suffix: str
    """Of the image: `jpg`, `png` or `webp`."""
    image: bytes
    text: bytes | None
    json: bytes
    offset: int
    """Where the image's bytes begin in the tar."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of a tar, named KEY.SUFFIX."""

    key: str
    suffix: str
    data: bytes
    offset: int
    """Where `data` begins in the tar."""


def read_samples(file: BinaryIO, *, where: str, offset: int = 0) -> Iterator[RawSample]:
    """Yield the samples of the tar `file` in order.

    `file` is positioned at `offset`, the beginning of a member; `where` names the tar in errors. Raises DatasetError,
    naming tar, key and offset, where the file ends early, holds something else than regular files, has a member that is
    not of the layout, or splits a sample.
    """
    members = read_members(file, where, offset)
    for image in members:
        if image.suffix not in IMAGE_SUFFIXES:
            raise _misplaced(where, image, "an image (" + ", ".join(f".{suffix}" for suffix in IMAGE_SUFFIXES) + ")")
        text = None
        record = _next_of(members, image, where)
        if record.suffix == "txt":
            text, record = record.data, _next_of(members, image, where)
        if record.suffix != "json":
            raise _misplaced(where, record, f"{image.key}.json")
        yield RawSample(
            key=image.key, suffix=image.suffix, image=image.data, text=text, json=record.data, offset=image.offset
        )


def _next_of(members: Iterator[Member], image: Member, where: str) -> Member:
    member = next(members, None)
    if member is None:
        raise DatasetError(f"{where}: key {image.key!r}: the tar ends before {image.key}.json; write the shard again")
    if member.key != image.key:
        raise _misplaced(where, member, f"{image.key}.json (members of a sample are adjacent)")
    return member


def _misplaced(where: str, member: Member, wanted: str) -> DatasetError:
    return DatasetError(
        f"{where}: key {member.key!r}: found {member.key}.{member.suffix} at byte {member.offset - BLOCK}, "
        f"where {wanted} belongs; write the shard again"
    )


def read_members(file: Readable, where: str, offset: int) -> Iterator[Member]:
    """Yield the members of the tar `file` in order, as `read_samples` does, but whatever samples they make.

    Raises DatasetError where the file ends early or holds something else than regular files.
    """
    while True:
        block = _read_exactly(file, BLOCK, f"{where}: the header at byte {offset}")
        if not any(block):
            return
        name, size = _parse_header(block, f"{where}: byte {offset}")
        key, _, suffix = name.partition(".")
        begin = offset + BLOCK
        data = _read_exactly(file, size, f"{where}: key {key!r}: {name} at byte {begin}")
        _read_exactly(file, padding(size), f"{where}: key {key!r}: the end of {name} at byte {begin}")
        yield Member(key=key, suffix=suffix, data=data, offset=begin)
        offset = begin + size + padding(size)


def _parse_header(block: bytes, where: str) -> tuple[str, int]:
    """Return the member's name and size."""
    # Nearly all headers are our own, which are recognised in a fraction of the time that parsing any header takes.
    try:
        name, size = block[:_MAX_NAME].rstrip(b"\0").decode("ascii"), int(block[_SIZE], 8)
        if tar_member_header(name, size) == block:
            return name, size
    except ValueError:
        pass  # not one of ours
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise DatasetError(f"{where}: not a tar header ({error}); write the shard again") from error
    if info.type != tarfile.REGTYPE:
        raise DatasetError(f"{where}: {info.name!r} is not a regular file (tar type {info.type!r})")
    return info.name, info.size


def _read_exactly(file: Readable, size: int, what: str) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise DatasetError(f"{what}: the tar ends {size - len(data)} bytes early; fetch or write the shard again")
    return data
