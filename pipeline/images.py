"""A decoded image on its way through the pipeline."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.read.base import GivenRegion, SourceItem

Pixels = npt.NDArray[np.uint8]
"""`[H, W, 3]` uint8 RGB."""


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """An image whose pixels, bytes to store and given regions are in one frame: the stored image's."""

    item: SourceItem
    width: int
    """Pixels of the stored image."""
    height: int
    """Pixels of the stored image."""
    pixels: Pixels
    """`[height, width, 3]` uint8 RGB, upright; empty once `released`."""
    stored: bytes
    """The bytes that go into the shard: the source's own unless `reencoded`."""
    suffix: str
    """Of the stored bytes: `jpg`, `png` or `webp`."""
    reencoded: bool
    sha256: str
    """Of the stored bytes."""
    given: tuple[GivenRegion, ...]
    """The source's regions, moved to the stored image's frame."""

    @property
    def key(self) -> str:
        """The sample's key."""
        return self.item.key

    def released(self) -> "DecodedImage":
        """Return the image without its pixels, as it waits for its captions once its crops are cut."""
        return replace(self, pixels=np.zeros((0, 0, 3), np.uint8))
