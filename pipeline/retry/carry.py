"""Overlays of repaired shards, carried over: their rows of regions that are still ok, for the table as it is now.

What a repair has brought has no row there: the part is `partial`, readers show the shard's own values for it, and
`recaption` completes it. Edits by hand are carried over beside local data alone, where they are made.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.overlay.plan import EDITS, BaseShard
from pipeline.overlay.write import commit_overlay, file_names
from pipeline.store.commit import decided, repairs
from pipeline.store.local import LocalStorage
from pipeline.store.storage import Storage
from pipeline.viewer.edits import Edits
from schemas.names import ShardName, overlay_of_file
from schemas.reasons import Reason, Status
from schemas.records import Counts, OverlayMarker, ShardMarker, decode_overlay_marker
from schemas.tables import row_ids


def carry_overlays(storage: Storage, shards: Iterable[tuple[ShardName, ShardMarker]]) -> tuple[str, ...]:
    """Carry the overlays of all repaired shards over; returns the names of those that lack regions now."""
    markers = dict(shards)
    repaired = {shard for name in repairs(decided(storage)) if (shard := ShardName.parse(name)) in markers}
    named = (overlay_of_file(name) for name in storage.names("") if name.endswith(".json"))
    lacking = set()
    for shard, overlay in sorted(found for found in named if found is not None and found[0] in repaired):
        base = BaseShard.of(shard, markers[shard])
        name = file_names(base, overlay)[1]
        marker = decode_overlay_marker(storage.read(name), f"{storage.url}/{name}")
        if marker.base_sha256 != base.table_sha256 and _carry(storage, base, marker, markers):
            lacking.add(overlay)
    return tuple(sorted(lacking))


def _carry(storage: Storage, base: BaseShard, marker: OverlayMarker, markers: Mapping[ShardName, ShardMarker]) -> bool:
    """Carry an overlay's part of a shard over; True where the shard has regions that it lacks."""
    rows = pq.read_table(
        pa.BufferReader(storage.read(base.shard.parquet)),
        columns=["key", "region_id"],
        filters=(pc.field("status") == Status.OK.value) & pc.field("region_id").is_valid(),
    )
    if marker.overlay == EDITS:
        if isinstance(storage, LocalStorage):
            ids = zip(rows["key"].to_pylist(), rows["region_id"].to_pylist(), strict=True)
            Edits(storage, {base.shard: markers[base.shard]}).follow(base.shard, set(ids))
        return False
    table = pq.read_table(pa.BufferReader(storage.read(file_names(base, marker.overlay)[0])))
    table = table.filter(pc.is_in(row_ids(table), value_set=row_ids(rows)))
    lacks = len(table) < len(rows)
    commit_overlay(
        storage,
        base,
        marker.overlay,
        table,
        fingerprint=marker.fingerprint,
        provenance=marker.provenance,
        partial=marker.partial or lacks,
        regions=None if marker.regions is None else _counts(table),
        repair=0,
    )
    return lacks


def _counts(table: pa.Table) -> Counts:
    """Return how the regions of an overlay's rows ended, by its own `status` and `reason`."""
    counts = Counts(inputs=len(table))
    for reason, number in Counter(table["reason"].to_pylist()).items():
        if reason is None:
            counts.ok = number
        else:
            counts.drop(Reason(reason), number)
    return counts
