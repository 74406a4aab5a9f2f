"""The log of a run, `_run/*.jsonl`: how workers left each unit, with times, hosts, attempts. No totals come from it."""

import os
import socket
import time
from collections.abc import Collection, Iterator
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


_FAILURES = (Ending.STORAGE, Ending.UNBALANCED, Ending.SERVER, Ending.FAILED)


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


_decode_event = msgspec.json.Decoder(Event).decode


class RunLog:
    """The events of one run: a file for each unit and process, so that no two writers share one."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self._storage = storage
        self._run_id = run_id
        self._done: dict[str, Event] = {}

    def write(
        self, unit: int, ending: Ending, *, stage: str, message: str = "", report: UnitReport | None = None
    ) -> None:
        """Add how this process left `unit` at a stage of the graph. Raises OSError where OUTPUT cannot be written."""
        event = Event(
            run=self._run_id,
            unit=unit,
            ending=ending,
            message=message,
            host=socket.gethostname(),
            pid=os.getpid(),
            ended_at=time.time(),
            report=report,
        )
        host = sha256(event.host.encode())[:8]  # containers on several hosts may have equal process ids
        name = f"{RUN_DIR}/{self._run_id}.unit-{unit:06d}.{stage}.{host}-{os.getpid()}.jsonl"
        try:
            self._storage.replace(name, msgspec.json.encode(event) + b"\n")
        except OSError:
            if ending is not Ending.STORAGE:  # where OUTPUT cannot be written, neither can this
                raise

    def events(self) -> Iterator[Event]:
        """Yield what was written so far, in the order of the units; what cannot change any more is read once."""
        names = [name for name in self._storage.names(RUN_DIR) if name.startswith(f"{self._run_id}.unit-")]
        new = [name for name in names if name not in self._done]
        contents = in_parallel(self._storage, lambda name: self._storage.read(f"{RUN_DIR}/{name}"), new)
        events = self._done | dict(zip(new, map(_decode_event, contents), strict=True))
        self._done = {name: event for name, event in events.items() if event.ending is Ending.DONE}
        yield from (events[name] for name in names)

    def _reports(self) -> Iterator[UnitReport]:
        return (event.report for event in self.events() if event.report is not None)

    def seconds(self) -> dict[str, float]:
        """Return the workers' time by stage of the flow."""
        total: dict[str, float] = {}
        for report in self._reports():
            for stage, seconds in report.seconds.items():
                total[stage] = total.get(stage, 0.0) + seconds
        return total

    def batches(self) -> dict[str, BatchReport]:
        """Return what the models' batches came to, by stage."""
        total: dict[str, BatchReport] = {}
        for report in self._reports():
            for stage, batches in report.batches.items():
                if stage in total:
                    total[stage].add(batches)
                else:
                    total[stage] = batches
        return total


def failures(storage: Storage, units: Collection[int]) -> list[Event]:
    """Return the last event of each of `units` that a worker of any run failed at, in the order of the units.

    Of units that are not done, that is: an old failure of one that is done since is none. Only their files are read.
    """
    known = {f"unit-{unit:06d}" for unit in units}
    names = [name for name in storage.names(RUN_DIR) if name.endswith(".jsonl") and name.split(".")[1] in known]
    contents = in_parallel(storage, lambda name: storage.read(f"{RUN_DIR}/{name}"), names)
    events = sorted(map(_decode_event, contents), key=lambda event: event.ended_at)
    last = {event.unit: event for event in events}
    return [event for _, event in sorted(last.items()) if event.ending in _FAILURES]


def tried_units(storage: Storage, run_id: str, stage: str) -> set[int]:
    """Return the units that a worker of the run has done or failed at in a stage: one listing, nothing is read."""
    prefix = f"{run_id}.unit-"
    parts = (name.removeprefix(prefix).split(".") for name in storage.names(RUN_DIR) if name.startswith(prefix))
    return {int(unit) for unit, its_stage, *_ in parts if its_stage == stage}
