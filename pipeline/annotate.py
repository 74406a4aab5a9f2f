"""Annotating one unit of work: a plain loop from source to committed shards, which any engine can run.

    read -> proposed -> selected -> captioned -> committed

Samples stream through in source order. Proposers get batches of images, captioners get batches of crops of many images;
both batches depend on the order of the samples alone. What cannot be used becomes a row with a reason.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from pipeline.caption.base import Captioner
from pipeline.caption.step import CaptionStep
from pipeline.clock import StageClock
from pipeline.models.batches import Batcher, Health
from pipeline.models.device import leaves_cpu_free
from pipeline.plan.plan import Plan
from pipeline.propose import proposers
from pipeline.propose.base import PreparingProposer, Proposer
from pipeline.propose.select import select, too_low_resolution
from pipeline.read.read import Opened, decoded_ahead, read_items
from pipeline.retry.merge import repair_unit
from pipeline.retry.stored import RepeatedSample, StoredUnit
from pipeline.sample import DecodedImage, Drop, Proposals, Sample
from pipeline.settings import Configuration, RunSettings
from pipeline.write import proposals_file
from pipeline.write.shards import UnitReport, commit_unit, split_of
from schemas.names import ShardName
from schemas.reasons import Stage
from schemas.records import Counts

_Model = TypeVar("_Model", Proposer, Captioner)

_BATCH_BYTES = 512 * 2**20
"""Of pixels in a proposer's batch: large images take more than one place in it."""

Advance = Callable[[], None]
"""Called as each sample of a unit is finished, for a progress bar."""


def _ignore() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """Annotates units: the plan and configuration of a job with the models of a worker.

    `propose` needs the proposer alone and `caption` the captioner alone, so that two pools need not hold both.
    """

    plan: Plan
    configuration: Configuration
    run: RunSettings
    proposer: Proposer | None = None
    captioner: Captioner | None = None
    golden_answers: Mapping[str, str] = field(default_factory=dict)
    """Digests of what the models said of the golden set, by kind; of those that were asked."""
    health: Mapping[Stage, Health] = field(default_factory=lambda: {stage: Health() for stage in Stage})
    """What was seen of the models, in all units so far, by the stage they work in."""
    _opened: Opened = field(default_factory=dict)

    def annotate(self, unit: int, advance: Advance = _ignore) -> UnitReport:
        """Annotate and commit a unit. Raises OSError on storage trouble, after which it can be called again."""
        clock, proposing, captioning = StageClock(), self._proposing(), self._captions.batcher()
        read = self._read(unit, clock)
        proposed = _propose(read, proposing, clock)
        selected = self._select(proposed, clock)
        captioned = self._captions.run(selected, captioning, clock)
        images, regions = self._commit(unit, captioned, clock, advance, proposer=self._provenance_of_proposer())
        batches = {"propose": proposing.report, "caption": captioning.report}
        return UnitReport(unit=unit, images=images, regions=regions, seconds=clock.seconds, batches=batches)

    def propose(self, unit: int) -> UnitReport:
        """Leave the unit's proposals beside the data set, for `caption`; the report has times alone."""
        clock, proposing = StageClock(), self._proposing()
        read = self._read(unit, clock)
        proposed = _propose(read, proposing, clock)
        proposals_file.save(self.plan.storage, unit, proposed, provenance=self._provenance_of_proposer())
        return UnitReport(unit=unit, seconds=clock.seconds, batches={"propose": proposing.report})

    def caption(self, unit: int, advance: Advance = _ignore) -> UnitReport:
        """Caption and commit a unit from the proposals that `propose` left; same files as `annotate`."""
        clock, captioning = StageClock(), self._captions.batcher()
        saved = proposals_file.load(self.plan.storage, unit)
        read = self._read(unit, clock)
        proposed = saved.given_to(read)
        selected = self._select(proposed, clock)
        captioned = self._captions.run(selected, captioning, clock)
        images, regions = self._commit(unit, captioned, clock, advance, proposer=saved.provenance)
        batches = {"caption": captioning.report}
        return UnitReport(unit=unit, images=images, regions=regions, seconds=clock.seconds, batches=batches)

    def repeat(
        self, unit: int, stored: StoredUnit, repairs: Mapping[ShardName, int], advance: Advance = _ignore
    ) -> UnitReport:
        """Make what is to be repeated of a unit again, and commit its shards with it as `repairs` (numbers by shard).

        Raises OSError on storage trouble, after which it can be called again, and DatasetError for a damaged shard.
        """
        clock, proposing, captioning = StageClock(), self._proposing(), self._captions.batcher()
        lost: dict[str, int] = {}
        items = clock.timed("read", read_items(stored.parts, self.configuration.read, self._opened))
        repeated = stored.repeated(items, lambda sample: split_of(sample, self.configuration), lost)
        read = self._decoded(repeated, clock)
        proposed = _propose(read, proposing, clock)
        selected = _with_kept(self._select(proposed, clock))
        captioned = self._captions.run(selected, captioning, clock)
        images, regions = repair_unit(
            self.plan,
            unit,
            stored,
            cast(Iterator[RepeatedSample], _announced(captioned, advance)),
            self.configuration,
            repairs=repairs,
            lost=lost,
            provenance=lambda: self._provenance(self._provenance_of_proposer()),
            clock=clock,
        )
        batches = {"propose": proposing.report, "caption": captioning.report}
        return UnitReport(unit=unit, images=images, regions=regions, seconds=clock.seconds, batches=batches)

    def _read(self, unit: int, clock: StageClock) -> Iterator[Sample]:
        """Yield the unit's samples, decoded ahead of the models."""
        items = read_items(self.plan.unit(unit), self.configuration.read, self._opened)
        return self._decoded(clock.timed("read", items), clock)

    def _decoded(self, items: Iterator[Sample], clock: StageClock) -> Iterator[Sample]:
        """Yield samples decoded ahead of the models."""
        settings = self.configuration.read
        for sample in clock.timed("decode", decoded_ahead(items, settings, num_threads=self.run.decode_threads)):
            if sample.image is not None:
                sample.drop = too_low_resolution(sample.image, self.configuration.select)
                if sample.drop is not None:  # it may wait long for a batch of others: keep its size alone
                    sample.image = replace(sample.image.released(), stored=b"")
            yield sample

    def _proposing(self) -> Batcher[Sample, Proposals]:
        """Return what calls the proposer, its CPU part ahead of the model where it has one."""
        proposer = _loaded(self.proposer)
        ahead = proposer if isinstance(proposer, PreparingProposer) and self._prepares_ahead else None
        return Batcher(
            ahead.detect if ahead else lambda batch: proposer.propose(_images(batch)),
            prepare=(lambda batch: ahead.prepare(_images(batch))) if ahead else None,
            cost=lambda sample: max(1.0, _images([sample])[0].pixels.nbytes / _BATCH_BYTES * proposer.batch_size),
            name=proposer.name,
            stage=Stage.PROPOSE,
            batch_size=proposer.batch_size,
            health=self.health[Stage.PROPOSE],
        )

    def _select(self, samples: Iterator[Sample], clock: StageClock) -> Iterator[Sample]:
        """Judge the proposals of each sample: those that no rule drops are its regions."""
        for sample in samples:
            if sample.proposals is not None and sample.image is not None:
                with clock("select"):
                    sample.candidates = select(
                        sample.proposals,
                        self.configuration.select,
                        key=sample.key,
                        width=sample.image.width,
                        height=sample.image.height,
                        proposer=self.configuration.proposer,
                    )
            yield sample

    @functools.cached_property
    def _captions(self) -> CaptionStep:
        """The caption step, in all units so far."""
        return CaptionStep(
            captioner=_loaded(self.captioner),
            view=self.configuration.view,
            prepares_ahead=self._prepares_ahead,
            golden_answers=self.golden_answers.get("captioner"),
            health=self.health[Stage.CAPTION],
        )

    def _commit(
        self, unit: int, samples: Iterator[Sample], clock: StageClock, advance: Advance, *, proposer: dict[str, Any]
    ) -> tuple[Counts, Counts]:
        """Write and commit the captioned samples; `proposer` is the provenance of what proposed them."""
        finished, provenance = _announced(samples, advance), self._provenance(proposer)
        return commit_unit(self.plan, unit, finished, self.configuration, provenance=provenance, clock=clock)

    def _provenance(self, proposer: dict[str, Any]) -> dict[str, Any]:
        return {"proposer": proposer, "captioner": self._captions.provenance(self.configuration.caption)}

    @property
    def _prepares_ahead(self) -> bool:
        return leaves_cpu_free(self.run.torch_threads)

    def _provenance_of_proposer(self) -> dict[str, Any]:
        """Return what determines the proposals, with the terms that the proposer stands under."""
        proposer = _loaded(self.proposer)
        terms = [dataclasses.asdict(entry) for entry in proposer.licenses(self.configuration.propose)]
        answered = {"licenses": terms, "golden_answers": self.golden_answers.get("proposer")}
        package = proposers.package(proposer.name)
        return proposer.provenance() | answered | ({"package": package} if package else {})


def _propose(samples: Iterator[Sample], proposing: Batcher[Sample, Proposals], clock: StageClock) -> Iterator[Sample]:
    """Give each sample that is still ok its proposals, in batches of such samples' images."""

    def image_of(sample: Sample) -> Sequence[Sample]:
        return [sample] if sample.drop is None else []

    def take(sample: Sample, _: Sample, outcome: Proposals | Drop) -> None:
        if isinstance(outcome, Drop):
            sample.drop = outcome
        else:
            sample.proposals = outcome

    return clock.timed("propose", proposing.run_groups(samples, image_of, take))


def _with_kept(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Give the regions of samples that are repeated what they keep, where the image is the one that they are of."""
    for sample in samples:
        if isinstance(sample, RepeatedSample) and sample.image and sample.image.sha256 == sample.image_sha256:
            sample.captions = {
                region.region_id: sample.kept[region.region_id]
                for region in sample.regions
                if region.region_id in sample.kept
            }
        yield sample


def _loaded(model: _Model | None) -> _Model:
    assert model is not None, "this worker was made for the other stage"
    return model


def _images(samples: Sequence[Sample]) -> list[DecodedImage]:
    images = [sample.image for sample in samples]
    assert None not in images, "only samples that were decoded are proposed for"
    return cast(list[DecodedImage], images)


def _announced(samples: Iterator[Sample], advance: Advance) -> Iterator[Sample]:
    for sample in samples:
        yield sample
        advance()
