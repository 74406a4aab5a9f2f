"""What an input gives, told before any work, from what its source says of itself and from its first samples.

    Source.describe -> Description --summarise, with the first samples--> InputSummary --lines--> what a person reads

An `InputSummary` is part of the plan; `lines` prints it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

import msgspec
import numpy as np

from pipeline.errors import SourceError
from pipeline.read.base import Source, SourcePart
from pipeline.read.decode import DecodeSettings, decode
from pipeline.read.describe import BOXES_FROM, NUM_LOOKED_AT, Description, InputSummary, Unread
from pipeline.read.formats import suffix_of
from pipeline.sample import DecodedImage, SourceItem
from schemas.boxes import misread
from schemas.paths import printable
from schemas.reasons import MEANING_OF, STATUS_OF, Reason, Status
from schemas.text import counted

_MAX_BYTES = 64 * 2**20
"""Of image files read for it."""
_NUM_SHOWN = 6
"""Names in a line."""


def summarise(source: Source, description: Description, first: Sequence[SourcePart]) -> InputSummary:
    """Return what an input gives, reading the first samples of its first unit `first` where that is quick."""
    items = list(_first_items(source, first)) if description.is_quick else []
    images = Counter(suffix_of(item.uri) for item in items if item.drop is None)
    return InputSummary(
        described=description,
        num_looked_at=len(items),
        num_captioned=sum(bool(item.captions) for item in items),
        num_boxed=sum(bool(item.given) for item in items),
        images=dict(sorted(images.items())),
        dropped=dict(sorted(Counter(item.drop.reason.value for item in items if item.drop).items())),
        box_doubt=_doubt(items),
    )


def _first_items(source: Source, parts: Sequence[SourcePart]) -> Iterator[SourceItem]:
    num_bytes, left = 0, NUM_LOOKED_AT
    for part in parts:
        with closing(source.read(_beginning(part, left))) as items:  # type: ignore[type-var]
            for item in islice(items, left):
                yield item
                left -= 1
                num_bytes += len(item.data or b"")
                if left == 0 or num_bytes > _MAX_BYTES:
                    return


def _beginning(part: SourcePart, num_items: int) -> SourcePart:
    """Return the part, of listed items only the first: those of remote files are requested ahead."""
    if part.items is None:
        return part
    items = part.items[:num_items]
    return msgspec.structs.replace(part, items=items, stop=part.start + len(items))


def _doubt(items: Sequence[SourceItem]) -> str | None:
    """Judge the given boxes of items whose images' sizes are known, as the annotation states them or by decoding."""
    boxes, sizes = [], []
    for item in items:
        judged = item.given and item.drop is None and not item.given_in_shares
        size = (item.given_size or _decoded_size(item)) if judged else None
        if size is not None:
            boxes += [region.box for region in item.given]
            sizes += [size] * len(item.given)
    widths, heights = np.array(sizes, np.float32).reshape(-1, 2).T
    with np.errstate(over="ignore"):  # 1e308 of an annotation is beyond float32, and as far outside as infinity
        corners = np.array(boxes, np.float32).reshape(-1, 4)
    return misread(corners, widths, heights)


def _decoded_size(item: SourceItem) -> tuple[int, int] | None:
    decoded = decode(item, DecodeSettings())
    return (decoded.width, decoded.height) if isinstance(decoded, DecodedImage) else None


def check_there(spec: str, summary: InputSummary) -> None:
    """Raise SourceError where all images were looked at, and none of them is there."""
    num = summary.num_looked_at
    if 0 < num < NUM_LOOKED_AT and summary.dropped.get(Reason.MISSING.value) == num:
        raise SourceError(
            f"{spec}: {counted(num, 'image')} named there, and none found; say where they are, for COCO by "
            f"{spec.partition('?')[0]}?images=DIR"
        )


def check_boxes(spec: str, summary: InputSummary) -> None:
    """Raise SourceError where an input can give no boxes: `--proposer manual` would end without a region."""
    num_usable = summary.num_looked_at - sum(summary.dropped.values())
    if summary.described.boxes or not num_usable:
        return
    unread = ", ".join(entry.name for entry in summary.described.unread if entry.like == "boxes")
    looks = f" What looks like boxes here and is not read: {unread}." if unread else ""
    looks += "".join(f" {note[0].upper()}{note[1:]}." for note in summary.described.notes)
    raise SourceError(
        f"{spec}: --proposer manual takes the boxes that come with the images, and here come none. Boxes are read from "
        f"{BOXES_FROM}.{looks} Bring them into one of these, or choose a proposer that finds its own"
    )


def lines(summary: InputSummary) -> list[str]:
    """Return what an input gives as lines for a person, control characters written out."""
    description, looked_at = summary.described, summary.num_looked_at
    first = f"of the first {looked_at:,}" if looked_at else ""
    told = [
        f"images: {_images(summary)}",
        _gives("captions", description.captions, summary.num_captioned, first),
        _gives("boxes", description.boxes, summary.num_boxed, first),
    ]
    told += [f"not read: {text}" for text in [_unread(description.unread)] if text]
    failed = {r: n for r, n in summary.dropped.items() if STATUS_OF[Reason(r)] is Status.DEAD}
    told += [f"of the first {looked_at:,}, {num:,} will be {r}: {MEANING_OF[Reason(r)]}" for r, num in failed.items()]
    told += description.notes
    told += [f"Warning: {doubt}" for doubt in [summary.box_doubt] if doubt]
    return [printable(text) for text in told]


def _images(summary: InputSummary) -> str:
    description = summary.described
    by_suffix = description.images or summary.images
    suffixes = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in sorted(by_suffix.items()))
    if description.num_images is None:
        return f"number unknown until read; the first are {suffixes}" if suffixes else "unknown until read"
    return f"{description.num_images:,}" + (f" ({suffixes})" if suffixes else "")


def _gives(what: str, places: Sequence[str], num: int, first: str) -> str:
    if not places:
        return f"{what}: none can be read here"
    return f"{what}: from {' and '.join(places)}" + (f"; with {num:,} {first}" if first else "")


def _unread(unread: Sequence[Unread]) -> str:
    """Name what looks like captions, boxes or images first, and of the rest how many kinds there are."""
    telling = [entry for entry in unread if entry.like != "other"]
    others = [entry for entry in unread if entry.like == "other"]
    names = [f"{_counted(entry)} (looks like {entry.like})" for entry in telling]
    names += [_counted(entry) for entry in others[:_NUM_SHOWN]]
    rest = len(others) - _NUM_SHOWN
    return ", ".join(names) + (f" and {rest:,} more kinds" if rest > 0 else "")


def _counted(entry: Unread) -> str:
    return entry.name if entry.count is None else f"{entry.count:,} {entry.name}"
