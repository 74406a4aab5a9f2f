"""What a source is: the protocol, the items it yields and the parts it is planned into.

INPUT --open_source--> Source --files--> what lies there (for the plan's record, and to notice changes)
                              --parts--> shards' worth of work, without reading pixels
                              --read---> SourceItem, one a sample, in a fixed order
"""

from collections.abc import Iterator
from typing import ClassVar, Protocol

import msgspec

from pipeline.sample import Drop, GivenRegion, SourceItem


class SourceError(ValueError):
    """An INPUT cannot be used; the message names it and says what to do. Commands exit 2 on it."""

    exit_code = 2


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
    url: str | None = None
    license: str | None = None
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

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's samples in a fixed order, each exactly once; problems come as items with a `drop`."""
