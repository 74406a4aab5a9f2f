"""Tars as tables of contents: members by offset, in whatever order they lie (`tar_archives.py` says where).

Remote tars are copied to a temporary local file, in large ranges, and compressed ones decompressed into one: so there
is one way to read. Not a byte is saved by less, since which files make up a sample is known at the end of a tar alone.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from pipeline.read.compression import CHUNK, Break, decompress, is_compressed
from pipeline.read.formats import looks_like_picture
from pipeline.read.items import SampleError, check_size, read_range, unreadable_is_missing
from pipeline.read.location import Location
from pipeline.read.tar_archives import Gap, walk
from pipeline.read.tar_headers import HEADER_ERRORS, TarEntry, open_archive
from schemas.reasons import Reason
from schemas.store_errors import full_disk


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
            with open_archive(self.file) as tar:
                info = tar.next()
                content = info and tar.extractfile(info)
                data = content.read() if content else b""
        except (*HEADER_ERRORS, OSError) as error:
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
