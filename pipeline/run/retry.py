"""The job of `retry`: what died in the shards of a data set, again from its source, on any engine, from any driver.

Its units are those of the data set's plan, and their leases too, so that no shard is repaired and made at once. A shard
is done when a repair was committed that is newer than the last one when the job began: also where all died again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PlanError, SourceError, WorkError
from pipeline.models.licenses import check_permissive
from pipeline.plan.plan import Plan, load_plan
from pipeline.retry.carry import carry_overlays
from pipeline.retry.select import Dead, find_dead
from pipeline.retry.stored import load_unit
from pipeline.retry.where import Condition
from pipeline.run.finalise import finalise
from pipeline.run.job import Drain, Job, JobResult, check_balance, new_run_id
from pipeline.run.lease import Hold, Leases, unit_name
from pipeline.run.log import Ending
from pipeline.run.status import Markers, Totals, units_to_do
from pipeline.run.watch import Progress
from pipeline.run.worker import BOTH, Worker, WorkerSettings, drain_file, token_file
from pipeline.settings import Configuration, RunSettings
from pipeline.store.commit import decided, newest, repaired_stems, repairs, roll_forward, sweep
from pipeline.store.scratch import sweep_scratch
from pipeline.store.storage import Storage, at_work, open_storage, retried
from pipeline.write.shards import UnitReport
from schemas.folder import DatasetError
from schemas.names import COMMIT_DIR, LEASES_DIR, ShardName
from schemas.text import counted

_RUN_DEFAULTS = RunSettings()


@dataclass(frozen=True, kw_only=True)
class RetrySettings(WorkerSettings):
    """What a repeating worker is built from."""

    where: tuple[Condition, ...]
    repairs: Mapping[ShardName, int]
    """The shards to repair, and the number of the last repair of each when the job began."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The one stage."""
        return ("repeat",)

    def worker(self) -> "RetryWorker":
        """Return a new worker for the process that it is called in."""
        return RetryWorker(self)

    def markers_of(self, unit: int) -> tuple[str, ...]:
        """Return the name of the decision that is there once the unit is done: no listing of OUTPUT has it."""
        last = {shard: self.repairs.get(shard, 0) for shard in self.plan.shards(unit)}
        return tuple(f"{COMMIT_DIR}/{shard}.r{number + 1}.json" for shard, number in last.items())


class RetryWorker(Worker):
    """Repeats what died in units; loads the models with the first that is not done."""

    def __init__(self, settings: RetrySettings) -> None:
        super().__init__(settings)
        self._retry, self._plan = settings, settings.plan

    def repeat(self, unit: int) -> Ending:
        """Repeat what died in a unit and commit its shards with it."""
        return self._attempt(unit, "repeat", lambda held: self._repeat(unit, held))

    def _repeat(self, unit: int, held: Hold) -> UnitReport:
        last = repairs(decided(self._storage))
        numbers = {shard: last.get(str(shard), 0) + 1 for shard in self._plan.shards(unit)}
        try:
            stored = load_unit(self._plan, unit, self._retry.where)
            return self._load(*BOTH).repeat(unit, stored, numbers, held.advance)
        except DatasetError as error:
            raise WorkError(str(error)) from error

    def _is_done(self, unit: int) -> bool:
        shards = [shard for shard in self._plan.shards(unit) if shard in self._retry.repairs]
        for shard in self._plan.shards(unit):
            roll_forward(self._storage, str(shard))
        current = {shard: newest(self._storage, str(shard)) for shard in shards}
        return all(found is not None and found.repair > self._retry.repairs[shard] for shard, found in current.items())


class _Repaired(Markers):
    """Which shards of a job's are repaired, by their decisions; the totals are those before it."""

    def __init__(self, storage: Storage, before: Totals, last: Mapping[ShardName, int]) -> None:
        super().__init__(storage)
        self.totals = before
        self._left = dict(last)

    def refresh(self) -> "_Repaired":
        """Look for repairs that have been published since; returns self."""
        if not self._left:
            return self
        for name, number in repairs(decided(self._storage)).items():
            shard = ShardName.parse(name)
            if shard in self._left and number > self._left[shard] and _is_published(self._storage, shard):
                del self._left[shard]
        return self

    def __contains__(self, shard: ShardName) -> bool:
        return shard not in self._left


def _is_published(storage: Storage, shard: ShardName) -> bool:
    """Say whether the shard's marker is the one that was decided last."""
    current = newest(storage, str(shard))
    try:
        return current is not None and storage.read(shard.marker).decode() == current.decision.marker
    except FileNotFoundError:
        return False


@dataclass(frozen=True, kw_only=True)
class RetryResult:
    """How a retry ended."""

    job: JobResult
    dead: Dead
    """What was dead when it began, and how much of it was to be repeated."""
    before: Totals
    carried: tuple[str, ...]
    """The overlays of which a part was carried over: their new regions have no row there yet."""


class _RetryJob(Job):
    """A job that repairs shards."""

    def clean_up(self, shards: Sequence[ShardName]) -> None:
        """Remove what only unfinished work needs, once there is none."""
        sweep_scratch(self._storage.scratch)
        if self.todo():
            return
        last = repairs(decided(self._storage))
        published = {shard: last.get(str(shard), 0) for shard in shards if _is_published(self._storage, shard)}
        data = ((name, number) for shard, number in published.items() for name in (shard.tar, shard.parquet))
        sweep(self._storage, [stem for name, number in data for stem in repaired_stems(name, number)])
        held = Leases(self._storage, LEASES_DIR).look()
        free = {unit_name(shard.index) for shard in shards} - held.keys()
        self._storage.remove(*(f"{LEASES_DIR}/{name}.json" for name in sorted(free)))
        self._storage.remove_folder(LEASES_DIR)


def open_output(output: str) -> Plan:
    """Return the plan of the data set at `output`. Raises SourceError where there is none, and StorageError."""
    plan = load_plan(open_storage(output))
    if plan is None:
        raise SourceError(f"{output}: no data set is here (there is no _plan/plan.json); see fineclip retry --help")
    return plan


def retry(
    plan: Plan,
    where: Sequence[Condition],
    *,
    configuration: Configuration,
    run: RunSettings = _RUN_DEFAULTS,
    engine_options: Sequence[str] = (),
    drain: Drain | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> RetryResult:
    """Repeat what is dead in the data set of `plan` and meets all conditions, or go on with it.

    `watch` is called from this thread while the job runs. Raises PlanError where shards are still to be made, damaged,
    or in work, LicenseError for models that `permissive_only` refuses, EngineError for unusable options of the engine,
    StorageError, and BalanceError if the totals do not balance.
    """
    started = time.monotonic()
    if run.permissive_only:
        check_permissive(configuration.licenses())
    storage = plan.storage
    with at_work(storage):
        sweep_scratch(storage.scratch)
        roll_all_forward(plan)
        markers = Markers(storage).refresh()
        _check_whole(plan, markers)
        dead = find_dead(plan, markers, where)
        last = repairs(decided(storage))
        base = {shard: last.get(str(shard), 0) for shard in dead.wanted}
        settings = RetrySettings(
            plan=plan, configuration=configuration, run=run, run_id=new_run_id(), where=tuple(where), repairs=base
        )
        job = _RetryJob(settings, _Repaired(storage, markers.totals, base), engine_options, drain or Drain(), watch)
        num_units_run = len(job.todo())
        try:
            job.run_until_done()
        finally:
            retried(lambda: storage.remove(drain_file(job.run_id), token_file(job.run_id)))
        now, dataset = retried(lambda: finalise_as_it_is(plan))
        carried = retried(lambda: carry_overlays(storage, now))
        retried(lambda: job.clean_up(list(base)))
        check_balance(plan, now)
        sums = retried(job.log.sums)
        result = JobResult(
            plan=plan,
            totals=now.totals,
            drained=job.drained,
            num_units_run=num_units_run,
            seconds=sums.seconds,
            batches=sums.batches,
            wall_s=time.monotonic() - started,
            dataset=dataset,
            mended=(),
            first_dead=(),
        )
        return RetryResult(job=result, dead=dead, before=markers.totals, carried=carried)


def roll_all_forward(plan: Plan) -> None:
    """Publish every repair that was decided, whoever was cut off in it."""
    for name in repairs(decided(plan.storage)):
        if ShardName.parse(name) is not None:
            roll_forward(plan.storage, name)


def finalise_as_it_is(plan: Plan) -> tuple[Markers, dict[str, Any]]:
    """Write the data set's own files; again where another job has repaired a shard meanwhile."""
    while True:
        last = repairs(decided(plan.storage))
        roll_all_forward(plan)
        markers = Markers(plan.storage).refresh()
        dataset = finalise(plan, markers)
        if repairs(decided(plan.storage)) == last:
            return markers, dataset


def _check_whole(plan: Plan, markers: Markers) -> None:
    """Raise PlanError unless every shard is there, whole."""
    todo, url = units_to_do(plan, markers), plan.storage.url
    if todo:
        held = Leases(plan.storage, LEASES_DIR).look()
        if held:
            state = f"another job is at work on {counted(len(held), 'unit')} of it: wait until it has ended"
        else:
            state = "finish the data set first, by the same `fineclip annotate`"
        of_all = f"{len(todo):,} of {counted(plan.num_units, 'unit')}"
        raise PlanError(f"{url}: {of_all} are still to be made; {state}, then retry")
    for why in markers.damage(plan).values():
        raise PlanError(f"{why}; the same `fineclip annotate` makes this shard again: run it first, then retry")
