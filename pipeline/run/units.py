"""Units of a plan made in this process, one by one; several processes may do so at once, on one machine or many.

Leases share the work, and commits settle what two of them did.
"""

import time
from collections.abc import Callable

from pipeline.errors import InterruptedRunError
from pipeline.plan.plan import Plan
from pipeline.run import lease
from pipeline.run.job import new_run_id
from pipeline.run.status import Markers, units_to_do
from pipeline.run.watch import Progress, Watch

LEASE_TIMEOUT_S = 60.0


def make_units(
    plan: Plan,
    made: Markers,
    *,
    lease_of: Callable[[int], str],
    make: Callable[[int, Callable[[], None]], None],
    watch: Callable[[Progress], None],
) -> None:
    """Make what is left of a plan, until nothing is: units that others hold are waited for.

    `lease_of` names a unit's lease; `make` makes a unit unless it is there, and is given what to call after each image.
    Raises what `make` does, OSError, and InterruptedRunError where units stay undone that nobody holds.
    """
    storage, run_id, watcher = plan.storage, new_run_id(), Watch(plan, made, watch)
    while todo := units_to_do(plan, made.refresh()):
        for unit in todo:
            with lease.hold(storage, lease_of(unit), LEASE_TIMEOUT_S, run=run_id) as held:
                if not held:
                    continue

                def advance(held: lease.Hold = held) -> None:
                    held.advance()
                    watcher.show()

                make(unit, advance)
            watcher.show()
        left = units_to_do(plan, made.refresh())
        if len(left) == len(todo):
            if not any(lease.is_held(storage, lease_of(unit)) for unit in left):
                raise InterruptedRunError(f"{storage.url}: {len(left)} units stay undone, and nobody holds them")
            time.sleep(storage.poll_s)
