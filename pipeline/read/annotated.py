"""Sources whose files say of pictures, by name, what is on them: entries become samples, whatever the format.

    entries of a format --Annotated--> a sample for each picture, with what all its entries say; dead rows for the rest

A format is a subclass with `_entries`. A picture that several entries name is one sample. A region keeps its id; ids
that one picture has twice are noted. Boxes of one picture in pixels and in shares are brought into one frame by its
stated size; where it has none, those that come later have a problem.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from pipeline.read.base import ListedItem, SourceError, SourceFile, SourcePart
from pipeline.read.captions import CaptionReader, notes
from pipeline.read.describe import Description, unread_files
from pipeline.read.finder import Finder
from pipeline.read.formats import is_image, suffix_of
from pipeline.read.items import SampleError
from pipeline.read.keys import as_key, keys_of_files
from pipeline.read.listed import read_listed
from pipeline.read.location import Location
from pipeline.read.names import HOLDS_ITS_PICTURE, check_allowed, is_picture_itself
from pipeline.read.parts import list_parts
from pipeline.read.record import NOWHERE
from pipeline.read.remote import once
from pipeline.sample import GivenRegion, SourceItem
from schemas.reasons import Reason
from schemas.text import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What one entry of an annotation file says of a picture."""

    files: tuple[str, ...]
    """What the picture may be called, the first that is there counts; none where the entry names none."""
    where: str
    """The entry, for messages and for the key of its dead row."""
    captions: tuple[Any, ...] = ()
    regions: tuple[GivenRegion, ...] = ()
    in_shares: bool = False
    """Whether boxes are shares of the picture's width and height."""
    size: tuple[int, int] | None = None
    """(width, height) as stated, in pixels."""
    url: str | None = None
    note: str | None = None
    problem: str | None = None
    """Why no picture can be told from the entry."""
    is_of_no_picture: bool = False
    """Whether it is not meant to be of a picture: it is counted, and no row."""


@dataclass(kw_only=True, slots=True)
class _Picture:
    """What all entries say of a picture."""

    drop: SampleError | None = None
    """Why its name tells no file."""
    regions: list[GivenRegion] = field(default_factory=list)
    in_shares: bool | None = None
    """None until a region tells."""
    size: tuple[int, int] | None = None
    captions: CaptionReader = field(default_factory=CaptionReader)
    url: str | None = None
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Take what an entry says."""
        regions = entry.regions
        if None not in (self.size, entry.size) and self.size != entry.size:
            problem = f"{entry.where}: states {_size(entry.size)}, and an entry before it {_size(self.size)}"
            regions = tuple(_unusable(region, problem) for region in regions)
        self.size = self.size or entry.size
        self.url = self.url or entry.url
        for caption in entry.captions:
            self.captions.add(caption, entry.where)
        if entry.note is not None:
            self.notes.setdefault(entry.note)
        if any(region.problem is None for region in regions):
            if self.in_shares is None:
                self.in_shares = entry.in_shares
            elif self.in_shares != entry.in_shares:
                regions = self._one_frame(regions, entry)
        self.regions += regions

    def _one_frame(self, regions: tuple[GivenRegion, ...], entry: Entry) -> tuple[GivenRegion, ...]:
        """Return the regions of an entry in the frame of those before."""
        if self.size is None:
            problem = f"{entry.where}: boxes of this picture are in pixels and in shares, and its size is not stated"
            return tuple(_unusable(region, problem) for region in regions)
        width, height = self.size if entry.in_shares else (1 / self.size[0], 1 / self.size[1])
        scaled = []
        for region in regions:
            x0, y0, x1, y1 = region.box
            scaled.append(msgspec.structs.replace(region, box=(x0 * width, y0 * height, x1 * width, y1 * height)))
        return tuple(scaled)

    def listed(self, key: str, uri: str) -> ListedItem:
        """Return the sample."""
        if self.drop is not None:
            return ListedItem(key=key, uri=uri, drop=self.drop.drop)
        ids = Counter(region.id for region in self.regions if region.id is not None)
        twice = sorted(name for name, uses in ids.items() if uses > 1)
        repeated = (
            f"{counted(len(twice), 'id')} of regions there more than once, the first {twice[0]}" if twice else None
        )
        try:
            captions = self.captions.captions()
        except SampleError as error:
            return ListedItem(key=key, uri=uri, drop=error.drop)
        width, height = self.size or (None, None)
        return ListedItem(
            key=key,
            uri=uri,
            captions=captions,
            width=width,
            height=height,
            regions=tuple(self.regions),
            in_shares=bool(self.in_shares),
            url=self.url,
            note=notes(self.captions.note_text, *self.notes, repeated),
        )


@dataclass(kw_only=True)
class _Joined:
    """What a format's files say as a whole."""

    pictures: dict[str, _Picture] = field(default_factory=dict)
    """By uri, relative to the folder of pictures."""
    lost: list[tuple[str, str]] = field(default_factory=list)
    """(where, problem) of entries that name no picture."""
    num_of_no_picture: int = 0


class Annotated:
    """A source of a format's annotation files, and of the pictures that they name."""

    kind: ClassVar[str]

    def __init__(self, annotations: Sequence[Location], images: Location, *, allow: Sequence[str] = ()) -> None:
        self._annotations = tuple(annotations)
        """The files that are read, each with its name."""
        self._images = images.allowing([*allow, *(location.root for location in annotations)])

    def _entries(self) -> Iterator[Entry]:
        """Yield what the files say, in their order. Raises SourceError where one is not of the format."""
        raise NotImplementedError

    def files(self) -> Iterator[SourceFile]:
        """Yield the pictures that are named, and the annotation files under their full paths."""
        by_root: dict[str, set[str]] = {}
        for location in self._annotations:
            by_root.setdefault(location.root, set()).add(location.name or "")
        annotations = [
            SourceFile(uri=Location(root=root).url(file.uri), size=file.size, etag=file.etag)
            for root, names in by_root.items()
            for file in Location(root=root).find(names)
        ]
        named = {uri for uri, picture in self._joined().pictures.items() if picture.drop is None}
        check_allowed(named, self._images, str(self._annotations[0]))
        yield from sorted([*annotations, *self._images.find(named)], key=lambda file: file.uri)

    @property
    def root(self) -> str:
        """The folder that uris are relative to."""
        return self._images.root

    def describe(self) -> Description:
        """Count pictures, boxes and captions, and name the other files beside the annotations."""
        joined = self._joined()
        pictures = joined.pictures.values()
        num_regions = sum(len(picture.regions) for picture in pictures)
        num_captioned = sum(region.caption is not None for picture in pictures for region in picture.regions)
        where = _shown(self._annotations)
        boxes = f"{counted(num_regions, 'region')} of {where}, {num_captioned:,} with a caption of its own"
        folder = Location(root=self._annotations[0].root)
        beside = folder.files() if folder.can_list else ()
        read = {str(location) for location in self._annotations}
        alone = joined.num_of_no_picture
        rest = (file.uri for file in beside if not is_image(file.uri) and folder.url(file.uri) not in read)
        return Description(
            images=dict(sorted(Counter(map(suffix_of, joined.pictures)).items())),
            num_images=len(joined.pictures),
            captions=(where,) if any(picture.captions.found for picture in pictures) else (),
            boxes=(boxes,) if num_regions else (),
            unread=unread_files(rest),
            notes=(f"entries without a picture, which are not read: {alone:,}",) if alone else (),
        )

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield the pictures in the order of their paths, `shard_size` a shard, then rows for what names none."""
        joined = self._joined()
        uris = sorted(joined.pictures)
        items = [joined.pictures[uri].listed(key, uri) for key, uri in zip(keys_of_files(uris), uris, strict=True)]
        for where, problem in joined.lost:
            error = SampleError(Reason.BAD_RECORD, f"{where}: {problem}")
            items.append(ListedItem(key=as_key(where), uri=str(self._annotations[0]), drop=error.drop))
        yield from list_parts(items, shard_size)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's pictures with their regions and captions."""
        yield from read_listed(part, self._images)

    def _joined(self) -> _Joined:
        return once((type(self), self._annotations, self._images, self._options()), self._join)

    def _options(self) -> object:
        """Return what else decides the entries."""
        return None

    def _join(self) -> _Joined:
        """Join the entries by picture. Raises SourceError where they name none at all."""
        finder = Finder(self._images)
        joined = _Joined()
        for entry in self._entries():
            if entry.is_of_no_picture:
                joined.num_of_no_picture += 1
                continue
            inline = HOLDS_ITS_PICTURE if any(map(is_picture_itself, entry.files)) else None
            problem = entry.problem or inline or (None if entry.files else "names no picture")
            if problem is not None:
                joined.lost.append((entry.where, problem))
                continue
            uri, why_not = finder.uri(entry.files)
            picture = joined.pictures.setdefault(uri, _Picture())
            picture.drop = picture.drop or (SampleError(Reason.MISSING, why_not) if why_not else None)
            picture.add(entry)
        if not joined.pictures:
            first = f"; the first: {': '.join(joined.lost[0])}" if joined.lost else ""
            raise SourceError(f"{_shown(self._annotations)}: none of its entries names a picture{first}")
        return joined


def _unusable(region: GivenRegion, problem: str) -> GivenRegion:
    return msgspec.structs.replace(region, box=NOWHERE, problem=region.problem or problem)


def _size(size: tuple[int, int] | None) -> str:
    return " x ".join(map(str, size or ())) + " pixels"


def _shown(locations: Sequence[Location]) -> str:
    more = f" and {len(locations) - 1:,} more" if len(locations) > 1 else ""
    return f"{locations[0]}{more}"
