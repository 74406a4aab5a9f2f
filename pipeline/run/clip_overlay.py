"""The job of `score-regions` and `embed`: what a CLIP says of a data set's regions, as an overlay, from any driver."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.models.device import Device
from pipeline.models.licenses import OPEN_CLIP
from pipeline.overlay.clip_columns import ClipOverlay, Columns, feature_columns, score_columns
from pipeline.overlay.encoder import Encoder, FoundClip
from pipeline.overlay.margins import Rivals
from pipeline.overlay.markers import OverlayMarkers
from pipeline.overlay.plan import OverlaidShards, plan_overlay, read_plan
from pipeline.overlay.rivals import kept_rivals
from pipeline.overlay.write import awaits_regions
from pipeline.run.lease import is_held
from pipeline.run.overlay_files import clean_up_overlay, repair_overlay
from pipeline.run.status import Totals, units_to_do
from pipeline.run.units import make_units
from pipeline.run.watch import Progress
from pipeline.store.commit import roll_forward
from pipeline.store.storage import Storage, at_work, open_storage, storage_errors
from schemas.dataset import Dataset

SCORE, EMBED = "score-regions", "embed"


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What decides an overlay of what a CLIP says, beside the data."""

    tool: str
    """`score-regions` or `embed`."""
    clip: FoundClip
    overlays: Sequence[str] = ()
    """Whose captions are read."""
    batch_size: int = 64
    num_rivals: int = 64
    """Of the sample, for `score-regions`."""
    seed: int = 0
    """Of the sample."""

    def configuration(self, storage: Storage) -> dict[str, Any]:
        """Return what the overlay's fingerprint is of."""
        plans = {name: read_plan(storage, name) for name in self.overlays}
        said: dict[str, Any] = {
            **self.clip.identity(),
            "overlays": [[name, None if plan is None else plan.fingerprint] for name, plan in plans.items()],
            "batch_size": self.batch_size,
        }
        return said if self.tool == EMBED else said | {"num_rivals": self.num_rivals, "seed": self.seed}


def make_clip_overlay(
    data: str,
    overlay: str,
    settings: ClipSettings,
    *,
    device: Device,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Totals, int]:
    """Make the overlay called `overlay` of the data set at `data`, or go on with it; the model loads if work is left.

    Returns its totals, and how many shards were left to do. Raises DatasetError where the data cannot be read,
    PlanError where the overlay is of another configuration, OverlayNameError, WorkError for a model that cannot be
    loaded or gives no numbers, and StorageError.
    """
    storage = open_storage(data)
    with storage_errors(storage.url):
        plain = Dataset.open(data)
        seen = Dataset.open(data, overlays=settings.overlays) if settings.overlays else plain
    with at_work(storage):
        configuration = settings.configuration(storage)
        plan = plan_overlay(storage, overlay, plain.markers, tool=settings.tool, configuration=configuration)
        done = OverlayMarkers(storage, overlay, plan.bases)

        def lease_of(unit: int) -> str:
            return f"{overlay}/{plan.bases[unit].shard}"

        repair_overlay(plan, done, lambda unit: is_held(storage, lease_of(unit)))
        num_to_do = len(units_to_do(plan, done.refresh()))
        if num_to_do:
            made = _load(plan, settings, device, plain, seen)
            make_units(
                plan, done, lease_of=lease_of, make=lambda unit, advance: _make(made, unit, advance), watch=watch
            )
        clean_up_overlay(plan, done)
    return done.totals, num_to_do


def _make(made: ClipOverlay, unit: int, advance: Callable[[], None]) -> None:
    """Make a unit unless another driver has: what was decided is published; one that lacks regions is made again."""
    storage, decision = made.plan.storage, made.plan.bases[unit].decision(made.plan.overlay)
    if not roll_forward(storage, decision) or awaits_regions(storage, decision):
        made.make(unit, advance)


def _load(plan: OverlaidShards, settings: ClipSettings, device: Device, plain: Dataset, seen: Dataset) -> ClipOverlay:
    encoder = Encoder(settings.clip, device=device, batch_size=settings.batch_size)
    columns: Columns = feature_columns
    provenance: dict[str, Any] = {
        **settings.clip.files.identity(),
        "licenses": [
            {"what": terms.what, "kind": terms.kind, "license": terms.license} for terms in _licenses(settings)
        ],
        "hardware": device.hardware_kind(),
        "overlays": list(settings.overlays),
    }
    if settings.tool == SCORE:
        texts = kept_rivals(plan.storage, plan.overlay, seen, num=settings.num_rivals, seed=settings.seed)
        rivals = Rivals.of(texts, encoder.texts(texts))
        columns = score_columns(rivals)
        provenance["num_rivals"] = len(texts)
    return ClipOverlay(
        plan=plan,
        tool=settings.tool,
        plain=plain,
        seen=seen,
        encoder=encoder,
        columns=columns,
        provenance=provenance,
    )


def _licenses(settings: ClipSettings) -> tuple[Any, ...]:
    return OPEN_CLIP, settings.clip.license
