"""The job of `recaption`: new captions on the boxes of a data set, as an overlay, on any engine, from any driver."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow.compute as pc

from pipeline.backends import SettingError
from pipeline.caption import captioner_class
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
from pipeline.run.overlay_files import clean_up_overlay, repair_overlay
from pipeline.run.watch import Progress
from pipeline.run.worker import Worker, WorkerSettings, drain_file, load_models, token_file
from pipeline.settings import CaptionConfiguration, RunSettings
from pipeline.store.commit import roll_forward
from pipeline.store.storage import at_work, open_storage, retried, storage_errors
from pipeline.write.shards import BalanceError, UnitReport
from schemas.dataset import Dataset
from schemas.folder import DatasetError, Folder
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
    where the overlay is of another configuration, SettingError for a view that wants masks, or a
    captioner that wants labels, where there are none,
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
            check_masks(configuration.view, given=_has(Dataset(folder, markers=markers), "mask_rle"))
        needs_labels = getattr(captioner_class(configuration.captioner), "needs_labels", False)
        if needs_labels and not _has(Dataset(folder, markers=markers), "label"):
            raise SettingError(
                f"--captioner {configuration.captioner} says the label of a region, and no region of {storage.url} has "
                "one; take another captioner, or make the data set with a proposer that gives labels, such as detr or "
                "grounding"
            )
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


def _has(data: Dataset, column: str) -> bool:
    """Return whether any region comes with a value in the column; True where there are no regions at all."""
    num_regions = 0
    for shard in data.shards:
        rows = data.regions(["status", "region_id", column], [shard])
        found = rows.filter((pc.field("status") == "ok") & pc.field("region_id").is_valid())[column]
        if found.null_count < len(found):
            return True
        num_regions += len(found)
    return num_regions == 0


class _RecaptionJob(Job):
    """A job that makes an overlay's part of each shard."""

    @property
    def _shards(self) -> OverlaidShards:
        return cast(OverlaidShards, self.plan)

    def repair(self) -> None:
        """Make the overlay's files whole."""
        repair_overlay(self._shards, self.markers, lambda unit: bool(self._held([unit])))

    def clean_up(self) -> None:
        """Remove what only unfinished work needs, once there is none."""
        clean_up_overlay(self._shards, self.markers)
