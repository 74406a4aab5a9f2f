"""The regions that the source brings with it, as proposals. No model, no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.backends import BackendBase
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OURS, Licensed
from pipeline.sample import DecodedImage, Proposals
from schemas.boxes import as_boxes


@dataclass(frozen=True)
class ManualConfig:
    """`Manual` has no settings: it adds nothing to what the source says."""

    batch_size: ClassVar[int] = 64


class Manual(BackendBase):
    """Returns each image's given regions in the source's order, whatever their boxes hold: `select` judges them.

    So it does with those that a --filter list excludes: they are proposed, and come out as filtered.
    """

    name: ClassVar[str] = "manual"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[ManualConfig]] = ManualConfig

    def __init__(self, config: ManualConfig, *, device: Device = CPU) -> None:
        super().__init__(config)

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the given boxes of each image, NaN and boxes outside included; score 1 where none is given.

        Raises ValueError, naming the key, where a given score is not in [0, 1].
        """
        proposals = []
        for image in images:
            scores = [1.0 if region.score is None else region.score for region in image.given]
            for region, score in zip(image.given, scores, strict=True):
                if not 0 <= score <= 1:  # NaN fails this too
                    raise ValueError(
                        f"key {image.key!r}: the source gives box {list(region.box)} the score {score}, not one in "
                        "[0, 1]; rescale the source's scores or leave them out"
                    )
            with np.errstate(over="ignore"):  # a coordinate beyond float32 becomes infinite, which `select` reports
                boxes = as_boxes([region.box for region in image.given])
            excluded = tuple(region.id if region.excluded else None for region in image.given)
            proposals.append(
                Proposals(
                    boxes=boxes,
                    scores=np.asarray(scores, dtype=np.float32),
                    labels=tuple(region.label for region in image.given),
                    excluded=excluded if any(region.excluded for region in image.given) else None,
                )
            )
        return proposals

    @staticmethod
    def licenses(config: ManualConfig) -> tuple[Licensed, ...]:
        """Return the terms of our own code: there are no weights."""
        return (OURS,)
