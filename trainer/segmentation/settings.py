"""What a segmenter, its training and its measurement consist of. Nothing here imports torch.

The defaults are CAT-Seg's for B/16; L/14 at 336 pixels takes `--image-size 336`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from trainer.hyperparameters import Precision, Recipe, check_adamw
from trainer.ranges import check_at_least, check_shares
from trainer.run.train_settings import RunSettings

GUIDES_OF_DEPTH = {12: (3, 7), 24: (7, 15)}
"""Blocks that guide CAT-Seg's decoder, by the depth of the tower: B/16, L/14."""


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What a segmenter consists of."""

    residual: Literal["own", "cls"] = "cls"
    """What the last block's values are added to: each patch's own token, or the class token for all, as CAT-Seg has it;
    FineCLIP's dense map, and CAT-Seg of 2023, have `own`."""
    guides: tuple[int, ...] | None = None
    """Blocks whose patches guide the decoder, counted from 0; None takes CAT-Seg's for 12 and 24 blocks."""
    guide_channels: tuple[int, ...] = (256, 128)
    """Channels of the guides, a level each; each level doubles the sides of the masks."""
    guide_kept: tuple[int, ...] = (32, 16)
    """Channels of the guides that join a level."""
    decoder_channels: tuple[int, ...] = (64, 32)
    """Channels of the levels; multiples of 16."""
    dim: int = 128
    """Channels of the cost volume."""
    layers: int = 2
    """Rounds over the image and over the classes."""
    heads: int = 4
    """Heads of attention."""
    window: int = 12
    """Side of a window in patches; the grid of patches is whole windows."""
    most_classes: int = 256
    """Classes that attend to each other: a learned one fills up fewer, of more each view keeps the likeliest."""
    train_pool: int = 2
    """In training, attention over classes is for squares of patches of this side; for every patch in use."""

    def __post_init__(self) -> None:
        """Check the levels. Raises ValueError."""
        levels = {len(self.guide_channels), len(self.guide_kept), len(self.decoder_channels)}
        if len(levels) != 1 or 0 in levels or (self.guides is not None and len(self.guides) not in levels):
            raise ValueError("--guides, --guide-channels, --guide-kept and --decoder-channels: as many of each")
        if any(channels < 16 or channels % 16 for channels in self.decoder_channels):
            raise ValueError(f"--decoder-channels {list(self.decoder_channels)}: multiples of 16")
        before = (self.dim, *self.decoder_channels)
        if any(not 0 < kept < channels for kept, channels in zip(self.guide_kept, before, strict=False)):
            raise ValueError(f"--guide-kept {list(self.guide_kept)}: each fewer than the channels before its level")
        if self.dim % self.heads or min(self.layers, self.window, self.most_classes, self.train_pool) < 1:
            raise ValueError(
                "--dim is a multiple of --heads; --layers, --window, --most-classes and --train-pool are 1 or more"
            )


@dataclass(frozen=True, kw_only=True)
class SegmentInputs:
    """What a segmenter sees and reads."""

    image_size: int = 384
    """Side of what the tower sees, in pixels; whole patches. CAT-Seg has 384 for B/16, 336 for L/14."""
    crop_px: int = 384
    """Side of a training crop, and of a window in use, before it is resized to --image-size."""
    template: str = "A photo of a {} in the scene"
    """Sentence for a class name; `{article} {}` has the name's a or an."""
    text: Literal["frozen", "tuned"] = "tuned"
    """Train queries and values of the text tower too; names are then embedded anew at every step."""
    split_classes: str | None = None
    """Base and novel classes: scenes, scenes-held-out, ov-coco, or a JSON file {"base": [...], "novel": [...]}; pixels
    of novel classes are not trained on. None trains on all."""
    background: str | None = None
    """Name of what no region covers, for data of regions; None leaves such pixels out."""

    def __post_init__(self) -> None:
        """Check the sizes. Raises ValueError."""
        check_at_least(self, 1, ["image_size", "crop_px"])


@dataclass(frozen=True, kw_only=True)
class SegmentOptimSettings:
    """How a segmenter is trained."""

    steps: int = 80_000
    """Steps in all."""
    batch_size: int = 4
    """Images per step; what is left of an epoch is not used in it."""
    lr: float = 2e-4
    """Of AdamW, for the segmenter's own weights; a cosine to 0."""
    clip_lr_scale: float = 0.01
    """The CLIP's learning rate, in those of the segmenter; 0 leaves the CLIP as it is."""
    weight_decay: float = 1e-4
    """On all weights but those of norms."""
    clip_norm: float = 0.01
    """Largest norm of the gradient of all that is trained."""
    ignored: Literal["negative", "left_out"] = "negative"
    """Pixels without a label: of no class, as CAT-Seg has it, or not trained on."""
    colour_jitter: bool = True
    """Change brightness, contrast, saturation and hue at random, as SSD does."""
    flip: float = 0.5
    """Share of training images that are mirrored."""
    precision: Precision = "fp32"
    """Of the forward pass; the loss is always fp32."""
    seed: int = 0
    """Of weights, order, crops and colours."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        check_at_least(self, 1, ["steps", "batch_size"])
        check_at_least(self, 0, ["clip_lr_scale", "seed"])
        check_shares(self, ["flip"])
        check_adamw(self)


@dataclass(frozen=True, kw_only=True)
class SegmentRecipe(Recipe):
    """All that a training's result depends on, beside model and data."""

    head: HeadSettings = field(default_factory=HeadSettings)
    inputs: SegmentInputs = field(default_factory=SegmentInputs)
    optim: SegmentOptimSettings = field(default_factory=SegmentOptimSettings)


def cat_seg() -> SegmentRecipe:
    """CAT-Seg on COCO-Stuff: 384 pixels for B/16; give `--image-size 336` for L/14 at 336."""
    return SegmentRecipe()


def scenes() -> SegmentRecipe:
    """A small segmenter for scenes of `classes=open24`: minutes on two CPU cores."""
    return SegmentRecipe(
        head=HeadSettings(
            residual="own",
            guides=(1,),
            guide_channels=(64,),
            guide_kept=(16,),
            decoder_channels=(32,),
            dim=32,
            layers=1,
            window=6,
            most_classes=32,
        ),
        inputs=SegmentInputs(
            image_size=96,
            crop_px=96,
            template="{article} {}",
            text="frozen",
            split_classes="scenes",
            background="background",
        ),
        optim=SegmentOptimSettings(
            steps=1200, batch_size=8, lr=4e-3, clip_norm=1.0, ignored="left_out", colour_jitter=False
        ),
    )


SEGMENT_RECIPES: dict[str, Callable[[], SegmentRecipe]] = {recipe.__name__: recipe for recipe in (cat_seg, scenes)}


@dataclass(frozen=True, kw_only=True)
class SegmentRunSettings(RunSettings):
    """How `fineclip segment train` is carried out."""

    gradient_checkpointing: bool = False
    """Compute activations twice rather than keep them: much less memory, about a third more time."""


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """How an image is cut into views."""

    canvas_px: int = 640
    """Side of the square that an image is squashed to before it is cut; 0 takes the whole image alone as one view."""
    stride_px: int = 256
    """From window to window, in pixels of that square; windows have the side of a training crop."""
    views_at_once: int = 8
    """Views in memory at a time."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        if self.canvas_px < 0 or min(self.stride_px, self.views_at_once) < 1:
            raise ValueError("--canvas-px: 0 or more; --stride-px and --views-at-once: 1 or more")


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """Which pixels are of a name, and which of them are regions."""

    threshold: float = 0.5
    """Smallest probability of a pixel's likeliest name; below it the pixel is of none."""
    min_area_px: int = 64
    """Smallest region in pixels."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        if not 0 <= self.threshold <= 1 or self.min_area_px < 1:
            raise ValueError(
                f"--threshold {self.threshold} --min-area-px {self.min_area_px}: from 0 to 1, and 1 or more"
            )
