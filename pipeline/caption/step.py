"""The caption step: crops of many images to the captioner in batches, and what becomes of its answers.

`annotate` has it after its proposer; `recaption` has it alone, on boxes that are there already.
"""

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.caption import captioners
from pipeline.caption.base import Captioner, PreparingCaptioner, RestartingCaptioner, UnevenCaptioner
from pipeline.caption.judge import Judge
from pipeline.caption.view import ViewSettings, crops_of
from pipeline.clock import StageClock
from pipeline.models.batches import Batcher, Health
from pipeline.sample import Caption, Crop, Drop, RegionCaption, Sample
from schemas.reasons import Stage

_LEAST_WINDOW, _WINDOW_A_PLACE = 256, 4
"""Samples that may follow a batch's first crop: where regions are rare, a batch goes to the captioner unfilled. So many
at least, and so many for each of a batch's places."""


@dataclass(frozen=True, kw_only=True)
class CaptionStep:
    """Gives the regions of samples their captions; made once a worker, for all its units."""

    captioner: Captioner
    view: ViewSettings
    prepares_ahead: bool
    """Whether the captioner's CPU part may run ahead of the model on another thread."""
    golden_answers: str | None = None
    """A digest of what the captioner said of the golden set; None where it was not asked."""
    health: Health = field(default_factory=Health)

    def batcher(self) -> Batcher[Crop, Caption]:
        """Return what calls the captioner in a unit, its CPU part ahead of the model where it has one."""
        captioner = self.captioner
        sends_ahead = getattr(captioner, "runs_elsewhere", False) or self.prepares_ahead
        ahead = captioner if isinstance(captioner, PreparingCaptioner) and sends_ahead else None
        prompts = [captioner.prompt]
        return Batcher(
            ahead.generate if ahead else lambda crops: captioner.caption(crops, prompts * len(crops)),
            prepare=(lambda crops: ahead.prepare(crops, prompts * len(crops))) if ahead else None,
            cost=captioner.places if isinstance(captioner, UnevenCaptioner) else None,
            name=captioner.name,
            stage=Stage.CAPTION,
            batch_size=captioner.batch_size,
            health=self.health,
        )

    def run(self, samples: Iterator[Sample], captioning: Batcher[Crop, Caption], clock: StageClock) -> Iterator[Sample]:
        """Give each region its caption, in batches over images; a sample goes on when its last region has one."""

        def cut(sample: Sample) -> Iterator[Crop]:
            for seen in clock.timed("crop", crops_of(sample, self.view)) if sample.regions else ():
                if isinstance(seen, Crop):
                    yield seen
                else:
                    region_id, drop = seen
                    sample.captions[region_id] = RegionCaption(drop=drop)
            if sample.image is not None:
                sample.image = sample.image.released()

        def take(sample: Sample, crop: Crop, outcome: Caption | Drop) -> None:
            sample.captions[crop.region_id] = self._judge.region_caption(sample.key, crop, outcome)
            captioning.report.unfinished += isinstance(outcome, Caption) and outcome.unfinished is not None

        window = max(_LEAST_WINDOW, _WINDOW_A_PLACE * self.captioner.batch_size)
        yield from clock.timed("caption", captioning.run_groups(samples, cut, take, window=window))
        if isinstance(self.captioner, RestartingCaptioner):
            captioning.report.restarts += self.captioner.new_restarts()

    def provenance(self, config: Any) -> dict[str, Any]:
        """Return what determines the captions, with what was seen and the terms that the captioner stands under."""
        terms = [dataclasses.asdict(entry) for entry in self.captioner.licenses(config)]
        seen = {"view": self.view.as_json(), "licenses": terms, "golden_answers": self.golden_answers}
        package = captioners.package(self.captioner.name)
        return self.captioner.provenance() | seen | ({"package": package} if package else {})

    @functools.cached_property
    def _judge(self) -> Judge:
        """What the captioner's answers go through, in all units so far."""
        return Judge(self.captioner)
