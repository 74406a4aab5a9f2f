"""Features of regions and captions, as `fineclip embed` left them: what is nearest to a region, and a map of all.

Of many regions a sample is held, chosen by their ids; the page says so. The map is a projection on the two directions
of largest variance, so that it is the same each time, and says how much of the variance that is.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.viewer.gallery import RegionId, load_regions
from pipeline.viewer.selection import SelectionError
from pipeline.viewer.source import OpenedData
from pipeline.viewer.table import NotHereError, RegionTable
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.overlays import FEATURES, open_overlay

MOST_HELD = 200_000
"""Regions in memory."""
MOST_POINTS = 5_000
"""Of the map."""
NUM_NEAREST = 24
BY = {"region": FEATURES[0], "caption": FEATURES[1]}
"""What regions are near by."""
_BLOCK = 1 << 14

Features = npt.NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class _Held:
    ids: list[RegionId]
    labels: list[str | None]
    features: dict[str, Features]
    """By `BY`: `[N, D]`; rows of NaN where a region has none."""


class FeatureIndex:
    """The features of a data set's regions; they are read when they are first asked for."""

    def __init__(self, source: OpenedData, overlay: str) -> None:
        """Open the overlay. Raises DatasetError where it is not there, or holds no features."""
        folder, markers = source.folder, source.dataset.markers
        opened = open_overlay(folder, overlay, shards=markers, sizes=folder.sizes())
        lacking = [name for name in FEATURES if name not in opened.fields]
        if lacking:
            raise DatasetError(
                f"overlay {overlay!r}: holds no features ({', '.join(lacking)}); make it by fineclip embed"
            )
        self._dataset = Dataset(folder, markers=markers, overlays=[opened])
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._map: dict[str, Any] | None = None

    def near(self, table: RegionTable, region: RegionId, by: str) -> dict[str, Any]:
        """Return a region and those nearest to it, with their cosines. Raises NotHereError."""
        if by not in BY:
            raise SelectionError(f"by={by}: choose from {', '.join(BY)}")
        held, query = self._hold(), self._feature(region, BY[by])
        fit = np.concatenate(
            [
                held.features[by][start : start + _BLOCK].astype(np.float32) @ query
                for start in range(0, max(1, len(held.ids)), _BLOCK)
            ]
        )
        order = np.argsort(-np.nan_to_num(fit, nan=-np.inf), kind="stable")[: NUM_NEAREST + 1]
        places = [place for place in order.tolist() if held.ids[place] != region and np.isfinite(fit[place])]
        values = {held.ids[place]: float(fit[place]) for place in places[:NUM_NEAREST]}
        items = load_regions(table, [region, *values])
        found = [(item, (item.shard, item.key, item.regions[0].id)) for item in items]
        return {
            "region": next((item for item, name in found if name == region), None),
            "near": [{"item": item, "value": values[name]} for item, name in found if name != region],
            "held": len(held.ids),
            "all": self._num_regions,
        }

    def map(self) -> dict[str, Any]:
        """Return points of regions, each with its place in -1..1, and the share of the variance that is shown."""
        held = self._hold()
        with self._lock:
            self._map = self._map or _project(held)
        return {**self._map, "held": len(held.ids), "all": self._num_regions}

    @property
    def _num_regions(self) -> int:
        return sum(marker.regions.ok for marker in self._dataset.markers.values())

    def _feature(self, region: RegionId, column: str) -> npt.NDArray[np.float32]:
        shard, key, region_id = region
        rows = self._dataset.regions(["key", "region_id", column], [shard])
        found = rows.filter((pc.field("key") == key) & (pc.field("region_id") == region_id))[column].to_pylist()
        if not found or found[0] is None:
            raise NotHereError(f"{shard}: region {key}/{region_id} has no features")
        return np.array(found[0], dtype=np.float32)

    def _hold(self) -> _Held:
        with self._lock:
            if self._held is None:
                share = MOST_HELD / max(1, self._num_regions)
                self._held = _join([self._read(str(shard), share) for shard in self._dataset.shards])
            return self._held

    def _read(self, shard: str, share: float) -> pa.Table:
        rows = self._dataset.regions(["key", "region_id", "label", *FEATURES], [shard])
        rows = rows.filter(pc.is_valid(rows[FEATURES[0]]))
        if share < 1:
            chosen = [int(name[:8], 16) < share * 2**32 for name in rows["region_id"].to_pylist()]
            rows = rows.filter(pa.array(chosen, pa.bool_()))
        return rows.append_column("shard", pa.array([shard] * len(rows), pa.string()))


def _join(tables: list[pa.Table]) -> _Held:
    rows = pa.concat_tables(tables)
    names = (rows[name].to_pylist() for name in ("shard", "key", "region_id"))
    return _Held(
        ids=list(zip(*names, strict=True)),
        labels=rows["label"].to_pylist(),
        features={by: _array(rows[column]) for by, column in BY.items()},
    )


def _array(column: pa.ChunkedArray) -> Features:
    """Return lists of one length as `[N, D]` float16, rows of NaN for null."""
    whole = column.combine_chunks()
    there = pc.is_valid(whole).to_numpy(zero_copy_only=False)
    values = whole.drop_null().flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    width = len(values) // max(1, int(there.sum()))
    array = np.full((len(there), width), np.nan, dtype=np.float16)
    array[there] = values.reshape(-1, width) if width else values.reshape(int(there.sum()), 0)
    return array


def _project(held: _Held) -> dict[str, Any]:
    """Return the two directions of largest variance, as points of at most `MOST_POINTS` regions."""
    features = held.features["region"]
    if len(features) < 3:
        return {"points": [], "variance": 0.0}
    mean = features.mean(axis=0, dtype=np.float64)
    spread = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, len(features), _BLOCK):
        centred = features[start : start + _BLOCK].astype(np.float64) - mean
        spread += centred.T @ centred
    sizes, directions = np.linalg.eigh(spread)
    two = directions[:, -1:-3:-1]
    two = two * np.sign(two[np.abs(two).argmax(axis=0), range(2)])
    step = max(1, -(-len(features) // MOST_POINTS))
    placed = (features[::step].astype(np.float64) - mean) @ two
    placed /= max(float(np.abs(placed).max()), 1e-9)
    points = [
        [round(x, 4), round(y, 4), *name, label]
        for (x, y), name, label in zip(placed.tolist(), held.ids[::step], held.labels[::step], strict=True)
    ]
    return {"points": points, "variance": float(sizes[-2:].sum() / max(sizes.sum(), 1e-12))}
