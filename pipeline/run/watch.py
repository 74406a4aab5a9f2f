"""Watching a job: how far it and others on the same OUTPUT are, for a progress bar, and whether anything moves at all.

Best effort: no unit depends on what is seen here, and what cannot be read now is looked at again later.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.plan.plan import Plan
from pipeline.run.lease import InHand, Leases
from pipeline.run.status import Markers, Totals, units_to_do
from schemas.names import RUN_DIR

_EVERY_S, _EVERY_REMOTE_S = 0.5, 5.0
_LEASES_EVERY_S = 20.0
"""On a store, where holders say how far they are when they renew: a third of the timeout that is usual."""
_STILL_S = 60.0
"""After which on a store the log is looked at, too, for whether anything moves."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the work on an OUTPUT is, whoever does it."""

    plan: Plan
    totals: Totals
    num_units_done: int
    num_images_in_hand: int
    """Finished by workers whose shards are not there yet; the totals do not have them."""
    num_workers: int
    """That hold a lease now."""
    num_drivers: int
    """That these workers belong to."""
    note: str = ""


class Watch:
    """Looks at markers and leases now and then, and tells a watcher."""

    def __init__(self, plan: Plan, markers: Markers, tell: Callable[[Progress], None]) -> None:
        self._plan, self._markers, self._tell = plan, markers, tell
        self._every_s = _EVERY_S if plan.storage.is_local else _EVERY_REMOTE_S
        self._next_at = 0.0
        self._leases = Leases(plan.storage, plan.leases)
        self._held: InHand | None = None
        self._leases_at = 0.0
        self._num_lines = 0
        """In the log, when it was looked at last."""
        self._seen: tuple[int, int, int] | None = None
        self._moved_at: float | None = None
        self._done_at: float | None = None

    def show(self, note: str = "") -> None:
        """Look and tell, if it is time to."""
        if time.monotonic() < self._next_at:
            return
        with contextlib.suppress(OSError):
            todo = units_to_do(self._plan, self._markers.refresh())
            held = self._look_at_leases(at_end=not todo)
            if self._plan.storage.is_local or self.still_for_s > _STILL_S:
                self._num_lines = len(self._plan.storage.names(RUN_DIR))
            seen = (self._markers.totals.num_shards, held.num_samples, self._num_lines)
            self._note_movement(seen, num_held=held.num_units)
            if todo or held.num_units:
                self._done_at = None
            elif self._done_at is None:
                self._done_at = time.monotonic()
            self._tell(
                Progress(
                    plan=self._plan,
                    totals=self._markers.totals,
                    num_units_done=self._plan.num_units - len(todo),
                    num_images_in_hand=held.num_samples,
                    num_workers=held.num_units,
                    num_drivers=len(held.runs),
                    note=note,
                )
            )
        self._next_at = time.monotonic() + self._every_s

    def _look_at_leases(self, *, at_end: bool) -> InHand:
        """Return what the leases say, on a store seldom: only the last ones are waited for."""
        now = time.monotonic()
        if self._held is None or self._plan.storage.is_local or at_end or now > self._leases_at:
            self._held, self._leases_at = self._leases.in_hand(), now + _LEASES_EVERY_S
        return self._held

    @property
    def still_for_s(self) -> float:
        """Seconds since a shard, a finished image or a line of the log came last; 0 until a worker held a lease.

        A lease's renewal is no movement: a worker that hangs renews too.
        """
        return 0.0 if self._moved_at is None else time.monotonic() - self._moved_at

    @property
    def done_for_s(self) -> float:
        """Seconds since every unit was done and no worker held one; 0 while there is work."""
        return 0.0 if self._done_at is None else time.monotonic() - self._done_at

    def _note_movement(self, seen: tuple[int, int, int], *, num_held: int) -> None:
        if self._moved_at is None and num_held == 0:
            return  # jobs may queue for their machines
        if seen != self._seen:
            self._seen, self._moved_at = seen, time.monotonic()
