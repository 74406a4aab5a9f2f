"""From a finished sample to what is stored: its record in the tar, its rows in the table."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pipeline.failures import Failure
from pipeline.propose.select import Selected
from pipeline.sample import Sample
from schemas import hashes
from schemas.names import ShardName
from schemas.reasons import STATUS_OF, Status
from schemas.records import ImageRecord, ImageSource, Region
from schemas.tables import RegionRow

_text_hash = lru_cache(maxsize=1024)(hashes.text_hash)
"""Each caption is hashed for the record and again for its row, and normalising it is the slow part."""


def image_record(sample: Sample, *, proposer: str, captioner: str) -> ImageRecord:
    """Return the record of a sample that is ok: its regions are those with a caption, best first."""
    image, item = sample.image, sample.item
    assert image is not None and sample.failure is None
    regions = [
        _region(selected, sample, proposer=proposer, captioner=captioner)
        for selected in sample.regions
        if sample.captions[selected.region_id].failure is None
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
    )


def _region(selected: Selected, sample: Sample, *, proposer: str, captioner: str) -> Region:
    caption = sample.captions[selected.region_id]
    assert selected.box is not None and selected.proposal_score is not None
    return Region(
        id=selected.region_id,
        box=selected.box,
        label=selected.label,
        proposer=proposer,
        proposal_score=selected.proposal_score,
        caption=caption.text,
        captioner=captioner,
        caption_score=caption.score,
        text_hash=_text_hash(caption.text),
    )


def table_rows(
    sample: Sample, shard: ShardName, *, proposer: str, captioner: str, tar_range: tuple[int, int] | None
) -> Iterator[RegionRow]:
    """Yield the image's row, then a row for each of `sample.selected`.

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
    yield RegionRow(**shared, **_ending(sample.failure))
    for selected in sample.selected:
        yield _region_row(selected, sample, shared, proposer=proposer, captioner=captioner)


def _region_row(
    selected: Selected, sample: Sample, shared: dict[str, Any], *, proposer: str, captioner: str
) -> RegionRow:
    caption = sample.captions.get(selected.region_id)
    failure = selected.failure or (caption.failure if caption else None)
    x0, y0, x1, y1 = selected.box or (None, None, None, None)
    row = RegionRow(
        **shared,
        **_ending(failure),
        region_id=selected.region_id,
        x0=x0,
        y0=y0,
        x1=x1,
        y1=y1,
        count=selected.count,
        label=selected.label,
        proposer=proposer,
        proposal_score=selected.proposal_score,
        mask_rle=selected.mask,
    )
    if caption is not None and failure is None:
        row.captioner = captioner
        row.caption = caption.text
        row.caption_score = caption.score
        row.text_hash = _text_hash(caption.text)
        row.text_sha256 = hashes.text_sha256(caption.text)
    return row


def _ending(failure: Failure | None) -> dict[str, Any]:
    if failure is None:
        return {"status": Status.OK.value}
    return {
        "status": STATUS_OF[failure.reason].value,
        "reason": failure.reason.value,
        "stage": failure.stage.value,
        "message": failure.message,
        "traceback_hash": failure.traceback_hash,
    }
