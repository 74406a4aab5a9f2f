"""The job of `materialize`: a data set and its overlays into a data set of its own, shard by shard, in this process.

Several may run at once, on one machine or many: leases share the work, and commits settle what both did.
"""

import time
from collections.abc import Callable, Sequence

from pipeline.errors import InterruptedRunError
from pipeline.overlay.materialize import check_columns, materialize_shard, provenance_of
from pipeline.overlay.output import plan_materialized
from pipeline.overlay.plan import EDITS
from pipeline.plan.plan import Plan
from pipeline.run import lease
from pipeline.run.finalise import finalise
from pipeline.run.job import new_run_id
from pipeline.run.repair import repair
from pipeline.run.status import Markers, Totals, units_to_do
from pipeline.run.watch import Progress, Watch
from pipeline.store.commit import roll_forward, sweep
from pipeline.store.scratch import sweep_scratch
from pipeline.store.storage import at_work, open_storage
from schemas.dataset import Dataset
from schemas.folder import DatasetError, Folder
from schemas.names import LEASES_DIR, PLAN_DIR
from schemas.overlays import Overlay, open_overlay
from schemas.shards import find_shards

_LEASE_TIMEOUT_S = 60.0
_PLAN_JSON = f"{PLAN_DIR}/plan.json"


def materialize(
    data: str,
    overlays: Sequence[str],
    output: str,
    *,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Totals, int]:
    """Write the data set at `data`, as its overlays show it, to `output`, or go on with it.

    Returns the totals of `output` and how many of its units were left to do. Raises DatasetError for what cannot be
    read or has no place in a shard, PlanError where OUTPUT is of another data set or other overlays, and StorageError.
    """
    folder, storage = Folder(data), open_storage(output)
    sizes = folder.sizes()
    markers = find_shards(folder, sizes)
    opened = [open_overlay(folder, name, shards=markers, sizes=sizes) for name in overlays]
    check_columns(opened)
    for overlay in opened:
        if overlay.changes:
            raise DatasetError(f"{folder.url}: {overlay.changes}; bring the overlay up to date first")
        partial = [str(shard) for shard, marker in overlay.markers.items() if marker.partial and overlay.name != EDITS]
        if partial:
            raise DatasetError(
                f"{folder.url}: overlay {overlay.name!r} lacks regions of {partial[0]} (of {len(partial)}), which was "
                "repaired since; run what made the overlay again, it does these alone"
            )
    seen = Dataset(folder, markers=markers, overlays=opened)
    with at_work(storage):
        plan = plan_materialized(storage, data, seen, opened)
        made = Markers(storage)
        sweep_scratch(storage.scratch)
        repair(plan, made, new_run_id(), _LEASE_TIMEOUT_S)
        num_units_run = len(units_to_do(plan, made.refresh()))
        _make_units(plan, made, seen, opened, watch)
        finalise(plan, made)
        _clean_up(plan, made)
    return made.totals, num_units_run


def _make_units(
    plan: Plan, made: Markers, seen: Dataset, overlays: Sequence[Overlay], watch: Callable[[Progress], None]
) -> None:
    """Make what is left, until nothing is: units that others hold are waited for."""
    storage, run_id, watcher = plan.storage, new_run_id(), Watch(plan, made, watch)
    while todo := units_to_do(plan, made.refresh()):
        num_before = len(todo)
        for unit in todo:
            with lease.hold(storage, lease.unit_name(unit), _LEASE_TIMEOUT_S, run=run_id) as held:
                if not held:
                    continue
                for shard in plan.shards(unit):
                    if roll_forward(storage, str(shard)):
                        continue

                    def advance(held: lease.Hold = held) -> None:
                        held.advance()
                        watcher.show()

                    materialize_shard(
                        seen,
                        shard,
                        storage,
                        fingerprint=plan.fingerprint,
                        provenance=provenance_of(seen.markers[shard], overlays, shard),
                        advance=advance,
                    )
            watcher.show()
        left = units_to_do(plan, made.refresh())
        if len(left) == num_before:
            if not any(lease.is_held(storage, lease.unit_name(unit)) for unit in left):
                raise InterruptedRunError(f"{storage.url}: {len(left)} units stay undone, and nobody holds them")
            time.sleep(storage.poll_s)


def _clean_up(plan: Plan, made: Markers) -> None:
    sweep_scratch(plan.storage.scratch)
    files = (name for shard, _ in made for name in (shard.tar, shard.parquet, shard.marker))
    sweep(plan.storage, [*plan.own_files(), *files])
    plan.storage.remove(*(f"{LEASES_DIR}/{name}" for name in plan.storage.names(LEASES_DIR)))
    plan.storage.remove_folder(LEASES_DIR)
