"""Boxes that are written into text, with the words that each is of.

    <|object_ref_start|>a cat<|object_ref_end|><|box_start|>(10,20),(500,600)<|box_end|>    Qwen2-VL, thousandths
    <ref>a cat</ref><box>(10,20),(500,600)</box>, <box>[[10, 20, 500, 600]]</box>           Qwen-VL, InternVL
    a cat<loc_10><loc_20><loc_500><loc_600>                                                 Florence-2, thousandths
    <loc0020><loc0010><loc0600><loc0500> a cat ; ...                                        PaliGemma, y first, of 1024
    <phrase>a cat</phrase><object><patch_index_0044><patch_index_0863></object>             Kosmos-2, patches of 32 x 32
    {"bbox_2d": [10, 20, 500, 600], "label": "a cat"}                                       Qwen2.5-VL, pixels
    a cat [0.01, 0.02, 0.5, 0.6], cats [[0.01, 0.02, 0.5, 0.6; 0.5, 0.5, 1, 1]]             LLaVA, Shikra, shares

A box without words of its own, alone in an answer, is of what the question says; one in a question, of the answer.
Marks of what a box is of may stand before it or behind it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pipeline.read.record import words
from schemas.loose_json import number, text

Frame = Literal["shares", "thousandths", "pixels"]
FRAMES: tuple[Frame, ...] = ("shares", "thousandths", "pixels")

_MARKS = r"</?ref>|<\|object_ref_(?:start|end)\|>"
_ANY_MARK = re.compile(rf"{_MARKS}|</?box>|<\|box_(?:start|end)\|>")
_REF = rf"(?:<\|object_ref_start\|>|<ref>)(?P<NAME>(?:(?!{_MARKS}).)*)(?:<\|object_ref_end\|>|</ref>)"
_BEFORE, _BEHIND = _REF.replace("NAME", "ref"), _REF.replace("NAME", "behind")
_BOX = r"(?:<\|box_start\|>|<box>)"
_RUN = rf"(?P<boxes>(?:{_BOX}[^<]*(?:<\|box_end\|>|</box>)\s*)+)"
_MARKED = re.compile(rf"(?:{_BEFORE}\s*)?{_RUN}(?(ref)|(?:{_BEHIND}(?!\s*{_BOX}))?)", re.DOTALL)
"""Boxes with the marks before them; where there are none, with those behind that no other box follows."""
_BOX_FIRST = re.compile(rf"{_RUN}{_BEHIND}", re.DOTALL)
_RUNS = re.compile(_RUN)
_LOCATIONS = re.compile(r"(?P<boxes>(?:<loc_\d+>)+)")
_FOUR = r"[^\s,;\[\]]+(?:\s*,\s*[^\s,;\[\]]+){3}"
_BRACKETS = re.compile(rf"\[\s*(?P<boxes>{_FOUR}(?:\s*;\s*{_FOUR})*)\s*\]")
_PALIGEMMA = re.compile(r"(?P<boxes>(?:<loc\d{4}>)+)(?:<seg\d+>)*(?P<words>[^;<\n]*)")
_BINS = 1024
"""Of PaliGemma's, along each side of the picture."""
_PHRASE = r"(?:<phrase>(?P<words>(?:(?!</?phrase>).)*)</phrase>\s*)?"
_KOSMOS = re.compile(rf"{_PHRASE}<object>(?P<boxes>.*?)</object>", re.DOTALL)
_KOSMOS_MARK = re.compile(r"<grounding>|</?phrase>|<object>.*?</object>", re.DOTALL)
_KOSMOS_NEXT = "</delimiter_of_multi_objects/>"
_PATCH = re.compile(r"<patch_index_(\d+)>")
_PATCHES = 32
"""Of Kosmos-2's, along each side of the picture; they count along its rows."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_PICTURE = re.compile(r"<image>|<img>.*?</img>|Picture \d+: |<\|vision_start\|>.*?<\|vision_end\|>", re.DOTALL)
_TASK = re.compile(r"<[A-Z_]{2,}>")
"""Florence-2's, in front of a question; what follows is what it is about."""
_OUTLINES = re.compile(r"<OCR_WITH_REGION>|<\w+_SEGMENTATION>|text in the image, with regions|polygon mask|with mask")
"""What Florence-2 is asked where its answers are corners of outlines, which look like boxes."""
_JSON, _JSON_BOX = re.compile(r"\[\s*\{|\{"), re.compile(r'"bbox(?:_2d)?"\s*:')
_DECODER = json.JSONDecoder(strict=False)
_BEHIND_BOX, _BEFORE_BOX = " \t\r,;:.-])", " \t\r,:-[("
"""What stands between a box and the words of the next, and between words and their box."""
_CAPTIONS = ("caption", "description", "phrase", "label", "text_content")


class Found(NamedTuple):
    """A box in a text."""

    box: tuple[float, float, float, float] | None
    """xyxy in `frame`; None where what is written there is no box."""
    frame: Frame | None
    """None where nothing tells: numbers above 1 in plain brackets."""
    words: str | None
    """What it is said to be of; None where nothing is said beside it."""
    label: str | None
    written: str
    """As it is written, for messages."""
    is_marked: bool = False
    """Whether marks say what it is of."""


def boxes_of_turn(question: str, answer: str) -> list[Found]:
    """Return the boxes of a question and its answer, each with its words."""
    question = _PICTURE.sub("", question)
    found, asked = find_boxes(answer), find_boxes(question)
    if found and _OUTLINES.search(question):
        return [box._replace(box=None, written=f"an outline, {box.written},") for box in found]
    if found:
        told = _asked(question) if not asked and all(box.words is None for box in found) else None
        return [box._replace(words=box.words or told) for box in found]
    said = words(_ANY_MARK.sub("", answer).strip()) if len(asked) == 1 else None
    return [box._replace(words=box.words if box.is_marked else said) for box in asked]


def find_boxes(said: str) -> list[Found]:
    """Return the boxes of a text, in its order; by JSON, marks, location tokens, patches or brackets."""
    for find in (_json_boxes, _marked_boxes, _location_boxes, _paligemma_boxes, kosmos_boxes, _bracket_boxes):
        found = list(find(said))
        if found:
            return found
    return []


def _asked(question: str) -> str | None:
    """Return what a question asks the box of: the words behind its last colon, or behind a task of Florence-2's."""
    _, told, asked = question.strip().rpartition(": ")
    if task := _TASK.match(question.strip()):
        told, asked = task[0], question.strip()[task.end() :]
    return words(_ANY_MARK.sub("", asked).strip()) if told else None


def _json_boxes(said: str) -> Iterator[Found]:
    """Yield the boxes of the JSON values in a text, whatever stands around them."""
    end = 0
    while _JSON_BOX.search(said, end) and (start := _JSON.search(said, end)):
        try:
            value, end = _DECODER.raw_decode(said, start.start())
        except (ValueError, RecursionError):
            yield Found(None, None, None, None, said[start.start() :])
            return
        yield from _of_value(value)


def _of_value(value: Any) -> Iterator[Found]:
    """Yield the boxes of a JSON value, at any depth."""
    if isinstance(value, list):
        for entry in value:
            yield from _of_value(entry)
    elif isinstance(value, dict):
        written = value.get("bbox_2d", value.get("bbox"))
        if written is None:
            yield from _of_value(list(value.values()))
            return
        of = next((found for name in _CAPTIONS if (found := words(value.get(name))) is not None), None)
        nested = isinstance(written, list) and written and all(isinstance(box, list) for box in written)
        for box in written if nested else [written]:
            yield Found(_four(box), "pixels", of, text(value.get("label")), str(box))


def _marked_boxes(said: str) -> Iterator[Found]:
    runs = list(_RUNS.finditer(said))
    first = _ANY_MARK.search(said)
    behind = runs and first and first.start() == runs[0].start() and len(_BOX_FIRST.findall(said)) == len(runs)
    yield from _with_words(said, _BOX_FIRST if behind else _MARKED, "thousandths")


def _location_boxes(said: str) -> Iterator[Found]:
    yield from _with_words(said, _LOCATIONS, "thousandths")


def _paligemma_boxes(said: str) -> Iterator[Found]:
    for match in _PALIGEMMA.finditer(said):
        sides = [int(found) / _BINS for found in re.findall(r"\d+", match["boxes"])]
        for place in range(0, len(sides), 4):
            y0, x0, y1, x1 = (*sides[place : place + 4], *[None] * 3)[:4]
            box = None if y0 is None or x0 is None or y1 is None or x1 is None else (x0, y0, x1, y1)
            yield Found(box, "shares", words(match["words"].strip()), None, match["boxes"])


def without_kosmos_marks(said: str) -> str:
    """Return a text as it reads without Kosmos-2's marks."""
    return " ".join(_KOSMOS_MARK.sub("", said).split())


def kosmos_boxes(said: str) -> Iterator[Found]:
    """Yield the boxes of Kosmos-2's patches: from the first to the last one's middle, as its own code reads them."""
    for match in _KOSMOS.finditer(said):
        of = words((match["words"] or "").strip())
        for written in match["boxes"].split(_KOSMOS_NEXT):
            patches = [int(number) for number in _PATCH.findall(written)]
            yield Found(_of_patches(patches), "shares", of, None, written, of is not None)


def _of_patches(patches: list[int]) -> tuple[float, float, float, float] | None:
    """Return the box of two patches in shares; of those of one row or column, with their outer edges."""
    if len(patches) != 2 or max(patches) >= _PATCHES**2:
        return None
    (y0, x0), (y1, x1) = (divmod(patch, _PATCHES) for patch in patches)
    near, far = (0.0, 1.0) if x0 == x1 or y0 == y1 else (0.5, 0.5)
    return (x0 + near) / _PATCHES, (y0 + near) / _PATCHES, (x1 + far) / _PATCHES, (y1 + far) / _PATCHES


def _bracket_boxes(said: str) -> Iterator[Found]:
    yield from _with_words(said, _BRACKETS, None)


def _with_words(said: str, pattern: re.Pattern[str], frame: Frame | None) -> Iterator[Found]:
    """Yield the boxes that match, each with the words between it and the one before, or with its own mark's."""
    start = 0
    for match in pattern.finditer(said):
        marked = match.groupdict()
        ref = marked.get("behind") if marked.get("ref") is None else marked["ref"]
        _, newline, line = said[start : match.start()].rpartition("\n")
        between = (line.lstrip(_BEHIND_BOX) if start and not newline else line.strip()).rstrip(_BEFORE_BOX)
        of = words(ref.strip() if ref is not None else _ANY_MARK.sub("", between).strip())
        start = match.end()
        for box, written in _groups(match["boxes"], pattern):
            told: Frame | None = frame
            if frame is None and box is not None:
                told = "shares" if all(not side > 1 for side in box) else None
            yield Found(box, told, of, None, written, ref is not None)


def _groups(written: str, pattern: re.Pattern[str]) -> Iterator[tuple[tuple[float, float, float, float] | None, str]]:
    """Yield the boxes of a run of them; None for numbers that are no boxes."""
    if pattern is _BRACKETS:
        for box in written.split(";"):
            yield _four([number(side.strip()) for side in box.split(",")]), f"[{box.strip()}]"
        return
    numbers = [float(found) for found in _NUMBER.findall(written.replace("loc_", ""))]
    if not numbers or len(numbers) % 4:
        yield None, written
        return
    # a location token stands for a thousandth of the picture, here for its middle
    middle = 0.5 if pattern is _LOCATIONS else 0.0
    for place in range(0, len(numbers), 4):
        yield _four([side + middle for side in numbers[place : place + 4]]), written


def _four(value: Any) -> tuple[float, float, float, float] | None:
    numbers = [number(side) for side in value] if isinstance(value, list) else []
    sides = [side for side in numbers if side is not None]
    return (sides[0], sides[1], sides[2], sides[3]) if len(sides) == len(numbers) == 4 else None
