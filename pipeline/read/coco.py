"""COCO JSON (`schemas.coco` reads it): boxes from an instances file, captions from a captions file, in one or two.

Entries of one file name are one image, with the boxes of all. Captions come by annotation id, lowest first. Crowds are
given as such, an annotation that cannot be used as one with a problem. Rows that no image can be made of are dead ones
of their own: a bad entry of `images`, an image id that annotations name and `images` lacks. Masks are taken from run
lengths of the image's size; polygons are not drawn. Boxes stay as written: they may hold NaN or lie outside the image.
"""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pipeline.read.base import ListedItem, SourceError, SourceFile, SourcePart
from pipeline.read.captions import CaptionReader
from pipeline.read.coco_folder import CocoIndex, find_indexes
from pipeline.read.describe import Description, Unread, like
from pipeline.read.formats import suffix_of
from pipeline.read.items import SampleError, stated_size
from pipeline.read.keys import as_key, keys_of_files
from pipeline.read.listed import read_listed
from pipeline.read.location import Location
from pipeline.read.names import Names, check_allowed
from pipeline.read.parts import list_parts
from pipeline.read.spec import split_options
from pipeline.sample import GivenRegion, SourceItem
from schemas.coco import CocoAnnotation, CocoError, CocoFile, CocoImage, read_coco
from schemas.loose_json import text
from schemas.reasons import Reason


@dataclass(kw_only=True)
class _Image:
    """What the files say of one image file."""

    entry: CocoImage
    """The first of its name."""
    regions: list[GivenRegion] = field(default_factory=list)
    captions: list[tuple[bool, int, str, CocoAnnotation]] = field(default_factory=list)
    """Sortable by annotation id: whether it is no number, the number, the id."""
    lost: list[str] = field(default_factory=list)
    """What is wrong with captions of it."""


class _Images:
    """The images of a COCO file, found by id and by file name; entries that cannot be used, apart."""

    def __init__(self, coco: CocoFile, uri_of: Callable[[CocoImage], str]) -> None:
        self.by_uri: dict[str, _Image] = {}
        self.ids: dict[str, str] = {}
        """The uri of each id, the first of it."""
        self.shared: dict[str, str] = {}
        """Ids of two files or more, each with a sentence: what is of such an id is of no image."""
        self._sizes: dict[str, tuple[float | None, float | None]] = {}
        self.problems: list[tuple[str, str]] = []
        """(name, problem) of what no image can be made of."""
        for position, entry in enumerate(coco.images):
            if entry.problem is not None or entry.id is None:
                self.problems.append((f"images {position}", str(entry.problem)))
                continue
            uri = uri_of(entry)
            image = self.by_uri.setdefault(uri, _Image(entry=entry))
            first = self.by_uri[self.ids.setdefault(entry.id, uri)]
            if first is not image:
                self._share(entry.id, first, image)
            self._sizes[entry.id] = (entry.width, entry.height)

    def _share(self, image_id: str, first: _Image, other: _Image) -> None:
        sentence = f"image id {image_id} is that of {first.entry.file_name} and of {other.entry.file_name}"
        self.shared.setdefault(image_id, sentence)
        for image in (first, other):
            image.lost.append(f"{self.shared[image_id]}: its annotations are withheld")

    def named(self, image_id: str) -> _Image | None:
        """Return the image of an id; None where there is none, or more than one."""
        return None if image_id in self.shared else self.by_uri.get(self.ids.get(image_id, ""))

    def of(self, annotation: CocoAnnotation) -> _Image | None:
        """Return the image an annotation is of."""
        return self.named(annotation.image_id or "")

    def frame_problem(self, annotation: CocoAnnotation, image: _Image) -> str | None:
        """Say where the annotation's entry states another size than the first of its file name."""
        size, first = self._sizes[annotation.image_id or ""], (image.entry.width, image.entry.height)
        if None in (*size, *first) or size == first:
            return None
        stated = f"{size[0]:g} x {size[1]:g} pixels, and otherwise before"
        return f"annotations[{annotation.position}]: its image is stated as {stated}"


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
            named = _Images(_load(self._json(index)), self._namer(index)).by_uri.keys()
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
        listed: dict[str, tuple[_Image, CocoFile]] = {}
        dead: list[ListedItem] = []
        for index in self._indexes:
            coco, images, problems = self._joined_files(index)
            problems += [(uri, f"{uri} is of another file, too") for uri in images.by_uri if uri in listed]
            listed = {uri: (image, coco) for uri, image in images.by_uri.items()} | listed
            for name, problem in problems:
                error = SampleError(Reason.BAD_RECORD, f"{index.uri}: {problem}")
                dead.append(ListedItem(key=as_key(f"{index.uri} {name}"), uri=str(self._json(index)), drop=error.drop))
        uris = sorted(listed)
        items = [_item(key, uri, *listed[uri]) for key, uri in zip(keys_of_files(uris), uris, strict=True)]
        yield from list_parts([*items, *dead], shard_size)

    def _joined_files(self, index: CocoIndex) -> tuple[CocoFile, _Images, list[tuple[str, str]]]:
        """Return a COCO file, its images with their annotations, and (name, problem) of what is of no image."""
        coco = _load(self._json(index))
        images = _Images(coco, self._namer(index))
        strays: dict[str, list[CocoAnnotation]] = {}
        shared = images.shared
        _add_annotations(coco, images, strays)
        location = self._captions_of(index)
        if location is not None:
            captions = _load(location)
            joined, others = _joined(_Images(captions, self._namer(index)), images, str(location))
            _add_captions(captions, joined, strays)
            shared = shared | others
        return coco, images, [*images.problems, *(_stray(named, found, shared) for named, found in strays.items())]

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's images with their regions and captions."""
        yield from read_listed(part, self._images)


def _load(location: Location) -> CocoFile:
    """Read a COCO file. Raises SourceError, naming it, where it is none or names no image that can be used."""
    try:
        with location.open(location.name or "") as file:
            coco = read_coco(file.read())
    except CocoError as error:
        raise SourceError(f"{location}: {error}") from error
    problems = [entry.problem for entry in coco.images if entry.problem is not None]
    if len(problems) == len(coco.images):
        raise SourceError(f"{location}: none of its 'images' can be used; the first: {problems[0]}")
    return coco


def _joined(captions: _Images, images: _Images, where: str) -> tuple[dict[str, _Image | None], dict[str, str]]:
    """Return the image of each id of a captions file, None where only that file has it; and its ids of two files.

    Files are joined by file names, as each may number its images for itself. Raises SourceError, naming the first,
    where they number alike and call one id by two names: nobody can tell which image such a caption is of.
    """
    joined: dict[str, _Image | None] = {}
    unlike: list[tuple[str, str, str]] = []
    agreed: set[bool] = set()
    for image_id, uri in captions.ids.items():
        of_name, of_id = images.by_uri.get(uri), images.named(image_id)
        if of_name is None and of_id is not None and _base(images.ids[image_id]) == _base(uri):
            of_name = of_id  # one file has folders in its names
        elif of_name is None and of_id is not None:
            unlike.append((image_id, uri, images.ids[image_id]))
        elif of_name is not None and image_id not in images.shared:
            agreed.add(of_name is of_id)
        joined[image_id] = of_name
    if unlike and False not in agreed:
        image_id, uri, other = unlike[0]
        raise SourceError(
            f"{where}: image id {image_id} is {uri} here and {other} in INPUT, and no file name tells which captions "
            f"are of which image ({len(unlike):,} such); give its images the file names of INPUT, or ids of their own"
        )
    if agreed == {True}:  # then an id that only INPUT lists is its image's there, too
        joined |= {image_id: images.named(image_id) for image_id in images.ids if image_id not in joined}
    shared = captions.shared | {key: said for key, said in images.shared.items() if key not in captions.ids}
    return {key: image for key, image in joined.items() if key not in shared}, shared


def _base(uri: str) -> str:
    return uri.rpartition("/")[2]


def _add_captions(
    captions: CocoFile, joined: Mapping[str, _Image | None], strays: dict[str, list[CocoAnnotation]]
) -> None:
    """Give each image its captions of a file of captions; what that says of images it alone has is left out."""
    for annotation in captions.annotations():
        named = annotation.image_id or f"annotation {annotation.position}"
        image = joined.get(named)
        if named not in joined:
            strays.setdefault(named, []).append(annotation)
        elif image is None:
            continue
        elif not annotation.is_region:
            image.captions.append((*_order(annotation.id), annotation))
        elif annotation.problem is not None:
            image.lost.append(annotation.problem)


def _add_annotations(coco: CocoFile, images: _Images, strays: dict[str, list[CocoAnnotation]]) -> None:
    """Give each image its annotations; those of no image go to `strays`, by the image id they name."""
    for annotation in coco.annotations():
        image = images.of(annotation)
        if image is None:
            named = annotation.image_id or f"annotation {annotation.position}"
            strays.setdefault(named, []).append(annotation)
        elif not annotation.is_region:
            image.captions.append((*_order(annotation.id), annotation))
        else:
            problem = annotation.problem or images.frame_problem(annotation, image)
            image.regions.append(_region(annotation, coco, image.entry, problem))


def _order(annotation_id: str | None) -> tuple[bool, int, str]:
    said = annotation_id or ""
    is_number = said.isascii() and said.isdigit()
    return not is_number, int(said) if is_number else 0, said


def _region(annotation: CocoAnnotation, coco: CocoFile, image: CocoImage, problem: str | None) -> GivenRegion:
    nowhere = (float("nan"),) * 4
    rle = annotation.rle
    caption = CaptionReader()
    caption.add(annotation.caption, "caption")
    return GivenRegion(
        box=annotation.box or (nowhere[0], nowhere[1], nowhere[2], nowhere[3]),
        label=coco.categories.get(annotation.category_id or ""),
        score=annotation.score,
        caption=next(iter(caption.found), None),
        id=annotation.id,
        is_crowd=annotation.is_crowd,
        mask_rle=rle.counts if rle and (rle.width, rle.height) == (image.width, image.height) else None,
        problem=problem,
    )


def _stray(image_id: str, annotations: list[CocoAnnotation], shared: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and the problem of annotations of an image that is not there, or of one of several."""
    first = annotations[0]
    if first.problem is not None and first.image_id is None:
        return image_id, first.problem
    if first.image_id is None:
        return image_id, f"annotations[{first.position}]: it names no image"
    many = f"{len(annotations)} annotations name" if len(annotations) > 1 else f"annotations[{first.position}] names"
    if image_id in shared:
        return f"image {image_id}", f"{many} image id {image_id}, and {shared[image_id]}"
    return f"image {image_id}", f"{many} image id {image_id}, which 'images' lacks"


def _item(key: str, uri: str, image: _Image, coco: CocoFile) -> ListedItem:
    reader = CaptionReader()
    for *_, annotation in sorted(image.captions, key=lambda caption: caption[:3]):
        reader.add(annotation.caption, f"annotations[{annotation.position}]")
    for problem in image.lost:
        reader.note(problem)
    if any("\ufffd" in (region.label or "") for region in image.regions):
        reader.note("labels hold what is no text; U+FFFD stands for it")
    entry = image.entry
    width, height = stated_size(entry.width, entry.height) or (None, None)
    try:
        captions = reader.captions()
    except SampleError as error:
        return ListedItem(key=key, uri=uri, drop=error.drop)
    return ListedItem(
        key=key,
        uri=uri,
        captions=captions,
        width=width,
        height=height,
        regions=tuple(image.regions),
        url=entry.url,
        license=None if entry.license is None else coco.licenses.get(entry.license, entry.license),
        note=reader.note_text,
    )
