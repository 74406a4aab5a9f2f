"""What COCO files say of each image: entries joined by id and by file name, annotations made regions.

In MDETR's files an entry of an image has a caption, and an annotation the spans of it (`tokens_positive`) that its box
is of: they are the region's caption.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.read.base import ListedItem, SourceError
from pipeline.read.captions import CaptionReader
from pipeline.read.items import SampleError, stated_size
from pipeline.read.record import turned_note
from pipeline.sample import GivenRegion
from schemas.coco import CocoAnnotation, CocoFile, CocoImage
from schemas.loose_json import number, shown


@dataclass(kw_only=True)
class AnnotatedImage:
    """What the files say of one image file."""

    entry: CocoImage
    """The first of its name."""
    regions: list[GivenRegion] = field(default_factory=list)
    captions: list[tuple[bool, int, str, CocoAnnotation]] = field(default_factory=list)
    """Sortable by annotation id: whether it is no number, the number, the id."""
    num_entries: int = 0
    own_captions: list[Any] = field(default_factory=list)
    """Of its entries themselves."""
    lost: list[str] = field(default_factory=list)
    """What is wrong with captions of it."""
    num_turned: int = 0
    """Boxes that are stated as turned ones."""


class Images:
    """The images of a COCO file, found by id and by file name; entries that cannot be used, apart."""

    def __init__(self, coco: CocoFile, uri_of: Callable[[CocoImage], str]) -> None:
        self.by_uri: dict[str, AnnotatedImage] = {}
        self.ids: dict[str, str] = {}
        """The uri of each id, the first of it."""
        self.shared: dict[str, str] = {}
        """Ids of two files or more, each with a sentence: what is of such an id is of no image."""
        self._sizes: dict[str, tuple[float | None, float | None]] = {}
        self.captions: dict[str, str] = {}
        """Of entries that have one, by id."""
        self.problems: list[tuple[str, str]] = []
        """(name, problem) of what no image can be made of."""
        for position, entry in enumerate(coco.images):
            if entry.problem is not None or entry.id is None:
                self.problems.append((f"images {position}", str(entry.problem)))
                continue
            uri = uri_of(entry)
            image = self.by_uri.setdefault(uri, AnnotatedImage(entry=entry))
            image.num_entries += 1
            first = self.by_uri[self.ids.setdefault(entry.id, uri)]
            if first is not image:
                self._share(entry.id, first, image)
            self._sizes[entry.id] = (entry.width, entry.height)
            if entry.caption is not None:
                image.own_captions.append(entry.caption)
            if isinstance(entry.caption, str):
                self.captions[entry.id] = entry.caption

    def _share(self, image_id: str, first: AnnotatedImage, other: AnnotatedImage) -> None:
        sentence = f"image id {image_id} is that of {first.entry.file_name} and of {other.entry.file_name}"
        self.shared.setdefault(image_id, sentence)
        for image in (first, other):
            image.lost.append(f"{self.shared[image_id]}: its annotations are withheld")

    def named(self, image_id: str) -> AnnotatedImage | None:
        """Return the image of an id; None where there is none, or more than one."""
        return None if image_id in self.shared else self.by_uri.get(self.ids.get(image_id, ""))

    def of(self, annotation: CocoAnnotation) -> AnnotatedImage | None:
        """Return the image an annotation is of."""
        return self.named(annotation.image_id or "")

    def frame_problem(self, annotation: CocoAnnotation, image: AnnotatedImage) -> str | None:
        """Say where the annotation's entry states another size than the first of its file name."""
        size, first = self._sizes[annotation.image_id or ""], (image.entry.width, image.entry.height)
        if None in (*size, *first) or size == first:
            return None
        stated = f"{size[0]:g} x {size[1]:g} pixels, and otherwise before"
        return f"annotations[{annotation.position}]: its image is stated as {stated}"


def join_captions(
    captions: Images, images: Images, where: str
) -> tuple[dict[str, AnnotatedImage | None], dict[str, str]]:
    """Return the image of each id of a captions file, None where only that file has it; and its ids of two files.

    Files are joined by file names, as each may number its images for itself. Raises SourceError, naming the first,
    where they number alike and call one id by two names: nobody can tell which image such a caption is of.
    """
    joined: dict[str, AnnotatedImage | None] = {}
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


def add_captions(
    captions: CocoFile, joined: Mapping[str, AnnotatedImage | None], strays: dict[str, list[CocoAnnotation]]
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


def add_annotations(coco: CocoFile, images: Images, strays: dict[str, list[CocoAnnotation]]) -> None:
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
            said = images.captions.get(annotation.image_id or "")
            image.regions.append(_region(annotation, coco, image.entry, problem, said))
            image.num_turned += annotation.rotation % 180 != 0


def _order(annotation_id: str | None) -> tuple[bool, int, str]:
    said = annotation_id or ""
    is_number = said.isascii() and said.isdigit()
    return not is_number, int(said) if is_number else 0, said


def _region(
    annotation: CocoAnnotation, coco: CocoFile, image: CocoImage, problem: str | None, said: str | None
) -> GivenRegion:
    """Return the region of an annotation whose image's entry has the caption `said`."""
    nowhere = (float("nan"),) * 4
    rle = annotation.rle
    caption = CaptionReader()
    caption.add(annotation.caption, "caption")
    if annotation.caption is None and annotation.tokens_positive not in (None, []):
        words = _words_of(annotation.tokens_positive, said)
        caption.add(words, "tokens_positive")
        if words is None and problem is None:
            spans = shown(annotation.tokens_positive)
            problem = f"annotations[{annotation.position}]: tokens_positive {spans} are no spans of its image's caption"
    return GivenRegion(
        box=annotation.box or (nowhere[0], nowhere[1], nowhere[2], nowhere[3]),
        label=coco.categories.get(annotation.category_id or "", annotation.category_name),
        score=annotation.score,
        caption=next(iter(caption.found), None),
        id=annotation.id,
        is_crowd=annotation.is_crowd,
        mask_rle=rle.counts if rle and (rle.width, rle.height) == (image.width, image.height) else None,
        problem=problem,
    )


def _words_of(spans: Any, said: str | None) -> str | None:
    """Return the words of spans of a caption, with a blank between; None where one of them is no span of it."""
    if said is None or not isinstance(spans, list):
        return None
    found = []
    for span in spans:
        ends = [number(end) for end in span] if isinstance(span, list) else []
        if len(ends) != 2 or ends[0] is None or ends[1] is None or not 0 <= ends[0] < ends[1] <= len(said):
            return None
        found.append(said[int(ends[0]) : int(ends[1])].strip())
    return " ".join(found)


def stray_row(image_id: str, annotations: list[CocoAnnotation], shared: Mapping[str, str]) -> tuple[str, str]:
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


def listed_item(key: str, uri: str, image: AnnotatedImage, coco: CocoFile) -> ListedItem:
    """Return the sample of an image, or its drop where what is said of it cannot be used."""
    reader = CaptionReader()
    for caption in image.own_captions:
        reader.add(caption, "caption of its entry")
    for *_, annotation in sorted(image.captions, key=lambda caption: caption[:3]):
        reader.add(annotation.caption, f"annotations[{annotation.position}]")
    if image.num_entries > 1 and not image.own_captions:
        reader.note(f"{image.num_entries} entries of 'images' have this file name; what they say is joined")
    for problem in image.lost:
        reader.note(problem)
    if any("\ufffd" in (region.label or "") for region in image.regions):
        reader.note("labels hold what is no text; U+FFFD stands for it")
    if image.num_turned:
        reader.note(turned_note(image.num_turned))
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
