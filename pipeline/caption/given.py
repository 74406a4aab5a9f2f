"""The captions that the source brings with its regions, kept as they are. No model, no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.backends import check_ranges
from pipeline.caption.base import CaptionerBase
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OURS, Licensed
from pipeline.sample import Caption, Crop, Drop
from schemas.reasons import Reason, Stage


@dataclass(frozen=True)
class GivenConfig:
    """Settings of `given`."""

    batch_size: int = 64
    """Regions a call."""

    def __post_init__(self) -> None:
        check_ranges(self, flag="--caption")


class Given(CaptionerBase):
    """Returns each region's caption in the source, for `--proposer manual`: other proposers' regions have none."""

    name: ClassVar[str] = "given"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[GivenConfig]] = GivenConfig
    needs_source: ClassVar[bool] = True

    def __init__(self, config: GivenConfig, *, device: Device = CPU) -> None:
        super().__init__(config)

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption | Drop]:
        """Return what the source says of each region; one of which it says nothing has an empty caption."""
        return [_caption(crop) for crop, _ in zip(crops, prompts, strict=True)]

    @staticmethod
    def licenses(config: GivenConfig) -> tuple[Licensed, ...]:
        """Return the terms of our own code: there are no weights."""
        return (OURS,)


def _caption(crop: Crop) -> Caption | Drop:
    if crop.given_caption:
        return Caption(text=crop.given_caption, score=None)
    message = "the source gives this region no caption; --captioner given writes none"
    return Drop(reason=Reason.EMPTY_CAPTION, stage=Stage.CAPTION, message=message)
