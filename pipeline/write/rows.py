"""From a finished sample to what is stored: its record in the tar, its rows in the table."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pipeline.sample import Candidate, Drop, RegionCaption, Sample
from schemas import hashes
from schemas.names import ShardName
from schemas.reasons import STATUS_OF, Reason, Stage, Status
from schemas.records import ImageRecord, ImageSource, Region
from schemas.tables import RegionRow

_text_hash = lru_cache(maxsize=1024)(hashes.text_hash)
"""Each caption is hashed for the record and again for its row, and normalising it is the slow part."""


def image_record(sample: Sample, *, proposer: str, captioner: str) -> ImageRecord:
    """Return the record of a sample that is ok: its regions are those with a caption, best first."""
    image, item = sample.image, sample.item
    assert image is not None and sample.drop is None
    regions = [
        _region(candidate, sample, proposer=proposer, captioner=captioner)
        for candidate in sample.regions
        if sample.captions[candidate.region_id].drop is None
    ]
    return ImageRecord(
        schema_version="1",
        key=sample.key,
        width=image.width,
        height=image.height,
        image_sha256=image.sha256,
        reencoded=image.reencoded,
        image_caption=item.caption,
        source=ImageSource(uri=item.uri, index=item.index, url=item.url, license=item.license),
        num_regions=len(regions),
        regions=regions,
        image_captions=list(item.captions),
    )


def _region(candidate: Candidate, sample: Sample, *, proposer: str, captioner: str) -> Region:
    caption = sample.captions[candidate.region_id]
    assert candidate.box is not None and candidate.proposal_score is not None
    given = candidate.given
    return Region(
        id=candidate.region_id,
        box=candidate.box,
        label=candidate.label,
        proposer=proposer,
        proposal_score=candidate.proposal_score,
        caption=caption.text,
        captioner=captioner,
        caption_score=caption.score,
        text_hash=_text_hash(caption.text),
        source_id=given.id if given else None,
        is_crowd=given.is_crowd if given else None,
        mask_rle=candidate.mask,
    )


def table_rows(
    sample: Sample, shard: ShardName, *, proposer: str, captioner: str, tar_range: tuple[int, int] | None
) -> Iterator[RegionRow]:
    """Yield the image's row, then a row for each of `sample.candidates`.

    `tar_range` is where the image's bytes begin in the tar and how many there are; None for an image that is not in it.
    """
    caption = sample.item.caption
    shared: dict[str, Any] = {
        "key": sample.key,
        "width": sample.image.width if sample.image else None,
        "height": sample.image.height if sample.image else None,
        "image_caption": caption,
        "image_text_hash": None if caption is None else _text_hash(caption),
        "tar_offset": tar_range[0] if tar_range else None,
        "tar_size": tar_range[1] if tar_range else None,
        "shard": str(shard),
    }
    ending = {"status": Status.OK.value, "message": sample.item.note} if sample.drop is None else _ending(sample.drop)
    yield RegionRow(**shared, **ending, image_captions=list(sample.item.captions) or None)
    for candidate in sample.candidates:
        yield _region_row(candidate, sample, shared, proposer=proposer, captioner=captioner)


def _region_row(
    candidate: Candidate, sample: Sample, shared: dict[str, Any], *, proposer: str, captioner: str
) -> RegionRow:
    caption = sample.captions.get(candidate.region_id)
    drop = candidate.drop or (caption.drop if caption else None)
    x0, y0, x1, y1 = candidate.box or (None, None, None, None)
    row = RegionRow(
        **shared,
        **_ending(drop),
        region_id=candidate.region_id,
        x0=x0,
        y0=y0,
        x1=x1,
        y1=y1,
        count=candidate.count,
        label=candidate.label,
        proposer=proposer,
        proposal_score=candidate.proposal_score,
        mask_rle=candidate.mask,
        source_id=candidate.given.id if candidate.given else None,
        is_crowd=candidate.given.is_crowd if candidate.given else None,
    )
    if caption is not None and drop is None:
        row.captioner = captioner
        row.caption = caption.text
        row.caption_score = caption.score
        row.text_hash = _text_hash(caption.text)
        row.text_sha256 = hashes.text_sha256(caption.text)
    return row


def _ending(drop: Drop | None) -> dict[str, Any]:
    if drop is None:
        return {"status": Status.OK.value}
    return {
        "status": STATUS_OF[drop.reason].value,
        "reason": drop.reason.value,
        "stage": drop.stage.value,
        "message": drop.message,
        "traceback_hash": drop.traceback_hash,
    }


def caption_of_row(row: Mapping[str, Any]) -> RegionCaption:
    """Return what the captioner made of a region, from its row in a table: the way back."""
    if row["status"] != Status.OK.value:
        why = {name: row[name] for name in ("message", "traceback_hash")}
        return RegionCaption(drop=Drop(reason=Reason(row["reason"]), stage=Stage(row["stage"]), **why))
    score = row["caption_score"]  # tables hold 32 bits
    return RegionCaption(text=row["caption"], score=None if score is None else round(score, 4))
