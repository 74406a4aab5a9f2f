"""How much each threshold drops: exact counts at every threshold that is tried, one shard in memory at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit.filters import FILTERS, Filter

Thresholds = Mapping[str, float]
"""By name of the filter; one that is not there is off."""


@dataclass(kw_only=True)
class Sweep:
    """Of one filter. `T` thresholds."""

    filter: Filter
    drops: npt.NDArray[np.int64] = field(init=False)
    """`[T]`: regions dropped at each threshold; of a filter of images, with them."""
    images: npt.NDArray[np.int64] = field(init=False)
    """`[T]`: images dropped, by a filter of images."""
    num_measured: int = 0
    """Regions that have a number (of a filter of images, images)."""
    least: float = float("inf")
    most: float = float("-inf")

    def __post_init__(self) -> None:
        self.drops = np.zeros(len(self.filter.thresholds), dtype=np.int64)
        self.images = np.zeros(len(self.filter.thresholds), dtype=np.int64)

    def add(self, values: npt.NDArray[np.float32], is_region: npt.NDArray[np.bool_]) -> None:
        """Count a shard's rows: `values` `[N]` float32, NaN where there is none."""
        there = ~np.isnan(values)
        self.drops += self._dropped(values[there & is_region])
        mine = values[there & (~is_region if self.filter.of_images else is_region)]
        if self.filter.of_images:
            self.images += self._dropped(mine)
        self.num_measured += len(mine)
        if len(mine):
            self.least, self.most = min(self.least, float(mine.min())), max(self.most, float(mine.max()))

    def _dropped(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        ordered = np.sort(values)
        if self.filter.keeps == "at least":
            return np.searchsorted(ordered, self.filter.thresholds, side="left").astype(np.int64)
        return (len(ordered) - np.searchsorted(ordered, self.filter.thresholds, side="right")).astype(np.int64)

    def at(self, threshold: float) -> tuple[int, int]:
        """Return how many regions, and how many images, the nearest of the thresholds that were tried drops."""
        place = np.abs(self.filter.thresholds - np.float32(threshold)).argmin()
        return int(self.drops[place]), int(self.images[place])

    def telling(self) -> list[int]:
        """Return places of a dozen thresholds, ascending, at which what drops changes, by even steps."""
        changes = np.flatnonzero(np.diff(self.drops, prepend=self.drops[:1])).tolist()
        if len(changes) <= _TOLD:
            return changes
        total = self.drops.max()
        wanted = total * np.array([0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0])
        places = sorted({int(np.abs(self.drops - each).argmin()) for each in wanted})
        return [place for place in places if self.drops[place]]


_TOLD = 12


@dataclass(kw_only=True)
class Totals:
    """What all of them come to together."""

    regions: int = 0
    images: int = 0
    regions_dropped: int = 0
    images_dropped: int = 0
    images_left_empty: int = 0
    """Images that had regions and have none left, but are not dropped themselves."""
    alone: dict[str, int] = field(default_factory=dict)
    """Regions that this filter drops, by name."""
    only: dict[str, int] = field(default_factory=dict)
    """Regions that this filter drops and no other does."""


def dropped_by(table: pa.Table, thresholds: Thresholds) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which rows of measures each filter drops, by its name: `[N]` bool."""
    chosen = {each: thresholds[each.name] for each in FILTERS if each.name in thresholds}
    return {each.name: each.drops(values_of(table, each), limit) for each, limit in chosen.items()}


def values_of(table: pa.Table, of: Filter) -> npt.NDArray[np.float32]:
    """Return a filter's numbers, `[N]` float32, NaN where there is none."""
    values: npt.NDArray[np.float32] = table[of.column].to_numpy().astype(np.float32)
    return values


def add_totals(totals: Totals, table: pa.Table, thresholds: Thresholds) -> None:
    """Add a shard's rows to what the filters come to together."""
    is_region = pc.is_valid(table["region_id"]).to_numpy()
    drops = dropped_by(table, thresholds)
    times = np.sum([*drops.values(), np.zeros(len(table), np.int64)], axis=0)
    totals.regions += int(is_region.sum())
    totals.images += int((~is_region).sum())
    totals.regions_dropped += int((times[is_region] > 0).sum())
    totals.images_dropped += int((times[~is_region] > 0).sum())
    for name, drop in drops.items():
        totals.alone[name] = totals.alone.get(name, 0) + int(drop[is_region].sum())
        totals.only[name] = totals.only.get(name, 0) + int((drop & is_region & (times == 1)).sum())
    image = np.cumsum(~is_region) - 1
    num_images = int((~is_region).sum())
    regions = np.bincount(image[is_region], minlength=num_images)[:num_images]
    kept = np.bincount(image[is_region & (times == 0)], minlength=num_images)[:num_images]
    totals.images_left_empty += int(((regions > 0) & (kept == 0) & (times[~is_region] == 0)).sum())
