"""Annotations that lie beside pictures and are not read as a plain folder: what they are, and how to have them read."""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any

from pipeline.read.coco_folder import find_indexes
from pipeline.read.formats import suffix_of
from pipeline.read.location import Location
from pipeline.read.refcoco import CONVERT
from pipeline.read.spec import kind_of_json
from pipeline.read.visual_genome import IMAGES, OBJECTS, REGIONS
from schemas.loose_json import LooseJsonError, decode_json
from schemas.text import decode_utf8

_YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NUM_OPENED = 3
"""Files of a suffix that are looked into."""
_MAX_BYTES = 2**20
_PICKLE = re.compile(r"refs.*\.(p|pkl|pickle)\Z")
_CALLED = {"grounding": "conversations with boxes", "refcoco": "RefCOCO's expressions"}
_KITTI_COLUMNS = (15, 16)
_DATUMARO = "turn them into COCO with Datumaro (datum convert -if {} -f coco), and give coco:FILE.json"


def recognise(location: Location, uris: Collection[str]) -> tuple[str, ...]:
    """Return a sentence for each format of boxes found among the files of a folder; opens a few of them."""
    found = [f"{name} is YOLO's: yolo:{location.url(name)} reads its boxes" for name in _YAMLS if name in uris]
    found += [f"{index.uri} is COCO's: coco:{location.root} reads its boxes" for index in find_indexes(uris)[:1]]
    found += _by_name(location, uris)
    suffixes = (".json", ".jsonl", ".txt") if any("flickr30k:" in said for said in found) else _OPENED
    found += [said for suffix in suffixes for said in _looked_into(location, uris, suffix)]
    return tuple(dict.fromkeys(found))


def _by_name(location: Location, uris: Collection[str]) -> Iterator[str]:
    """Yield what the names of files tell."""
    for uri in sorted(uris):
        folder, _, name = uri.rpartition("/")
        place = location.url(folder) if folder else location.root
        if name == REGIONS or (name == OBJECTS and f"{uri.removesuffix(OBJECTS)}{IMAGES}" in uris):
            yield f"{uri} is Visual Genome's: visual_genome:{place} reads its regions"
        elif _PICKLE.search(name):
            yield f"{uri} looks like a pickle of RefCOCO: {CONVERT.format(location.url(uri))}"
        elif folder.endswith("Sentences") and name.endswith(".txt"):
            root = place.removesuffix("Sentences").removesuffix("/")
            if any(other.startswith(f"{folder.removesuffix('Sentences')}Annotations/") for other in uris):
                yield f"{uri} is one of Flickr30k Entities': flickr30k:{root} reads its phrases and boxes"
                return


def _looked_into(location: Location, uris: Collection[str], suffix: str) -> Iterator[str]:
    for uri in sorted(uri for uri in uris if suffix_of(uri) == suffix)[:_NUM_OPENED]:
        with suppress(OSError, LooseJsonError):
            said = _OPENED[suffix](location.read(uri, _MAX_BYTES), location, uri)
            if said is not None:
                yield said


def _of_xml(data: bytes, location: Location, uri: str) -> str | None:
    if b"<annotations" in data[:4096]:
        return "the .xml is CVAT's: export the task again as COCO 1.0, and give coco:FOLDER"
    is_voc = b"<annotation" in data[:4096]
    return f"the .xml files look like Pascal VOC's: voc:{location.root} reads their boxes" if is_voc else None


def _of_lines(data: bytes, location: Location, uri: str) -> str | None:
    value = decode_json(data.partition(b"\n")[0])
    talks = isinstance(value, dict) and any(name in value for name in ("conversations", "messages", "suffix"))
    return f"{uri} holds conversations: grounding:{location.url(uri)} reads the boxes in them" if talks else None


def _of_json(data: bytes, location: Location, uri: str) -> str | None:
    kind = kind_of_json(data)
    if kind != "coco":
        return f"{uri} looks like {_CALLED[kind]}: {kind}:{location.url(uri)} reads the boxes in it"
    value = decode_json(data)
    first: Any = value[0] if isinstance(value, list) and value else None
    if isinstance(value, dict) and {"shapes", "imagePath"} <= value.keys():
        return f"the .json files are LabelMe's: {_DATUMARO.format('label_me')}"
    if isinstance(first, dict) and {"data", "annotations"} <= first.keys():
        return "the .json is Label Studio's: export the project again as COCO with images, and give coco:FILE.json"
    return None


def _of_text(data: bytes, location: Location, uri: str) -> str | None:
    fields = decode_utf8(data).partition("\n")[0].split()
    is_kitti = len(fields) in _KITTI_COLUMNS and fields[0].isalpha() and all(map(_is_number, fields[1:]))
    return f"the .txt files look like KITTI's labels: {_DATUMARO.format('kitti')}" if is_kitti else None


_OPENED: dict[str, Callable[[bytes, Location, str], str | None]] = {
    ".xml": _of_xml,
    ".json": _of_json,
    ".jsonl": _of_lines,
    ".txt": _of_text,
}
"""What looks into files, by their suffix."""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
