"""What one worker process does with a unit: lease it, load the models once, retry what passes, report the rest."""

import errno
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from pipeline import sidecar
from pipeline.annotate import Annotator
from pipeline.caption import captioner_class
from pipeline.commit import roll_forward
from pipeline.device import Device
from pipeline.errors import WorkError
from pipeline.lease import Hold, hold, unit_name
from pipeline.plan import Plan
from pipeline.propose import proposer_class
from pipeline.settings import Recipe, RunSettings
from pipeline.storage import storage_errors
from pipeline.unit import BalanceError, UnitReport, shards_of
from schemas.names import RUN_DIR

_TRIES = 3
_BACK_OFF_S = 2.0
_PERMANENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""Errors that waiting does not cure."""


class Ending(StrEnum):
    """How a worker left a unit."""

    DONE = "done"
    LEASED = "leased"
    """Another worker holds it."""
    DRAINED = "drained"
    """The run was asked to end."""
    STORAGE = "storage"
    """The source or OUTPUT could not be read or written."""
    UNBALANCED = "unbalanced"
    """Its counts do not add up."""
    FAILED = "failed"
    """The models could not be loaded or stopped working, or something else that is no storage trouble went wrong."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `_run/*.jsonl`: times, hosts and attempts, which must not be in a shard."""

    run: str
    unit: int
    ending: Ending
    message: str = ""
    host: str
    pid: int
    ended_at: float
    """Seconds since the epoch."""
    report: UnitReport | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What a worker is built from, wherever it runs."""

    plan: Plan
    recipe: Recipe
    run: RunSettings
    run_id: str
    """Names this run in `_run/`."""


class Worker:
    """Works on units, one at a time a thread. The models load with the first unit that is not done yet."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._storage = settings.plan.storage
        self._annotator: Annotator | None = None
        self._loading = threading.Lock()

    def annotate(self, unit: int) -> Ending:
        """Annotate and commit a unit."""
        return self._attempt(unit, lambda held: self._load().annotate(unit, held.advance))

    def propose(self, unit: int) -> Ending:
        """Leave the unit's proposals for `caption`, unless they wait already."""
        return self._attempt(unit, lambda _: self._propose(unit))

    def caption(self, unit: int) -> Ending:
        """Caption and commit a unit whose proposals wait."""
        return self._attempt(unit, lambda held: self._caption(unit, held))

    def _propose(self, unit: int) -> None:
        if not sidecar.exists(self._storage, unit):
            self._load().propose(unit)

    def _caption(self, unit: int, held: Hold) -> UnitReport | None:
        if not sidecar.exists(self._storage, unit):
            return None  # its proposals are another worker's business: it is looked at again at the end
        report = self._load().caption(unit, held.advance)
        sidecar.remove(self._storage, unit)
        return report

    def _load(self) -> Annotator:
        """Return the annotator with its models loaded. Raises WorkError where they cannot be, whatever the cause."""
        with self._loading:
            if self._annotator is None:
                self._annotator = self._new_annotator()
            return self._annotator

    def _new_annotator(self) -> Annotator:
        recipe, run = self._settings.recipe, self._settings.run
        device = Device(name=run.device, torch_threads=run.torch_threads)
        try:
            proposer = proposer_class(recipe.proposer)(recipe.propose, device=device)
            captioner = captioner_class(recipe.captioner)(recipe.caption, device=device)
        except Exception as error:  # libraries raise anything, OSError for a file that is odd too
            raise WorkError(f"the models cannot be loaded: {type(error).__name__}: {error}") from error
        return Annotator(plan=self._settings.plan, recipe=recipe, run=run, proposer=proposer, captioner=captioner)

    def _attempt(self, unit: int, work: Callable[[Hold], UnitReport | None]) -> Ending:
        """Do the work under the unit's lease; errors of storage are retried with back-off, then reported."""
        for attempt in itertools.count(1):
            try:
                with storage_errors(self._storage.url):
                    return self._under_lease(unit, work)
            except OSError as error:
                cause = error.__cause__
                permanent = isinstance(cause, OSError) and cause.errno in _PERMANENT
                if permanent or attempt == _TRIES:
                    self._log(unit, Ending.STORAGE, message=str(error))
                    return Ending.STORAGE
                time.sleep(_BACK_OFF_S * 2 ** (attempt - 1))
            except BalanceError as error:  # reported, since engines do not all keep an error's type
                self._log(unit, Ending.UNBALANCED, message=str(error))
                return Ending.UNBALANCED
            except WorkError as error:
                self._log(unit, Ending.FAILED, message=str(error))
                return Ending.FAILED
        raise AssertionError("unreachable")

    def _under_lease(self, unit: int, work: Callable[[Hold], UnitReport | None]) -> Ending:
        if self._storage.size(drain_file(self._settings.run_id)) is not None:
            return Ending.DRAINED
        with hold(self._storage, unit_name(unit), self._settings.run.lease_timeout_s) as held:
            if not held:
                return Ending.LEASED
            if self._is_done(unit):  # asked under the lease: its last holder may have just finished
                return Ending.DONE
            report = work(held)
        if report is not None:
            self._log(unit, Ending.DONE, report=report)
        return Ending.DONE

    def _is_done(self, unit: int) -> bool:
        return all(roll_forward(self._storage, str(shard)) for shard in shards_of(unit, self._settings.recipe).values())

    def _log(self, unit: int, ending: Ending, *, message: str = "", report: UnitReport | None = None) -> None:
        event = Event(
            run=self._settings.run_id,
            unit=unit,
            ending=ending,
            message=message,
            host=socket.gethostname(),
            pid=os.getpid(),
            ended_at=time.time(),
            report=report,
        )
        name = f"{RUN_DIR}/{self._settings.run_id}.unit-{unit:06d}.{os.getpid()}.jsonl"
        try:
            self._storage.replace(name, msgspec.json.encode(event) + b"\n")
        except OSError:
            if ending is not Ending.STORAGE:  # where OUTPUT cannot be written, neither can this
                raise


def drain_file(run_id: str) -> str:
    """Return the name of the file whose existence asks the workers of a run to take no further unit."""
    return f"{RUN_DIR}/{run_id}.drain"
