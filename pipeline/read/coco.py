"""COCO JSON (`schemas.coco` reads it): boxes from an instances file, captions from a captions file, in one or two.

Entries of one file name are one image, with the boxes of all. Captions come by annotation id, lowest first. Crowds are
given as such, an annotation that cannot be used as one with a problem. Rows that no image can be made of are dead ones
of their own: a bad entry of `images`, an image id that annotations name and `images` lacks. Masks are taken from run
lengths of the image's size; polygons are not drawn. Boxes stay as written: they may hold NaN or lie outside the image.
"""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from pipeline.read.base import ListedItem, SourceError, SourceFile, SourcePart
from pipeline.read.coco_folder import CocoIndex, find_indexes
from pipeline.read.coco_images import (
    AnnotatedImage,
    Images,
    add_annotations,
    add_captions,
    join_captions,
    listed_item,
    stray_row,
)
from pipeline.read.describe import Description, Unread, like
from pipeline.read.formats import suffix_of
from pipeline.read.items import SampleError
from pipeline.read.keys import as_key, keys_of_files
from pipeline.read.listed import read_listed
from pipeline.read.location import Location
from pipeline.read.names import Names, check_allowed
from pipeline.read.packed_text import open_text
from pipeline.read.parts import list_parts
from pipeline.read.spec import split_options
from pipeline.sample import SourceItem
from schemas.coco import CocoAnnotation, CocoError, CocoFile, CocoImage, read_coco
from schemas.loose_json import text
from schemas.reasons import Reason


class Coco:
    """`coco:instances.json?images=FOLDER&captions=captions.json`; the images lie beside the JSON by default.

    `coco:FOLDER`, or `coco:FOLDER?split=train`, is a folder as tools write it (`pipeline.read.coco_folder`).
    """

    kind: ClassVar[str] = "coco"

    def __init__(self, rest: str, *, allow: Sequence[str] = ()) -> None:
        path = split_options(rest)[0]
        location = Location.of(path)
        known = ("split",) if location.is_folder else ("images", "captions")
        options = split_options(rest, known=known)[1]
        self._folder = Location(root=location.root)
        self._split = options.get("split")
        if location.is_folder:
            self._indexes = self._found(location)
            images = self._folder
        elif location.name is None:
            raise SourceError(f"{location}: a COCO input is a JSON file or a folder, not a pattern")
        else:
            self._indexes = [CocoIndex(uri=location.name, split="", images="")]
            images = location.related_folder(options["images"]) if "images" in options else self._folder
        self._images = images.allowing([*allow, location.root])
        self._names = Names(self._images)
        self._captions = location.related(options["captions"]) if "captions" in options else None

    def _found(self, location: Location) -> list[CocoIndex]:
        """Return the COCO files of a folder. Raises SourceError where there are none, or not of the wanted split."""
        found = find_indexes([file.uri for file in location.files()])
        indexes = [index for index in found if self._split in (None, index.split)]
        if not found:
            raise SourceError(
                f"{location}: found no _annotations.coco.json (Roboflow), no labels.json beside data/ (FiftyOne), no "
                "annotations/instances_*.json (CVAT, COCO); name the file, as in coco:FILE.json?images=FOLDER"
            )
        if not indexes:
            there = ", ".join(index.split or index.uri for index in found)
            raise SourceError(f"{location}: has no split {self._split!r}; there are {there}")
        return indexes

    def _json(self, index: CocoIndex) -> Location:
        return Location(root=self._folder.root, name=index.uri)

    def _captions_of(self, index: CocoIndex) -> Location | None:
        beside = None if index.captions is None else Location(root=self._folder.root, name=index.captions)
        return self._captions or beside

    def files(self) -> Iterator[SourceFile]:
        """Yield the images that the JSON files list, and these files under their full paths."""
        locations = [location for index in self._indexes for location in (self._json(index), self._captions_of(index))]
        indexes = [
            SourceFile(uri=str(location), size=file.size, etag=file.etag)
            for location in locations
            if location is not None
            for file in location.files()
        ]
        wanted: set[str] = set()
        for index in self._indexes:
            named = Images(_load(self._json(index)), self._namer(index)).by_uri.keys()
            check_allowed(named, self._images, str(self._json(index)))
            wanted |= named
        yield from sorted([*indexes, *self._images.find(wanted)], key=lambda file: file.uri)

    @property
    def root(self) -> str:
        """The folder that uris are relative to."""
        return self._images.root

    def describe(self) -> Description:
        """Count images, boxes and captions of the JSON files, and name the other JSON files beside them."""
        suffixes: Counter[str] = Counter()
        captioned, boxed, read = [], [], set()
        for index in self._indexes:
            json, coco, uri_of = self._json(index), _load(self._json(index)), self._namer(index)
            annotations = Counter(annotation.is_region for annotation in coco.annotations())
            captions = self._captions_of(index) or (json if annotations[False] else None)
            captions = captions or (json if any(entry.caption is not None for entry in coco.images) else None)
            captioned += [] if captions is None else [str(captions)]
            boxed += [f"{annotations[True]:,} annotations of {json}"] if annotations[True] else []
            suffixes.update(suffix_of(uri_of(entry)) for entry in coco.images)
            read |= {str(json), str(captions)}
        folders = {posixpath.dirname(str(self._json(index))) for index in self._indexes if self._folder.is_local}
        beside = {str(path): path.name for folder in folders for path in Path(folder).glob("*.json")}
        unread = sorted(name for path, name in beside.items() if path not in read)
        return Description(
            images=dict(sorted(suffixes.items())),
            num_images=suffixes.total(),
            captions=tuple(captioned),
            boxes=tuple(boxed),
            unread=tuple(Unread(name=name, like=like(name)) for name in unread),
        )

    def _namer(self, index: CocoIndex) -> Callable[[CocoImage], str]:
        """Return what turns an entry of a COCO file into the uri of its image."""
        by_url: list[bool] = []

        def uri_of(entry: CocoImage) -> str:
            name = text(entry.file_name) or ""
            if entry.named_by_url and not by_url:  # whether images= is the folder of the splits, as the first tells
                uri = self._names.uri(name, index.images)
                by_url.append(any(file.etag for file in self._images.lookup([uri])))
            flat = entry.named_by_url and not by_url[0]
            return self._names.uri(posixpath.basename(name) if flat else name, index.images)

        return uri_of

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield the images in the order of their file names, `shard_size` a shard, then rows for what is none."""
        listed: dict[str, tuple[AnnotatedImage, CocoFile]] = {}
        dead: list[ListedItem] = []
        for index in self._indexes:
            coco, images, problems = self._joined_files(index)
            problems += [(uri, f"{uri} is of another file, too") for uri in images.by_uri if uri in listed]
            listed = {uri: (image, coco) for uri, image in images.by_uri.items()} | listed
            for name, problem in problems:
                error = SampleError(Reason.BAD_RECORD, f"{index.uri}: {problem}")
                dead.append(ListedItem(key=as_key(f"{index.uri} {name}"), uri=str(self._json(index)), drop=error.drop))
        uris = sorted(listed)
        items = [listed_item(key, uri, *listed[uri]) for key, uri in zip(keys_of_files(uris), uris, strict=True)]
        yield from list_parts([*items, *dead], shard_size)

    def _joined_files(self, index: CocoIndex) -> tuple[CocoFile, Images, list[tuple[str, str]]]:
        """Return a COCO file, its images with their annotations, and (name, problem) of what is of no image."""
        coco = _load(self._json(index))
        images = Images(coco, self._namer(index))
        strays: dict[str, list[CocoAnnotation]] = {}
        shared = images.shared
        add_annotations(coco, images, strays)
        location = self._captions_of(index)
        if location is not None:
            captions = _load(location)
            joined, others = join_captions(Images(captions, self._namer(index)), images, str(location))
            add_captions(captions, joined, strays)
            shared = shared | others
        return coco, images, [*images.problems, *(stray_row(named, found, shared) for named, found in strays.items())]

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's images with their regions and captions."""
        yield from read_listed(part, self._images)


def _load(location: Location) -> CocoFile:
    """Read a COCO file. Raises SourceError, naming it, where it is none or names no image that can be used."""
    try:
        with open_text(location) as file:
            coco = read_coco(file.read())
    except CocoError as error:
        raise SourceError(f"{location}: {error}") from error
    problems = [entry.problem for entry in coco.images if entry.problem is not None]
    if len(problems) == len(coco.images):
        raise SourceError(f"{location}: none of its 'images' can be used; the first: {problems[0]}")
    return coco
