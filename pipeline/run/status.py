"""What a data set holds now, from its plan and markers alone: any engine, after a crash, from another machine."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.errors import PlanError
from pipeline.plan.plan import Plan
from pipeline.store.commit import newest
from pipeline.store.storage import Storage, in_parallel
from schemas.names import TRAIN, ShardName, shard_of_marker
from schemas.records import Counts, RecordError, ShardMarker, decode_shard_marker
from schemas.text import counted


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
        self._unreadable: dict[ShardName, str] = {}
        self._sizes: dict[str, int] = {}
        """Of all files, by name, when the whole folder was last listed."""
        self.totals = Totals()

    def refresh(self) -> "Markers":
        """Read the markers that have appeared since; returns self. One that is damaged is no shard: see `damage`."""
        after = self._after()
        sizes = self._storage.sizes("", after=after)
        self._sizes = self._sizes if after else sizes
        listed = {shard_of_marker(name): name for name in sizes}
        new = {shard: name for shard, name in listed.items() if shard is not None and shard not in self._markers}
        contents = in_parallel(self._storage, self._content, new.values())
        for (shard, name), content in zip(new.items(), contents, strict=True):
            if content is None:
                continue
            try:
                marker = decode_shard_marker(content, f"{self._storage.url}/{name}")
            except RecordError as error:
                self._unreadable[shard] = str(error)
                continue
            self._unreadable.pop(shard, None)
            self._markers[shard] = marker
            self.totals.add(marker)
        return self

    def _content(self, name: str) -> bytes | None:
        """Return a marker, None for one that has gone since it was listed: its shard is being repaired."""
        try:
            return self._storage.read(name)
        except FileNotFoundError:
            return None

    def add_repairing(self, shards: Iterable[ShardName]) -> list[ShardName]:
        """Count those of these shards whose markers are gone while they are repaired as they will be; return them."""
        found = []
        for shard in shards:
            current = newest(self._storage, str(shard)) if shard not in self._markers else None
            if current is not None and current.repair and current.decision.marker is not None:
                marker = decode_shard_marker(current.decision.marker.encode(), f"{self._storage.url}/{shard.marker}")
                self._markers[shard] = marker
                self.totals.add(marker)
                found.append(shard)
        return found

    def forget(self, shard: ShardName) -> None:
        """Take a shard for one that is not there, until it is found again."""
        self._unreadable.pop(shard, None)
        if self._markers.pop(shard, None) is not None:
            self.totals = Totals()
            for marker in self._markers.values():
                self.totals.add(marker)

    def damage(self, plan: Plan) -> dict[ShardName, str]:
        """Return, for each shard whose files are not what its marker says, a sentence; from the listing of `refresh`.

        Presence and size are looked at; `fineclip doctor` compares the bytes. Raises PlanError, naming it, for a shard
        of another data set, or that the plan does not have.
        """
        found = dict(self._unreadable)
        for shard in sorted({*found, *self._markers}):
            if shard.index >= plan.num_units or shard not in plan.shards(shard.index):
                raise PlanError(
                    f"{self._storage.url}/{shard.marker} is not in the plan, which has "
                    f"{counted(plan.num_units, 'unit')} from 0 on: a copy of a shard, "
                    "or one of another data set; take its files away"
                )
        for shard, marker in self:
            if marker.fingerprint != plan.fingerprint:
                raise PlanError(
                    f"{self._storage.url}/{shard.marker} is of another configuration (fingerprint "
                    f"{marker.fingerprint[:12]}, where the plan has {plan.fingerprint[:12]}); take its files away"
                )
            for name, digest in ((shard.tar, marker.tar), (shard.parquet, marker.parquet)):
                # what the listing lacks is asked for: it may have appeared since
                size = digest.size if self._sizes.get(name) == digest.size else self._storage.size(name)
                if size != digest.size:
                    state = "is missing" if size is None else f"has {size:,} bytes instead of {digest.size:,}"
                    found[shard] = f"{self._storage.url}/{name} {state}"
        return found

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
    return [unit for unit in range(plan.num_units) if not all(shard in markers for shard in plan.shards(unit))]
