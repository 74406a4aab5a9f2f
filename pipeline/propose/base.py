"""What a proposer is: images in, boxes out. A backend is one file, one class, one config, one line in `PROPOSERS`."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from pipeline.backends import Backend
from pipeline.sample import DecodedImage, Drop, Proposals


class Proposer(Backend, Protocol):
    """Finds regions, a batch of images per call.

    `propose` is pure: the same image gives the same proposals, alone or among any other images. A proposer that cannot
    look at an image, for a reason that it knows, returns a `Drop` in its place; an exception is one of the whole batch.
    """

    def propose(self, images: Sequence[DecodedImage]) -> Sequence[Proposals | Drop]:
        """Return the proposals of each image, or why it has none, in order."""


@runtime_checkable
class PreparingProposer(Proposer, Protocol):
    """A proposer whose CPU part can run ahead of the model: `propose(images)` is `detect(prepare(images))`."""

    def prepare(self, images: Sequence[DecodedImage]) -> Any:
        """Return the model's inputs: resized, padded to a fixed shape, pinned.

        Called on another thread; keeps no state.
        """

    def detect(self, prepared: Any) -> Sequence[Proposals | Drop]:
        """Run the model on what `prepare` returned."""
