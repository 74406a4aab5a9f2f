"""The images and regions that died, from the shards' tables: which, where they came from, and why."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.plan.plan import Plan
from pipeline.read.keys import with_prefix
from schemas.names import ShardName
from schemas.reasons import Status
from schemas.records import ShardMarker

_COLUMNS = ("key", "region_id", "reason", "stage", "message", "count")


@dataclass(frozen=True, kw_only=True)
class DeadItem:
    """An image or region that is dead."""

    shard: str
    key: str
    region_id: str | None
    """None for an image."""
    source: str
    """The image's file where the plan lists files, else the tar or table that it lies in; after its INPUT."""
    reason: str
    stage: str
    """Where in the pipeline."""
    message: str
    count: int
    """How many the row stands for."""


def dead_items(
    plan: Plan, shards: Iterable[tuple[ShardName, ShardMarker]], reason: str | None = None
) -> Iterator[DeadItem]:
    """Yield what died, in order of the shards; of one `reason` if it is given. Reads the tables that have some."""
    for shard, marker in shards:
        reasons = {*marker.images.dead, *marker.regions.dead}
        if not reasons or (reason is not None and reason not in reasons):
            continue
        wanted = pc.field("status") == Status.DEAD.value
        wanted = wanted if reason is None else wanted & (pc.field("reason") == reason)
        content = plan.storage.read(shard.parquet)
        rows = pq.read_table(pa.BufferReader(content), columns=list(_COLUMNS), filters=wanted).to_pylist()
        sources, otherwise = _sources(plan, shard.index)
        for row in rows:
            yield DeadItem(
                shard=str(shard),
                key=row["key"],
                region_id=row["region_id"],
                source=sources.get(row["key"], otherwise),
                reason=row["reason"],
                stage=row["stage"] or "",
                message=row["message"] or "",
                count=row["count"],
            )


def _sources(plan: Plan, unit: int) -> tuple[dict[str, str], str]:
    """Return where the samples of a unit lie, by key where the plan lists them, and the unit's files for the others."""
    parts = plan.unit(unit)
    listed = {
        with_prefix(item.key, part.prefix): f"{part.spec}: {item.uri}"
        for part in parts
        for item in part.part.items or ()
    }
    files = dict.fromkeys(f"{part.spec}: {part.part.uri}" for part in parts if part.part.items is None)
    return listed, ", ".join(files)
