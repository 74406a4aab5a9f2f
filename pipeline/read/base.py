"""What a source is: the protocol, the items it yields and the parts it is planned into.

INPUT --open_source--> Source --files--> what lies there (for the plan's record, and to notice changes)
                              --parts--> shards' worth of work, without reading pixels
                              --read---> SourceItem, one a sample, in a fixed order
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Protocol, TypeVar

import msgspec

from pipeline.errors import InputError as InputError
from pipeline.errors import SourceError as SourceError
from pipeline.read.describe import Description
from pipeline.sample import Drop, GivenRegion, SourceItem
from schemas.store_errors import StorageError, in_words

_T = TypeVar("_T")
_STORES = {"aiohttp", "aiobotocore", "botocore", "gcsfs", "google", "azure", "adlfs", "requests", "urllib3"}
"""Libraries of stores, which raise errors of their own."""


@contextmanager
def input_errors(spec: str) -> Iterator[None]:
    """Turn what the store of an INPUT raises into an InputError that names `spec`."""
    try:
        yield
    except (SourceError, StorageError):
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _STORES:
            raise
        where = f"{spec}: {error.filename}" if isinstance(error, OSError) and error.filename else spec
        told = in_words(error, where, reads=True)
        raise InputError(str(told), may_pass=told.may_pass) from error


def read_on(spec: str, items: Iterator[_T]) -> Iterator[_T]:
    """Yield the items that a source makes; `input_errors` holds for making them, not for what is done with them."""
    with input_errors(spec):
        yield from items


class ListedItem(msgspec.Struct, frozen=True, kw_only=True):
    """A sample known when planning: stored in the plan, so that workers need not read the source's index again."""

    key: str
    uri: str
    """The image file, relative to the INPUT's root."""
    captions: tuple[str, ...] = ()
    """As `SourceItem.captions`."""
    width: int | None = None
    """Of the image as its annotation states it, in pixels."""
    height: int | None = None
    regions: tuple[GivenRegion, ...] = ()
    in_shares: bool = False
    """Whether `regions` are in shares, as `SourceItem.given_in_shares` says."""
    url: str | None = None
    license: str | None = None
    record: str | None = None
    """The uri of a file of the image's own that says more of it, regions for instance; the kind of source reads it."""
    texts: tuple[str, ...] | None = None
    """Text files that may hold captions, relative to the root; None where they were not listed, and are looked for."""
    note: str | None = None
    """As `SourceItem.note`."""
    drop: Drop | None = None
    """Why the sample cannot be used; nothing is read then."""


class SourcePart(msgspec.Struct, frozen=True, kw_only=True):
    """A range of a source: what one shard takes from one file, or from the list in the plan."""

    uri: str
    """The file relative to the INPUT's root, or "" where `items` lists files."""
    start: int = 0
    """First sample of the file (or of the whole list), from 0."""
    stop: int | None = None
    """One beyond the last sample, or None for all of a file whose samples were not counted."""
    items: tuple[ListedItem, ...] | None = None


class UnitPart(msgspec.Struct, frozen=True, kw_only=True):
    """A source range of a unit, with what opens the source."""

    spec: str
    """INPUT as given on the command line."""
    kind: str
    prefix: str
    """Put before the keys of this input; "" for a lone input."""
    part: SourcePart


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a source as it was when planned: a change of size or etag is a change of input."""

    uri: str
    """Relative to the INPUT's root."""
    size: int
    """Bytes."""
    etag: str
    """The store's etag, or the modification time in ns of a local file."""
    sample: str = ""
    """Of the bytes, once planned (`pipeline.plan.samples`)."""


class Source(Protocol):
    """A kind of input. Instances are cheap, picklable through their spec, and hold no open files.

    Raises SourceError from `files` and `parts` when nothing usable is there.
    """

    kind: ClassVar[str]

    def files(self) -> Iterator[SourceFile]:
        """Yield what lies there, sorted by uri; reads no file contents."""

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield the parts of each shard in order, reading no pixels.

        A tar gives one shard, and is not walked, unless `repack`; everything else gives `shard_size` samples a shard.
        """

    @property
    def root(self) -> str:
        """The folder that the uris of `files` are relative to, a path or URL; "" where there are none."""

    def describe(self) -> Description:
        """Say what is read here, from where, and what is not, reading no samples."""

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's samples in a fixed order, each exactly once; problems come as items with a `drop`."""
