"""What a proposer is: images in, boxes out. One backend a file, one class, one config, one line in `PROPOSERS`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.images import DecodedImage
from schemas.boxes import Boxes


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """The boxes a proposer found in one image, in that image's frame (its stored pixels)."""

    boxes: Boxes
    """`[R, 4]` float32 xyxy pixels; `select` clips them and drops what is not a box, with a reason."""
    scores: npt.NDArray[np.float32]
    """`[R]` in [0, 1]; 1 for given boxes without a score."""
    labels: tuple[str | None, ...]
    """`R` class names, None where the proposer has no classes."""

    def __post_init__(self) -> None:
        shapes = (self.boxes.shape[1:], self.scores.shape, len(self.labels))
        assert shapes == ((4,), (len(self.boxes),), len(self.boxes)), shapes


class Proposer(Protocol):
    """Finds regions. Built from its config (weights load in the constructor), then called batch by batch.

    `propose` is pure: the same image gives the same proposals, alone or among any other images.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised when the same input and settings would give another output."""
    config_class: ClassVar[type[Any]]
    batch_size: int
    """Images a call, fixed for the life of the proposer."""

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the proposals of each image, in order. An exception is one of the whole batch."""

    @staticmethod
    def weights(config: Any) -> dict[str, Any]:
        """Return the settings that name weights, as the fingerprint holds them: by hash or commit, not by path."""

    def provenance(self) -> dict[str, Any]:
        """Return what determines the output: model id, revision, weights sha256, library versions, licence."""
