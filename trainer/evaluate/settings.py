"""How a data set is embedded and measured. Nothing here imports torch."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from trainer.cores import default_workers
from trainer.hyperparameters import Interpolation
from trainer.ranges import check_above, check_at_least

RegionFeature = Literal["roi", "crop", "mask"]
"""Where a region's feature comes from: pooled from the dense map of its image over its box or its mask, or its crop
embedded as an image."""
REGION_FEATURES: tuple[RegionFeature, ...] = get_args(RegionFeature)

Task = Literal["regions", "attributes", "retrieval", "region-retrieval", "zeroshot", "words"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How a data set is embedded."""

    crop_scale: float = 1.0
    """Sides of the crop, in sides of the box, for `--region-feature crop`."""
    batch_size: int = 64
    """Images embedded at a time, by all processes together."""
    workers: int = field(default_factory=lambda: default_workers(2))
    """Processes that decode images; unless given one a core, 2 at most. No figure depends on it."""
    interpolation: Interpolation | None = None
    """How images and crops are squashed; None takes that of the run, bilinear for other models, as the paper does."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        check_above(self, 0, ["crop_scale"])
        check_at_least(self, 1, ["batch_size"])
        check_at_least(self, 0, ["workers"])


@dataclass(frozen=True, kw_only=True)
class TruthSettings:
    """Which annotations are measured, and against what."""

    crowds: bool = False
    """Measure boxes of crowds too, as the official code does on COCO panoptic."""
    min_area_px: float = 0.0
    """Smallest box that is measured, in square pixels of the image; the official code's is 8 x 8."""
    max_area_px: float | None = None
    """Largest box that is measured; the official code's is 1024 x 1024. None takes all."""
    classes: str | None = None
    """File of class names, one per line, in place of those of the data; after a tab, what the sentences say instead."""
    class_features: str | None = None
    """File (.npy) of class features `[C, D]` in the order of the classes, in place of the text tower's."""
    wrong_captions: int = 10
    """Most wrong captions of a kind for each region, where `--task attributes` makes them from right ones."""

    def __post_init__(self) -> None:
        """Check the range. Raises ValueError."""
        if self.wrong_captions < 1:
            raise ValueError(f"--wrong-captions {self.wrong_captions}: give 1 or more")
        check_at_least(self, 0, ["min_area_px"])
        if self.max_area_px is not None and not 0 < self.max_area_px >= self.min_area_px:
            raise ValueError(
                f"--min-area-px {self.min_area_px} --max-area-px {self.max_area_px}: no box is between them"
            )


@dataclass(frozen=True, kw_only=True)
class IntervalSettings:
    """The uncertainty that is told beside each figure."""

    resamples: int = 1000
    """Times that images are drawn with replacement for the intervals of 95 in 100; 0 leaves them out."""
    seed: int = 0
    """Of the drawing: the same images for every metric and model."""

    def __post_init__(self) -> None:
        """Check the range. Raises ValueError."""
        if self.resamples < 0:
            raise ValueError(f"--resamples {self.resamples}: give 0 or more")


MAX_CLUSTERS = 12
"""As many colours are told apart."""


@dataclass(frozen=True, kw_only=True)
class VisualizeSettings:
    """What a figure of models shows."""

    clusters: int = 6
    """Clusters of an image's patches, 2 to 12."""
    limit: int = 6
    """Most images, the first by name."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        if not 2 <= self.clusters <= MAX_CLUSTERS:
            raise ValueError(f"--clusters {self.clusters}: give 2 to {MAX_CLUSTERS}")
        if self.limit < 1:
            raise ValueError(f"--limit {self.limit}: give 1 or more")
