"""The `.json` member of a WebDataset sample: img2dataset's, the ImageRecord of a shard of ours, or anything else.

GRIT's, as img2dataset writes it, has `noun_chunks` and `ref_exps`: spans of the caption with boxes in shares.

Nothing of it is needed, so nothing is insisted on but that it is JSON: what is no object says nothing, a field of
another kind is passed over, a region that cannot be used has a problem.
"""

from typing import Any

from pipeline.read.describe import like
from pipeline.read.items import SampleError, stated_size
from pipeline.read.phrases import SPANS, read_spans
from pipeline.read.record import NOWHERE, SampleRecord
from pipeline.sample import GivenRegion
from schemas.loose_json import LooseJsonError, decode_json, id_text, number, shown, text
from schemas.reasons import Reason

_CAPTIONS = ("caption", "image_caption", "image_captions")
_READ = {*_CAPTIONS, *SPANS, "regions", "url", "license", "source", "width", "height"}


def decode_sample_json(data: bytes, name: str) -> SampleRecord:
    """Decode the member called `name`. Raises SampleError, bad record, for what is no JSON."""
    try:
        value = decode_json(data)
    except LooseJsonError as error:
        raise SampleError(Reason.BAD_RECORD, f"{name}: {error}") from error
    if not isinstance(value, dict):
        return SampleRecord(note=f"{name}: is no JSON object, so nothing of it is read")
    source, said = value.get("source"), value.get("regions")
    origin = source if isinstance(source, dict) else {}
    regions = said if isinstance(said, list) else []
    spans = () if regions else read_spans(value, value.get("caption"), name)
    return SampleRecord(
        captions=tuple(value[field] for field in _CAPTIONS if field in value),
        url=text(value.get("url")) or text(origin.get("url")),
        license=text(value.get("license")) or text(origin.get("license")),
        given=spans or tuple(_region(region, place) for place, region in enumerate(regions)),
        given_size=stated_size(number(value.get("width")), number(value.get("height"))) if regions else None,
        in_shares=bool(spans),
        has_regions=isinstance(said, list) or any(field in value for field in SPANS),
        unread=tuple(name for name, entry in value.items() if name not in _READ and _looks_read(name, entry)),
        note=None if said is None or isinstance(said, list) else f"{name}: 'regions' is no list, so none is read",
    )


def _looks_read(name: str, value: Any) -> bool:
    """Return whether somebody may take a field for captions, a text or texts, or for boxes."""
    looks = like(name)
    return bool(value) and (
        (looks == "captions" and isinstance(value, str | list)) or (looks == "boxes" and isinstance(value, list | dict))
    )


def _region(value: Any, place: int) -> GivenRegion:
    """Return a region as an ImageRecord writes it: box in xyxy pixels of the size that the record states."""
    fields = value if isinstance(value, dict) else {}
    box = fields.get("box")
    numbers = [number(corner) for corner in box] if isinstance(box, list) else []
    corners = [corner for corner in numbers if corner is not None]
    problem = None if len(corners) == len(numbers) == 4 else f"regions[{place}]: box {shown(box)} is not four numbers"
    score = number(fields.get("proposal_score"))
    if problem is None and score is None and fields.get("proposal_score") is not None:
        problem = f"regions[{place}]: proposal_score {shown(fields['proposal_score'])} is no number"
    mask, crowd = fields.get("mask_rle"), fields.get("is_crowd")
    return GivenRegion(
        box=NOWHERE if problem else (corners[0], corners[1], corners[2], corners[3]),
        label=text(fields.get("label")),
        score=score,
        caption=text(fields.get("caption")),
        id=id_text(fields.get("id")),
        is_crowd=crowd if isinstance(crowd, bool) else None,
        mask_rle=mask if isinstance(mask, str) and mask.isascii() else None,
        problem=problem,
    )
