"""What a captioner is: crops in, sentences out. One backend a file, one class, one config, one line in `CAPTIONERS`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pipeline.images import Pixels


@dataclass(frozen=True, kw_only=True)
class Crop:
    """The pixels of one region, and what is known of it."""

    region_id: str
    pixels: Pixels
    """`[h, w, 3]` uint8 RGB, at least 1 x 1."""
    box: tuple[float, float, float, float]
    """The region's box: xyxy pixels of the stored image (the crop may be wider by `--crop.scale`)."""
    image_width: int
    image_height: int
    label: str | None


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A sentence about a crop, as the model gave it."""

    text: str
    score: float | None
    """The captioner's own measure; its provenance says which. None where it has none."""


class Captioner(Protocol):
    """Describes regions. Built from its config (weights load in the constructor), then called batch by batch.

    `caption` is pure: the same crop and prompt give the same caption, alone or among any others.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised when the same input and settings would give another output."""
    config_class: ClassVar[type[Any]]
    batch_size: int
    """Crops a call, fixed for the life of the captioner."""
    prompt: str | None
    """What the model is asked about each crop; None where it is asked nothing."""

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
        """Return the caption of each crop, in order. An exception is one of the whole batch."""

    @staticmethod
    def weights(config: Any) -> dict[str, Any]:
        """Return the settings that name weights, as the fingerprint holds them: by hash or commit, not by path."""

    def provenance(self) -> dict[str, Any]:
        """Return what determines the output: model id, revision, weights sha256, prompt, dtype, versions, licence."""
