"""What is dead in a data set, and which of it meets the conditions."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.plan.plan import Plan
from pipeline.retry.where import Condition, matching
from pipeline.store.storage import in_parallel
from schemas.names import ShardName
from schemas.reasons import Status
from schemas.records import ShardMarker


@dataclass(kw_only=True)
class Dead:
    """What is dead."""

    wanted: dict[ShardName, int] = field(default_factory=dict)
    """Shards in which dead rows meet the conditions, and how many images and regions these stand for."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many images and regions are dead, by reason, whether they meet the conditions or not."""

    @property
    def num_wanted(self) -> int:
        """How many images and regions are to be repeated."""
        return sum(self.wanted.values())


def find_dead(plan: Plan, shards: Iterable[tuple[ShardName, ShardMarker]], where: Sequence[Condition]) -> Dead:
    """Return what is dead, from the tables that have some."""
    found = Dead()
    having = []
    for shard, marker in shards:
        found.reasons.update(marker.images.dead)
        found.reasons.update(marker.regions.dead)
        if marker.images.dead or marker.regions.dead:
            having.append(shard)
    columns = list(dict.fromkeys(["status", "count", *(condition.column for condition in where)]))

    def read(shard: ShardName) -> int:
        content, is_dead = plan.storage.read(shard.parquet), pc.field("status") == Status.DEAD.value
        rows: pa.Table = pq.read_table(pa.BufferReader(content), columns=columns, filters=is_dead)
        return int(pc.sum(rows.filter(matching(rows, where))["count"]).as_py() or 0)

    counts = zip(having, in_parallel(plan.storage, read, having), strict=True)
    found.wanted = {shard: count for shard, count in counts if count}
    return found
