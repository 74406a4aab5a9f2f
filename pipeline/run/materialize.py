"""The job of `materialize`: a data set and its overlays into a data set of its own, shard by shard, in this process.

Several may run at once, on one machine or many: leases share the work, and commits settle what both did.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.overlay.drop import Dropped, find_dropped
from pipeline.overlay.drop_list import DropList
from pipeline.overlay.materialize import check_columns, materialize_shard, provenance_of
from pipeline.overlay.output import plan_materialized
from pipeline.overlay.plan import EDITS
from pipeline.plan.plan import Plan, load_plan
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
from schemas.names import LEASES_DIR, PLAN_DIR, ShardName
from schemas.overlays import Overlay, open_overlay
from schemas.records import ShardMarker
from schemas.shards import find_shards

_PLAN_JSON = f"{PLAN_DIR}/plan.json"


@dataclass(frozen=True, kw_only=True)
class Materialized:
    """What came of it."""

    totals: Totals
    num_units_run: int
    """Units that were left to do."""
    dropped: Dropped | None
    """What a list has taken out; None where there is none."""


def materialize(
    data: str,
    overlays: Sequence[str],
    output: str,
    *,
    drop: DropList | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Materialized:
    """Write the data set at `data`, as its overlays show it and without the images of `drop`, to `output`, or go on.

    Raises DatasetError for what cannot be read or has no place in a shard, and for a list of which no line means an
    image; PlanError where OUTPUT is of another data set, other overlays or another list; and StorageError.
    """
    folder, storage = Folder(data), open_storage(output)
    sizes = folder.sizes()
    markers = find_shards(folder, sizes)
    opened = [open_overlay(folder, name, shards=markers, sizes=sizes) for name in overlays]
    _check_up_to_date(folder, opened)
    whole = Dataset(folder, markers=markers, overlays=opened)
    dropped = None if drop is None else _find_dropped(data, folder, markers, drop)
    filters = [] if drop is None or dropped is None else [dropped.as_filter(drop.path)]
    seen = Dataset(folder, markers=markers, overlays=opened, filters=filters)
    provenance = {} if drop is None or dropped is None else _provenance(drop, dropped)
    with at_work(storage):
        plan = plan_materialized(storage, data, whole, opened, provenance)
        made = Markers(storage)
        sweep_scratch(storage.scratch)
        repair(plan, made, new_run_id(), LEASE_TIMEOUT_S)
        num_units_run = len(units_to_do(plan, made.refresh()))

        def make(unit: int, advance: Callable[[], None]) -> None:
            for shard in plan.shards(unit):
                if not roll_forward(storage, str(shard)):
                    materialize_shard(
                        seen,
                        shard,
                        storage,
                        whole=whole,
                        dropped=frozenset() if dropped is None else dropped.keys,
                        fingerprint=plan.fingerprint,
                        provenance=provenance_of(markers[shard], opened, shard),
                        advance=advance,
                    )

        make_units(plan, made, lease_of=lease.unit_name, make=make, watch=watch)
        finalise(plan, made)
        _clean_up(plan, made)
    return Materialized(totals=made.totals, num_units_run=num_units_run, dropped=dropped)


def _check_up_to_date(folder: Folder, overlays: Sequence[Overlay]) -> None:
    """Raise DatasetError where an overlay has no place in a shard's table, or lacks regions of one."""
    check_columns(overlays)
    for overlay in overlays:
        if overlay.changes:
            raise DatasetError(f"{folder.url}: {overlay.changes}; bring the overlay up to date first")
        lacking = [str(shard) for shard, marker in overlay.markers.items() if marker.partial and overlay.name != EDITS]
        if lacking:
            raise DatasetError(
                f"{folder.url}: overlay {overlay.name!r} lacks regions of {lacking[0]} (of {len(lacking)}), which was "
                "repaired since; run what made the overlay again, it does these alone"
            )


def _find_dropped(data: str, folder: Folder, markers: Mapping[ShardName, ShardMarker], drop: DropList) -> Dropped:
    found = find_dropped(Dataset(folder, markers=markers), load_plan(open_storage(data)), drop)
    if not found.keys:
        raise DatasetError(f"{drop.path}: none of its lines means an image of {data}; is the list for other data?")
    return found


def _provenance(drop: DropList, dropped: Dropped) -> dict[str, Any]:
    """Return what the data set is to say of the list: nothing that names an image."""
    return {
        "list_sha256": drop.sha256,
        "num_lines": len(drop.lines),
        "num_lines_met": len(drop.lines) - len(dropped.unmet),
        "num_images": dropped.num_images,
    }


def _clean_up(plan: Plan, made: Markers) -> None:
    sweep_scratch(plan.storage.scratch)
    files = (name for shard, _ in made for name in (shard.tar, shard.parquet, shard.marker))
    sweep(plan.storage, [*plan.own_files(), *files])
    plan.storage.remove(*(f"{LEASES_DIR}/{name}" for name in plan.storage.names(LEASES_DIR)))
    plan.storage.remove_folder(LEASES_DIR)
