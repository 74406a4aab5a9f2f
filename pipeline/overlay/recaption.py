"""Recaptioning one shard: its regions as they are, the same caption step as `annotate`, and an overlay of captions.

    stored -> decoded -> captioned -> committed

Crops are cut from the stored image by the region's box, as `annotate` cut them, so the captions are those that
`annotate` with this captioner would have given. What it gives no caption of becomes a row with a reason.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.caption.step import CaptionStep
from pipeline.clock import StageClock
from pipeline.overlay.plan import BaseShard, OverlaidShards
from pipeline.overlay.write import commit_overlay, file_names
from pipeline.read.decode import DecodeSettings
from pipeline.read.exclusions import ReadSettings
from pipeline.read.read import decoded_ahead
from pipeline.sample import Candidate, RegionCaption, Sample, SourceItem
from pipeline.settings import CaptionConfiguration, RunSettings
from pipeline.store.storage import Storage
from pipeline.write.rows import caption_of_row, table_rows
from pipeline.write.shards import UnitReport
from schemas.dataset import Dataset
from schemas.dataset import Sample as StoredSample
from schemas.folder import DatasetError, Folder
from schemas.overlays import CAPTION_COLUMNS, JOIN_COLUMNS, OUTCOME_COLUMNS
from schemas.reasons import Reason
from schemas.records import Counts, OverlayMarker, RecordError, decode_overlay_marker
from schemas.shards import decode_marker
from schemas.tables import REGION_SCHEMA, RegionRow

COLUMNS = (*JOIN_COLUMNS, *CAPTION_COLUMNS, *OUTCOME_COLUMNS)
"""Of the overlay's tables."""
_SCHEMA = pa.schema([REGION_SCHEMA.field(name) for name in COLUMNS])
_ANY_SIZE = ReadSettings(**vars(DecodeSettings(max_pixels=2**62, max_bytes=2**62)))
"""Stored images were within the limits that the data set was made with."""


@dataclass(frozen=True, kw_only=True)
class Recaptioner:
    """Recaptions the shards of a plan; made once a worker."""

    plan: OverlaidShards
    configuration: CaptionConfiguration
    run: RunSettings
    step: CaptionStep
    _folder: Folder = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_folder", Folder(self.plan.storage.url))

    def recaption(self, unit: int, advance: Callable[[], None] = lambda: None) -> UnitReport:
        """Caption a shard's regions and commit the overlay's part of it; what `retry` carried over is kept.

        Raises OSError on storage trouble, after which it can be called again, and DatasetError for a damaged shard.
        """
        base, clock, captioning = self.plan.bases[unit], StageClock(), self.step.batcher()
        stored = clock.timed("read", self._stored(base))
        decoded = clock.timed("decode", decoded_ahead(stored, _ANY_SIZE, num_threads=self.run.decode_threads))
        kept = carried_rows(self.plan.storage, base, self.plan.overlay)
        captioned = self.step.run(_with_kept(self._checked(base, decoded), kept), captioning, clock)
        counts, rows = Counts(), list[RegionRow]()
        for sample in captioned:
            with clock("write"):
                rows += self._rows(base, sample, counts)
            advance()
        with clock("commit"):
            columns = [pa.array([getattr(row, name) for row in rows], _SCHEMA.field(name).type) for name in COLUMNS]
            commit_overlay(
                self.plan.storage,
                base,
                self.plan.overlay,
                pa.Table.from_arrays(columns, schema=_SCHEMA),
                fingerprint=self.plan.fingerprint,
                provenance={"captioner": self.step.provenance(self.configuration.caption)},
                regions=counts,
            )
        images = Counts(inputs=base.num_images, ok=base.num_images)
        batches = {"caption": captioning.report}
        return UnitReport(unit=unit, images=images, regions=counts, seconds=clock.seconds, batches=batches)

    def _stored(self, base: BaseShard) -> Iterator[Sample]:
        """Yield the samples of a shard's tar, in its order, each with the regions of its record."""
        name = base.shard.marker
        (content,) = self._folder.read([name])
        marker = None if content is None else decode_marker(content, base.shard, self._folder.where(name))
        if marker is None or marker.parquet.sha256 != base.table_sha256:
            raise DatasetError(f"{self._folder.where(name)}: has changed since this command began; run it again")
        for stored in Dataset(self._folder, markers={base.shard: marker}).samples(base.shard, verify=True):
            yield _sample(stored)

    def _checked(self, base: BaseShard, samples: Iterator[Sample]) -> Iterator[Sample]:
        """Yield the samples; raises DatasetError where a stored image is not the plain one that `annotate` stores."""
        for sample in samples:
            if sample.image is None or sample.image.reencoded:
                why = "it would have to be stored otherwise" if sample.drop is None else sample.drop.message
                place = f"{self._folder.where(base.shard.tar)}: key {sample.key!r}"
                raise DatasetError(f"{place}: the stored image cannot be used ({why}); write the shard again")
            yield sample

    def _rows(self, base: BaseShard, sample: Sample, counts: Counts) -> list[RegionRow]:
        captioner = self.configuration.captioner
        _, *rows = table_rows(sample, base.shard, proposer="", captioner=captioner, tar_range=None)
        counts.inputs += len(sample.regions)
        for row in rows:
            if row.reason is None:
                counts.ok += 1
            else:
                counts.drop(Reason(row.reason))
        return rows


def _with_kept(samples: Iterator[Sample], kept: Mapping[tuple[str, str], RegionCaption]) -> Iterator[Sample]:
    """Give the regions that have a caption in the overlay already that one."""
    for sample in samples:
        known = ((region.region_id, kept.get((sample.key, region.region_id))) for region in sample.regions)
        sample.captions = {region_id: caption for region_id, caption in known if caption is not None}
        yield sample


def carried_rows(storage: Storage, base: BaseShard, overlay: str) -> dict[tuple[str, str], RegionCaption]:
    """Return what an overlay says of the regions of a shard that was repaired, by key and region id; {} for none."""
    table_name, marker_name = file_names(base, overlay)
    try:
        marker = decode_overlay_marker(storage.read(marker_name), marker_name)
        rows = pq.read_table(pa.BufferReader(storage.read(table_name))) if _is_carried(marker, base) else None
    except (FileNotFoundError, RecordError):
        return {}
    listed = [] if rows is None else rows.to_pylist()
    return {(row["key"], row["region_id"]): caption_of_row(row) for row in listed}


def _is_carried(marker: OverlayMarker, base: BaseShard) -> bool:
    return marker.partial and marker.base_sha256 == base.table_sha256


def _sample(stored: StoredSample) -> Sample:
    record = stored.record
    source = record.source
    item = SourceItem(
        key=stored.key,
        index=source.index,
        uri=source.uri,
        data=stored.image,
        url=source.url,
        license=source.license,
    )
    regions = [
        Candidate(
            region_id=region.id,
            box=region.box,
            proposal_score=region.proposal_score,
            label=region.label,
            count=1,
            drop=None,
            mask=region.mask_rle,
        )
        for region in record.regions
    ]
    return Sample(item=item, candidates=regions)
