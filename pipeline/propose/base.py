"""What a proposer is: images in, boxes out. A backend is one file, one class, one config, one line in `PROPOSERS`."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from pipeline.backends import Backend
from pipeline.sample import DecodedImage, Proposals


class Proposer(Backend, Protocol):
    """Finds regions, a batch of images per call.

    `propose` is pure: the same image gives the same proposals, alone or among any other images.
    """

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the proposals of each image, in order. An exception is one of the whole batch."""


@runtime_checkable
class PreparingProposer(Proposer, Protocol):
    """A proposer whose CPU part can run ahead of the model: `propose(images)` is `detect(prepare(images))`."""

    def prepare(self, images: Sequence[DecodedImage]) -> Any:
        """Return the model's inputs: resized, padded to a fixed shape, pinned.

        Called on another thread; keeps no state.
        """

    def detect(self, prepared: Any) -> list[Proposals]:
        """Run the model on what `prepare` returned."""
