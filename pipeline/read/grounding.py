"""What vision-language models are trained on: conversations in JSON or JSON lines with boxes in their text.

    {"image": "a.jpg", "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}    LLaVA, Qwen
    {"images": ["a.jpg"], "messages": [{"role": "user", "content": ...}, ...]}                               Qwen, swift
    {"image": "a.jpg", "prefix": "<OD>", "suffix": "a cat<loc_10>..."}                                       Florence-2
    {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}, ...]}]}                  Qwen
    {"conversations": [{"from": "user", "value": "Picture 1: <img>a.jpg</img> ..."}]}                     Qwen-VL
    {"image": "a.jpg", "caption": "<grounding><phrase>a cat</phrase><object><patch_index_0044>..."}          Kosmos-2
    {"filename": "a.jpg", "grounding": {"caption": ..., "regions": [{"bbox": ..., "phrase": ...}]}}          ODVG
    ... with {"objects": {"ref": ["a cat"], "bbox": [[x0, y0, x1, y1]]}}     swift, and `fineclip export --to grounding`

`objects` counts where it is there: corners in pixels, or in shares by its `bbox_type`. Otherwise boxes are read from
the text (`grounding_text`).
`objects` may also be a list of `{caption, bbox, bbox_type}`, and JSON in a text.
`?boxes=` tells what numbers are where the text does not.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from typing import Any, ClassVar, cast

import msgspec
from PIL import ExifTags, Image

from pipeline.read.annotated import Annotated, Entry
from pipeline.read.base import SourceError, SourcePart
from pipeline.read.formats import FORMATS
from pipeline.read.grounding_text import (
    FRAMES,
    Found,
    Frame,
    boxes_of_turn,
    find_boxes,
    kosmos_boxes,
    without_kosmos_marks,
)
from pipeline.read.items import stated_size
from pipeline.read.json_entries import is_lines, json_entries, object_problem
from pipeline.read.location import Location
from pipeline.read.record import region_of, words
from pipeline.read.spec import split_options
from pipeline.sample import GivenRegion, SourceItem
from schemas.loose_json import LooseJsonError, decode_json, id_text, number, shown, text

_FILES = ("image", "images", "image_path", "img", "img_path", "file_name", "filename", "path")
_ROLES = dict.fromkeys(("human", "user"), "question") | dict.fromkeys(
    ("gpt", "assistant", "model", "bot", "chatgpt"), "answer"
)
"""Whose a turn is, in any case."""
_IN_TEXT = re.compile(r"<img>(.*?)</img>", re.DOTALL)
"""Where a question of Qwen-VL's names its picture."""
_SQUARE = "square"
"""Shares of the picture padded to a square, as LLaVA 1.5's own files have them."""
_OBJECTS = "objects"
_ODVG = {"grounding": "regions", "detection": "instances"}
"""Fields of MM-Grounding-DINO's lines, and what lists the boxes in them."""
_TYPES = {"real": "pixels", "norm1": "shares", "norm1000": "thousandths"}


class GroundingText(Annotated):
    """`grounding:train.jsonl?images=DIR`, or a `.json` list; `?boxes=pixels`, `thousandths`, `shares` or `square`."""

    kind: ClassVar[str] = "grounding"

    def __init__(self, rest: str, *, allow: Sequence[str] = ()) -> None:
        path, options = split_options(rest, known=("images", "boxes"))
        location = Location.of(path)
        self._boxes = options.get("boxes")
        if self._boxes not in (None, _SQUARE, *FRAMES):
            raise SourceError(f"{path}: ?boxes={self._boxes} is none of {', '.join((*FRAMES, _SQUARE))}")
        found = [location]
        if location.is_folder:
            uris = [file.uri for file in location.files() if is_lines(file.uri)]
            found = [Location(root=location.root, name=uri) for uri in uris]
        if not found or found[0].name is None:
            raise SourceError(f"{path}: found no .jsonl there; name the file, as in grounding:FILE.json?images=DIR")
        images = location.related_folder(options["images"]) if "images" in options else Location(root=location.root)
        super().__init__(found, images, allow=allow)

    def _options(self) -> object:
        return self._boxes

    def _entries(self) -> Iterator[Entry]:
        for location in self._annotations:
            for where, value in json_entries(location):
                if _is_text_alone(value):
                    yield Entry(files=(), where=where, is_of_no_picture=True)
                else:
                    yield from self._entry(where, value)

    def _entry(self, where: str, value: Any) -> Iterator[Entry]:
        """Yield what an entry says, for each frame that its boxes are in; once where it has none."""
        problem = object_problem(value)
        files = () if problem else _files(value)
        if problem is None and len(files) != 1:
            problem = f"names {len(files)} pictures, and its boxes are of one"
        if problem is not None:
            yield Entry(files=(), where=where, problem=problem)
            return
        size = stated_size(number(value.get("width")), number(value.get("height")))
        captions = tuple(map(_unmarked, _captions(value)))
        name = id_text(value.get("id")) or where.rpartition(" ")[2]
        regions: dict[bool, list[GivenRegion]] = {}
        for place, found in enumerate(_found(value)):
            in_shares, region = self._region(found, where, f"{name}.{place}")
            regions.setdefault(in_shares, []).append(region)
        for in_shares, those in (regions or {False: []}).items():
            yield Entry(
                files=files, where=where, captions=captions, regions=tuple(those), in_shares=in_shares, size=size
            )

    def _region(self, found: Found, where: str, region_id: str) -> tuple[bool, GivenRegion]:
        """Return whether a box is in shares, and its region."""
        told = "shares" if self._boxes == _SQUARE else cast(Frame | None, self._boxes)
        frame = told if found.frame is None or (told and found.frame == "pixels") else found.frame
        box, problem = found.box, None
        if box is None:
            problem = f"{where}: {shown(found.written)} is no box"
        elif frame is None:
            problem = f"{where}: nothing tells what {found.written} counts: ?boxes=pixels or ?boxes=thousandths"
        elif frame == "thousandths":
            box = (box[0] / 1000, box[1] / 1000, box[2] / 1000, box[3] / 1000)
        in_shares = frame in ("shares", "thousandths")
        label = found.label
        region = region_of(
            box, where, id=region_id, caption=found.words, label=label, in_shares=in_shares, problem=problem
        )
        return in_shares, region

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's pictures with their regions; boxes on a padded square are moved to the picture."""
        for item in super().read(part):
            yield _from_square(item) if self._boxes == _SQUARE and item.given_in_shares else item


def _captions(value: Mapping[str, Any]) -> list[Any]:
    """Return what an entry says of its picture; a `text` only where Kosmos-2's marks are in it."""
    given = [value[name] for name in ("caption", "captions") if name in value]
    said = [each for entry in given for each in (entry if isinstance(entry, list) else [entry])]
    if isinstance(value.get("text"), str) and any(kosmos_boxes(value["text"])):
        said.append(value["text"])
    inner = value.get("grounding")
    return [*said, *([inner["caption"]] if isinstance(inner, dict) and "caption" in inner else [])]


def _unmarked(caption: Any) -> Any:
    return without_kosmos_marks(caption) if isinstance(caption, str) and any(kosmos_boxes(caption)) else caption


def _is_text_alone(value: Any) -> bool:
    return isinstance(value, dict) and not _files(value)


def _files(value: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the pictures that an entry names: in a field, else in its turns."""
    said = next((value[name] for name in _FILES if value.get(name) not in (None, "", [])), None)
    named = said if isinstance(said, list) else [said]
    if said is None:
        pieces = [piece for _, found in _contents(value) for piece in found]
        named = list(dict.fromkeys(name for piece in pieces for name in _of_piece(piece)))
    found = [entry.get("path") if isinstance(entry, dict) else entry for entry in named]
    return tuple(name for entry in found if (name := text(entry)) is not None)


def _of_piece(piece: Any) -> Iterator[str]:
    """Yield the pictures that a piece of a turn names."""
    if isinstance(piece, str):
        yield from map(str.strip, _IN_TEXT.findall(piece))
    elif isinstance(piece, dict):
        yield from map(str.strip, _IN_TEXT.findall(str(piece.get("text"))))
        inner = next((piece[name] for name in ("image", "image_url", "url", "path") if piece.get(name)), None)
        inner = inner.get("url") if isinstance(inner, dict) else inner
        if isinstance(inner, str):
            yield inner


def _found(value: Mapping[str, Any]) -> Iterator[Found]:
    """Yield the boxes of an entry."""
    objects = _objects(value)
    said = objects if isinstance(objects, list) else [objects]
    listed = [entry for entry in said if isinstance(entry, dict) and isinstance(entry.get("bbox"), list)]
    if listed:
        for entry in listed:
            yield from _of_objects(_as_lists(entry))
        return
    for caption in _captions(value):
        yield from kosmos_boxes(caption) if isinstance(caption, str) else ()
    question = ""
    for role, spoken in _turns(value):
        if role == "answer":
            yield from boxes_of_turn(question, spoken)
        question = spoken if role == "question" else ""
    if question and find_boxes(question):
        yield from boxes_of_turn(question, "")


def _objects(value: Mapping[str, Any]) -> Any:
    """Return the boxes that fields of an entry list, its own or those of ODVG."""
    objects = value.get(_OBJECTS)
    if isinstance(objects, str):
        with suppress(LooseJsonError):
            objects = decode_json(objects.encode("utf-8", "surrogatepass"))
    for field, inner in _ODVG.items():
        if not objects and isinstance(value.get(field), dict):
            objects = value[field].get(inner)
    return objects


def _as_lists(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an object says of one box, or of several of one text, as lists."""
    boxes, ref = entry["bbox"], entry.get("ref", entry.get("caption", entry.get("phrase")))
    boxes = boxes if all(isinstance(box, list) for box in boxes) else [boxes]
    return {**entry, "bbox": boxes, "ref": [ref] if isinstance(ref, str) else ref}


def _of_objects(objects: Mapping[str, Any]) -> Iterator[Found]:
    boxes, refs = objects["bbox"], objects.get("ref")
    said = refs if isinstance(refs, list) else []
    said = said * len(boxes) if len(said) == 1 else said
    frame = cast(Frame, _TYPES.get(str(objects.get("bbox_type", "real")), "pixels"))
    for place, box in enumerate(boxes):
        numbers = [number(side) for side in box] if isinstance(box, list) else []
        sides = [side for side in numbers if side is not None]
        four = (sides[0], sides[1], sides[2], sides[3]) if len(sides) == len(numbers) == 4 else None
        of = words(said[place]) if len(said) == len(boxes) else None
        written = str(box) if len(said) in (0, len(boxes)) else f"{len(said)} of 'ref' for {len(boxes)} boxes"
        label = text(objects.get("category")) if isinstance(objects.get("category"), str) else None
        yield Found(four if len(said) in (0, len(boxes)) else None, frame, of, label, written)


def _turns(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield ("question" or "answer", text) of each turn of a conversation."""
    for question, answer in (("prefix", "suffix"), ("query", "response")):
        if isinstance(value.get(answer), str):
            yield "question", str(value.get(question) or "")
            yield "answer", value[answer]
            return
    for role, pieces in _contents(value):
        texts = [piece.get("text") if isinstance(piece, dict) else piece for piece in pieces]
        spoken = "\n".join(piece for piece in texts if isinstance(piece, str))
        said_by = _ROLES.get(role.lower() if isinstance(role, str) else "")
        if said_by is not None:
            yield said_by, spoken


def _contents(value: Mapping[str, Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Yield (role, pieces of content) of each turn."""
    turns: list[Any] = next(
        (value[name] for name in ("conversations", "messages") if isinstance(value.get(name), list)), []
    )
    for turn in turns:
        fields = turn if isinstance(turn, dict) else {}
        said = fields.get("value", fields.get("content"))
        yield fields.get("from", fields.get("role")), said if isinstance(said, list) else [said]


def _from_square(item: SourceItem) -> SourceItem:
    """Return the item with shares of its picture, where they are of the square that it was padded to on both sides."""
    try:
        picture = Image.open(BytesIO(item.data or b""), formats=FORMATS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return item  # decoding tells why
    width, height = picture.size
    if picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
        width, height = height, width
    side = max(width, height)
    left, top = (side - width) / 2, (side - height) / 2
    given = []
    for region in item.given:
        x0, y0, x1, y1 = (share * side for share in region.box)
        box = ((x0 - left) / width, (y0 - top) / height, (x1 - left) / width, (y1 - top) / height)
        given.append(msgspec.structs.replace(region, box=box))
    return replace(item, given=tuple(given))
