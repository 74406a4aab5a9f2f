"""What a data set holds now, from its plan and markers alone: any engine, after a crash, from another machine."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.plan.plan import Plan
from pipeline.store.storage import Storage, in_parallel
from schemas.names import TRAIN, ShardName, shard_of_marker
from schemas.records import Counts, ShardMarker, decode_shard_marker


@dataclass(kw_only=True)
class Totals:
    """Counts over the shards that exist."""

    images: Counts = field(default_factory=Counts)
    regions: Counts = field(default_factory=Counts)
    num_shards: int = 0
    num_bytes: int = 0
    """Of tars and tables."""
    bytes_lost: int = 0
    """Of the sources: what could not be read and was no whole sample."""
    num_noted: int = 0
    """Images that are ok, and whose row says what of them was mended or left out."""

    def add(self, marker: ShardMarker) -> None:
        """Add a shard."""
        self.images.add(marker.images)
        self.regions.add(marker.regions)
        self.num_shards += 1
        self.num_noted += marker.num_noted
        self.num_bytes += marker.tar.size + marker.parquet.size
        self.bytes_lost += marker.bytes_lost or 0

    @property
    def balanced(self) -> bool:
        """True when inputs = ok + filtered + dead, for images and for regions."""
        return self.images.balanced and self.regions.balanced

    @property
    def dead_fraction(self) -> float:
        """The larger of the dead shares of images and of regions, 0 to 1."""
        return max(
            (counts.num_dead / counts.inputs for counts in (self.images, self.regions) if counts.inputs), default=0
        )


class Markers:
    """The markers of a data set that may still grow: each is read once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._markers: dict[ShardName, ShardMarker] = {}
        self.totals = Totals()

    def refresh(self) -> "Markers":
        """Read the markers that have appeared since; returns self. Raises RecordError for one that is damaged."""
        listed = {shard_of_marker(name): name for name in self._storage.sizes("", after=self._after())}
        new = {shard: name for shard, name in listed.items() if shard is not None and shard not in self._markers}
        contents = in_parallel(self._storage, self._storage.read, new.values())
        for (shard, name), content in zip(new.items(), contents, strict=True):
            marker = decode_shard_marker(content, f"{self._storage.url}/{name}")
            self._markers[shard] = marker
            self.totals.add(marker)
        return self

    def _after(self) -> str:
        """Return the name up to which all markers are known: a listing need not begin before it."""
        known = next(number for number in itertools.count() if ShardName(TRAIN, number) not in self._markers)
        # from seven digits on, numbers sort as text no more
        return f"{ShardName(TRAIN, min(known, 100_000) - 1)}.~" if known else ""

    def __iter__(self) -> Iterator[tuple[ShardName, ShardMarker]]:
        """Yield the shards in order of split and number."""
        return iter(sorted(self._markers.items()))

    def __contains__(self, shard: ShardName) -> bool:
        return shard in self._markers


def units_to_do(plan: Plan, markers: Markers) -> list[int]:
    """Return the units of which a shard is missing."""
    splits = plan.splits
    return [unit for unit in range(plan.num_units) if not all(ShardName(split, unit) in markers for split in splits)]
