"""Hugging Face's `objects` of a picture: in a column of Parquet, or a field of an imagefolder's `metadata.jsonl`.

    {"bbox": [[x, y, width, height], ...], "category": [3, ...]}        a list a field, as `datasets` stores them
    [{"bbox": [x, y, width, height], "category": 3}, ...]               or an object each

Boxes are in pixels, `xywh` as COCO has them unless said otherwise. Categories are names, or numbers of the column's
ClassLabel. An object with several captions is as many regions, with ids `id.place`; one that is marked as a crowd is
filtered. An object that cannot be used is a region with a problem.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import NoneType
from typing import Any, Literal

from pipeline.read.captions import tidy_caption
from pipeline.read.record import NOWHERE, words
from pipeline.sample import GivenRegion
from schemas.loose_json import LooseJsonError, decode_json, id_text, number, shown, text
from schemas.text import was_not_utf8

Form = Literal["xywh", "xyxy"]

COLUMN = "objects"
BOXES = ("bbox", "bboxes", "box", "boxes")
LABELS = ("category", "categories", "label", "labels", "category_name", "class", "name")
_CAPTIONS = ("caption", "captions", "phrase", "text", "description")
_IDS = ("id", "ids", "bbox_id")
_SCORES = ("score", "scores")
_CROWDS = ("iscrowd", "is_crowd")


def holds_boxes(fields: Any) -> bool:
    """Return whether the names of an object's fields have boxes among them."""
    return any(name in fields for name in BOXES)


def read_objects(
    value: Any, name: str, *, form: Form = "xywh", names: Mapping[int, str] | None = None
) -> tuple[GivenRegion, ...]:
    """Return the regions that `objects` of a picture says, be it JSON in a text; ids are places, else.

    `name` tells where, for messages.
    """
    value = decoded_cell(value)
    if value is None:
        return ()
    return tuple(
        _region(entry, region_id, f"{name}: objects[{place}]", form, names or {})
        for place, found in _entries(value)
        for region_id, entry in _by_caption(found, place)
    )


def decoded_cell(value: Any) -> Any:
    """Return what a cell holds, as JSON where it is a text; one that is no JSON is an entry, which has a problem."""
    if not isinstance(value, str):
        return value
    with suppress(LooseJsonError):
        value = decode_json(value.encode("utf-8", "surrogatepass")) if value.strip() else None
    return [value] if isinstance(value, str) else value


def decoded_list(value: Any) -> Any:
    """Return what a cell says of boxes: a list, in a text as JSON, or the text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(LooseJsonError):
            return decode_json(value.encode("utf-8", "surrogatepass"))
    return value


def may_be_json(value: Any) -> bool:
    """Return whether a cell of text may list objects or boxes; one that is null or blank may."""
    return value is None or (isinstance(value, str) and value.lstrip()[:1] in ("", "[", "{"))


def is_boxes_alone(value: Any) -> bool:
    """Return whether a decoded cell is a box, or a list of boxes, without what it is of."""
    return isinstance(value, list) and all(isinstance(side, int | float | list | NoneType) for side in value)


def _by_caption(entry: Any, place: int) -> Iterator[tuple[str, Any]]:
    """Yield (id, object) for each text of an object's list of captions, each text once; the object alone where none."""
    fields = entry if isinstance(entry, dict) else {}
    region_id = id_text(_first(fields, _IDS)) or str(place)
    said = _first(fields, _CAPTIONS)
    texts = [text for text in said if words(text) is not None] if isinstance(said, list) else []
    if len(texts) < 2:
        yield region_id, {**fields, "caption": texts[0]} if texts else entry
        return
    for number_of, caption in enumerate(dict.fromkeys(texts)):
        yield f"{region_id}.{number_of}", {**fields, "caption": caption}


def class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> dict[int, str]:
    """Return the names of the ClassLabel within a column, from what `datasets` writes into a Parquet file's schema."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return dict(enumerate(_label_names(features[column])))
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _label_names(feature: Any) -> list[str]:
    """Return the names of the first ClassLabel under the usual names of categories."""
    if isinstance(feature, list):
        return next((names for names in map(_label_names, feature) if names), [])
    if not isinstance(feature, dict):
        return []
    labels = next((feature[name] for name in LABELS if isinstance(feature.get(name), dict | list)), feature)
    labels = labels.get("feature", labels) if isinstance(labels, dict) else labels
    if isinstance(labels, dict) and isinstance(labels.get("names"), list):
        return [str(name) for name in labels["names"]]
    return [] if labels is feature else _label_names(labels)


def _entries(value: Any) -> Iterator[tuple[int, Any]]:
    """Yield (place, object) of either form; a field of fewer values than there are boxes makes all of them unusable."""
    if isinstance(value, list):
        yield from enumerate(value)
        return
    lists = {name: field for name, field in value.items() if isinstance(field, list)} if isinstance(value, dict) else {}
    boxes = _first(lists, BOXES)
    if boxes is None or (len(boxes) == 4 and not any(isinstance(box, list | dict | NoneType) for box in boxes)):
        if value != {}:
            yield 0, value
        return
    uneven = [name for name, field in lists.items() if len(field) not in (0, len(boxes))]
    for place in range(len(boxes)):
        if uneven:
            counts = f"{len(lists[uneven[0]])} of {uneven[0]!r} for {len(boxes)} boxes"
            yield place, counts
        else:
            yield place, {name: field[place] for name, field in lists.items() if field}


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _region(entry: Any, region_id: str, where: str, form: Form, names: Mapping[int, str]) -> GivenRegion:
    fields = entry if isinstance(entry, dict) else {}
    box, label, score = _first(fields, BOXES), _first(fields, LABELS), _first(fields, _SCORES)
    label = int(label) if isinstance(label, float) and label.is_integer() else label  # pandas writes 3 so
    numbers = [number(side) for side in box] if isinstance(box, list) else []
    sides = [side for side in numbers if side is not None]
    problem = None
    if not isinstance(entry, dict):
        problem = f"{where} is {shown(entry)}"
    elif not len(sides) == len(numbers) == 4:
        problem = f"{where}: its box {shown(box)} is not four numbers"
    elif names and isinstance(label, int) and label not in names:
        problem = f"{where}: the category {label} is none of the {len(names)} of the column"
    elif score is not None and number(score) is None:
        problem = f"{where}: the score {shown(score)} is no number"
    x0, y0, x1, y1 = NOWHERE if len(sides) != 4 or problem else (sides[0], sides[1], sides[2], sides[3])
    caption, crowd = words(_first(fields, _CAPTIONS)), _first(fields, _CROWDS)
    if problem is None and caption is not None and was_not_utf8(caption):
        problem = f"{where}: a caption that is not UTF-8"
    return GivenRegion(
        box=(x0, y0, x0 + x1, y0 + y1) if form == "xywh" else (x0, y0, x1, y1),
        label=names.get(label, text(label)) if isinstance(label, int) else text(label),
        score=number(score),
        caption=None if caption is None else tidy_caption(caption),
        id=region_id,
        is_crowd=None if crowd is None else bool(number(crowd) or crowd is True),
        problem=problem,
    )
