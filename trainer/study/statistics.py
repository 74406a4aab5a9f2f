"""Intervals: shares over held-out images, of which some are drawn again and again (bootstrap). Seeds are not drawn.

Regions of one image are not independent, so images are drawn, whole; with several seeds, the same images for each. Two
rows are compared on the same draws, so what makes an image hard for both does not widen the interval.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.errors import TrainingError

Counts = npt.NDArray[np.float64]
_DRAWS, _SEED = 2000, 20_260
_LOW, _HIGH = 2.5, 97.5
_POWER = ((1.96 + 0.84) / 1.96) ** 2
"""More images for a difference to be clear of 0 in 80 % of trials, rather than in half of them."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with the range that 95 % of the draws are in."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole range is on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What a row of a table got right: of S seeds on the same I images."""

    hits: Counts
    """`[S, I]`: regions told right."""
    asked: Counts
    """`[I]`: regions asked about."""
    images: str = ""
    """A hash of the images' keys."""

    def shares(self, draws: npt.NDArray[np.int64]) -> Counts:
        """Return `[D]`: the share told right, a mean over seeds, of draws of images `[D, I]`."""
        hits = self.hits.mean(axis=0)
        return np.asarray(hits[draws].sum(axis=1) / self.asked[draws].sum(axis=1))

    def share_by_seed(self) -> Counts:
        """Return `[S]`."""
        return np.asarray(self.hits.sum(axis=1) / self.asked.sum())


def interval(row: Hits) -> Interval:
    """Return the share told right, a mean over seeds."""
    return _around(float(row.share_by_seed().mean()), row.shares(_draws(len(row.asked))))


def difference(row: Hits, against: Hits) -> Interval:
    """Return by how much `row` is better, paired over images. Raises TrainingError for rows on other images."""
    if row.images != against.images or not np.array_equal(row.asked, against.asked):
        raise TrainingError(
            "two rows of a contrast were asked about different images or regions, so they cannot be paired: if the "
            "data have changed, take away the older cells from cells/, and the same command runs them again"
        )
    draws = _draws(len(row.asked))
    value = float(row.share_by_seed().mean() - against.share_by_seed().mean())
    return _around(value, row.shares(draws) - against.shares(draws))


def images_wanted(found: Interval, num_images: int) -> int:
    """Return how many held-out images would show a difference of this size clear of 0 four times in five."""
    half_width = found.value - found.low if found.value > 0 else found.high - found.value
    return int(np.ceil(_POWER * num_images * (half_width / max(abs(found.value), 1e-6)) ** 2))


def seeds_wanted(by_seed: Counts, against: Counts) -> int | None:
    """Return how many seeds would bring the difference's mean 2 standard errors from 0; None for fewer than two."""
    if min(len(by_seed), len(against)) < 2:
        return None
    variance = by_seed.var(ddof=1) + against.var(ddof=1)
    return max(2, int(np.ceil(4 * variance / max((by_seed.mean() - against.mean()) ** 2, 1e-12))))


def _draws(num_images: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(_SEED).integers(0, num_images, (_DRAWS, num_images))


def _around(value: float, drawn: Counts) -> Interval:
    low, high = np.percentile(drawn, [_LOW, _HIGH])
    return Interval(value=value, low=float(low), high=float(high))
