"""COCO JSON: boxes from an instances file, captions from a captions file, in one file or two.

Crowd annotations (`iscrowd`) are left out: their boxes cover groups, not objects. Of an image's captions the one with
the lowest annotation id is taken. Boxes stay as written: they may hold NaN or lie outside the image.
"""

import json
import posixpath
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

import msgspec

from pipeline.read.base import ListedItem, SourceError, SourceFile, SourcePart
from pipeline.read.items import one_caption, stated_size, tidy_caption
from pipeline.read.keys import keys_of_files
from pipeline.read.listed import read_listed
from pipeline.read.location import Location
from pipeline.read.parts import list_parts
from pipeline.read.spec import split_options
from pipeline.sample import GivenRegion, SourceItem

Id = int | str


class CocoImage(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `images`."""

    id: Id
    file_name: str
    width: float | None = None
    height: float | None = None
    coco_url: str | None = None
    flickr_url: str | None = None
    license: Id | None = None


class CocoAnnotation(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `annotations`: a region where it has a `bbox`, else a caption of the image."""

    image_id: Id
    id: Id = 0
    category_id: Id | None = None
    bbox: tuple[float, float, float, float] | None = None
    """x, y, width, height in pixels of the image."""
    score: float | None = None
    iscrowd: int | bool = 0
    caption: str | None = None


class CocoCategory(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `categories`."""

    id: Id
    name: str


class CocoLicense(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `licenses`."""

    id: Id
    name: str | None = None
    url: str | None = None


class CocoFile(msgspec.Struct, frozen=True, kw_only=True):
    """A COCO JSON file; other fields are ignored."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory] = []
    licenses: list[CocoLicense] = []


class Coco:
    """`coco:instances.json?images=FOLDER&captions=captions.json`; the images lie beside the JSON by default."""

    kind: ClassVar[str] = "coco"

    def __init__(self, rest: str) -> None:
        path, options = split_options(rest, known=("images", "captions"))
        self._json = Location.of(path)
        if self._json.name is None:
            raise SourceError(f"{self._json}: a COCO input is one JSON file, not a folder or pattern; name the file")
        images = self._json.related(options["images"]) if "images" in options else Location(root=self._json.root)
        if not images.is_folder:
            raise SourceError(f"{images}: images= must name a folder")
        self._images = images
        self._captions = self._json.related(options["captions"]) if "captions" in options else None

    def files(self) -> Iterator[SourceFile]:
        """Yield the images that the JSON lists, and the JSON files under their full paths."""
        jsons = [self._json] if self._captions is None else [self._json, self._captions]
        indexes = [
            SourceFile(uri=str(location), size=file.size, etag=file.etag)
            for location in jsons
            for file in location.files()
        ]
        wanted = {_uri(image) for image in _load(self._json).images}
        images = [file for file in self._images.files() if file.uri in wanted]
        absent = wanted - {file.uri for file in images}
        images += self._images.lookup(sorted(absent))
        yield from sorted([*indexes, *images], key=lambda file: file.uri)

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield the images in the order of their file names, `shard_size` a shard."""
        instances = _load(self._json)
        where = str(self._json)
        regions = _regions(instances, where)
        captions = _captions(instances)
        if self._captions is not None:
            captions.update(_captions(_load(self._captions, {image.id for image in instances.images})))
        yield from list_parts(_items(instances, regions, captions), shard_size)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's images with their regions and captions."""
        yield from read_listed(part, self._images, lambda listed: listed.captions)


def _load(location: Location, other_ids: Collection[Id] = ()) -> CocoFile:
    """Read a COCO file; its annotations may be of images in `other_ids` too.

    Raises SourceError, naming the field or the ids, for anything else.
    """
    try:
        with location.open(location.name or "") as file:
            value: Any = json.load(file)  # msgspec's decoder refuses NaN, which boxes may hold
        coco = msgspec.convert(value, CocoFile)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{location}: not a COCO file with 'images' and 'annotations': {error}") from error
    if not coco.images:
        raise SourceError(f"{location}: its 'images' are empty; nothing to read")
    _check(coco, other_ids, str(location))
    return coco


def _check(coco: CocoFile, other_ids: Collection[Id], where: str) -> None:
    uses = Counter(image.id for image in coco.images)
    twice = [image_id for image_id, count in uses.items() if count > 1]
    if twice:
        raise SourceError(f"{where}: {len(twice)} image ids are used twice, such as {twice[0]!r}")
    known = {*uses, *other_ids}
    unknown = sorted({str(a.image_id) for a in coco.annotations if a.image_id not in known})
    if unknown:
        some = ", ".join(unknown[:5])
        raise SourceError(f"{where}: annotations name {len(unknown)} image ids that 'images' lacks, such as {some}")
    for position, annotation in enumerate(coco.annotations):
        if annotation.bbox is None and annotation.caption is None:
            raise SourceError(f"{where}: annotations[{position}] has neither 'bbox' nor 'caption'")


def _regions(coco: CocoFile, where: str) -> dict[Id, list[GivenRegion]]:
    """Return the regions of each image, by its id, in the order of the file."""
    names = {category.id: category.name for category in coco.categories}
    regions: dict[Id, list[GivenRegion]] = {}
    for annotation in coco.annotations:
        if annotation.bbox is None or annotation.iscrowd:
            continue
        if names and annotation.category_id is not None and annotation.category_id not in names:
            raise SourceError(
                f"{where}: annotation {annotation.id!r} names category {annotation.category_id!r}, "
                "which 'categories' lacks"
            )
        label = None if annotation.category_id is None else names.get(annotation.category_id)
        x, y, width, height = annotation.bbox
        region = GivenRegion(
            box=(x, y, x + width, y + height), label=label, score=annotation.score, caption=annotation.caption
        )
        regions.setdefault(annotation.image_id, []).append(region)
    return regions


def _captions(coco: CocoFile) -> dict[Id, str]:
    """Return the caption with the lowest annotation id of each image, by image id."""
    whole_image = [a for a in coco.annotations if a.bbox is None and a.caption is not None]
    whole_image.sort(key=lambda a: (isinstance(a.id, str), a.id))
    captions: dict[Id, str] = {}
    for annotation in whole_image:
        captions.setdefault(annotation.image_id, annotation.caption or "")
    return captions


def _items(coco: CocoFile, regions: dict[Id, list[GivenRegion]], captions: dict[Id, str]) -> list[ListedItem]:
    images = sorted(coco.images, key=lambda image: (_uri(image), str(image.id)))
    keys = keys_of_files([_uri(image) for image in images])
    licenses = {entry.id: entry.url or entry.name for entry in coco.licenses}
    items = []
    for key, image in zip(keys, images, strict=True):
        width, height = stated_size(image.width, image.height) or (None, None)
        item = ListedItem(
            key=key,
            uri=_uri(image),
            captions=one_caption(tidy_caption(captions.get(image.id, ""))),
            width=width,
            height=height,
            regions=tuple(regions.get(image.id, ())),
            url=image.coco_url or image.flickr_url,
            license=None if image.license is None else licenses.get(image.license, str(image.license)),
        )
        items.append(item)
    return items


def _uri(image: CocoImage) -> str:
    return posixpath.normpath(image.file_name)
