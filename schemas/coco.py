"""COCO's JSON, read in one place: for sources, evaluators and detection. Nothing is drawn and no array is made.

    read_coco(bytes) -> CocoFile   images, categories, licences, info; annotations one at a time

It is strict only about what is needed: a file must be an object with a list `images`. An entry that cannot be used
stays in its place and has a `problem`, a sentence; whoever reads decides what becomes of it. Ids are text, the same for
1, 1.0 and "1". Numbers may be text. Memory: the file's bytes, some 100 bytes an entry, and what the reader keeps.
"""

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from schemas.boxes import around_turned
from schemas.loose_json import LooseJsonError, decode_json, id_text, number, shown, split_json, text

Box = tuple[float, float, float, float]


class CocoError(ValueError):
    """A file is not COCO's JSON; the message says why."""


class Rle(msgspec.Struct, frozen=True, kw_only=True):
    """A mask in COCO's run lengths, which go down the columns and begin with what is outside."""

    counts: str
    """Compressed, as pycocotools writes them."""
    height: int
    width: int


class CocoImage(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `images`."""

    id: str | None
    file_name: str | None
    """As written, not looked for; of LVIS, which has addresses alone, the last folder and the name of the address."""
    named_by_url: bool
    """Whether `file_name` is of an address."""
    width: float | None
    """In pixels, as stated; may be no size at all."""
    height: float | None
    url: str | None
    """`coco_url`, else `flickr_url`."""
    license: str | None
    """The id of an entry of `licenses`."""
    caption: Any
    """Of the image, where its entry has one, as MDETR's do; whatever was written."""
    problem: str | None


class CocoAnnotation(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `annotations`, or a segment of one of COCO panoptic's: a region, or a caption of the image."""

    position: int
    """In `annotations`, from 0."""
    id: str | None
    image_id: str | None
    category_id: str | None
    category_name: str | None
    """As the annotation itself has it, which counts where `categories` have no name of its id."""
    box: Box | None
    """xyxy in pixels of the image, as stated or as the segmentation has it; may be NaN or outside."""
    rotation: float
    """Degrees that the box stated is turned by, as CVAT and Datumaro write it; `box` is the one around it."""
    score: float | None
    is_crowd: bool | None
    """None where it is not said."""
    caption: Any
    """A string, by the format; whatever was written."""
    tokens_positive: Any
    """[start, end] of the characters of the image's caption that a region is of, as MDETR has them; as written."""
    segmentation: msgspec.Raw
    """Polygons or an RLE as JSON, not looked at where there is a box."""
    is_region: bool
    """Whether it is of a region: it says a box or a segmentation, or does not say a caption."""
    problem: str | None

    @property
    def polygons(self) -> tuple[tuple[float, ...], ...]:
        """The region's outlines: x, y, x, y, ... in pixels of the image; none where the segmentation is no list.

        Some tools write a lone outline without the list around it.
        """
        value = _value(self.segmentation)
        value = [value] if _numbers(value) else value
        polygons = [_numbers(polygon) for polygon in value] if isinstance(value, list) else []
        return tuple(polygon for polygon in polygons if polygon and len(polygon) >= 6 and len(polygon) % 2 == 0)

    @property
    def rle(self) -> Rle | None:
        """The region's mask, where the segmentation is run lengths, compressed or not, alone or in a list."""
        if b"{" not in bytes(self.segmentation):
            return None
        value = _value(self.segmentation)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        size = _numbers(value.get("size")) if isinstance(value, dict) else None
        counts = value.get("counts") if isinstance(value, dict) else None
        runs = _numbers(counts) if isinstance(counts, list) else None
        if runs is not None and all(0 <= run < 2**31 for run in runs):
            counts = compress_runs([int(run) for run in runs])
        if size is None or len(size) != 2 or not all(1 <= side < 2**31 for side in size):
            return None
        if not isinstance(counts, str) or not counts.isascii():
            return None
        return Rle(counts=counts, height=int(size[0]), width=int(size[1]))


class CocoFile(msgspec.Struct, frozen=True, kw_only=True):
    """A COCO file; annotations are decoded as they are asked for."""

    images: list[CocoImage]
    categories: dict[str, str]
    """Name by id; the first, where an id has two."""
    disputed: dict[str, str]
    """Ids of categories of two names, each with a sentence: no label can be told from such an id."""
    licenses: dict[str, str]
    """Address, else name, by id."""
    info: dict[str, Any]
    num_annotations: int
    pieces: list[msgspec.Raw]

    def annotations(self) -> Iterator[CocoAnnotation]:
        """Yield the annotations in order, panoptic ones segment by segment."""
        for position, piece in enumerate(self.pieces):
            entry = _decode(piece, _Annotation)
            if isinstance(entry, str):
                yield _unusable(position, entry)
                continue
            segments = entry.segments_info if isinstance(entry.segments_info, list) else None
            if segments is None:
                yield _annotation(position, entry, self.categories, self.disputed)
            for segment in segments or ():
                known = segment if isinstance(segment, dict) else {}
                part = _entry(_Annotation, known | {"image_id": entry.image_id})
                yield _annotation(position, part, self.categories, self.disputed)


_NOTHING = msgspec.Raw(b"null")
_HEAD = 1024
"""Bytes in which a file's first bracket stands."""
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
_NO_SEGMENTATION = (b"null", b"[]", b"{}")


class _File(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw] = []
    categories: msgspec.Raw = _NOTHING
    licenses: msgspec.Raw = _NOTHING
    info: msgspec.Raw = _NOTHING


class _Image(msgspec.Struct):
    id: Any = None
    file_name: Any = None
    width: Any = None
    height: Any = None
    coco_url: Any = None
    flickr_url: Any = None
    license: Any = None
    caption: Any = None


class _Annotation(msgspec.Struct):
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    category_name: Any = None
    bbox: Any = None
    score: Any = None
    iscrowd: Any = None
    caption: Any = None
    tokens_positive: Any = None
    attributes: Any = None
    segmentation: msgspec.Raw = _NOTHING
    segments_info: Any = None


def read_coco(data: bytes) -> CocoFile:
    """Return what a COCO file holds. Raises CocoError for anything but an object with a list of `images`."""
    if data[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        remedy = "give the file that has 'images' and 'annotations'"
        raise CocoError(f"not a COCO file but a list, as a detector's results are: {remedy}")
    try:
        file = split_json(data, _File)
    except LooseJsonError as error:
        raise CocoError(f"not a COCO file with 'images' and 'annotations': {error}") from error
    if not file.images:
        raise CocoError("its 'images' are empty; nothing to read")
    categories, disputed = _categories(file.categories)
    licenses = {key: text(entry.get("url")) or text(entry.get("name")) for key, entry in _by_id(file.licenses)}
    info = _value(file.info)
    return CocoFile(
        images=[_image(position, piece) for position, piece in enumerate(file.images)],
        categories=categories,
        disputed=disputed,
        licenses={key: name or key for key, name in licenses.items()},
        info=info if isinstance(info, dict) else {},
        num_annotations=len(file.annotations),
        pieces=file.annotations,
    )


def _value(piece: msgspec.Raw) -> Any:
    try:
        return decode_json(bytes(piece))
    except LooseJsonError:
        return None


def _by_id(piece: msgspec.Raw) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (id, entry) of a list of objects, or of an object of entries or names by id.

    An entry without an id is of no use to anything.
    """
    entries = _value(piece)
    if isinstance(entries, dict):
        named = ((key, entry if isinstance(entry, dict) else {"name": entry}) for key, entry in entries.items())
        entries = [{"id": key, **entry} for key, entry in named]
    for entry in entries if isinstance(entries, list) else ():
        key = id_text(entry.get("id")) if isinstance(entry, dict) else None
        if key is not None:
            yield key, entry


def _categories(piece: msgspec.Raw) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names by id, and a sentence for each id that has more than one."""
    names: dict[str, str] = {}
    disputed: dict[str, str] = {}
    for key, entry in _by_id(piece):
        name = text(entry.get("name"))
        if name is not None and names.setdefault(key, name) != name:
            disputed.setdefault(key, f"category_id {key} is both {shown(names[key])} and {shown(name)}")
    return names, disputed


def _decode(piece: msgspec.Raw, kind: type[Any]) -> Any:
    """Return the entry, or what is wrong with it."""
    try:
        return msgspec.json.decode(piece, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # text that is no text, numbers beyond all floats: read again, more slowly
    value = _value(piece)
    if not isinstance(value, dict):
        return f"it is {shown(value)}, not an object"
    return _entry(kind, value)


def _entry(kind: type[Any], value: dict[str, Any]) -> Any:
    known = {name: field for name, field in value.items() if name in kind.__struct_fields__}
    if "segmentation" in known:
        known["segmentation"] = msgspec.Raw(msgspec.json.encode(known["segmentation"]))
    return kind(**known)


def _image(position: int, piece: msgspec.Raw) -> CocoImage:
    entry = _decode(piece, _Image)
    problem = f"images[{position}]: {entry}" if isinstance(entry, str) else None
    entry = _Image() if isinstance(entry, str) else entry
    file_name = entry.file_name if isinstance(entry.file_name, str) else text(entry.file_name)
    url = text(entry.coco_url)
    named_by_url = entry.file_name is None and url is not None
    if named_by_url and url is not None:
        file_name = "/".join(url.rstrip("/").split("/")[-2:])
    key = id_text(entry.id)
    if problem is None and (file_name is None or not file_name.strip()):
        problem = f"images[{position}]: file_name is {shown(entry.file_name)}, not a name"
    elif problem is None and text(file_name) != file_name:
        problem = f"images[{position}]: file_name {shown(file_name)} holds what no name can hold"
    elif problem is None and key is None:
        problem = f"images[{position}]: id is {shown(entry.id)}, not an id"
    return CocoImage(
        id=key,
        file_name=file_name,
        named_by_url=named_by_url,
        width=number(entry.width),
        height=number(entry.height),
        url=url or text(entry.flickr_url),
        license=id_text(entry.license),
        caption=entry.caption,
        problem=problem,
    )


def _unusable(position: int, why: str) -> CocoAnnotation:
    annotation = _annotation(position, _Annotation(), {}, {})
    return msgspec.structs.replace(annotation, problem=f"annotations[{position}]: {why}")


def _annotation(
    position: int, entry: _Annotation, categories: dict[str, str], disputed: dict[str, str]
) -> CocoAnnotation:
    is_outline = bytes(entry.segmentation) not in _NO_SEGMENTATION
    outlined = entry.bbox in (None, []) and is_outline
    box, rotation = _xyxy(entry.bbox), 0.0 if is_outline else _rotation(entry.attributes)
    annotation = CocoAnnotation(
        position=position,
        id=id_text(entry.id),
        image_id=id_text(entry.image_id),
        category_id=id_text(entry.category_id),
        category_name=text(entry.category_name),
        box=None if box is None else around_turned(box, rotation),
        rotation=rotation,
        score=number(entry.score),
        is_crowd=_truth(entry.iscrowd),
        caption=entry.caption,
        tokens_positive=entry.tokens_positive,
        segmentation=entry.segmentation,
        is_region=entry.bbox is not None or outlined or entry.caption is None,
        problem=None,
    )
    if outlined:
        annotation = msgspec.structs.replace(annotation, box=_bounds(annotation))
    problems = _problems(annotation, entry, categories, disputed)
    if problems:
        annotation = msgspec.structs.replace(annotation, problem=f"annotations[{position}]: {'; '.join(problems)}")
    return annotation


def _problems(
    annotation: CocoAnnotation, entry: _Annotation, categories: dict[str, str], disputed: dict[str, str]
) -> list[str]:
    """Return what is wrong with an annotation as it was written."""
    problems = []
    if annotation.is_region and annotation.box is None:
        neither = "it has neither a 'bbox' nor a 'caption'"
        if bytes(annotation.segmentation) not in _NO_SEGMENTATION:
            neither += ", and its 'segmentation' is neither outlines nor run lengths of its image"
        problems.append(neither if entry.bbox in (None, []) else f"bbox {shown(entry.bbox)} is not four numbers")
    if annotation.score is None and entry.score is not None:
        problems.append(f"score {shown(entry.score)} is no number")
    if categories and entry.category_id is not None and annotation.category_id not in categories:
        problems.append(f"category_id {shown(entry.category_id)} is none of 'categories'")
    if annotation.category_id in disputed and annotation.is_region:
        problems.append(disputed[annotation.category_id or ""])
    if annotation.is_crowd is None and entry.iscrowd not in (None, ""):
        problems.append(f"iscrowd {shown(entry.iscrowd)} is neither 0 nor 1")
    return problems


def _truth(value: Any) -> bool | None:
    """Return what 0, 1, true, false, or such a word, means; None for anything else."""
    if isinstance(value, str):
        value = _TRUTHS.get(value.strip().lower(), value)
    if isinstance(value, bool):
        return value
    said = number(value)
    return bool(said) if said in (0, 1) else None


def _rotation(attributes: Any) -> float:
    """Return the degrees that attributes say a box is turned by; 0 where they say none."""
    said = number(attributes.get("rotation")) if isinstance(attributes, dict) else None
    return said if said is not None and math.isfinite(said) else 0.0


def _numbers(value: Any) -> tuple[float, ...] | None:
    numbers = [number(entry) for entry in value] if isinstance(value, list) else [None]
    return None if None in numbers else tuple(entry for entry in numbers if entry is not None)


def _xyxy(bbox: Any) -> Box | None:
    numbers = _numbers(bbox)
    if numbers is None or len(numbers) != 4:
        return None
    x, y, width, height = numbers
    return x, y, x + width, y + height


def _bounds(annotation: CocoAnnotation) -> Box | None:
    """Return the box of a segmentation that comes without one; None for an empty one."""
    if annotation.rle is not None:
        return _rle_bounds(annotation.rle)
    xs = [x for polygon in annotation.polygons for x in polygon[::2]]
    ys = [y for polygon in annotation.polygons for y in polygon[1::2]]
    return (min(xs), min(ys), max(xs), max(ys)) if xs else None


def _rle_bounds(rle: Rle) -> Box | None:
    columns: list[int] = []
    rows: list[int] = []
    start = 0
    runs = decompress_runs(rle.counts)
    if sum(runs) != rle.height * rle.width:
        return None
    for position, run in enumerate(runs):
        if position % 2 and run:
            first, last = divmod(start, rle.height), divmod(start + run - 1, rle.height)
            columns += first[0], last[0]
            rows += (first[1], last[1]) if first[0] == last[0] else (0, rle.height - 1)
        start += run
    return (min(columns), min(rows), max(columns) + 1, max(rows) + 1) if columns else None


def compress_runs(runs: list[int]) -> str:
    """Return run lengths as COCO's string: each from the third on less the one two before, five bits a character."""
    characters = []
    for position, run in enumerate(runs):
        rest = run - runs[position - 2] if position > 2 else run
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            characters.append(chr(48 + bits + 32 * more))
    return "".join(characters)


def decompress_runs(counts: str) -> list[int]:
    """Return the run lengths that COCO's string `counts` stands for."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return runs
