"""Files of JSON and tables of text that are compressed by gzip: `x.json.gz` is read as `x.json` is.

Raises SourceError, naming the file, for one that is cut or is no gzip at all.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO, cast

from pipeline.read.base import SourceError
from pipeline.read.location import Location

_PACKED = tuple(f"{suffix}.gz" for suffix in (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt"))
_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)


def plain_name(name: str) -> str:
    """Return the name of a file of text without what says that it is compressed."""
    return name[: -len(".gz")] if _is_packed(name) else name


@contextmanager
def open_text(location: Location) -> Iterator[BinaryIO]:
    """Open the file that a location names, to be read from end to end, decompressed. Raises as `Location.open`."""
    with location.open(location.name or "") as file:
        if not _is_packed(location.name or ""):
            yield file
            return
        with _told(str(location)), gzip.GzipFile(fileobj=file) as plain:
            yield cast(BinaryIO, plain)


def head_of(location: Location, num_bytes: int) -> bytes:
    """Return the first bytes of the file that a location names, decompressed. Raises as `Location.open`."""
    data = location.read(location.name or "", num_bytes)
    if not _is_packed(location.name or ""):
        return data
    with _told(str(location)):
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(data, num_bytes)


def unpacked(data: bytes, where: str, max_bytes: int) -> bytes:
    """Return the text of a file's bytes, no more than the first `max_bytes` of what they are decompressed to."""
    if not _is_packed(where):
        return data
    with _told(where), gzip.GzipFile(fileobj=BytesIO(data)) as plain:
        return plain.read(max_bytes)


def _is_packed(name: str) -> bool:
    return name.lower().endswith(_PACKED)


@contextmanager
def _told(where: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise SourceError(f"{where}: is no whole gzip file ({error}); fetch it again, or unpack it") from error
