"""How far a metric would move with other images: 95 % bootstrap intervals, from images drawn with replacement.

Images are drawn and not rows, because the regions and captions of one image stand or fall together. The same seed draws
the same images for each metric and model: on the same data, differences between models can be paired (`--scores`).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics import Scores

Interval = tuple[float, float]

_TAILS = (2.5, 97.5)
"""Per cent of resamples outside the interval, below and above."""


def interval(scores: Scores, *, resamples: int, seed: int) -> Interval | None:
    """Return the interval of the percentiles over `resamples`; None for none, or for fewer than two images."""
    images, at = np.unique(scores.images, return_inverse=True)
    if not resamples or len(images) < 2:
        return None
    generator = np.random.default_rng(seed)
    statistic = _statistic(scores, at)
    values = []
    for _ in range(resamples):
        drawn = generator.integers(len(images), size=len(images))
        values.append(statistic(np.bincount(drawn, minlength=len(images)).astype(np.float64)))
    low, high = np.nanpercentile(values, _TAILS)
    return float(low), float(high)


def _statistic(scores: Scores, at: npt.NDArray[np.intp]) -> Callable[[npt.NDArray[np.float64]], float]:
    """Return the metric as a function of how often each image was drawn; `at` `[N]` says which image a row is of."""
    classes = np.zeros(len(at), dtype=np.int64) if scores.classes is None else scores.classes
    _, class_at = np.unique(classes, return_inverse=True)
    num_classes = int(class_at.max()) + 1
    # Rows of one image and class always come together: they are counted once.
    cells, cell_at = np.unique(at * num_classes + class_at, return_inverse=True)
    sums, counts = np.bincount(cell_at, weights=scores.hits), np.bincount(cell_at).astype(np.float64)
    image_of, class_of = cells // num_classes, cells % num_classes

    def statistic(drawn: npt.NDArray[np.float64]) -> float:
        times = drawn[image_of]
        rows = np.bincount(class_of, weights=times * counts, minlength=num_classes)
        hits = np.bincount(class_of, weights=times * sums, minlength=num_classes)
        return float((hits[rows > 0] / rows[rows > 0]).mean())

    return statistic
