"""What a proposer is: images in, boxes out. One backend a file, one class, one config, one line in `PROPOSERS`."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from pipeline.models.licenses import Licensed
from pipeline.sample import DecodedImage, Proposals


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
