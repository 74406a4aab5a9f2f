"""How a data set is embedded and measured. Nothing here imports torch."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from trainer.cores import default_workers

RegionFeature = Literal["roi", "crop"]
"""Where a region's feature comes from: pooled from the dense map of its image, or its crop embedded as an image."""

Task = Literal["regions", "retrieval", "region-retrieval", "zeroshot"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How a data set is embedded."""

    region_feature: RegionFeature = "roi"
    """A region's feature: pooled from its image's dense map (`roi`), or its crop, embedded as an image (`crop`)."""
    crop_scale: float = 1.0
    """Sides of the crop, in sides of the box, for `--region-feature crop`."""
    batch_size: int = 64
    """Images embedded at a time, by all processes together."""
    workers: int = field(default_factory=lambda: default_workers(2))
    """Processes that decode images; unless given one a core, 2 at most. No figure depends on it."""
