"""What a proposer is: images in, boxes out. One backend a file, one class, one config, one line in `PROPOSERS`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pipeline.images import DecodedImage
from pipeline.models.licenses import Licensed
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
    masks: tuple[str | None, ...] | None = None
    """`R` masks of the whole image in COCO's compressed run lengths; None where none were asked for."""
    excluded: tuple[str | None, ...] | None = None
    """`R` ids under which a filter list takes a given region away, None where it does not; None: it takes none away."""

    def __post_init__(self) -> None:
        count = len(self.boxes)
        lengths = [len(column) for column in (self.labels, self.masks, self.excluded) if column is not None]
        shapes = (self.boxes.shape[1:], self.scores.shape, {*lengths})
        assert shapes == ((4,), (count,), {count}), shapes


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

    @staticmethod
    def licenses(config: Any) -> tuple[Licensed, ...]:
        """Return the terms of the code and the weights that `config` runs; loads nothing."""

    def provenance(self) -> dict[str, Any]:
        """Return what determines the output: model id, revision, weights sha256, library versions, licence."""


@runtime_checkable
class PreparingProposer(Proposer, Protocol):
    """A proposer whose CPU part can run ahead of the model: `propose(images)` is `detect(prepare(images))`."""

    def prepare(self, images: Sequence[DecodedImage]) -> Any:
        """Return the model's inputs: resized, padded to a fixed shape, pinned.

        Called on another thread; keeps no state.
        """

    def detect(self, prepared: Any) -> list[Proposals]:
        """Run the model on what `prepare` returned."""
