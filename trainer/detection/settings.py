"""What a detector, its training and its scores consist of. Nothing here imports torch.

The defaults are F-ViT's for OV-COCO, of B/16 and L/14 alike; L/14 takes `--image-size 896`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from trainer.hyperparameters import Precision, Recipe, check_adamw
from trainer.ranges import check_above, check_at_least, check_shares
from trainer.run.train_settings import RunSettings

TAPS_OF_DEPTH = {12: (3, 5, 7, 11), 24: (6, 10, 14, 23)}
"""Blocks that F-ViT takes patches from, by the depth of the tower: B/16, L/14."""


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """What a detector consists of."""

    taps: tuple[int, ...] | None = None
    """Blocks to take patches from, counted from 0, the last one last; None takes F-ViT's for 12 and 24 blocks."""
    tap_scales: tuple[float, ...] = (4.0, 2.0, 1.0, 0.5)
    """Cells of the pyramid's levels, in patches of a side: 4, 2, 1 or 0.5 each."""
    extra_level: bool = True
    """A further level for proposals: every second cell of the last one."""
    channels: int = 256
    """Channels of the pyramid."""
    norm: Literal["batch", "group"] = "batch"
    """Norms of pyramid and head; groups for small batches."""
    anchor_scale: float = 8.0
    """Sides of a square anchor, in strides of its level."""
    proposal_convs: int = 2
    """Convolutions of the proposal network."""
    level_proposals: int = 2000
    """Proposals of a level before NMS."""
    proposals: int = 1000
    """Proposals per image."""
    sampled_anchors: int = 256
    """Anchors of an image that the proposal network learns from, half of them positive where there are so many."""
    sampled_regions: int = 512
    """Boxes of an image that the head learns from, a quarter of them positive where there are so many."""
    finest_px: float = 56.0
    """Boxes of twice this side are pooled from the second level, of four times from the third, and so on."""
    head_convs: int = 4
    """Convolutions of the head."""
    head_width: int | None = None
    """Width of the head's linear layers but the last; None takes the dense map's channels."""
    background_weight: float = 0.6
    """Of background in the classification loss, base classes having 1."""

    def __post_init__(self) -> None:
        """Check the levels. Raises ValueError."""
        if any(scale not in (4.0, 2.0, 1.0, 0.5) for scale in self.tap_scales) or not self.tap_scales:
            raise ValueError(f"--tap-scales {list(self.tap_scales)}: each of 4, 2, 1 or 0.5")
        if list(self.tap_scales) != [self.tap_scales[0] / 2**level for level in range(len(self.tap_scales))]:
            raise ValueError(f"--tap-scales {list(self.tap_scales)}: each half of the one before")
        if self.taps is not None and len(self.taps) != len(self.tap_scales):
            raise ValueError(f"--taps {list(self.taps)}: give {len(self.tap_scales)}, one for each of --tap-scales")
        check_at_least(self, 1, ["channels", "level_proposals", "proposals", "sampled_anchors", "sampled_regions"])
        check_at_least(self, 0, ["proposal_convs", "head_convs", "background_weight"])
        check_above(self, 0, ["anchor_scale", "finest_px", "head_width"])


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """What a detector sees."""

    image_size: int = 640
    """Side of the square input in pixels; whole patches. F-ViT has 640 for B/16, 896 for L/14."""
    normalisation: Literal["imagenet", "clip"] = "imagenet"
    """Mean and deviation of colours: ImageNet's, as F-ViT has it, or those that the CLIP was trained with."""
    templates: str = "vild"
    """Sentences for class names: vild (63), short (4), plain (the name and its article), or a file, one per line."""
    split_classes: str = "ov-coco"
    """Base and novel classes: ov-coco, scenes, scenes-held-out, or a JSON file {"base": [...], "novel": [...]}."""

    def __post_init__(self) -> None:
        """Check the size. Raises ValueError."""
        check_at_least(self, 1, ["image_size"])


@dataclass(frozen=True, kw_only=True)
class DetectOptimSettings:
    """How a detector is trained."""

    epochs: int = 3
    """Passes over the images that have base boxes."""
    batch_size: int = 64
    """Images per step; what is left of an epoch is not used in it."""
    lr: float = 1e-4
    """Of AdamW."""
    weight_decay: float = 0.1
    """On every trained parameter, norms and biases too."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    warmup_steps: int = 250
    """Steps in which the learning rate rises, from a thousandth."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate after the warm-up."""
    min_scale: float = 0.1
    """Smallest size of a training image, in sides of the input."""
    max_scale: float = 2.0
    """Largest size; what does not fit is cropped at random."""
    flip: float = 0.5
    """Share of training images that are mirrored."""
    precision: Precision = "fp32"
    """Of tower and convolutions; losses are always fp32. F-ViT has fp16 with a loss scale of 512."""
    seed: int = 0
    """Of weights, order, crops and samples."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        check_at_least(self, 1, ["epochs", "batch_size"])
        check_at_least(self, 0, ["warmup_steps", "seed"])
        check_shares(self, ["flip"])
        check_adamw(self)
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(f"--min-scale {self.min_scale} --max-scale {self.max_scale}: no size is between them")


@dataclass(frozen=True, kw_only=True)
class DetectRecipe(Recipe):
    """All that a training's result depends on, beside model and data."""

    detector: DetectorSettings = field(default_factory=DetectorSettings)
    inputs: InputSettings = field(default_factory=InputSettings)
    optim: DetectOptimSettings = field(default_factory=DetectOptimSettings)


def f_vit() -> DetectRecipe:
    """F-ViT on OV-COCO: 640 pixels for B/16; give `--image-size 896` for L/14."""
    return DetectRecipe()


def scenes() -> DetectRecipe:
    """A small detector for scenes of `classes=open24`: minutes on two CPU cores."""
    return DetectRecipe(
        detector=DetectorSettings(
            taps=(1, 2, 3),
            tap_scales=(2.0, 1.0, 0.5),
            extra_level=False,
            channels=64,
            norm="group",
            anchor_scale=2.0,
            proposal_convs=1,
            level_proposals=300,
            proposals=100,
            sampled_regions=64,
            finest_px=8.0,
            head_convs=0,
        ),
        inputs=InputSettings(image_size=96, normalisation="clip", templates="plain", split_classes="scenes"),
        optim=DetectOptimSettings(
            epochs=4, batch_size=8, lr=1e-3, warmup_steps=50, schedule="cosine", min_scale=1.0, max_scale=1.0
        ),
    )


DETECT_RECIPES: dict[str, Callable[[], DetectRecipe]] = {recipe.__name__: recipe for recipe in (f_vit, scenes)}


@dataclass(frozen=True, kw_only=True)
class DetectRunSettings(RunSettings):
    """How `fineclip detect train` is carried out."""

    keep_epochs: bool = False
    """Keep the checkpoint of each epoch as RUN/epoch-N.pt: the second of three is often the best."""


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How a detector's boxes are scored and chosen."""

    alpha: float = 0.1
    """Share of CLIP in the score of a base class: p^(1 - alpha) q^alpha."""
    beta: float = 0.8
    """Share of CLIP in the score of a novel class."""
    clip_scale: float = 75.0
    """What similarities of CLIP are multiplied by before their softmax."""
    score_threshold: float = 0.01
    """Smallest score of a detection."""
    nms: float = 0.4
    """Largest overlap (IoU) of two detections of a class."""
    max_detections: int = 100
    """Most detections per image."""

    def __post_init__(self) -> None:
        """Check the shares. Raises ValueError."""
        if not (0 <= self.alpha <= 1 and 0 <= self.beta <= 1):
            raise ValueError(f"--alpha {self.alpha} --beta {self.beta}: shares from 0 to 1")
        check_shares(self, ["score_threshold", "nms"])
        check_above(self, 0, ["clip_scale"])
        check_at_least(self, 1, ["max_detections"])
