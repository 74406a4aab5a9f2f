"""Which unit a worker does next, whatever the engine gave it: so that workers of unequal shares end together.

An engine that hashes ids over workers may give one of them ten units and another four, and cannot take them back. So a
worker that was given anything goes on with what nobody has done, holds or tried in this run, until there is nothing:
the loop that plain drivers on one OUTPUT run. What is seen here saves work and no more; leases decide.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence

from pipeline.run.lease import is_held
from pipeline.run.log import LAST_SORTED, Ending, tried_units
from pipeline.run.worker import WorkerSettings
from schemas.names import LEASES_DIR


class Share:
    """One process's way through the units of a pass, in turns where it has several threads."""

    def __init__(self, settings: WorkerSettings, units: Sequence[int], stage: str) -> None:
        self._storage, self._settings, self._stage = settings.plan.storage, settings, stage
        self._left = dict.fromkeys(units)
        """In the order of the pass: what was not done when looked at last, nor tried from here."""
        self._free: list[int] = []
        """Those that seemed free when looked at last, in the order in which they are tried."""
        self._turn = threading.Lock()

    def work_on(self, given: int, work: Callable[[int], Ending]) -> None:
        """Do the unit that the engine gave, then others until none is free or the run is drained."""
        ending = None
        while ending is not Ending.DRAINED:
            with self._turn:
                met_another = ending in (Ending.LEASED, Ending.THERE)
                unit = self._next(given, met_another=met_another)
                if unit is None:
                    return
                del self._left[unit]
                ending = work(unit)

    def _next(self, given: int, *, met_another: bool) -> int | None:
        if given in self._left:
            return given
        with contextlib.suppress(OSError):  # the driver's next pass finds what is left
            if met_another or self._storage.is_local:
                self._free = []
            self._free = [unit for unit in self._free if unit in self._left] or self._look(given, afresh=met_another)
            return self._free[0] if self._free else None
        return None

    def _look(self, given: int, *, afresh: bool) -> list[int]:
        """Return the units that seem free, from `given` on and around: workers begin at different places.

        On a store a look is three requests, so what it finds is gone through until another worker is met. `afresh`:
        so as not to meet it again at once, from the middle of what is free on.
        """
        self._leave_out_done()
        if not self._left:
            return []
        tried = tried_units(self._storage, self._settings.run_id, self._stage, first=min(self._left))
        folder = f"{LEASES_DIR}/{self._settings.lease_name(given)}".rpartition("/")[0]
        leased = {name.removesuffix(".json") for name in self._storage.names(folder)}
        names = {unit: self._settings.lease_name(unit) for unit in self._left if unit not in tried}
        held = {unit for unit, name in names.items() if name.rpartition("/")[2] in leased}
        free = sorted(names.keys() - held)
        start = _middle(free) if afresh else given
        around = sorted(free, key=lambda unit: (unit < start, unit))
        return around or [unit for unit in sorted(held) if not is_held(self._storage, names[unit])]

    def _leave_out_done(self) -> None:
        if not self._left:
            return
        first = min(self._settings.markers_of(min(*self._left, LAST_SORTED)))
        files = set(self._storage.sizes("", after=first[:-1]))
        for unit in [*self._left]:
            if files.issuperset(self._settings.markers_of(unit)):
                del self._left[unit]


def _middle(free: Sequence[int]) -> int:
    """Return the unit in the middle of the longest row of units that seem free; 0 where none is."""
    rows: list[list[int]] = []
    for unit in free:
        if rows and rows[-1][-1] == unit - 1:
            rows[-1].append(unit)
        else:
            rows.append([unit])
    longest = max(rows, key=len, default=[0])
    return longest[len(longest) // 2]
