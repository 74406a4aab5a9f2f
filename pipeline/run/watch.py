"""Watching a job: how far it is, for a progress bar. Best effort: no decision hangs on it, and no trouble stops it."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.plan.plan import Plan
from pipeline.run import lease
from pipeline.run.status import Markers, Totals, units_to_do


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is, as its watcher sees it: twice a second, or less often where every look is a request."""

    plan: Plan
    totals: Totals
    num_units_done: int
    num_images_in_hand: int
    """Finished by workers whose shards are not there yet; the totals do not have them."""
    note: str = ""


@dataclass
class Watch:
    """Tells a watcher how far the job on a plan is."""

    plan: Plan
    markers: Markers
    tell: Callable[[Progress], None]
    _look_at: float = 0.0
    """When to look again, by the monotonic clock."""

    def show(self, note: str = "") -> None:
        """Look at markers and leases, if it is time, and tell. What cannot be read now is told of next time."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self.plan.storage.poll_s
        with contextlib.suppress(OSError):
            todo = units_to_do(self.plan, self.markers.refresh())
            self.tell(
                Progress(
                    plan=self.plan,
                    totals=self.markers.totals,
                    num_units_done=self.plan.num_units - len(todo),
                    num_images_in_hand=lease.samples_in_hand(self.plan.storage),
                    note=note,
                )
            )
