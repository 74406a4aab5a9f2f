"""What a data set is, in numbers: how large its boxes are, how long its captions, whose its images."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit.captions import caption_columns
from pipeline.audit.copies import count_texts
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.reasons import Status

_NUM_RECORDS = 200
"""Looked at for licences, spread over the shards: only the tars hold them."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(kw_only=True)
class Distribution:
    """How many have each whole number."""

    counts: Counter[int] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """How many there are."""
        return self.counts.total()

    def quantiles(self) -> list[int] | None:
        """Return what 5, 25, 50, 75 and 95 % are at or below; None where there is nothing."""
        if not self.counts:
            return None
        values = np.array(sorted(self.counts))
        ends = np.cumsum([self.counts[value] for value in values.tolist()])
        found: list[int] = values[np.searchsorted(ends, np.ceil(np.array(_QUANTILES) * ends[-1]))].tolist()
        return found


@dataclass(kw_only=True)
class Census:
    """The numbers."""

    images: int = 0
    regions: int = 0
    captioned: int = 0
    different_captions: int = 0
    repeated: int = 0
    """Regions whose caption another region has too."""
    boilerplate: int = 0
    stuck: int = 0
    """Regions whose caption repeats itself."""
    regions_an_image: Distribution = field(default_factory=Distribution)
    side: Distribution = field(default_factory=Distribution)
    """Shorter side of boxes, whole pixels."""
    area: Distribution = field(default_factory=Distribution)
    """Share of the image, whole percent."""
    words: Distribution = field(default_factory=Distribution)
    labels: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    """What the records that were looked at state of their images."""


def take_census(dataset: Dataset) -> Census:
    """Return the numbers of a data set as its overlays and filter lists show it; one shard is in memory at a time."""
    census = Census()
    for shard in dataset.shards:
        columns = ["key", "region_id", "status", "x0", "y0", "x1", "y1", "width", "height", "caption", "label"]
        rows = dataset.regions(columns, [shard])
        _add(census, rows.filter(pc.equal(rows["status"], Status.OK.value)))
    _, copies = count_texts(dataset)
    census.different_captions = len(copies)
    census.repeated = int(copies[copies > 1].sum())
    census.licenses = _licenses(dataset)
    return census


def _add(census: Census, rows: pa.Table) -> None:
    is_region = pc.is_valid(rows["region_id"]).to_numpy()
    regions = rows.filter(pa.array(is_region))
    image = np.cumsum(~is_region) - 1
    census.images += int((~is_region).sum())
    census.regions += len(regions)
    per_image = np.bincount(image[is_region], minlength=int((~is_region).sum()))
    census.regions_an_image.counts.update(per_image.tolist())
    edges = {name: regions[name].to_numpy() for name in ("x0", "y0", "x1", "y1", "width", "height")}
    width, height = edges["x1"] - edges["x0"], edges["y1"] - edges["y0"]
    census.side.counts.update(np.floor(np.minimum(width, height)).astype(int).tolist())
    share = width * height / (edges["width"] * edges["height"])
    census.area.counts.update(np.floor(share * 100).astype(int).tolist())
    captions = [caption for caption in regions["caption"].to_pylist() if caption is not None]
    facts = caption_columns(captions)
    census.captioned += len(captions)
    census.words.counts.update(facts["words"].astype(int).tolist())
    census.boilerplate += int(facts["boilerplate"].sum())
    census.stuck += int(facts["repetition"].sum())
    census.labels.update(label for label in regions["label"].to_pylist() if label is not None)


def _licenses(dataset: Dataset) -> Counter[str]:
    """Return the licences that a few records of each of a few shards state."""
    found: Counter[str] = Counter()
    step = max(1, len(dataset.shards) // 20)
    shards = dataset.shards[::step]
    per_shard = max(1, _NUM_RECORDS // max(1, len(shards)))
    for shard in shards:
        with suppress(DatasetError):  # the card is no doctor: what cannot be read is not counted
            for _, sample in zip(range(per_shard), dataset.samples(shard), strict=False):
                found[sample.record.source.license or "not stated"] += 1
    return found
