"""The log of a run, `_run/*.jsonl`: how workers left each unit, with times, hosts, attempts. No totals come from it."""

import copy
import os
import secrets
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum

import msgspec

from pipeline.models.batches import BatchReport
from pipeline.store.storage import Storage, in_parallel
from pipeline.write.shards import UnitReport
from schemas.hashes import sha256
from schemas.names import RUN_DIR


class Ending(StrEnum):
    """How a worker left a unit."""

    DONE = "done"
    LEASED = "leased"
    """Another worker holds it."""
    THERE = "there"
    """Another worker has done it."""
    DRAINED = "drained"
    """The run was asked to end."""
    INPUT = "input"
    """The source could not be read."""
    STORAGE = "storage"
    """OUTPUT could not be read or written, or an INPUT's store failed."""
    UNBALANCED = "unbalanced"
    """Its counts do not add up."""
    SERVER = "server"
    """A model's server is gone, or its model sees no pictures: the same command can go on later."""
    FAILED = "failed"
    """The models could not be loaded or stopped working, or something else that is no storage trouble went wrong."""


_ENDING, _WORKER = 3, 4
"""Parts of an event's name."""
LAST_SORTED = 100_000
"""From seven digits on, numbers in names sort as text no more: a listing begins no later than here."""
_FAILURES = (Ending.STORAGE, Ending.UNBALANCED, Ending.SERVER, Ending.FAILED)


class Sums(msgspec.Struct, kw_only=True):
    """What a worker's units came to so far."""

    num_units: int = 0
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    """By stage of the flow."""
    batches: dict[str, BatchReport] = msgspec.field(default_factory=dict)
    """By stage that a model works in."""

    def add(self, other: "Sums | UnitReport") -> None:
        """Add a unit's figures, or another worker's."""
        self.num_units += other.num_units if isinstance(other, Sums) else 1
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        for stage, batches in other.batches.items():
            if stage in self.batches:
                self.batches[stage].add(batches)
            else:
                self.batches[stage] = msgspec.structs.replace(batches)


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
    so_far: Sums | None = None
    """Of all units that this worker has done, so that of those files one is read, the last."""


_decode_event = msgspec.json.Decoder(Event).decode


class RunLog:
    """The events of one run: a file for each unit and worker, so that no two writers share one.

    Its name says what most readers want: RUN.unit-N.STAGE.ENDING.WORKER-COUNT.jsonl. COUNT is of units that the
    worker has done or failed at, so that a second failure at a unit does not replace what is known of the first.
    """

    def __init__(self, storage: Storage, run_id: str) -> None:
        self._storage = storage
        self._run_id = run_id
        self._so_far = Sums()
        self._num_tried = 0
        host = sha256(socket.gethostname().encode())[:8]  # containers on several hosts may have equal process ids
        self._worker = f"{host}-{os.getpid()}-{secrets.token_hex(2)}"

    def write(
        self, unit: int, ending: Ending, *, stage: str, message: str = "", report: UnitReport | None = None
    ) -> None:
        """Add how this worker left `unit` at a stage of the graph. Raises OSError where OUTPUT cannot be written."""
        so_far = copy.deepcopy(self._so_far)
        if report is not None:
            so_far.add(report)
        num_tried = self._num_tried + (report is not None or ending in _FAILURES)
        event = Event(
            run=self._run_id,
            unit=unit,
            ending=ending,
            message=message,
            host=socket.gethostname(),
            pid=os.getpid(),
            ended_at=time.time(),
            report=report,
            so_far=so_far,
        )
        parts = self._run_id, f"unit-{unit:06d}", stage, ending, f"{self._worker}-{num_tried}", "jsonl"
        try:
            self._storage.replace(f"{RUN_DIR}/{'.'.join(parts)}", msgspec.json.encode(event) + b"\n")
        except OSError:
            if ending is not Ending.STORAGE:  # where OUTPUT cannot be written, neither can this
                raise
        self._so_far, self._num_tried = so_far, num_tried

    def undone(self) -> list[Event]:
        """Return how units were left that were not done, in the order of the units."""
        names = [name for name in self._names() if name.split(".")[_ENDING] != Ending.DONE]
        return list(_read(self._storage, names))

    def sums(self) -> Sums:
        """Return what the units of the run came to: one file is read for each worker, its last."""
        last: dict[str, tuple[int, str]] = {}
        for name in self._names():
            worker, _, count = name.split(".")[_WORKER].rpartition("-")
            last[worker] = max(last.get(worker, (0, "")), (int(count), name))
        total = Sums()
        for event in _read(self._storage, sorted(name for _, name in last.values())):
            total.add(event.so_far or Sums())
        return total

    def _names(self) -> list[str]:
        beginning = f"{self._run_id}.unit-"
        return [name for name in self._storage.sizes(RUN_DIR, after=beginning) if name.startswith(beginning)]


def _read(storage: Storage, names: Sequence[str]) -> Iterator[Event]:
    return map(_decode_event, in_parallel(storage, lambda name: storage.read(f"{RUN_DIR}/{name}"), names))


def failures(storage: Storage, units: Collection[int]) -> list[Event]:
    """Return the last event of each of `units` that a worker of any run failed at, in the order of the units.

    Of units that are not done, that is: an old failure of one that is done since is none. Only their files are read.
    """
    known = {f"unit-{unit:06d}" for unit in units}
    names = [name for name in storage.names(RUN_DIR) if name.endswith(".jsonl") and name.split(".")[1] in known]
    events = sorted(_read(storage, names), key=lambda event: event.ended_at)
    last = {event.unit: event for event in events}
    return [event for _, event in sorted(last.items()) if event.ending in _FAILURES]


def tried_units(storage: Storage, run_id: str, stage: str, first: int = 0) -> set[int]:
    """Return the units, from `first` on, that a worker of the run has done or failed at in a stage.

    One listing, nothing is read.
    """
    prefix = f"{run_id}.unit-"
    names = storage.sizes(RUN_DIR, after=f"{prefix}{min(first, LAST_SORTED):06d}")
    parts = (name.removeprefix(prefix).split(".") for name in names if name.startswith(prefix))
    return {int(unit) for unit, its_stage, *_ in parts if its_stage == stage}
