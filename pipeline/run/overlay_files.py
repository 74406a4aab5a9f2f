"""An overlay's files made whole before work goes on, and what only unfinished work needs taken away after it."""

from collections.abc import Callable

from pipeline.overlay.plan import OverlaidShards
from pipeline.overlay.write import awaits_regions, file_names
from pipeline.run.status import Markers, units_to_do
from pipeline.store.commit import LostFileError, roll_forward, sweep, withdraw
from pipeline.store.scratch import sweep_scratch
from schemas.names import COMMIT_DIR, LEASES_DIR, repair_of


def repair_overlay(plan: OverlaidShards, markers: Markers, is_held: Callable[[int], bool]) -> None:
    """Publish what was decided but not published; take back what was decided for other tables, or is damaged.

    `is_held` says whether a live worker has the unit.
    """
    storage, overlay, bases = plan.storage, plan.overlay, plan.bases
    sweep_scratch(storage.scratch)
    decisions = {f"{overlay}/{name.removesuffix('.json')}" for name in storage.names(f"{COMMIT_DIR}/{overlay}")}
    ours = tuple(f"{overlay}/{base.shard}." for base in bases)  # another driver may know of more shards
    current = {base.decision(overlay) for base in bases}
    repaired = {name for name in decisions if (repair_of(f"{name}.json") or ("", 0))[0] in current}
    stale = {name for name in decisions - current - repaired if name.startswith(ours)}
    storage.remove(*(f"{COMMIT_DIR}/{name}.json" for name in sorted(stale)))
    for unit in units_to_do(plan, markers.refresh()):
        decision = bases[unit].decision(overlay)
        if decision not in decisions:
            continue
        try:
            roll_forward(storage, decision)
        except LostFileError:  # its files are lost: they are made again
            withdraw(storage, decision, file_names(bases[unit], overlay)[1])
            continue
        if awaits_regions(storage, decision):
            continue
        if bases[unit].shard not in markers.refresh() and not is_held(unit):
            withdraw(storage, decision, file_names(bases[unit], overlay)[1])


def clean_up_overlay(plan: OverlaidShards, markers: Markers) -> None:
    """Remove what only unfinished work needs, once there is none."""
    sweep_scratch(plan.storage.scratch)
    if units_to_do(plan, markers.refresh()):
        return
    sweep(plan.storage, [name for base in plan.bases for name in file_names(base, plan.overlay)])
    plan.storage.remove(*(f"{plan.leases}/{base.shard}.json" for base in plan.bases))
    plan.storage.remove_folder(plan.leases)
    plan.storage.remove_folder(LEASES_DIR)
