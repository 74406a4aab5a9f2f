"""The regions that the source brings with it, as proposals. No model, no weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec
import numpy as np

from pipeline.backends import BackendBase
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OURS, Licensed
from pipeline.sample import DecodedImage, GivenRegion, Proposals
from schemas.boxes import as_boxes


@dataclass(frozen=True)
class ManualConfig:
    """`Manual` has no settings: it adds nothing to what the source says."""

    batch_size: ClassVar[int] = 64
    masks: ClassVar[bool] = True
    """The source's own are handed on."""


class Manual(BackendBase):
    """Returns each image's given regions in the source's order, whatever their boxes hold: `select` judges them.

    So it does with those that a --filter list excludes, with crowds and with those whose annotation cannot be used:
    they are proposed, and come out as filtered or dead.
    """

    name: ClassVar[str] = "manual"
    version: ClassVar[int] = 2
    config_class: ClassVar[type[ManualConfig]] = ManualConfig

    def __init__(self, config: ManualConfig, *, device: Device = CPU) -> None:
        super().__init__(config)

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the given boxes of each image, NaN and boxes outside included; score 1 where none is given.

        A region whose score is not in [0, 1] has a problem, and the score NaN; the others are as they are.
        """
        return [_proposals(image) for image in images]

    @staticmethod
    def licenses(config: ManualConfig) -> tuple[Licensed, ...]:
        """Return the terms of our own code: there are no weights."""
        return (OURS,)


def _proposals(image: DecodedImage) -> Proposals:
    given = tuple(_checked(region) for region in image.given)
    scores = [math.nan if region.problem else 1.0 if region.score is None else region.score for region in given]
    masks = tuple(region.mask_rle for region in given)
    with np.errstate(over="ignore"):  # a coordinate beyond float32 becomes infinite, which `select` reports
        boxes = as_boxes([region.box for region in given])
    return Proposals(
        boxes=boxes,
        scores=np.asarray(scores, dtype=np.float32),
        labels=tuple(region.label for region in given),
        masks=masks if any(masks) else None,
        given=given,
    )


def _checked(region: GivenRegion) -> GivenRegion:
    """Return the region, with a problem where its score is no score: percents and logits are not guessed at."""
    if region.problem or region.score is None or 0 <= region.score <= 1:  # NaN fails this too
        return region
    problem = f"the score {region.score:g} is not in [0, 1]; rescale the source's scores or leave them out"
    return msgspec.structs.replace(region, problem=problem)
