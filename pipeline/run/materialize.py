"""The job of `materialize`: a data set and its overlays into a data set of its own, shard by shard, in this process.

Several may run at once, on one machine or many: leases share the work, and commits settle what both did.
"""

from collections.abc import Callable, Sequence

from pipeline.overlay.materialize import check_columns, materialize_shard, provenance_of
from pipeline.overlay.output import plan_materialized
from pipeline.plan.plan import Plan
from pipeline.run import lease
from pipeline.run.finalise import finalise
from pipeline.run.job import new_run_id
from pipeline.run.repair import repair
from pipeline.run.status import Markers, Totals, units_to_do
from pipeline.run.units import LEASE_TIMEOUT_S, make_units
from pipeline.run.watch import Progress
from pipeline.store.commit import roll_forward, sweep
from pipeline.store.scratch import sweep_scratch
from pipeline.store.storage import at_work, open_storage
from schemas.dataset import Dataset
from schemas.folder import DatasetError, Folder
from schemas.names import LEASES_DIR, PLAN_DIR
from schemas.overlays import Overlay, open_overlay
from schemas.shards import find_shards

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
    seen = Dataset(folder, markers=markers, overlays=opened)
    with at_work(storage):
        plan = plan_materialized(storage, data, seen, opened)
        made = Markers(storage)
        sweep_scratch(storage.scratch)
        repair(plan, made, new_run_id(), LEASE_TIMEOUT_S)
        num_units_run = len(units_to_do(plan, made.refresh()))
        make_units(
            plan,
            made,
            lease_of=lease.unit_name,
            make=lambda unit, advance: _make_unit(plan, unit, seen, opened, advance),
            watch=watch,
        )
        finalise(plan, made)
        _clean_up(plan, made)
    return made.totals, num_units_run


def _make_unit(plan: Plan, unit: int, seen: Dataset, overlays: Sequence[Overlay], advance: Callable[[], None]) -> None:
    for shard in plan.shards(unit):
        if not roll_forward(plan.storage, str(shard)):
            materialize_shard(
                seen,
                shard,
                plan.storage,
                fingerprint=plan.fingerprint,
                provenance=provenance_of(seen.markers[shard], overlays, shard),
                advance=advance,
            )


def _clean_up(plan: Plan, made: Markers) -> None:
    sweep_scratch(plan.storage.scratch)
    files = (name for shard, _ in made for name in (shard.tar, shard.parquet, shard.marker))
    sweep(plan.storage, [*plan.own_files(), *files])
    plan.storage.remove(*(f"{LEASES_DIR}/{name}" for name in plan.storage.names(LEASES_DIR)))
    plan.storage.remove_folder(LEASES_DIR)
