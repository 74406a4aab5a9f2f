"""Making OUTPUT whole before work goes on.

    decided, not published              published; its marker is in the decision; so is a repair of a shard
    a data file deleted or cut          withdrawn: decision and marker go, so the unit is made again

A shard is withdrawn under its unit's lease, the decision first: whoever is stopped in between leaves a shard that the
next job finds damaged again. Its bytes come out the same where the promise about bytes holds.
"""

import contextlib
from collections.abc import Collection

from pipeline.plan.plan import Plan
from pipeline.run import lease
from pipeline.run.status import Markers
from pipeline.store.commit import LostFileError, decided, repairs, roll_forward, withdraw
from schemas.names import COMMIT_DIR, ShardName


def repair(plan: Plan, markers: Markers, run_id: str, lease_timeout_s: float) -> tuple[str, ...]:
    """Publish what an earlier job decided, withdraw what was damaged since; returns a sentence for each of these.

    Raises PlanError for a shard of another data set, and StorageError.
    """
    names = decided(plan.storage)
    _finish_repairs(plan, markers, names)
    damaged = markers.refresh().damage(plan)
    for name in sorted(names):
        shard = ShardName.parse(name)
        if shard is None or shard in markers or shard in damaged:
            continue
        try:
            roll_forward(plan.storage, name)
        except LostFileError as error:
            damaged[shard] = str(error)
    mended = []
    for shard, why in sorted(damaged.items()):
        with lease.hold(plan.storage, lease.unit_name(shard.index), lease_timeout_s, run=run_id) as held:
            if held and _mend(plan, markers, shard):
                mended.append(why)
    return tuple(mended)


def _finish_repairs(plan: Plan, markers: Markers, names: Collection[str]) -> None:
    """Publish repairs that were decided, and forget those of shards that were withdrawn since."""
    for name, number in sorted(repairs(names).items()):
        shard = ShardName.parse(name)
        if shard is None:
            continue
        if name not in names:
            plan.storage.remove(*(f"{COMMIT_DIR}/{name}.r{each}.json" for each in range(1, number + 1)))
            continue
        with contextlib.suppress(LostFileError):  # it is found damaged, and withdrawn
            roll_forward(plan.storage, name)
        markers.forget(shard)


def _mend(plan: Plan, markers: Markers, shard: ShardName) -> bool:
    """Publish a damaged shard's marker again, or withdraw the shard; False where another job has done so meanwhile."""
    markers.forget(shard)
    if shard in markers.refresh() and shard not in markers.damage(plan):
        return False
    markers.forget(shard)
    plan.storage.remove(shard.marker)
    try:
        if roll_forward(plan.storage, str(shard)) and shard in markers.refresh() and shard not in markers.damage(plan):
            return True
    except LostFileError:
        pass
    withdraw(plan.storage, str(shard), shard.marker)
    markers.forget(shard)
    return True
