"""What is known of a data set that a model is measured on: images, captions, regions. `read/` makes it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.boxes import Boxes
from trainer.evaluate.masks import Masks
from trainer.evaluate.metrics import Ints


class Images(Protocol):
    """Where I images are."""

    def __len__(self) -> int:
        """Return how many there are."""

    def key(self, image: int) -> str:
        """Return what an image is called."""

    def read(self, image: int) -> bytes:
        """Return an image's file. Raises UnusableSampleError."""

    def size(self, image: int) -> tuple[int, int] | None:
        """Return the (width, height) that boxes count in, None where it is not stated."""


@dataclass(frozen=True, kw_only=True)
class Alternatives:
    """Wrong captions of regions, for attributes."""

    start: Ints
    """`[R + 1]`: region r's wrong captions are rows `start[r]` up to `start[r + 1]`; it may have none."""
    captions: Sequence[str]
    """`[W]`."""
    kinds: Sequence[str]
    """`[W]`: what is wrong in each: a kind of word, or what the benchmark calls itself."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """I images, their C captions and R regions. Captions and regions stand in the order of their images."""

    images: Images
    caption_start: Ints
    """`[I + 1]`: as in `SampleIndex`."""
    captions: Sequence[str]
    """`[C]`."""
    caption_text_ids: Ints
    """`[C]`: captions with equal ids are one text; published protocols take each caption for itself."""
    region_start: Ints
    """`[I + 1]`."""
    boxes: Boxes
    """`[R, 4]` float32 xyxy, pixels of the image of the stated size."""
    region_captions: Sequence[str | None]
    """`[R]`."""
    region_text_ids: Ints
    """`[R]`."""
    labels: Sequence[str | None]
    """`[R]`: names of classes."""
    classes: Sequence[str] | None = None
    """All classes in their order; None where they are those that the labels name."""
    is_thing: npt.NDArray[np.bool_] | None = None
    """`[R]`: things (countable) and stuff; None where the data does not tell."""
    is_crowd: npt.NDArray[np.bool_] | None = None
    """`[R]`: boxes of groups, where they were asked for; None where the data does not tell."""
    masks: Masks | None = None
    alternatives: Alternatives | None = None
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    """How many annotations are not among the regions, by why: crowds, boxes without area, ..."""

    @property
    def num_regions(self) -> int:
        """R."""
        return len(self.boxes)

    @property
    def region_image(self) -> Ints:
        """`[R]`: which image each region is of."""
        return np.repeat(np.arange(len(self.images)), np.diff(self.region_start))

    @property
    def caption_image(self) -> Ints:
        """`[C]`: which image each caption is of."""
        return np.repeat(np.arange(len(self.images)), np.diff(self.caption_start))
