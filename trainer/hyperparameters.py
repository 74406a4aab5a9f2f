"""Hyperparameters: all that a training's result depends on, beside the data. `recipes.py` puts whole ones together.

Frozen dataclasses: their fields, defaults and docstrings are the command's flags and help. Nothing here imports torch,
so that `--help` is quick and needs none of the trainer's extra.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_type_hints

import numpy as np
import numpy.typing as npt

from trainer.ranges import check_above, check_at_least, check_shares

Interpolation = Literal["bilinear", "bicubic"]

Shuffle = Literal["global", "shards"]
"""All images alike; or shards in random order, a few open at a time: fewer places of slow storage at once."""

DuplicateText = Literal["positive", "mask", "negative"]
"""What another pair with the same normalised text is: a second match, nothing, or (as in the official code) wrong."""

TeacherKind = Literal["live", "detached", "ema", "frozen"]
"""Who embeds crops: the trained weights with gradient (the paper's) or without, their moving average, or the start."""

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model is trained, from what, and which of its parts."""

    model: str = "EVA02-B-16"
    """An open_clip model, `local-dir:FOLDER` in open_clip's form, or `fineclip-mini`."""
    pretrained: str | None = None
    """Weights to start from: an open_clip tag, or a file (open_clip's or the original EVA-CLIP's names; .pt or
    .safetensors). None starts from random weights, except for `local-dir:` folders that hold some."""
    image_size: int | tuple[int, int] = 224
    """Pixels that images are squashed to: a side, or [height, width]; whole patches."""
    crop_size: int | None = None
    """Pixels of a side that the teacher's crops are squashed to; None takes --image-size, its shorter side."""
    train_text: bool = False
    """Train the text tower too. Otherwise it is frozen, and each text is embedded once."""
    trainable: Literal["all", "blocks"] = "all"
    """What is trained of the vision tower: all of it, or its blocks only (as CLIPSelf's scripts do)."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than keep them: less memory, about a third more time."""
    interpolation: Interpolation = "bilinear"
    """How images and crops are squashed."""
    context_length: int | None = None
    """Tokens of a text, the rest cut off; more than the model's own (77) stretches its positions as Long-CLIP does, the
    first 20 kept, which asks for --train-text. None takes the model's own."""
    alpha: float = 1.0
    """Share of the trained weights in the exported ones, the rest being the start's; CLIPSelf has 0.7 for B/16."""

    def __post_init__(self) -> None:
        """Check the share and the sizes. Raises ValueError."""
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"--alpha {self.alpha}: a share of the trained weights, from 0 to 1")
        check_at_least(self, 1, ["image_size", "crop_size", "context_length"])

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def crop_side(self) -> int:
        """Pixels of a side of crops."""
        return min(self.input_size) if self.crop_size is None else self.crop_size


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """What is made of an image and its regions."""

    max_regions: int | None = 20
    """Most regions per image in an epoch; which ones changes from epoch to epoch. None takes all."""
    min_area_px: float = 0.0
    """Smallest region that is trained on, in square pixels of the stored image; the official code's is 8 x 8."""
    max_area_px: float | None = None
    """Largest region that is trained on; the official code's is 1024 x 1024. None takes all."""
    crop_scale: float = 1.5
    """Sides of the teacher's crop, in sides of the region's box; clipped to the image."""
    flip: bool = False
    """Mirror half of the images, left to right. Captions that say left or right are then wrong."""
    trim: float = 0.0
    """Cut away up to this share of the image at each side, at random; regions that lose half of their area go."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        if self.max_regions is not None and self.max_regions < 1:
            raise ValueError(f"--max-regions {self.max_regions}: give 1 or more")
        if not 0 <= self.trim < 0.5 or self.crop_scale <= 0:
            raise ValueError(f"--trim {self.trim} --crop-scale {self.crop_scale}: from 0 to below 0.5, and above 0")
        check_at_least(self, 0, ["min_area_px"])
        if self.max_area_px is not None and not 0 < self.max_area_px >= self.min_area_px:
            raise ValueError(
                f"--min-area-px {self.min_area_px} --max-area-px {self.max_area_px}: no region is between them"
            )

    def within_limits(self, area_px: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Return `[R]`: which regions of these areas are trained on."""
        return (area_px >= self.min_area_px) & (area_px <= (np.inf if self.max_area_px is None else self.max_area_px))


@dataclass(frozen=True, kw_only=True)
class OrderSettings:
    """Which images make a step."""

    global_batch_size: int = 256
    """Images per step, of all processes together; the paper's B/16 has 256, its L/14 80."""
    shuffle: Shuffle = "global"
    """All images alike, or `shards`: shards in random order, 8 of them mixed at a time (for slow storage)."""
    stream: bool = False
    """Read whole tars one after the other, a request each, as object stores like it: shards in random order, images
    mixed within each of 8 streams a process, whatever --shuffle says. Steps differ with the number of processes."""
    seed: int = 0
    """Of the order, of the choice of regions, and of random weights."""

    def __post_init__(self) -> None:
        """Check the size. Raises ValueError."""
        if self.global_batch_size < 1:
            raise ValueError(f"--global-batch-size {self.global_batch_size}: give 1 or more")
        check_at_least(self, 0, ["seed"])


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What is minimised."""

    global_weight: float = 1.0
    """Weight of the loss of images and their captions; 0 leaves it out."""
    region_weight: float = 1.0
    """Weight of the loss of regions and their captions (the paper's gamma); 0 leaves it out."""
    distill_weight: float = 1.0
    """Weight of the self-distillation (the paper's lambda); 0 leaves it out, and no crop is embedded."""
    region_objective: Literal["captions", "concepts"] = "captions"
    """What regions are matched with: their captions, or their labels among sampled concepts (RegionCLIP)."""
    concepts: str | None = None
    """File of concepts, one per line, for `--region-objective concepts`; None takes the data's distinct labels."""
    concepts_per_step: int = 100
    """Concepts that a step samples for `--region-objective concepts`."""
    duplicate_text: DuplicateText = "positive"
    """What another pair with the same text is (case and punctuation aside): a second match, left out of the sum, or a
    wrong match as in the official code."""
    teacher: TeacherKind = "live"
    """Who embeds the crops: the trained weights, with gradient (`live`, the paper's) or without (`detached`), their
    moving average (`ema`), or the start (`frozen`, CLIPSelf's)."""
    ema_decay: float = 0.999
    """Share of the moving average that each step keeps."""
    hard_negative_weight: float = 0.0
    """Weight of telling each region's caption from its hard negatives, captions with one word changed, which
    `fineclip hard-negatives` makes; 0 leaves it out, as the paper does."""
    official_quirks: int | None = None
    """Train the official code's objective in a run of this many processes: contrastive gradients divided by it, the
    distillation a mean of its processes' means, equal texts wrong matches, and for 1 the zero rows in the softmax."""

    def __post_init__(self) -> None:
        """Check the weights. Raises ValueError."""
        weights = (self.global_weight, self.region_weight, self.distill_weight)
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(f"loss weights {weights}: none may be negative, and one must be more than 0")
        check_at_least(self, 0, ["hard_negative_weight"])
        check_at_least(self, 1, ["concepts_per_step"])
        check_shares(self, ["ema_decay"])
        if self.hard_negative_weight and (not self.region_weight or self.region_objective == "concepts"):
            raise ValueError("--hard-negative-weight goes with the loss of regions and their captions")
        if self.hard_negative_weight and self.official_quirks is not None:
            raise ValueError("--official-quirks: the official code has no hard negatives; leave one of the two out")
        if self.official_quirks is not None and self.official_quirks < 1:
            raise ValueError(f"--official-quirks {self.official_quirks}: give the number of processes, 1 or more")

    @property
    def uses_regions(self) -> bool:
        """Whether any loss looks at regions."""
        return bool(self.region_weight or self.distill_weight)

    @property
    def uses_texts(self) -> bool:
        """Whether any loss looks at captions."""
        return bool(self.global_weight or (self.region_weight and self.region_objective == "captions"))

    @property
    def uses_concepts(self) -> bool:
        """Whether regions are matched with concepts."""
        return self.region_objective == "concepts" and bool(self.region_weight)


def check_adamw(settings: Any) -> None:
    """Check what AdamW is given by any training: a negative --clip-norm turns gradients round. Raises ValueError."""
    check_at_least(settings, 0, ["weight_decay"])
    check_above(settings, 0, ["lr", "clip_norm"])


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """How weights are updated. The defaults are the paper's."""

    epochs: int = 10
    """Times that every image is seen."""
    lr: float = 1e-5
    """Learning rate at the end of the warm-up."""
    warmup_steps: int = 1000
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = 0.1
    """Of weights with two or more dimensions; biases, norms and the temperature have none."""
    beta1: float = 0.9
    """Of AdamW."""
    beta2: float = 0.999
    """Of AdamW."""
    eps: float = 1e-8
    """Of AdamW."""
    clip_norm: float | None = None
    """Largest norm of all gradients together; None does not clip, as in the paper."""
    precision: Precision = "bf16"
    """Of the towers' activations: `bf16`, `fp16` (with a scaled loss) or `fp32`. Weights and losses are float32."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        if self.epochs < 1 or self.lr <= 0 or self.warmup_steps < 0:
            raise ValueError(f"--epochs {self.epochs} --lr {self.lr} --warmup-steps {self.warmup_steps}: out of range")
        check_adamw(self)
        check_above(self, 0, ["eps"])
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"--beta1 {self.beta1} --beta2 {self.beta2}: from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a training's result depends on, beside model and data; each field is a dataclass of settings.

    Names of settings are told once in all groups, since each is a flag.
    """

    def plain(self) -> dict[str, Any]:
        """Return the settings by name, as JSON has them."""
        parts = (dataclasses.asdict(part) for part in self.parts().values())
        return {
            name: list(value) if isinstance(value, tuple) else value for part in parts for name, value in part.items()
        }

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> Self:
        """Return the recipe that `plain` gave. Raises KeyError where it is of another kind."""
        return cls.of_values({n: tuple(value) if isinstance(value, list) else value for n, value in plain.items()})

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe of settings by name. Raises KeyError where one is missing, ValueError as they check."""
        kinds = get_type_hints(cls)
        parts = {part.name: kinds[part.name] for part in dataclasses.fields(cls)}
        return cls(
            **{part: kind(**{f.name: values[f.name] for f in dataclasses.fields(kind)}) for part, kind in parts.items()}
        )

    def parts(self) -> dict[str, Any]:
        """Return the groups of settings by name."""
        return {part.name: getattr(self, part.name) for part in dataclasses.fields(self)}
