"""Which unit a worker does next, whatever the engine gave it: so that workers of unequal shares end together.

An engine that hashes ids over workers may give one of them ten units and another four, and cannot take them back. So a
worker that was given anything goes on with what nobody has done, holds or tried in this run, until there is nothing:
the loop that plain drivers on one OUTPUT run. What is seen here saves work and no more; leases decide.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from pipeline.run.lease import is_held
from pipeline.run.log import Ending, tried_units
from pipeline.run.worker import WorkerSettings
from schemas.names import LEASES_DIR


class Share:
    """One process's way through the units of a pass, in turns where it has several threads."""

    def __init__(self, settings: WorkerSettings, units: Sequence[int], stage: str) -> None:
        self._storage, self._settings, self._stage = settings.plan.storage, settings, stage
        self._left = dict.fromkeys(units)
        """In the order of the pass: what was not done when looked at last, nor tried from here."""
        self._turn = threading.Lock()

    def work_on(self, given: int, work: Callable[[int], Ending]) -> None:
        """Do the unit that the engine gave, then others until none is free or the run is drained."""
        ending = None
        while ending is not Ending.DRAINED:
            with self._turn:
                unit = self._next(given)
                if unit is None:
                    return
                del self._left[unit]
                ending = work(unit)

    def _next(self, given: int) -> int | None:
        if given in self._left:
            return given
        with contextlib.suppress(OSError):  # the driver's next pass finds what is left
            return next(self._free(given), None)
        return None

    def _free(self, given: int) -> Iterator[int]:
        """Yield the units that seem free, from `given` on and around: workers begin at different places."""
        self._leave_out_done()
        if not self._left:
            return
        folder = f"{LEASES_DIR}/{self._settings.lease_name(given)}".rpartition("/")[0]
        leased = set(self._storage.names(folder))
        tried = tried_units(self._storage, self._settings.run_id, self._stage)
        for unit in sorted(self._left, key=lambda unit: (unit < given, unit)):
            name = self._settings.lease_name(unit)
            may_be_held = f"{name.rpartition('/')[2]}.json" in leased
            if unit not in tried and not (may_be_held and is_held(self._storage, name)):
                yield unit

    def _leave_out_done(self) -> None:
        files = set(self._storage.names("")) if self._left else set()
        for unit in [*self._left]:
            if files.issuperset(self._settings.markers_of(unit)):
                del self._left[unit]
