"""The archives in a tar's file: one pass over the headers, from end mark to end mark, and over gaps.

Every byte belongs to a member, to the end of an archive, or to a gap. An archive ends with two blocks of zeros that
follow a whole member, filled up to a record; whole archives may follow each other (`cat a.tar b.tar`). All else where
a header belongs, zeros too, is a gap: reading goes on at the next header. What lies behind an end mark and is no
archive was deleted or written over, and stays so. A tar inside a member is that member's.
"""

import os
import posixpath
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import msgspec

from pipeline.read.compression import CHUNK, Break
from pipeline.read.tar_headers import (
    TarEntry,
    clean_name,
    end_of_zeros,
    find_header,
    has_cut_name,
    is_header,
    read_headers,
)
from schemas.reasons import Reason
from schemas.tar import BLOCK, END

_RECORD = 20 * BLOCK
"""Bytes to which archives are filled up by custom."""
_LARGE_RECORDS = tuple(1 << power for power in range(14, 21))
"""To which a file is filled up where somebody chose so: powers of two up to 1 MiB."""
_HOLLOW = 2
"""As many zeros at the end of a member, before a run of zeros, show that the run began inside the member."""
_END_MARKS = (b"\xff\xd9", b"IEND\xae\x42\x60\x82", b"\0;")
_PICTURES = (b"\xff\xd8", b"\x89P", b"GI")
"""What JPEG, PNG and GIF end in, and begin with; some cameras fill their files up with zeros after it."""
_DATA_AT = (BLOCK, 3 * BLOCK)
"""How far behind the beginning of a header a member's content may begin: without and with an extended header."""
_LINKS = 40
"""Links that are followed to find a file; as many as a file system follows."""
_ZEROS = "zeros where a header belongs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Bytes of a tar that are not read."""

    start: int
    stop: int
    problem: str
    """What lies there."""
    num_lost: int
    """Bytes that are lost: the gap's own, and those of a file that is cut by it."""
    reason: Reason = Reason.TRUNCATED
    """`stale` for what lies behind the end of an archive and is none."""


def walk(file: BinaryIO, breaks: Sequence[Break] = ()) -> tuple[list[TarEntry], list[Gap]]:
    """Return the files of a tar in the order of their headers, and what of it is not read.

    Only headers are read. `breaks` are the offsets at which the stream is not continuous: what was compressed there is
    lost. A tar without its end mark counts as cut: nothing else tells a file cut between two members from a whole one.
    """
    size = file.seek(0, os.SEEK_END)
    entries: list[TarEntry] = []
    links: dict[int, tarfile.TarInfo] = {}
    gaps: list[Gap] = []
    start = 0
    for end in (*breaks, Break(offset=size, problem="", num_lost=0)):
        if start < end.offset or not breaks:
            stretch = _Stretch(file, start, end.offset)
            stretch.walk()
            links |= {len(entries) + index: link for index, link in stretch.links.items()}
            entries += stretch.entries
            gaps += stretch.gaps
        if end.problem:
            cut = gaps.pop() if gaps and gaps[-1].stop == end.offset else None
            gaps.append(_joined(cut, end))
        start = end.offset
    return _with_links(entries, links), gaps


def _joined(cut: Gap | None, end: Break) -> Gap:
    """Return the gap at a break of the stream, which has cut the tar there or lies behind its end."""
    if cut is None:
        reason = Reason.TRUNCATED if end.is_stream else Reason.STALE
        lost = end.num_lost if end.is_stream else 0
        return Gap(start=end.offset, stop=end.offset, problem=end.problem, num_lost=lost, reason=reason)
    return replace(cut, problem=f"{end.problem}; {cut.problem}", num_lost=cut.num_lost + end.num_lost)


class _Stretch:
    """The archives in a range of a file that was not broken."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self.entries: list[TarEntry] = []
        self.links: dict[int, tarfile.TarInfo] = {}
        """By the position of the entry."""
        self.gaps: list[Gap] = []
        self._file = file
        self._stop = stop
        self._archive = start
        """Where the archive begins that is being read: its end is filled up to a record that begins there."""
        self._joins: list[tuple[int, int]] = []
        """Archives before it that ended with an end mark and no padding: where each began, and where its mark did."""
        self._lost: int | None = None
        """Where the first header belonged that was lost in the archive's last gap."""
        self._resumed: int | None = None
        """Where reading went on after that gap."""

    def walk(self) -> None:
        """Find the entries and gaps."""
        position: int | None = self._archive
        while position is not None:
            first = len(self.entries)
            position = self._end_or_gap(self._read_headers(position), first)

    def _read_headers(self, start: int) -> int:
        """Add the entries from `start` on, and return where the first block lies that is no header."""
        position, first = start, len(self.entries)
        for entry, link, after in read_headers(self._file, start, self._stop):
            position = after
            if link is not None:
                self.links[len(self.entries)] = link
            if entry is not None:
                self.entries.append(entry)
        if start == self._resumed and len(self.entries) > first:
            self.entries[first] = msgspec.structs.replace(self.entries[first], beside_gap=True)
        return position

    def _end_or_gap(self, position: int, first: int) -> int | None:
        """Take what lies at `position`, behind the entries from `first` on, for an end or a gap.

        Returns where the next archive begins or reading goes on; None at the end.
        """
        zeros = end_of_zeros(self._file, position, self._stop)
        at_end = zeros == self._stop
        last = self.entries[-1] if len(self.entries) > first else None
        hollow = last is not None and _is_hollow(self._file, last)
        marked = zeros - position >= (BLOCK if at_end else len(END))
        followed = marked and is_header(self._file, zeros, self._stop)
        if followed and zeros != _padded(self._archive, position) and has_cut_name(self._file, zeros):
            marked = followed = False  # an extended header was lost
        damaged = hollow and not ((at_end or followed) and _may_end_in_zeros(self._file, last))
        ended = marked and not damaged and self._is_filled_up(position, zeros)
        if followed and not hollow and self._is_nested(position, zeros, ended=ended):
            self._forget(first)
            last = None
        elif ended:
            if followed:
                if zeros - position == len(END):
                    self._joins.append((self._archive, position))
                self._archive, self._lost, self._resumed = zeros, None, None
                return zeros
            if not at_end:
                joined = self._find_behind_end(zeros)
                problem = "behind the end of an archive, and no whole one: what was deleted stays deleted"
                problem = problem if joined is None else "between two archives, and of none of them"
                stop = self._stop if joined is None else joined
                self.gaps.append(Gap(start=zeros, stop=stop, problem=problem, num_lost=0, reason=Reason.STALE))
                if joined is not None:
                    self._archive, self._lost, self._resumed = joined, None, None
                return joined
            return None
        return self._go_on(position, zeros, last, hollow=hollow)

    def _is_filled_up(self, position: int, zeros: int) -> bool:
        """Say whether the archive, or one before it, ends at `position` and is filled up to `zeros`.

        Where it is one before it, what was taken for that one's end was zeros within it.
        """
        if _is_filled_up(self._archive, position, zeros):
            return True
        for index, (archive, _) in enumerate(self._joins):
            if _is_filled_up(archive, position, zeros):
                for _, end in self._joins[index:]:
                    self.gaps.append(Gap(start=end, stop=end + len(END), problem=_ZEROS, num_lost=len(END)))
                self.gaps.sort(key=lambda gap: gap.start)
                self._archive = archive
                del self._joins[index:]
                return True
        return zeros == self._stop and (
            zeros <= _padded(self._archive, position)  # a cut in the padding does no harm
            or any(zeros == _padded(self._archive, position, record) for record in _LARGE_RECORDS)
        )

    def _is_nested(self, position: int, zeros: int, *, ended: bool) -> bool:
        """Say whether what ends at `position` is a tar within a member whose own header was lost in a gap.

        It is filled up, as any, to a record that begins with its own beginning: behind the header that was lost.
        """
        if self._lost is None:
            return False
        begins = [self._lost + offset for offset in _DATA_AT]
        if ended or zeros - position == len(END):  # then its first header must be seen, too
            begins = [begin for begin in begins if begin == self._resumed]
        return any(_is_filled_up(begin, position, zeros) for begin in begins)

    def _forget(self, first: int) -> None:
        """Forget the entries from `first` on: they are a member's content."""
        del self.entries[first:]
        self.links = {index: link for index, link in self.links.items() if index < first}

    def _go_on(self, position: int, zeros: int, last: TarEntry | None, *, hollow: bool) -> int | None:
        """Add the gap at `position`, and return where reading goes on."""
        resumed = None
        if last is not None and zeros - position < BLOCK:
            resumed = self._find_joined(last, position)
        if resumed is None:
            search = max(zeros - (zeros - position) % BLOCK, position + 1)
            resumed = find_header(self._file, search, self._stop, grid=position % BLOCK)
        if resumed is not None and has_cut_name(self._file, resumed):
            *_, resumed = next(read_headers(self._file, resumed, self._stop))
        stop = self._stop if resumed is None else min(resumed, self._stop)
        start = min(position, stop)
        problem = _ZEROS if zeros - position >= BLOCK else "no header where one belongs"
        # a cut in the padding leaves the file whole
        if last is not None and (hollow or (stop < position and last.offset + last.size > stop)):
            start = last.header
            problem = f"{last.name} is cut by zeros" if hollow else f"the archive ends inside {last.name}"
            self.entries[-1] = msgspec.structs.replace(last, problem=Reason.TRUNCATED, beside_gap=True)
        elif last is not None:
            self.entries[-1] = msgspec.structs.replace(last, beside_gap=True)
        if stop - position < BLOCK and stop == self._stop and start == position:
            problem = "the archive ends without its end mark"
        earlier = self.gaps.pop() if self.gaps and self.gaps[-1].stop == self._resumed and last is None else None
        if earlier is not None:
            start, problem = earlier.start, earlier.problem
        else:
            # behind nothing but zeros begins no member's content
            self._lost = None if resumed == zeros and zeros - position >= len(END) else position
        # no more than is there, whatever size the header of a cut file says; where it is cut in its padding, that
        lost = stop - start or min(position - stop, BLOCK)
        self.gaps.append(Gap(start=start, stop=stop, problem=problem, num_lost=lost))
        self._resumed = resumed
        return resumed if resumed is not None and resumed < self._stop else None

    def _find_behind_end(self, end: int) -> int | None:
        """Return where an archive begins that was joined to the one that ends at `end`, with stray bytes between them.

        What was deleted lies on the grid of the archive that it was in, and ends where that one was filled up.
        """
        stop = min(end + _RECORD + BLOCK, self._stop)
        found = find_header(self._file, end, stop, grid=self._archive % BLOCK, reach=self._stop)
        if found is None or (found - self._archive) % BLOCK:
            return found
        position = max(after for *_, after in read_headers(self._file, found, self._stop))
        zeros = end_of_zeros(self._file, position, self._stop)
        fits = zeros == _padded(found, position) and (found - self._archive) % _RECORD
        return found if fits and (zeros == self._stop or is_header(self._file, zeros, self._stop)) else None

    def _find_joined(self, last: TarEntry, position: int) -> int | None:
        """Return where an archive begins that was joined on where the last file was cut: within it, by its header."""
        if is_header(self._file, last.offset, self._stop):
            return None  # a tar
        stop = min(position, self._stop)
        found = find_header(self._file, last.offset + 1, min(stop + BLOCK - 1, self._stop), grid=position % BLOCK)
        if found is None:
            return None
        reached = max(after for *_, after in read_headers(self._file, found, self._stop))
        return found if end_of_zeros(self._file, reached, self._stop) >= stop else None  # else a part of the file


def _is_filled_up(archive: int, position: int, zeros: int) -> bool:
    """Say whether zeros from `position` to `zeros` end an archive that begins at `archive`, by writers' customs."""
    if (position - archive) % BLOCK:  # reading went on in an archive whose beginning was lost
        return zeros - position <= _RECORD + len(END)
    return zeros in (position + len(END), _padded(archive, position))


def _padded(archive: int, position: int, record: int = _RECORD) -> int:
    """Return where an archive ends that has its end mark at `position` and is filled up to whole records."""
    return archive + -(-(position + len(END) - archive) // record) * record


def _is_hollow(file: BinaryIO, entry: TarEntry) -> bool:
    """Say whether an entry's bytes end in zeros, as they do where zeros were written over a part of the tar."""
    length = 0 if entry.is_sparse or entry.problem is not None else min(entry.size, CHUNK)
    file.seek(entry.offset + entry.size - length if length else 0)
    data = file.read(length)
    rest = data.rstrip(b"\0")
    return bool(length) and len(data) - len(rest) >= min(_HOLLOW, length) and not rest.endswith(_END_MARKS)


def _may_end_in_zeros(file: BinaryIO, entry: TarEntry | None) -> bool:
    """Say whether a whole file may end in zeros: not a picture that has an end mark."""
    if entry is None:
        return True
    file.seek(entry.offset)
    return file.read(_HOLLOW) not in _PICTURES


def _with_links(entries: list[TarEntry], links: dict[int, tarfile.TarInfo]) -> list[TarEntry]:
    """Give entries that are links the bytes of the file they lead to (tars of folders store equal files once).

    A hard link means a file before it, the latest of that name; a symbolic one the latest in the tar.
    """
    if not links:
        return entries
    latest = {entry.name: index for index, entry in enumerate(entries)}
    before: dict[str, int] = {}
    target: dict[int, int | None] = {}
    for index, entry in enumerate(entries):
        link = links.get(index)
        if link is not None:
            folder = posixpath.dirname(link.name) if link.issym() else ""
            name = clean_name(posixpath.join(folder, link.linkname))
            target[index] = latest.get(name) if link.issym() else before.get(name, latest.get(name))
        before[entry.name] = index
    resolved = list(entries)
    for start in links:
        found: int | None = start
        for _ in range(_LINKS):
            if found is None or found not in target:
                break
            found = target[found]
        if found is None or found in target:
            resolved[start] = msgspec.structs.replace(entries[start], problem=Reason.MISSING)
        else:
            resolved[start] = msgspec.structs.replace(entries[found], name=entries[start].name)
    return resolved
