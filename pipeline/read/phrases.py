"""Regions that fields or columns say by phrases: spans of the caption, as GRIT has them, or a box with expressions.

noun_chunks, ref_exps: [[start, end, x0, y0, x1, y1, score], ...]     characters of the caption; shares of the picture
bbox: [x, y, width, height], answer: ["the left one", ...]            an expression a region, as RefCOCO has them
bbox: [[x, y, width, height], ...], category: ["cat", ...]            a row's own fields, in place of `objects`
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeGuard

from pipeline.read.objects import BOXES, LABELS, Form, read_objects
from pipeline.read.record import region_of, words
from pipeline.sample import GivenRegion
from schemas.loose_json import LooseJsonError, decode_json, id_text, number, shown

SPANS = ("noun_chunks", "ref_exps")
EXPRESSIONS = ("sentences", "sents", "sent", "expressions", "expression", "referring_expressions", "phrase", "answer")
"""Columns that say what a lone box is of, the first that is there counts."""
OF_PICTURE = ("class", "name", "answer")
"""What is the picture's, its class, its file, the answer about it, unless it lists one for each of several boxes."""
LONE_LABELS = tuple(name for name in LABELS if name not in OF_PICTURE)
"""Columns that say a lone box's category."""


def read_spans(said: Mapping[str, Any], caption: Any, name: str) -> tuple[GivenRegion, ...]:
    """Return the regions of `SPANS`, in shares; ids say which. `name` tells where, for messages."""
    return tuple(
        _of_span(span, caption, f"{name}: {field}[{place}]", f"{field}.{place}")
        for field in SPANS
        for place, span in _listed(said.get(field))
    )


def read_lone_boxes(
    value: Any, label: Any, said: Any, name: str, *, form: Form, names: Mapping[int, str]
) -> tuple[GivenRegion, ...]:
    """Return the regions of a box, one an expression of `said`, or of a list of boxes; `names` are those of labels.

    Beside a list of boxes, `label` and `said` count where they are lists of its length, or texts, which are of each.
    """
    if value in (None, []):
        return ()
    if is_list_of_boxes(value):
        objects = row_objects({"bbox": value, "category": label, "phrase": said})
        return read_objects(objects, name, form=form, names=names)
    found = list(expressions(said)) or [(None, None)]
    label = _lone(label)
    entries = [{"bbox": value, "category": label, "caption": caption, "id": said_id} for said_id, caption in found]
    return read_objects(entries, name, form=form, names=names)


def row_objects(fields: Mapping[str, Any]) -> Any:
    """Return what a row's own fields say of a box, or of several, as `objects` would; None where they have no box.

    Beside a list of boxes the first field counts that is a list of its length, or else a text, which is of each box;
    what is `OF_PICTURE`, and a list of another length, is the picture's.
    """
    boxes = _first_said(fields, BOXES)
    if boxes is None:
        return None
    if is_list_of_boxes(boxes):
        label, said = (_of_each(fields, names, len(boxes)) for names in (LABELS, EXPRESSIONS))
        return {"bbox": boxes, "category": label, "caption": said}
    label, said = _first_said(fields, LONE_LABELS), _first_said(fields, EXPRESSIONS)
    return [{"bbox": boxes, "category": _lone(label), "caption": [text for _, text in expressions(said)]}]


def _of_each(fields: Mapping[str, Any], names: tuple[str, ...], count: int) -> list[Any] | None:
    lists = {name: value for name, value in fields.items() if isinstance(value, list) and len(value) == count}
    texts = {name: value for name, value in fields.items() if not isinstance(value, list) and name not in OF_PICTURE}
    listed, text = _first_said(lists, names), _first_said(texts, names)
    return listed if listed is not None or text is None else [text] * count


def is_list_of_boxes(value: Any) -> TypeGuard[list[Any]]:
    """Return whether a value is a list of boxes, not a box."""
    return isinstance(value, list) and any(isinstance(side, list) for side in value)


def _first_said(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) not in (None, "", [])), None)


def _lone(label: Any) -> Any:
    """Return the label of one box, which may stand in a list."""
    return label[0] if isinstance(label, list) and len(label) == 1 else label


def expressions(value: Any) -> Iterator[tuple[str | None, str | None]]:
    """Yield (id, text) of each expression, each text once: of a text, a list of texts, or of `{raw, sent, sent_id}`."""
    seen: set[str] = set()
    for entry in value if isinstance(value, list) else [value]:
        fields = entry if isinstance(entry, Mapping) else {"sent": entry}
        said = words(fields.get("sent")) or words(fields.get("raw")) or words(fields.get("caption"))
        if said is not None and said not in seen:
            seen.add(said)
            yield id_text(fields.get("sent_id")), said


def _listed(value: Any) -> Iterator[tuple[int, Any]]:
    """Yield (place, span) of a list, also of one that a column of text holds as JSON."""
    if isinstance(value, str):
        with suppress(LooseJsonError):
            value = decode_json(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        yield from enumerate(value)
    elif value is not None:
        yield 0, value


def _of_span(span: Any, caption: Any, where: str, region_id: str) -> GivenRegion:
    numbers = [number(side) for side in span] if isinstance(span, list) else []
    known = [side for side in numbers if side is not None]
    if len(known) != len(numbers) or len(known) not in (6, 7):
        problem = f"{where} is {shown(span)}, not start, end, a box and a score"
        return region_of(None, where, id=region_id, caption=None, problem=problem)
    start, end, *box = known
    text = caption if isinstance(caption, str) else ""
    within = float(start).is_integer() and float(end).is_integer() and 0 <= start < end <= len(text)
    return region_of(
        box[:4],
        where,
        id=region_id,
        caption=text[int(start) : int(end)] if within else None,
        score=box[4] if len(box) > 4 else None,
        in_shares=True,
        problem=None if within else f"{where}: characters {start:g} to {end:g} are not within the caption",
    )
