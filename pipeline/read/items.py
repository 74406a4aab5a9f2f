"""What all sources do alike with one sample: read its bytes, decode its caption, and turn problems into drops."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import BinaryIO

from pipeline.read.local_files import UNREADABLE
from pipeline.read.location import Location, NotAllowedError
from pipeline.sample import Drop, SourceItem
from schemas.reasons import Reason, Stage

MAX_MEMBER_BYTES = 256 * 2**20
"""A larger image, caption or annotation is not read into memory (`--read.max-bytes` sets a tighter limit later)."""


class SampleError(Exception):
    """A sample cannot be used; becomes the drop of its item."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def drop(self) -> Drop:
        """The drop this error stands for."""
        return Drop(reason=self.reason, stage=Stage.READ, message=str(self))


def failed_item(key: str, index: int, uri: str, error: SampleError, bytes_lost: int = 0) -> SourceItem:
    """Return the item that stands in place of a sample that cannot be used."""
    return SourceItem(key=key, index=index, uri=uri, data=None, drop=error.drop, bytes_lost=bytes_lost)


def read_file(location: Location, uri: str) -> bytes:
    """Return a file's bytes. Raises SampleError: missing, or too large."""
    with unreadable_is_missing(location, uri):
        data = location.read(uri, MAX_MEMBER_BYTES + 1)
    check_size(len(data), uri)
    return data


def read_image_file(location: Location, uri: str) -> bytes:
    """Return an image file's bytes. Raises SampleError: missing, too large, or empty."""
    data = read_file(location, uri)
    check_not_empty(len(data), uri)
    return data


def read_range(file: BinaryIO, offset: int, size: int, *, name: str) -> bytes:
    """Return `size` bytes at `offset`. Raises SampleError: too large, or truncated where the file ends before."""
    check_size(size, name)
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise SampleError(Reason.TRUNCATED, f"{name}: {len(data)} of {size} bytes are there")
    return data


def check_size(num_bytes: int, name: str) -> None:
    """Raise SampleError, too large, for more bytes than are ever read into memory."""
    if num_bytes > MAX_MEMBER_BYTES:
        raise SampleError(Reason.TOO_LARGE, f"{name}: more than {MAX_MEMBER_BYTES} bytes")


def check_not_empty(num_bytes: int, name: str) -> None:
    """Raise SampleError, empty file, for an image without bytes."""
    if num_bytes == 0:
        raise SampleError(Reason.EMPTY_FILE, f"{name}: no bytes")


@contextmanager
def unreadable_is_missing(location: Location, uri: str) -> Iterator[None]:
    """Raise SampleError, missing, where a file cannot be opened for good.

    A local file that may not be read is one such, so is a pipe or a name that is none; a remote store also refuses
    everything when credentials expire, which must stop the job, as a disk that fails must.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise SampleError(Reason.MISSING, f"{uri}: not there") from error
    except NotAllowedError as error:
        raise SampleError(Reason.NOT_ALLOWED, str(error)) from error
    except OSError as error:
        if not location.is_local or error.errno not in UNREADABLE:
            raise
        raise SampleError(Reason.MISSING, f"{uri}: cannot be opened: {error.strerror}") from error


def stated_size(width: float | None, height: float | None) -> tuple[int, int] | None:
    """Return the (width, height) an annotation states, in pixels; None unless both are positive numbers."""
    if width is None or height is None or not (1 <= width < inf and 1 <= height < inf):
        return None
    return int(width), int(height)
