"""The job of `recaption`: new captions on the boxes of a data set, as an overlay, on any engine, from any driver."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow.compute as pc

from pipeline.caption.step import CaptionStep
from pipeline.caption.view import check_masks
from pipeline.errors import WorkError
from pipeline.models.device import leaves_cpu_free
from pipeline.models.licenses import check_permissive
from pipeline.overlay.markers import OverlayMarkers
from pipeline.overlay.plan import OverlaidShards, plan_overlay
from pipeline.overlay.recaption import Recaptioner
from pipeline.overlay.write import awaits_regions, file_names
from pipeline.run.job import Drain, Job, JobResult, new_run_id
from pipeline.run.lease import Hold
from pipeline.run.log import Ending
from pipeline.run.status import units_to_do
from pipeline.run.watch import Progress
from pipeline.run.worker import Worker, WorkerSettings, drain_file, load_models, token_file
from pipeline.settings import CaptionConfiguration, RunSettings
from pipeline.store.commit import LostFileError, roll_forward, sweep, withdraw
from pipeline.store.scratch import sweep_scratch
from pipeline.store.storage import at_work, open_storage, retried, storage_errors
from pipeline.write.shards import BalanceError, UnitReport
from schemas.dataset import Dataset
from schemas.folder import DatasetError, Folder
from schemas.names import COMMIT_DIR, LEASES_DIR, repair_of
from schemas.reasons import Stage
from schemas.shards import find_shards

TOOL = "recaption"
_RUN_DEFAULTS = RunSettings()


@dataclass(frozen=True, kw_only=True)
class RecaptionSettings(WorkerSettings):
    """What a recaptioning worker is built from."""

    plan: OverlaidShards
    configuration: CaptionConfiguration  # type: ignore[assignment]  # without a proposer

    @property
    def stages(self) -> tuple[str, ...]:
        """The one stage."""
        return ("recaption",)

    def worker(self) -> "RecaptionWorker":
        """Return a new worker for the process that it is called in."""
        return RecaptionWorker(self)

    def lease_name(self, unit: int) -> str:
        """Return the name of the lease of the overlay's part of a shard."""
        return f"{self.plan.overlay}/{self.plan.bases[unit].shard}"

    def markers_of(self, unit: int) -> tuple[str, ...]:
        """Return the name of the marker of the overlay's part of a shard."""
        return (file_names(self.plan.bases[unit], self.plan.overlay)[1],)


class RecaptionWorker(Worker):
    """Gives the regions of shards new captions; loads the captioner with the first shard that is not done."""

    def __init__(self, settings: RecaptionSettings) -> None:
        super().__init__(settings)
        self._plan, self._configuration = settings.plan, settings.configuration
        self._recaptioner: Recaptioner | None = None

    def recaption(self, unit: int) -> Ending:
        """Caption the regions of a shard and commit the overlay's part of it."""
        return self._attempt(unit, TOOL, lambda held: self._recaption(unit, held))

    def _recaption(self, unit: int, held: Hold) -> UnitReport:
        self._recaptioner = self._recaptioner or self._load_captioner()
        try:
            return self._recaptioner.recaption(unit, held.advance)
        except DatasetError as error:
            raise WorkError(str(error)) from error

    def _load_captioner(self) -> Recaptioner:
        run = self._settings.run
        models = load_models(self._plan, self._configuration, run, stages=(Stage.CAPTION,))
        assert models.captioner is not None
        step = CaptionStep(
            captioner=models.captioner,
            view=self._configuration.view,
            prepares_ahead=leaves_cpu_free(run.torch_threads),
            golden_answers=models.golden_answers.get("captioner"),
            health=models.health[Stage.CAPTION],
        )
        return Recaptioner(plan=self._plan, configuration=self._configuration, run=run, step=step)

    def _is_done(self, unit: int) -> bool:
        decision = self._plan.bases[unit].decision(self._plan.overlay)
        return roll_forward(self._storage, decision) and not awaits_regions(self._storage, decision)


def recaption(
    data: str,
    overlay: str,
    *,
    configuration: CaptionConfiguration,
    run: RunSettings = _RUN_DEFAULTS,
    engine_options: Sequence[str] = (),
    drain: Drain | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> JobResult:
    """Caption the regions of the data set at `data` anew, as the overlay called `overlay`, or go on with it.

    `watch` is called from this thread while the job runs. Raises DatasetError where there is no data set, PlanError
    where the overlay is of another configuration, SettingError for a view that wants masks where there are none,
    OverlayNameError, LicenseError for a captioner that `permissive_only` refuses, EngineError for unusable options of
    the engine, StorageError, and BalanceError.
    """
    started = time.monotonic()
    if run.permissive_only:
        check_permissive(configuration.licenses())
    storage, folder = open_storage(data), Folder(data)
    with storage_errors(storage.url):
        markers = find_shards(folder, folder.sizes())
        if configuration.view.view == "alpha":
            check_masks(configuration.view, given=_has_masks(Dataset(folder, markers=markers)))
    with at_work(storage):
        plan = plan_overlay(storage, overlay, markers, tool=TOOL, configuration=configuration.as_json())
        settings = RecaptionSettings(plan=plan, configuration=configuration, run=run, run_id=new_run_id())
        done = OverlayMarkers(storage, overlay, plan.bases)
        job = _RecaptionJob(settings, done, engine_options, drain or Drain(), watch)
        retried(job.repair)
        num_units_run = len(job.todo())
        try:
            job.run_until_done()
        finally:
            retried(lambda: storage.remove(drain_file(job.run_id), token_file(job.run_id)))
        retried(job.clean_up)
        if not done.totals.balanced:
            raise BalanceError(f"{storage.url}: overlay {overlay}: regions: {done.totals.regions} do not balance")
        sums = retried(job.log.sums)
        return JobResult(
            plan=plan,
            totals=done.totals,
            drained=job.drained,
            num_units_run=num_units_run,
            seconds=sums.seconds,
            batches=sums.batches,
            wall_s=time.monotonic() - started,
            dataset={},
            mended=(),
            first_dead=(),
        )


def _has_masks(data: Dataset) -> bool:
    """Return whether a region of the first shard that has regions comes with a mask; True where none has regions."""
    for shard in data.shards:
        column = data.regions(["status", "region_id", "mask_rle"], [shard])
        found = column.filter((pc.field("status") == "ok") & pc.field("region_id").is_valid())["mask_rle"]
        if len(found):
            return bool(found.null_count < len(found))
    return True


class _RecaptionJob(Job):
    """A job that makes an overlay's part of each shard."""

    @property
    def _shards(self) -> OverlaidShards:
        return cast(OverlaidShards, self.plan)

    def repair(self) -> None:
        """Publish what was decided but not published; take back what was decided for other tables, or is damaged."""
        sweep_scratch(self._storage.scratch)
        overlay, bases = self._shards.overlay, self._shards.bases
        folder = f"{COMMIT_DIR}/{overlay}"
        decisions = {f"{overlay}/{name.removesuffix('.json')}" for name in self._storage.names(folder)}
        ours = tuple(f"{overlay}/{base.shard}." for base in bases)  # another driver may know of more shards
        current = {base.decision(overlay) for base in bases}
        repaired = {name for name in decisions if (repair_of(f"{name}.json") or ("", 0))[0] in current}
        stale = {name for name in decisions - current - repaired if name.startswith(ours)}
        self._storage.remove(*(f"{COMMIT_DIR}/{name}.json" for name in sorted(stale)))
        for unit in units_to_do(self.plan, self.markers.refresh()):
            decision = bases[unit].decision(overlay)
            if decision not in decisions:
                continue
            try:
                roll_forward(self._storage, decision)
            except LostFileError:  # its files are lost: they are made again
                withdraw(self._storage, decision, file_names(bases[unit], overlay)[1])
                continue
            if awaits_regions(self._storage, decision):
                continue
            if bases[unit].shard not in self.markers.refresh() and not self._held([unit]):
                withdraw(self._storage, decision, file_names(bases[unit], overlay)[1])

    def clean_up(self) -> None:
        """Remove what only unfinished work needs, once there is none."""
        sweep_scratch(self._storage.scratch)
        if self.todo():
            return
        overlay, bases = self._shards.overlay, self._shards.bases
        sweep(self._storage, [name for base in bases for name in file_names(base, overlay)])
        self._storage.remove(*(f"{self.plan.leases}/{base.shard}.json" for base in bases))
        self._storage.remove_folder(self.plan.leases)
        self._storage.remove_folder(LEASES_DIR)
