"""Pascal VOC's XML, a file a picture, as the challenge, LabelImg, CVAT, Roboflow and others write it.

Its corners count pixels from 1 and are inside the box: xmin 1, xmax 10 are the first ten columns, here 0 to 10. A file
with a document type is refused: entities can be declared only there, and they may stand for gigabytes or other files.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable

from pipeline.read.captions import notes
from pipeline.read.items import SampleError, stated_size
from pipeline.read.record import NOWHERE, SampleRecord, turned_note
from pipeline.sample import GivenRegion
from schemas.boxes import around_turned
from schemas.loose_json import number, shown, text
from schemas.reasons import Reason

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _NoDoctype(ET.TreeBuilder):
    """Builds the tree of a document without a document type."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse it, before anything in it is read."""
        raise ValueError(
            "has a document type (<!DOCTYPE), which annotations need not and which is not read; take it out"
        )


def parse_xml(data: bytes, name: str) -> ET.Element:
    """Return the root of the XML file called `name`. Raises SampleError, bad record, for what is none or not VOC's."""
    parser = ET.XMLParser(target=_NoDoctype())  # noqa: S314 - bombs need a document type, and that is refused
    try:
        parser.feed(data)
        root = parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise SampleError(Reason.BAD_RECORD, f"{name}: {error}") from error
    if root.tag != "annotation":
        raise SampleError(Reason.BAD_RECORD, f"{name}: begins with <{root.tag[:40]}>, not <annotation>")
    return root


def read_voc(data: bytes, name: str, *, origin: int = 1) -> SampleRecord:
    """Return the objects of an annotation, difficult and truncated ones too; ids are their places, from 0.

    `origin` 0 takes the corners for edges, as tools write them that count from 0. Raises SampleError.
    """
    root = parse_xml(data, name)
    objects = root.findall("object")
    given = tuple(_region(entry, place, name, origin) for place, entry in enumerate(objects))
    num_turned = sum(_rotation(entry) % 180 != 0 for entry in objects)
    starts = [edge for region in given if region.problem is None for edge in region.box[:2]]
    size = stated_size(number(root.findtext("size/width")), number(root.findtext("size/height")))
    return SampleRecord(
        given=given,
        given_size=size if given else None,
        has_regions=True,
        note=notes(
            f"{name}: a corner is 0, and VOC counts from 1: ?origin=0 reads corners from 0" if -1 in starts else None,
            turned_note(num_turned) if num_turned else None,
        ),
    )


def _region(entry: ET.Element, place: int, name: str, origin: int) -> GivenRegion:
    said = [entry.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    corners = _numbers(said)
    problem = None
    if len(corners) < len(_CORNERS):
        written = "no bndbox" if entry.find("bndbox") is None else f"a bndbox of {shown(said)}, not four numbers"
        problem = f"{name}: object {place} has {written}"
    x0, y0, x1, y1 = NOWHERE if problem else (corners[0], corners[1], corners[2], corners[3])
    return GivenRegion(
        box=around_turned((x0 - origin, y0 - origin, x1, y1), _rotation(entry)),
        label=text((entry.findtext("name") or "").strip()),
        id=str(place),
        problem=problem,
    )


def _rotation(entry: ET.Element) -> float:
    """Return the degrees that an object's box is turned by, as CVAT has it among the attributes; 0 where it is not."""
    attributes = {each.findtext("name"): each.findtext("value") for each in entry.iterfind("attributes/attribute")}
    said = number(attributes.get("rotation"))
    return said if said is not None and math.isfinite(said) else 0.0


def _numbers(values: Iterable[str | None]) -> list[float]:
    return [value for value in map(number, values) if value is not None]
