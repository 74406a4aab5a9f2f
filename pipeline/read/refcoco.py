"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to objects of COCO's pictures, from JSON or Parquet.

    FOLDER/refs*.json with FOLDER/instances.json    what the pickles hold, as JSON; boxes by `ann_id`
    x.json, x.jsonl, x.parquet                      rows with a box of their own, as hubs have them

A region is an object with an expression: one that three expressions mean is there three times, with ids `ref.sentence`.
Pickles are never read: they can run code. The picture of an expression is the one that instances.json or
`raw_image_info` names; `file_name` of the pickles has the annotation's id at its end, and is taken without it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, cast

import msgspec

from pipeline.read.annotated import Annotated, Entry
from pipeline.read.base import SourceError
from pipeline.read.items import stated_size
from pipeline.read.json_entries import json_entries, object_problem
from pipeline.read.location import Location
from pipeline.read.objects import Form
from pipeline.read.packed_text import open_text
from pipeline.read.parquet_files import DamagedParquetError, open_parquet, plain
from pipeline.read.phrases import expressions
from pipeline.read.picture_cells import may_hold_pictures
from pipeline.read.record import region_of
from pipeline.read.spec import is_parquet, split_options
from pipeline.sample import GivenRegion
from schemas.coco import CocoAnnotation, CocoError, CocoFile, CocoImage, read_coco
from schemas.loose_json import LooseJsonError, decode_json, id_text, number, shown, text

INSTANCES = "instances.json"
_REFS = re.compile(r"refs.*\.jsonl?\Z")
_OF_ANNOTATION = re.compile(r"(COCO_(?:train|val|test)\d{4}_\d{12})_\d+(\.\w+)\Z")
"""A picture's name with the id of an annotation behind it, as the pickles write it."""
_FILES = ("image_path", "file_name", "image", "img_name", "image_name", "img_path", "img", "path")
_BOXES = ("bbox", "box")
_TEXTS = ("sentences", "sentence", "sents", "sent", "expressions", "expression", "captions", "caption", "phrase",
          "refexp", "answer", "text")  # fmt: skip
"""Where expressions are, the first that is there."""
CONVERT = (
    "a pickle can run code, so that none is read: where you trust it, turn it into JSON with python -c 'import json, "
    'pickle, sys; json.dump(pickle.load(open(sys.argv[1], "rb")), open(sys.argv[2], "w"))\' \'{}\' refs.json, and give '
    "refcoco:FOLDER with refs.json and instances.json in it"
)


class RefCoco(Annotated):
    """`refcoco:FOLDER`, `refcoco:refs.json?instances=instances.json&images=train2014&split=train`, `refcoco:x.parquet`.

    `?boxes=xyxy` where rows have corners; `raw_anns` and instances.json are COCO's, and need no telling.
    """

    kind: ClassVar[str] = "refcoco"

    def __init__(self, rest: str, *, allow: Sequence[str] = ()) -> None:
        path, options = split_options(rest, known=("images", "instances", "split", "boxes"))
        self._form = cast(Form, options.get("boxes", "xywh"))
        if self._form not in ("xywh", "xyxy"):
            raise SourceError(f"{path}: ?boxes={self._form} is neither xywh, as COCO has them, nor xyxy")
        self._split = options.get("split")
        location = Location.of(path)
        refs = self._refs(location, path)
        beside = Location(root=location.root, name=INSTANCES)
        self._instances = location.related(options["instances"]) if "instances" in options else None
        if self._instances is None and location.can_list and any(file.etag or file.size for file in beside.files()):
            self._instances = beside
        images = location.related_folder(options["images"]) if "images" in options else Location(root=location.root)
        instances = [] if self._instances is None else [self._instances]
        super().__init__([*refs, *instances], images, allow=allow)

    def _refs(self, location: Location, path: str) -> list[Location]:
        if location.name is not None and location.name.lower().endswith((".p", ".pkl", ".pickle")):
            raise SourceError(f"{location}: {CONVERT.format(location.name)}")
        if location.name is not None:
            return [location]
        uris = [file.uri for file in location.files()]
        found = [uri for uri in uris if is_parquet(uri) or _REFS.search(uri.rpartition("/")[2])]
        if not found:
            pickles = [uri for uri in uris if uri.lower().endswith((".p", ".pkl", ".pickle"))]
            why = f"; {pickles[0]} is there, but {CONVERT.format(pickles[0])}" if pickles else ""
            raise SourceError(f"{path}: found no refs*.json and no .parquet there{why}")
        return [Location(root=location.root, name=uri) for uri in found]

    def _options(self) -> object:
        return self._form, self._split

    def _entries(self) -> Iterator[Entry]:
        instances = _Instances(self._instances)
        for location in self._annotations:
            if location != self._instances:
                for where, value in _rows(location):
                    if not isinstance(value, Mapping) or self._split in (None, text(value.get("split"))):
                        yield _entry(where, value, instances, self._form)


class _Instances:
    """The pictures and objects of instances.json, by id."""

    def __init__(self, location: Location | None) -> None:
        self.images: dict[str, CocoImage] = {}
        self.annotations: dict[str, CocoAnnotation] = {}
        self.categories: dict[str, str] = {}
        if location is None:
            return
        try:
            with open_text(location) as file:
                coco: CocoFile = read_coco(file.read())
        except CocoError as error:
            raise SourceError(f"{location}: {error}") from error
        self.images = {image.id: image for image in coco.images if image.id is not None}
        self.annotations = {known.id: known for known in coco.annotations() if known.id is not None}
        self.categories = coco.categories


def _rows(location: Location) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) of a file of expressions. Raises SourceError."""
    if not is_parquet(location.name or ""):
        yield from json_entries(location)
        return
    try:
        with open_parquet(location, location.name or "") as parquet:
            schema = parquet.schema_arrow
            pictures = [field.name for field in schema if may_hold_pictures(field.type)]
            if pictures:
                raise SourceError(
                    f"{location}: its column {pictures[0]!r} holds the pictures: give it as parquet:{location}"
                )
            place = 0
            for batch in parquet.iter_batches():
                for row in range(batch.num_rows):
                    yield (
                        f"{location.name} row {place}",
                        {name: plain(batch.column(name)[row]) for name in schema.names},
                    )
                    place += 1
    except DamagedParquetError as error:
        raise SourceError(f"{location}: cannot be read: {error}") from error


def _entry(where: str, value: Any, instances: _Instances, form: Form) -> Entry:
    problem = object_problem(value)
    if problem is not None:
        return Entry(files=(), where=where, problem=problem)
    info, known = _decoded(value.get("raw_image_info")), instances.images.get(id_text(value.get("image_id")) or "")
    names = [text(info.get("file_name")), known.file_name if known else None, *(text(value.get(f)) for f in _FILES)]
    files = dict.fromkeys(_OF_ANNOTATION.sub(r"\1\2", name) for name in names if name)
    width, height = (info.get(side, value.get(side)) for side in ("width", "height"))
    size = stated_size(number(width), number(height)) or (known and stated_size(known.width, known.height)) or None
    regions = tuple(_regions(where, value, instances, form))
    return Entry(files=tuple(files), where=where, regions=regions, size=size, url=text(info.get("coco_url")))


def _regions(where: str, value: Mapping[str, Any], instances: _Instances, form: Form) -> Iterator[GivenRegion]:
    annotation = instances.annotations.get(id_text(value.get("ann_id")) or "")
    raw = _decoded(value.get("raw_anns"))
    problem = None
    if annotation is not None:
        box: Sequence[float] | None = annotation.box
        problem = annotation.problem and f"{where}: {INSTANCES}: {annotation.problem}"
        if (image_id := id_text(value.get("image_id"))) not in (None, annotation.image_id):
            problem = f"{where}: ann_id {annotation.id} is of image {annotation.image_id}, not of {image_id}"
    elif "bbox" in raw:
        box = _corners(raw["bbox"], "xywh")
    else:
        said = next((value[name] for name in _BOXES if value.get(name) is not None), None)
        box = _corners(said, form)
        if said is None and instances.annotations:
            problem = f"{where}: ann_id {shown(value.get('ann_id'))} is none of {INSTANCES}"
        elif box is None:
            problem = f"{where}: its box {shown(said)} is not four numbers"
    category = id_text(value.get("category_id")) or ""
    ref = id_text(value.get("ref_id")) or id_text(value.get("question_id")) or where.rpartition(" ")[2]
    sentences = list(expressions(next((value[name] for name in _TEXTS if value.get(name)), None)))
    for place, (said_id, sentence) in enumerate(sentences or [(None, None)]):
        region = region_of(
            box,
            where,
            id=f"{ref}.{said_id or place}",
            caption=sentence,
            label=instances.categories.get(category),
            problem=problem,
        )
        yield msgspec.structs.replace(region, is_crowd=annotation.is_crowd if annotation else None)


def _corners(value: Any, form: Form) -> tuple[float, float, float, float] | None:
    numbers = [number(side) for side in value] if isinstance(value, list) else []
    sides = [side for side in numbers if side is not None]
    if not len(sides) == len(numbers) == 4:
        return None
    x0, y0, x1, y1 = sides
    return (x0, y0, x0 + x1, y0 + y1) if form == "xywh" else (x0, y0, x1, y1)


def _decoded(value: Any) -> Mapping[str, Any]:
    """Return an object that is written as JSON in a text, or as itself; an empty one for anything else."""
    if isinstance(value, str):
        with suppress(LooseJsonError):
            value = decode_json(value.encode("utf-8", "surrogatepass"))
    return value if isinstance(value, Mapping) else {}
