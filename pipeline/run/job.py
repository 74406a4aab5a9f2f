"""The driver of a job: plan, repair, run what is left on an engine until nothing is, finalise, count.

It only ever trusts the markers: an engine that loses a unit, a worker that dies or a job killed at any moment leaves
work that the next pass, or the next job, finds and does.
"""

import contextlib
import gc
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InterruptedRunError, ServerGoneError, SourceError, WorkError
from pipeline.models.batches import BatchReport
from pipeline.models.licenses import check_permissive
from pipeline.plan.check import check_plan
from pipeline.plan.make import extend_plan, make_plan
from pipeline.plan.plan import Plan, load_plan
from pipeline.read.remote import looked_up_once
from pipeline.run import lease
from pipeline.run.dead import DeadItem, dead_items
from pipeline.run.engines import load_engine
from pipeline.run.finalise import finalise
from pipeline.run.log import Ending, RunLog
from pipeline.run.repair import repair
from pipeline.run.status import Markers, Totals, units_to_do
from pipeline.run.watch import Progress, Watch
from pipeline.run.worker import WorkerSettings, drain_file, token_file
from pipeline.settings import Configuration, PlanSettings, RunSettings
from pipeline.store.commit import decided, repairs, sweep
from pipeline.store.scratch import sweep_scratch
from pipeline.store.storage import Storage, StorageError, at_work, open_storage, retried
from pipeline.write.shards import BalanceError
from schemas.names import LEASES_DIR, PROPOSALS_DIR, RUN_DIR, ShardName

_POLL_S = 0.5
_NUM_DEAD_SHOWN = 3
_MAX_FRUITLESS_PASSES = 3
_LINGER_S = 30.0
"""For which an engine may go on when all units are done: one that lost touch with a worker waits for ever."""
_ERROR_OF: dict[Ending, type[Exception]] = {
    Ending.INPUT: SourceError,
    Ending.STORAGE: StorageError,
    Ending.UNBALANCED: BalanceError,
    Ending.SERVER: ServerGoneError,
    Ending.FAILED: WorkError,
}
_PLAN_DEFAULTS = PlanSettings()
_RUN_DEFAULTS = RunSettings()


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """How a job ended."""

    plan: Plan
    totals: Totals
    drained: bool
    num_units_run: int
    """Units that were left to do when the job began."""
    seconds: dict[str, float]
    """Worker time by stage of the flow, over the units of this run."""
    batches: dict[str, BatchReport]
    """What the models' batches came to, by stage, over the units of this run."""
    wall_s: float
    dataset: dict[str, Any]
    """The contents of `dataset.json`."""
    mended: tuple[str, ...]
    """What was found damaged when the job began, and was made again."""
    first_dead: tuple[DeadItem, ...]
    """The first images and regions that are dead."""


class _EngineLingersError(Exception):
    """All units are done, and the engine has not ended."""


class Drain:
    """A request to end a run: workers finish the units they hold, and take no more."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def request(self) -> None:
        """Ask for the end of the run; harmless to repeat, from any thread."""
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Whether it was asked for."""
        return self._requested.is_set()


def annotate(
    inputs: Sequence[str],
    output: str,
    *,
    configuration: Configuration,
    plan: PlanSettings = _PLAN_DEFAULTS,
    run: RunSettings = _RUN_DEFAULTS,
    append: bool = False,
    engine_options: Sequence[str] = (),
    drain: Drain | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> JobResult:
    """Annotate `inputs` into the data set at `output`: plan it, or resume it where it stands.

    `watch` is called from this thread while the job runs. Raises SourceError for an unusable input, PlanError when
    OUTPUT belongs to another configuration or other inputs, LicenseError for models that `permissive_only` refuses,
    EngineError for unusable options of the engine, StorageError, and BalanceError if the totals do not balance.
    """
    started = time.monotonic()
    if run.permissive_only:
        check_permissive(configuration.licenses())
    storage = open_storage(output)
    with at_work(storage):
        if load_plan(storage) is None:  # what the engine refuses leaves no plan
            load_engine(run.engine).check_options(engine_options, run)
        planned = retried(
            lambda: _plan(storage, inputs, configuration, plan, append=append, trust_inputs=run.trust_inputs)
        )
        settings = WorkerSettings(plan=planned, configuration=configuration, run=run, run_id=new_run_id())
        job = _AnnotateJob(settings, Markers(storage), engine_options, drain or Drain(), watch)
        mended = retried(job.repair)
        num_units_run = len(job.todo())
        try:
            job.run_until_done()
        finally:  # the engine has ended: nobody looks for these any more
            retried(lambda: storage.remove(drain_file(job.run_id), token_file(job.run_id)))
        dataset = retried(job.finalise)
        retried(job.clean_up)
        check_balance(planned, job.markers)
        sums = retried(job.log.sums)
        return JobResult(
            plan=planned,
            totals=job.markers.totals,
            drained=job.drained,
            num_units_run=num_units_run,
            seconds=sums.seconds,
            batches=sums.batches,
            wall_s=time.monotonic() - started,
            dataset=dataset,
            mended=mended,
            first_dead=tuple(itertools.islice(dead_items(planned, job.markers), _NUM_DEAD_SHOWN)),
        )


def _plan(
    storage: Storage,
    inputs: Sequence[str],
    configuration: Configuration,
    settings: PlanSettings,
    *,
    append: bool,
    trust_inputs: bool,
) -> Plan:
    planned = load_plan(storage)
    with looked_up_once():
        if planned is None:
            return make_plan(storage, inputs, configuration, settings)
        if append:
            return extend_plan(planned, inputs, configuration, settings, trust_inputs=trust_inputs)
        check_plan(planned, inputs, configuration, settings, trust_inputs=trust_inputs)
    return planned


def check_balance(plan: Plan, markers: Markers) -> None:
    """Raise BalanceError unless all that was planned came in, and all that came in is ok, filtered or dead."""
    totals = markers.totals
    for name, counts in (("images", totals.images), ("regions", totals.regions)):
        if not counts.balanced:
            raise BalanceError(f"{plan.storage.url}: {name}: {counts} do not balance")
    complete = not units_to_do(plan, markers)
    if complete and plan.num_images is not None and totals.images.inputs < plan.num_images:
        raise BalanceError(f"{plan.storage.url}: {plan.num_images} images were planned, {totals.images.inputs} came in")


def new_run_id() -> str:
    """Return a name for a run's files, another at every call."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


class Job:
    """Units of a plan on an engine, until none is left: what `annotate` and `recaption` have in common."""

    def __init__(
        self,
        settings: WorkerSettings,
        markers: Markers,
        engine_options: Sequence[str],
        drain: Drain,
        watch: Callable[[Progress], None],
    ) -> None:
        self.plan = settings.plan
        self.markers = markers
        self.drained = False
        self._storage = settings.plan.storage
        self.run_id = settings.run_id
        self.log = RunLog(self._storage, self.run_id)
        self._settings = settings
        self._engine_options = engine_options
        self._drain = drain
        self._watch = Watch(self.plan, markers, watch)
        self._leases = lease.Leases(self._storage, self.plan.leases)

    def todo(self) -> list[int]:
        """Return the units that are not done."""
        return units_to_do(self.plan, retried(self.markers.refresh))

    def run_until_done(self) -> None:
        """Run what is left on the engine, again and again: a pass leaves units that other jobs hold."""
        fruitless = 0
        while (units := self.todo()) and not self._drain.requested:
            self._run_pass(units)
            left = self.todo()
            self._raise_errors(left)
            if len(left) < len(units) or self._wait_for_leases(left):
                fruitless = 0
            else:
                fruitless += 1
                retried(self._check_storage)
            if fruitless == _MAX_FRUITLESS_PASSES and not self._drain.requested:
                raise InterruptedRunError(
                    f"{fruitless} passes left the same {len(left)} units undone; see {RUN_DIR}/ in OUTPUT"
                )
        self.drained = bool(units)

    def _run_pass(self, units: Sequence[int]) -> None:
        engine = load_engine(self._settings.run.engine)
        options = engine.check_options(self._engine_options, self._settings.run)
        self._storage.replace(token_file(self.run_id), b"seen\n")
        try:
            with contextlib.suppress(_EngineLingersError):
                engine.run_units(units, self._settings, options, self._wait)
        finally:
            gc.collect()  # a worker of this process: its models and its server go before others are loaded

    def _wait(self, thread: threading.Thread) -> None:
        """Hand a drain on to the workers, show the progress, and wait half a second for the engine's thread.

        Raises InterruptedRunError where nothing has moved for too long, and _EngineLingersError where there is nothing
        left to wait for.
        """
        if self._drain.requested and not self.drained:
            self.drained = True
            retried(lambda: self._storage.replace(drain_file(self.run_id), b""))
        self._watch.show("finishing what is in hand" if self.drained else "")
        if self._watch.done_for_s > _LINGER_S:
            raise _EngineLingersError
        limit = self._settings.run.stall_timeout_s
        if self._watch.still_for_s > limit:
            raise InterruptedRunError(
                f"nothing has moved for {limit:,.0f} s (--stall-timeout-s): no image, no shard, no line in {RUN_DIR}/. "
                "A worker or a model's server hangs; the same command goes on from here"
            )
        thread.join(_POLL_S)

    def _wait_for_leases(self, units: Sequence[int]) -> bool:
        """Wait until a unit that another job holds is done or free; False if none is held."""
        held = retried(lambda: self._held(units))
        while held and not self._drain.requested:
            free_in_s = max(held.values())
            self._watch.show(f"other drivers work on {len(held)}, free in {free_in_s:.0f} s unless renewed")
            time.sleep(self._storage.poll_s)
            still = retried(lambda: self._held(self.todo()))
            if set(still) != set(held):
                return True
            held = still
        return bool(held)

    def _held(self, units: Sequence[int]) -> dict[int, float]:
        """Return the units of these that live workers hold, and for how many seconds unless they renew."""
        live = self._leases.look()
        names = {unit: self._settings.lease_name(unit).rpartition("/")[2] for unit in units}
        return {unit: live[name][1] for unit, name in names.items() if name in live}

    def _raise_errors(self, left: Sequence[int]) -> None:
        """Raise the first error of an unfinished unit; a model error counts for every unit."""
        for event in retried(self.log.undone):
            holds_for_all = bool(left) and event.ending in (Ending.SERVER, Ending.FAILED)
            if event.ending in _ERROR_OF and (event.unit in left or holds_for_all):
                raise _ERROR_OF[event.ending](event.message)

    def _check_storage(self) -> None:
        """Write a file: where OUTPUT cannot be written (a full disk), workers could not report so."""
        name = f"{RUN_DIR}/{self.run_id}.check"
        self._storage.replace(name, b"writable\n")
        self._storage.remove(name)


class _AnnotateJob(Job):
    """A job that makes the shards of a planned data set."""

    def repair(self) -> tuple[str, ...]:
        """Publish what was decided but not published when an earlier job was cut off; withdraw what was damaged."""
        sweep_scratch(self._storage.scratch)
        return repair(self.plan, self.markers, self.run_id, self._settings.run.lease_timeout_s)

    def finalise(self) -> dict[str, Any]:
        """Write the data set's own files; again if another job has completed it meanwhile, and ours replaced its."""
        plan = load_plan(self._storage) or self.plan  # another job may have appended to it
        for name in repairs(decided(self._storage)):  # and have repaired shards
            if (shard := ShardName.parse(name)) is not None:
                self.markers.forget(shard)
        dataset = finalise(plan, self.markers.refresh())
        if not dataset["complete"] and not units_to_do(plan, self.markers.refresh()):
            dataset = finalise(plan, self.markers)
        return dataset

    def clean_up(self) -> None:
        """Remove what only unfinished work needs, once there is none; what another job appends is not touched."""
        sweep_scratch(self._storage.scratch)
        if self.todo():
            return
        shards = [shard for shard, _ in self.markers]
        files = (name for shard in shards for name in (shard.tar, shard.parquet, shard.marker))
        sweep(self._storage, [*self.plan.own_files(), *files])
        units = {lease.unit_name(unit) for unit in range(self.plan.num_units)}
        for folder in (LEASES_DIR, PROPOSALS_DIR):
            for name in self._storage.names(folder):
                if name.partition(".")[0] in units:
                    self._storage.remove(f"{folder}/{name}")
            self._storage.remove_folder(folder)
