"""What annotation files of single samples are read into, whatever their format: captions, regions, address, licence."""

from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.read.captions import CaptionReader
from pipeline.sample import GivenRegion
from schemas.text import decode_utf8

NOWHERE = (float("nan"), float("nan"), float("nan"), float("nan"))
"""The box of a region whose box cannot be read; its `problem` says why."""

BEYOND = 0.01
"""How far outside the image a coordinate in shares may lie: Ultralytics' own tolerance; `select` clips the box."""


def is_beyond(box: tuple[float, float, float, float]) -> bool:
    """Return whether a box in shares lies outside the image; NaN does not, `select` tells of it."""
    return any(not -BEYOND <= share <= 1 + BEYOND for share in box if share == share)


def turned_note(count: int) -> str:
    """Return what the row of an image says of boxes that are stated with an angle."""
    return f"{count:,} of its boxes are turned ones: the upright boxes around them are taken"


def words(value: Any) -> str | None:
    """Return a text as it is written, None for what is none or blank: one in another encoding is lost, not mended."""
    value = decode_utf8(value) if isinstance(value, bytes) else value
    return value if isinstance(value, str) and value.strip() else None


def region_of(
    box: Sequence[float] | None,
    where: str,
    *,
    id: str,  # noqa: A002 - as GivenRegion has it
    caption: str | None,
    label: str | None = None,
    score: float | None = None,
    in_shares: bool = False,
    problem: str | None = None,
) -> GivenRegion:
    """Return a region, with a problem where `box`, xyxy, is None or lies outside the image it is a share of."""
    sides = NOWHERE if box is None else (box[0], box[1], box[2], box[3])
    if problem is None and box is None:
        problem = f"{where}: its box is not four numbers"
    elif problem is None and in_shares and is_beyond(sides):
        problem = f"{where}: {list(sides)} lies outside the image; shares in 0..1 are due"
    tidy = CaptionReader()
    tidy.add(caption, where)
    if problem is None and tidy.note_text is not None and not tidy.found:
        problem = tidy.note_text
    return GivenRegion(
        box=NOWHERE if problem else sides,
        label=label,
        score=score,
        caption=next(iter(tidy.found), None),
        id=id,
        problem=problem,
    )


class SampleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of its own says of a sample: a `.json` (`sample_json`), YOLO's labels, VOC's XML."""

    captions: tuple[Any, ...] = ()
    """As written, the one that counts first; for a `CaptionReader`."""
    url: str | None = None
    license: str | None = None
    given: tuple[GivenRegion, ...] = ()
    """In the frame of `given_size`."""
    given_size: tuple[int, int] | None = None
    """(width, height) of the regions' frame, where there are regions and both are stated."""
    in_shares: bool = False
    """As `SourceItem.given_in_shares`."""
    has_regions: bool = False
    """Whether it has a list of regions, be it empty."""
    note: str | None = None
    """What was left out."""
    unread: tuple[str, ...] = ()
    """Fields that look like captions or boxes by name and value, and are not read."""
