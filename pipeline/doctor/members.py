"""The layout of a shard's tar: whole samples of `KEY.jpg|png|webp [KEY.txt] KEY.json`, adjacent and in that order.

`schemas.tar.read_samples` stops at the first member that is out of place; here the rest is looked at too.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

from pipeline.doctor.findings import Findings
from schemas.names import IMAGE_SUFFIXES, KEY_PATTERN, ShardName
from schemas.tar import BLOCK, Member

_CHECK = "tar-layout"
_KEY = re.compile(KEY_PATTERN)
_ORDER = {**dict.fromkeys(IMAGE_SUFFIXES, 0), "txt": 1, "json": 2}
"""The place of a member in its sample, by suffix."""
_DRAIN = 1 << 20


class HashedStream:
    """A stream read from its beginning, whose sha256 and length are known when it has been drained."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        """`advance` is told the number of bytes of each read."""
        self.num_bytes = 0
        self._file = file
        self._advance = advance
        self._sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        data = self._file.read(size)
        self._sha256.update(data)
        self.num_bytes += len(data)
        self._advance(len(data))
        return data

    def drain(self) -> str:
        """Read to the end and return the sha256 of the whole."""
        while self.read(_DRAIN):
            pass
        return self._sha256.hexdigest()


@dataclass(frozen=True, kw_only=True)
class StoredSample:
    """An image with its record as they stand together in a tar."""

    key: str
    image: Member
    text: bytes | None
    json: bytes


class Layout:
    """The samples of one tar, with what is out of place among them."""

    def __init__(self, shard: ShardName, findings: Findings) -> None:
        self.keys: set[str] = set()
        """Of all members so far."""
        self._shard = shard
        self._findings = findings
        self._incomplete: dict[str, list[Member]] = {}
        """Members of samples that may go on elsewhere, which would be the fault then."""

    def samples(self, members: Iterable[Member]) -> Iterator[StoredSample]:
        """Yield the samples whose image and record are adjacent, in the tar's order."""
        for key, run in groupby(members, lambda member: member.key):
            together = list(run)
            self._check_names(key, together)
            known = [member for member in together if member.suffix in _ORDER]
            self._check_run(key, known)
            self.keys.add(key)
            first = {_ORDER[member.suffix]: member for member in reversed(known)}
            if {0, 2} <= first.keys():
                text = first[1].data if 1 in first else None
                yield StoredSample(key=key, image=first[0], text=text, json=first[2].data)

    def finish(self) -> None:
        """Report the samples that stayed incomplete."""
        for key, members in self._incomplete.items():
            places = {_ORDER[member.suffix] for member in members}
            lacking = [name for place, name in ((0, "image"), (2, "record (json)")) if place not in places]
            self._error(key, f"the sample has no {' and no '.join(lacking)}; there is {_named(members)}")

    def _check_names(self, key: str, members: list[Member]) -> None:
        if not _KEY.fullmatch(key):
            self._error(key, f"the key of the member at byte {members[0].offset - BLOCK} does not match {KEY_PATTERN}")
        for member in members:
            if member.suffix not in _ORDER:
                where = f"{key}.{member.suffix} at byte {member.offset - BLOCK}"
                self._error(key, f"unknown member {where}; a sample has {', '.join(_ORDER)}")

    def _check_run(self, key: str, members: list[Member]) -> None:
        """Report what is wrong with adjacent members of one key, all of known suffixes."""
        places = [_ORDER[member.suffix] for member in members]
        if not members:
            return  # all were of unknown suffixes
        if key in self._incomplete:
            apart = self._incomplete.pop(key) + members
            self._error(key, f"the members are not adjacent: {_named(apart)}")
        elif key in self.keys:
            self._error(key, f"a second sample of this key: {_named(members)}")
        elif not {0, 2} <= set(places):
            self._incomplete[key] = members
        elif len(set(places)) < len(places):
            self._error(key, f"more than one image, text or record: {_named(members)}")
        elif places != sorted(places):
            self._error(key, f"the members are out of order: {_named(members)}; the image comes first, json last")

    def _error(self, key: str, message: str) -> None:
        self._findings.error(_CHECK, message, shard=self._shard, key=key)


def _named(members: list[Member]) -> str:
    return ", ".join(f".{member.suffix} at byte {member.offset - BLOCK}" for member in members)
