"""The filters: each a number that every region or image has, and the side of a threshold on which it is kept.

What has no such number, a region without a rival for instance, is kept by that filter.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from schemas.folder import DatasetError


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A filter without its threshold."""

    name: str
    column: str
    """Of the measures."""
    keeps: Literal["at least", "at most"]
    title: str
    what: str
    """What is dropped, in words."""
    low: float
    """Smallest threshold that is tried."""
    high: float
    step: float
    start: float | None
    """Threshold that is recommended where nothing speaks against it; None for a filter that no rule can set."""
    most: float = 1.0
    """Share of the regions above which a threshold is not recommended: it tells of the model more than of the data."""
    of_images: bool = False
    """Whether it drops images with all their regions."""

    @property
    def thresholds(self) -> npt.NDArray[np.float32]:
        """`[T]` float32, ascending: what is tried."""
        return (self.low + self.step * np.arange(round((self.high - self.low) / self.step) + 1)).astype(np.float32)

    def drops(self, values: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
        """Return which of `values` (`[N]`, NaN where there is none) are dropped."""
        limit = np.float32(threshold)
        return values < limit if self.keeps == "at least" else values > limit

    def says(self, threshold: float) -> str:
        """Return the condition under which something is kept: `side at least 16`."""
        return f"{self.column} {self.keeps} {threshold:g}"

    def says_not(self, threshold: float) -> str:
        """Return the condition under which something is dropped: `side below 16`."""
        return f"{self.column} {'below' if self.keeps == 'at least' else 'above'} {threshold:g}"


FILTERS: tuple[Filter, ...] = (
    Filter(
        name="clip_score",
        column="clip_score",
        keeps="at least",
        title="CLIP score",
        what="captions that fit their region badly, by the CLIP of score-regions",
        low=-1,
        high=1,
        step=0.01,
        start=None,
    ),
    Filter(
        name="margin_in_image",
        column="margin_in_image",
        keeps="at least",
        title="Margin in the image",
        what="captions that fit their region worse than another caption of the same image does",
        low=-1,
        high=1,
        step=0.01,
        start=0,
        most=0.3,
    ),
    Filter(
        name="margin_in_sample",
        column="margin_in_sample",
        keeps="at least",
        title="Margin in the sample",
        what="captions that fit their region worse than the best of a sample of the data's captions",
        low=-1,
        high=1,
        step=0.01,
        start=0,
        most=0.3,
    ),
    Filter(
        name="proposal_score",
        column="proposal_score",
        keeps="at least",
        title="Proposal score",
        what="boxes that the proposer was not sure of",
        low=0,
        high=1,
        step=0.01,
        start=None,
    ),
    Filter(
        name="repetition",
        column="repetition",
        keeps="at most",
        title="Repetition",
        what="captions that say the same again and again, as a model does that got stuck",
        low=0,
        high=1,
        step=1,
        start=0,
    ),
    Filter(
        name="boilerplate",
        column="boilerplate",
        keeps="at most",
        title="Boilerplate",
        what='captions that begin by speaking of themselves: "a picture of", "the image shows"',
        low=0,
        high=1,
        step=1,
        start=0,
        most=0.2,
    ),
    Filter(
        name="min_words",
        column="words",
        keeps="at least",
        title="Fewest words",
        what="captions of few words",
        low=0,
        high=40,
        step=1,
        start=2,
        most=0.05,
    ),
    Filter(
        name="max_words",
        column="words",
        keeps="at most",
        title="Most words",
        what="captions of many words: a CLIP of 77 tokens does not read them to their end",
        low=0,
        high=200,
        step=1,
        start=60,
        most=0.05,
    ),
    Filter(
        name="copies",
        column="copies",
        keeps="at most",
        title="Copies of a caption",
        what="captions that many regions share",
        low=1,
        high=2000,
        step=1,
        start=None,
    ),
    Filter(
        name="min_side",
        column="side",
        keeps="at least",
        title="Shorter side, pixels",
        what="boxes of few pixels",
        low=0,
        high=256,
        step=1,
        start=16,
        most=0.2,
    ),
    Filter(
        name="max_area",
        column="area",
        keeps="at most",
        title="Area, share of the image",
        what="boxes that are nearly the whole image, whose caption says so already",
        low=0,
        high=1,
        step=0.01,
        start=0.95,
        most=0.1,
    ),
    Filter(
        name="overlap",
        column="overlap",
        keeps="at most",
        title="Overlap with an earlier box, IoU",
        what="boxes that nearly equal an earlier one of their image",
        low=0,
        high=1,
        step=0.01,
        start=0.9,
        most=0.2,
    ),
    Filter(
        name="duplicate",
        column="duplicate",
        keeps="at least",
        title="Distance to an earlier image, bits",
        what="images that nearly equal an earlier one",
        low=0,
        high=8,
        step=1,
        start=3,
        most=0.2,
        of_images=True,
    ),
    Filter(
        name="against",
        column="against",
        keeps="at least",
        title="Distance to the other set, bits",
        what="images that nearly equal one of the set given by --against",
        low=0,
        high=8,
        step=1,
        start=5,
        of_images=True,
    ),
)
BY_NAME = {each.name: each for each in FILTERS}


def parse_threshold(text: str) -> tuple[str, float | None]:
    """Return the name and value of `NAME=VALUE`, None for `NAME=off`. Raises DatasetError for anything else."""
    name, equals, value = text.partition("=")
    if name not in BY_NAME or not equals:
        raise DatasetError(f"--threshold {text}: give NAME=VALUE or NAME=off; the names are {', '.join(BY_NAME)}")
    if value == "off":
        return name, None
    try:
        threshold = float(value)
    except ValueError:
        threshold = math.nan
    if not math.isfinite(threshold):
        raise DatasetError(f"--threshold {text}: {value!r} is no finite number, nor `off`")
    return name, threshold
