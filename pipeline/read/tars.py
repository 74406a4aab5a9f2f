"""Tars as tables of contents: one pass over the headers, then members by offset, in whatever order they lie.

Every byte belongs to a member, to the end of an archive, or to a gap. An archive ends with two blocks of zeros that
follow a whole member, filled up to a record; whole archives may follow each other (`cat a.tar b.tar`). All else where
a header belongs, zeros too, is a gap: reading goes on at the next header. What lies behind an end mark and is no
archive was deleted or written over, and stays so. A tar inside a member is that member's.

Remote tars are copied to a temporary local file, in large ranges, and compressed ones decompressed into one: so there
is one way to read. Not a byte is saved by less, since which files make up a sample is known at the end of a tar alone.
"""

import os
import posixpath
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, Self, cast

import msgspec

from pipeline.read.compression import CHUNK, Break, decompress, is_compressed
from pipeline.read.formats import looks_like_picture
from pipeline.read.items import SampleError, check_size, read_range, unreadable_is_missing
from pipeline.read.location import Location
from schemas.reasons import Reason
from schemas.store_errors import full_disk
from schemas.tar import BLOCK, END, padding

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
_CHECKSUM = re.compile(rb"[ 0-7]{6}[ 0-7\0]{2}")
_CHECKSUM_AT = 148
_MAGIC = re.compile(rb"ustar")
_MAGIC_AT = 257
_GNU_MAGIC = b"ustar  \0"
_PREFIX_AT, _PREFIX_END = 345, 500
_NAME_BYTES = 100
_ZEROS = "zeros where a header belongs"
_EXTENDED = re.compile(rb"\d+ [\w.]+=")
_CONTINUED = b"M"
"""The type of a file whose beginning is in another volume."""
_HEADER_ERRORS = (
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


@dataclass(frozen=True, kw_only=True)
class OpenTar:
    """A tar, uncompressed and seekable, with its files in the order of their headers."""

    file: BinaryIO
    entries: list[TarEntry]
    gaps: list[Gap]
    scale: float = 1.0
    """Bytes of the file as it lies there for each byte of `file`: less than 1 for a compressed one."""

    def read(self, entry: TarEntry) -> bytes:
        """Return an entry's bytes. Raises SampleError: missing, too large, truncated, or a bad record (its holes)."""
        if entry.problem is Reason.MISSING:
            raise SampleError(Reason.MISSING, f"{entry.name}: links to nothing in the tar")
        if entry.problem is not None:
            raise SampleError(entry.problem, f"{entry.name}: the tar does not hold its {entry.size} bytes")
        if not entry.is_sparse:
            return read_range(self.file, entry.offset, entry.size, name=entry.name)
        check_size(entry.size, entry.name)
        try:
            self.file.seek(entry.header)
            with _tarfile(self.file) as tar:
                info = tar.next()
                content = info and tar.extractfile(info)
                data = content.read() if content else b""
        except (*_HEADER_ERRORS, OSError) as error:
            raise SampleError(Reason.BAD_RECORD, f"{entry.name}: a sparse file that cannot be read: {error}") from error
        if len(data) != entry.size:
            raise SampleError(Reason.TRUNCATED, f"{entry.name}: {len(data)} of {entry.size} bytes are there")
        return data

    def looks_like_picture(self, entry: TarEntry) -> bool:
        """Say whether a whole file's first bytes are a picture's, whatever its name."""
        if entry.problem is not None or not entry.size:
            return False
        return looks_like_picture(read_range(self.file, entry.offset, min(entry.size, CHUNK), name=entry.name))


@contextmanager
def open_tar(location: Location, uri: str) -> Iterator[OpenTar]:
    """Open a tar, local or remote, compressed or not (its first bytes tell, not its name).

    Raises SampleError, missing, where there is none, and OSError when the store fails.
    """
    with ExitStack() as stack:
        with unreadable_is_missing(location, uri):
            file = stack.enter_context(location.open_whole(uri))
        breaks: list[Break] = []
        scale = 1.0
        if is_compressed(file):
            packed, file = file, cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile()))
            with full_disk(tempfile.gettempdir()):
                breaks = decompress(packed, file)
                file.flush()
            scale = packed.seek(0, os.SEEK_END) / max(file.tell(), 1)
            breaks = [replace(end, num_lost=round(end.num_lost / scale)) for end in breaks]
        entries, gaps = walk(file, breaks)
        yield OpenTar(file=file, entries=entries, gaps=gaps, scale=scale)


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
        for entry, link, after in _headers(self._file, start, self._stop):
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
        zeros = _end_of_zeros(self._file, position, self._stop)
        at_end = zeros == self._stop
        last = self.entries[-1] if len(self.entries) > first else None
        hollow = last is not None and _is_hollow(self._file, last)
        marked = zeros - position >= (BLOCK if at_end else len(END))
        followed = marked and _is_header(self._file, zeros, self._stop)
        if followed and zeros != _padded(self._archive, position) and _has_cut_name(self._file, zeros):
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
            resumed = _find_header(self._file, search, self._stop, grid=position % BLOCK)
        if resumed is not None and _has_cut_name(self._file, resumed):
            *_, resumed = next(_headers(self._file, resumed, self._stop))
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
        found = _find_header(self._file, end, stop, grid=self._archive % BLOCK, reach=self._stop)
        if found is None or (found - self._archive) % BLOCK:
            return found
        position = max(after for *_, after in _headers(self._file, found, self._stop))
        zeros = _end_of_zeros(self._file, position, self._stop)
        fits = zeros == _padded(found, position) and (found - self._archive) % _RECORD
        return found if fits and (zeros == self._stop or _is_header(self._file, zeros, self._stop)) else None

    def _find_joined(self, last: TarEntry, position: int) -> int | None:
        """Return where an archive begins that was joined on where the last file was cut: within it, by its header."""
        if _is_header(self._file, last.offset, self._stop):
            return None  # a tar
        stop = min(position, self._stop)
        found = _find_header(self._file, last.offset + 1, min(stop + BLOCK - 1, self._stop), grid=position % BLOCK)
        if found is None:
            return None
        reached = max(after for *_, after in _headers(self._file, found, self._stop))
        return found if _end_of_zeros(self._file, reached, self._stop) >= stop else None  # else a part of the file


def _is_filled_up(archive: int, position: int, zeros: int) -> bool:
    """Say whether zeros from `position` to `zeros` end an archive that begins at `archive`, by writers' customs."""
    if (position - archive) % BLOCK:  # reading went on in an archive whose beginning was lost
        return zeros - position <= _RECORD + len(END)
    return zeros in (position + len(END), _padded(archive, position))


def _padded(archive: int, position: int, record: int = _RECORD) -> int:
    """Return where an archive ends that has its end mark at `position` and is filled up to whole records."""
    return archive + -(-(position + len(END) - archive) // record) * record


def _tarfile(file: BinaryIO) -> tarfile.TarFile:
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


def _headers(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[TarEntry | None, tarfile.TarInfo | None, int]]:
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
        entry = TarEntry(name=_clean(name), header=position, offset=offset, size=size, problem=problem)
        position = offset + size + padding(size)
        yield entry, None, position


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
    """Yield as `_headers` does, by tarfile, for headers of all formats and kinds."""
    file.seek(start)
    position = start
    with suppress(*_HEADER_ERRORS), _tarfile(file) as tar:
        while position < stop and (info := tar.next()) is not None and info.name and tar.offset > position:
            tar.members = []  # type: ignore[attr-defined]  # it keeps all headers; a tar may hold millions
            position = tar.offset
            is_link = info.islnk() or info.issym()
            yield None if info.isdev() or info.isdir() else _entry(info, stop), info if is_link else None, position


def _is_header(file: BinaryIO, start: int, stop: int) -> bool:
    return start < stop and next(_headers(file, start, stop), None) is not None


def _find_header(file: BinaryIO, start: int, stop: int, *, grid: int, reach: int | None = None) -> int | None:
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
            if _is_header(file, begin + at, stop if reach is None else reach):
                return begin + at
    return None


def _end_of_zeros(file: BinaryIO, start: int, stop: int) -> int:
    """Return where the zeros end that begin at `start`."""
    file.seek(min(start, stop))
    for begin in range(start, stop, CHUNK):
        data = file.read(min(CHUNK, stop - begin))
        if rest := data.lstrip(b"\0"):
            return begin + len(data) - len(rest)
    return max(start, stop)


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


def _has_cut_name(file: BinaryIO, header: int) -> bool:
    """Say whether a header's name may be a stand-in for one that a header before it had, which was lost.

    The block before it is such a header's then, or was lost too.
    """
    file.seek(max(header - BLOCK, 0))
    before = file.read(min(header, BLOCK))
    name = file.read(_NAME_BYTES).rstrip(b"\0")
    if len(name) < _NAME_BYTES - 1 and b"?" not in name:
        return False
    return not any(before) or _EXTENDED.match(before) is not None or before.startswith(name)


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
        name=_clean(info.name),
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


def _clean(name: str) -> str:
    """Return a name without `./`, `//`, a slash in front, and `x/..`."""
    return posixpath.normpath(name).lstrip("/")


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
            name = _clean(posixpath.join(folder, link.linkname))
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
