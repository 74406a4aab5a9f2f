"""Annotating one unit of work: a plain loop from source to committed shards, which any engine can run.

    read -> propose -> select -> crop -> caption -> write -> commit

Samples stream through in source order. Proposers get batches of images, captioners get batches of crops of many images;
both batches depend on the order of the samples alone. What cannot be used becomes a row with a reason.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pipeline.caption.base import Captioner, PreparingCaptioner, UnevenCaptioner
from pipeline.caption.crop import cut
from pipeline.caption.normalise import finished
from pipeline.clock import StageClock
from pipeline.models.batches import Batcher, Health
from pipeline.models.device import leaves_cpu_free
from pipeline.plan.plan import Plan
from pipeline.propose.base import PreparingProposer, Proposer
from pipeline.propose.select import select, too_low_resolution
from pipeline.read.read import read_samples
from pipeline.sample import Candidate, Caption, Crop, DecodedImage, Drop, Proposals, RegionCaption, Sample
from pipeline.settings import Configuration, RunSettings
from pipeline.write import proposals_file
from pipeline.write.shards import UnitReport, commit_unit
from schemas.reasons import Stage

_Model = TypeVar("_Model", Proposer, Captioner)

_WINDOW = 256
"""Samples that may wait for captions: where regions are rare, a batch goes to the captioner before it is full."""


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

    def annotate(self, unit: int, advance: Advance = _ignore) -> UnitReport:
        """Annotate and commit a unit. Raises OSError on storage trouble, after which it can be called again."""
        clock = StageClock()
        proposed = self._propose(self._read(unit, clock), clock)
        return self._finish(unit, proposed, clock, advance, proposer=self._provenance_of_proposer())

    def propose(self, unit: int) -> UnitReport:
        """Leave the unit's proposals beside the data set, for `caption`; the report has times alone."""
        clock = StageClock()
        samples = self._propose(self._read(unit, clock), clock)
        outcomes = ((sample.proposals, sample.drop) for sample in samples)
        proposals_file.save(self.plan.storage, unit, outcomes, provenance=self._provenance_of_proposer())
        return UnitReport(unit=unit, seconds=clock.seconds, batches=clock.batches)

    def caption(self, unit: int, advance: Advance = _ignore) -> UnitReport:
        """Caption and commit a unit from the proposals that `propose` left; same files as `annotate`."""
        clock = StageClock()
        saved = proposals_file.load(self.plan.storage, unit)
        proposed = _with_proposals(self._read(unit, clock), saved.outcomes())
        return self._finish(unit, proposed, clock, advance, proposer=saved.provenance)

    def _read(self, unit: int, clock: StageClock) -> Iterator[Sample]:
        parts = self.plan.unit(unit)
        for sample in read_samples(parts, self.configuration.read, num_threads=self.run.decode_threads, clock=clock):
            if sample.image is not None:
                sample.drop = too_low_resolution(sample.image, self.configuration.select)
                if sample.drop is not None:  # it may wait long for a batch of others: keep its size alone
                    sample.image = replace(sample.image.released(), stored=b"")
            yield sample

    def _propose(self, samples: Iterator[Sample], clock: StageClock) -> Iterator[Sample]:
        """Give each sample that is still ok its proposals, in batches of such samples' images."""
        batcher = self._proposing()
        clock.batches[Stage.PROPOSE] = batcher.report
        waiting: deque[Sample] = deque()
        live = _ok(samples, waiting)
        for sample, proposals in clock.timed("propose", batcher.run(live)):
            if isinstance(proposals, Drop):
                sample.drop = proposals
            else:
                sample.proposals = proposals
            yield from _up_to(sample, waiting)
        yield from waiting

    def _proposing(self) -> Batcher[Sample, Proposals]:
        """Return what calls the proposer, its CPU part ahead of the model where it has one."""
        proposer = _loaded(self.proposer)
        ahead = proposer if isinstance(proposer, PreparingProposer) and self._prepares_ahead else None
        return Batcher(
            ahead.detect if ahead else lambda batch: proposer.propose(_images(batch)),
            prepare=(lambda batch: ahead.prepare(_images(batch))) if ahead else None,
            name=proposer.name,
            stage=Stage.PROPOSE,
            batch_size=proposer.batch_size,
            health=self.health[Stage.PROPOSE],
        )

    @property
    def _prepares_ahead(self) -> bool:
        return leaves_cpu_free(self.run.torch_threads)

    def _finish(
        self, unit: int, samples: Iterator[Sample], clock: StageClock, advance: Advance, *, proposer: dict[str, Any]
    ) -> UnitReport:
        """Caption and commit the proposed samples; `proposer` is the provenance of what proposed them."""
        captioned = _announced(self._caption(self._select(samples, clock), clock), advance)
        captioner = self._provenance(_loaded(self.captioner), self.configuration.caption, kind="captioner")
        provenance = {"proposer": proposer, "captioner": captioner}
        return commit_unit(self.plan, unit, captioned, self.configuration, provenance=provenance, clock=clock)

    def _provenance_of_proposer(self) -> dict[str, Any]:
        return self._provenance(_loaded(self.proposer), self.configuration.propose, kind="proposer")

    def _provenance(self, model: Proposer | Captioner, config: Any, *, kind: str) -> dict[str, Any]:
        """Return what determines a model's output, with the terms it stands under."""
        terms = [dataclasses.asdict(entry) for entry in model.licenses(config)]
        return model.provenance() | {"licenses": terms, "golden_answers": self.golden_answers.get(kind)}

    def _select(self, samples: Iterator[Sample], clock: StageClock) -> Iterator[Sample]:
        for sample in samples:
            if sample.proposals is not None:
                with clock("select"):
                    self._select_regions(sample, sample.proposals)
            yield sample

    def _select_regions(self, sample: Sample, proposals: Proposals) -> None:
        image = _image(sample)
        sample.candidates = select(
            proposals,
            self.configuration.select,
            key=sample.key,
            width=image.width,
            height=image.height,
            proposer=self.configuration.proposer,
        )

    def _caption(self, samples: Iterator[Sample], clock: StageClock) -> Iterator[Sample]:
        """Give each region its caption, in batches over images; a sample goes on when its last region has one."""
        batcher, prompt = self._captioning(), _loaded(self.captioner).prompt
        clock.batches[Stage.CAPTION] = batcher.report
        while (first := next(samples, None)) is not None:
            waiting: deque[Sample] = deque()
            crops = self._crops(itertools.chain([first], samples), waiting, clock)
            for (sample, crop), caption in clock.timed("caption", batcher.run(crops)):
                sample.captions[crop.region_id] = _region_caption(caption, prompt)
                while waiting and len(waiting[0].captions) == len(waiting[0].regions):
                    yield waiting.popleft()
            yield from waiting

    def _captioning(self) -> Batcher[tuple[Sample, Crop], Caption]:
        """Return what calls the captioner, its CPU part ahead of the model where it has one."""
        captioner = _loaded(self.captioner)
        ahead = captioner if isinstance(captioner, PreparingCaptioner) and self._prepares_ahead else None
        uneven = captioner if isinstance(captioner, UnevenCaptioner) else None
        return Batcher(
            ahead.generate if ahead else lambda batch: captioner.caption(*self._asked(batch)),
            prepare=(lambda batch: ahead.prepare(*self._asked(batch))) if ahead else None,
            cost=(lambda pair: uneven.places(pair[1])) if uneven else None,
            name=captioner.name,
            stage=Stage.CAPTION,
            batch_size=captioner.batch_size,
            health=self.health[Stage.CAPTION],
        )

    def _asked(self, batch: Sequence[tuple[Sample, Crop]]) -> tuple[list[Crop], list[str | None]]:
        return [crop for _, crop in batch], [_loaded(self.captioner).prompt] * len(batch)

    def _crops(
        self, samples: Iterator[Sample], waiting: deque[Sample], clock: StageClock
    ) -> Iterator[tuple[Sample, Crop]]:
        """Yield the crops of the samples, and end where `_WINDOW` samples wait: their batch is too slow in filling."""
        for sample in samples:
            waiting.append(sample)
            for region in sample.regions:
                with clock("crop"):
                    crop = self._crop(_image(sample), region)
                yield sample, crop
            if sample.image is not None:
                sample.image = sample.image.released()
            if len(waiting) >= _WINDOW:
                return

    def _crop(self, image: DecodedImage, region: Candidate) -> Crop:
        assert region.box is not None
        return Crop(
            region_id=region.region_id,
            pixels=cut(image, region.box, settings=self.configuration.crop),
            box=region.box,
            image_width=image.width,
            image_height=image.height,
            label=region.label,
        )


def _loaded(model: _Model | None) -> _Model:
    assert model is not None, "this worker was made for the other stage"
    return model


def _announced(samples: Iterator[Sample], advance: Advance) -> Iterator[Sample]:
    for sample in samples:
        yield sample
        advance()


def _image(sample: Sample) -> DecodedImage:
    assert sample.image is not None
    return sample.image


def _images(samples: Sequence[Sample]) -> list[DecodedImage]:
    return [_image(sample) for sample in samples]


def _ok(samples: Iterator[Sample], waiting: deque[Sample]) -> Iterator[Sample]:
    """Yield the samples that are still ok, and put all of them in `waiting`, which keeps their order."""
    for sample in samples:
        waiting.append(sample)
        if sample.drop is None:
            yield sample


def _up_to(sample: Sample, waiting: deque[Sample]) -> Iterator[Sample]:
    """Yield and remove what waits up to and with `sample`."""
    while True:
        first = waiting.popleft()
        yield first
        if first is sample:
            return


def _with_proposals(samples: Iterator[Sample], saved: Iterable[proposals_file.Outcome]) -> Iterator[Sample]:
    for sample, (proposals, drop) in zip(samples, saved, strict=True):
        sample.proposals, sample.drop = proposals, drop
        yield sample


def _region_caption(outcome: Caption | Drop, prompt: str | None) -> RegionCaption:
    outcome = finished(outcome, prompt)
    if isinstance(outcome, Drop):
        return RegionCaption(drop=outcome)
    return RegionCaption(text=outcome.text, score=outcome.score)
