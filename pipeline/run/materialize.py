"""The job of `materialize`: a data set and its overlays into a data set of its own, shard by shard, in this process.

Several may run at once, on one machine or many: leases share the work, and commits settle what both did.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import InterruptedRunError
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
from pipeline.run.watch import Progress, Watch
from pipeline.store.commit import roll_forward, sweep
from pipeline.store.scratch import sweep_scratch
from pipeline.store.storage import at_work, open_storage
from schemas.dataset import Dataset
from schemas.folder import DatasetError, Folder
from schemas.names import LEASES_DIR, PLAN_DIR, ShardName
from schemas.overlays import Overlay, open_overlay
from schemas.records import ShardMarker
from schemas.shards import find_shards

_LEASE_TIMEOUT_S = 60.0
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
        repair(plan, made, new_run_id(), _LEASE_TIMEOUT_S)
        num_units_run = len(units_to_do(plan, made.refresh()))
        make = partial(
            materialize_shard,
            seen,
            whole=whole,
            dropped=frozenset() if dropped is None else dropped.keys,
            storage=storage,
            fingerprint=plan.fingerprint,
        )
        _make_units(plan, made, make, lambda shard: provenance_of(markers[shard], opened, shard), watch)
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


def _make_units(
    plan: Plan,
    made: Markers,
    make: Callable[..., None],
    provenance: Callable[[ShardName], dict[str, Any]],
    watch: Callable[[Progress], None],
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

                    make(shard=shard, provenance=provenance(shard), advance=advance)
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
