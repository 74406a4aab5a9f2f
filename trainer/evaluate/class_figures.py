"""Figures of classes, each and in groups, as a detector's or segmenter's evaluation finds them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.errors import TrainingError

Watch = Callable[[int, int], None]
"""Told how many of how many images are done."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured."""

    metrics: dict[str, float]
    by_class: dict[str, float]
    """NaN for classes without a true box."""
    skipped: tuple[tuple[str, str], ...]
    """(key, why)."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it: null for what is no number."""
        return {
            "metrics": {name: _number(value) for name, value in self.metrics.items()},
            "by_class": {name: _number(value) for name, value in self.by_class.items()},
            "skipped": [{"key": key, "why": why} for key, why in self.skipped],
        }


def check_read(num_images: int, skipped: Sequence[tuple[str, str]]) -> None:
    """Raise TrainingError where no image could be used."""
    if not num_images:
        key, why = skipped[0]
        raise TrainingError(f"none of {len(skipped)} images can be used; the first, {key}: {why}")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
