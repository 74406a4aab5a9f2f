"""The region's label as its caption: the class that a detector names, or the phrase that a grounding model found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.backends import check_ranges
from pipeline.caption.base import CaptionerBase
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OURS, Licensed
from pipeline.sample import Caption, Crop, Drop
from schemas.reasons import Reason, Stage

_UNLABELLED = Drop(
    reason=Reason.EMPTY_CAPTION,
    stage=Stage.CAPTION,
    message="the proposer gives the region no label, so there is nothing that --captioner label could say of it",
)


@dataclass(frozen=True)
class LabelConfig:
    """Settings of `label`."""

    batch_size: int = 64
    """Crops a call."""

    def __post_init__(self) -> None:
        check_ranges(self, flag="--caption")


class Label(CaptionerBase):
    """Says each region's label as it is; a region without one is dead."""

    name: ClassVar[str] = "label"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[LabelConfig]] = LabelConfig
    needs_labels: ClassVar[bool] = True

    def __init__(self, config: LabelConfig, *, device: Device = CPU) -> None:
        super().__init__(config)

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption | Drop]:
        """Return the label of each crop, without a score, or the drop of one that has none. Prompts are not read."""
        return [Caption(text=crop.label, score=None) if crop.label else _UNLABELLED for crop in crops]

    @staticmethod
    def licenses(config: LabelConfig) -> tuple[Licensed, ...]:
        """Return the terms of our own code: there are no weights."""
        return (OURS,)
