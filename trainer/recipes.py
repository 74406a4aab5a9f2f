"""Recipes: what a run is, as functions that return frozen settings. Flags override single fields.

fineclip train DATA --recipe vitb16 --out RUN --epochs 6 --distill-weight 8
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from trainer.hyperparameters import LossSettings, ModelSettings, OptimSettings, OrderSettings, Recipe, SampleSettings

_OFFICIAL_MIN, _OFFICIAL_MAX = 8.0 * 8, 1024.0 * 1024
"""Areas of regions in pixels that the official code trains on."""


@dataclass(frozen=True, kw_only=True)
class TrainRecipe(Recipe):
    """All that the result of a run depends on, beside the data."""

    model: ModelSettings = field(default_factory=ModelSettings)
    samples: SampleSettings = field(default_factory=SampleSettings)
    order: OrderSettings = field(default_factory=OrderSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)

    def __post_init__(self) -> None:
        """Check what the parts ask of each other. Raises ValueError."""
        if self.model.train_text and not self.loss.uses_texts:
            raise ValueError("--train-text: no loss of this recipe looks at texts; give --train-text false")
        if self.loss.official_quirks is not None and self.loss.region_objective == "concepts":
            raise ValueError("--official-quirks are FineCLIP's: not for --region-objective concepts")
        if self.loss.official_quirks == 1 and self.samples.max_regions is None:
            raise ValueError("--official-quirks 1 pads regions to --max-regions per image: give it")

    def changed(self) -> dict[str, Any]:
        """Return the settings by name that are not the defaults: a setting that is new here leaves it as it was."""
        defaults = TrainRecipe().plain()
        return {name: value for name, value in self.plain().items() if value != defaults[name]}


def vitb16() -> TrainRecipe:
    """The paper's FineCLIP with EVA02-CLIP B/16 at 224: 256 images per step, 20 regions per image, 10 epochs."""
    return TrainRecipe(
        model=ModelSettings(model="EVA02-B-16", pretrained="merged2b_s8b_b131k"),
        samples=SampleSettings(min_area_px=_OFFICIAL_MIN, max_area_px=_OFFICIAL_MAX),
    )


def vitl14() -> TrainRecipe:
    """The paper's FineCLIP with EVA02-CLIP L/14 at 336: 80 images per step, 5 regions per image, 10 epochs."""
    return TrainRecipe(
        model=ModelSettings(model="EVA02-L-14-336", pretrained="merged2b_s6b_b61k", image_size=336),
        samples=SampleSettings(max_regions=5, min_area_px=_OFFICIAL_MIN, max_area_px=_OFFICIAL_MAX),
        order=OrderSettings(global_batch_size=80),
    )


def clipself_vitb16() -> TrainRecipe:
    """CLIPSelf: only the distillation, from the frozen start; blocks trained; the result averaged with the start.

    Its own runs use images of 1024 pixels padded to a square; here they are squashed. Give `--image-size`.
    """
    base = vitb16()
    return replace(
        base,
        model=replace(base.model, trainable="blocks", alpha=0.7, crop_size=224),
        order=OrderSettings(global_batch_size=16),
        loss=LossSettings(global_weight=0, region_weight=0, teacher="frozen"),
        optim=OptimSettings(epochs=6),
    )


def regionclip_vitb16() -> TrainRecipe:
    """RegionCLIP as the official baseline has it: regions against sampled concepts; blocks trained."""
    base = vitb16()
    return replace(
        base,
        model=replace(base.model, trainable="blocks"),
        loss=LossSettings(global_weight=0, distill_weight=0, region_objective="concepts"),
    )


def clip_vitb16() -> TrainRecipe:
    """CLIP on the same images: only the loss of images and their captions."""
    return replace(vitb16(), loss=LossSettings(region_weight=0, distill_weight=0))


def mini() -> TrainRecipe:
    """A small CLIP from random weights, text tower included: a few minutes on two CPU cores, for scenes."""
    return TrainRecipe(
        model=ModelSettings(model="fineclip-mini", image_size=96, crop_size=48, train_text=True),
        samples=SampleSettings(max_regions=4),
        order=OrderSettings(global_batch_size=32),
        optim=OptimSettings(epochs=8, lr=1e-3, warmup_steps=20, clip_norm=1.0, precision="fp32"),
    )


def scenes_clip() -> TrainRecipe:
    """The start of the scenes benchmark: a small CLIP from random weights, whole scenes and their captions alone."""
    base = mini()
    return replace(
        base,
        model=replace(base.model, model="fineclip-scenes", image_size=64, crop_size=32),
        order=OrderSettings(global_batch_size=48),
        loss=LossSettings(region_weight=0, distill_weight=0),
        optim=replace(base.optim, epochs=2, warmup_steps=50),
    )


def scenes() -> TrainRecipe:
    """FineCLIP of the scenes benchmark, from `scenes_clip`'s result: text tower frozen, a CPU minute or two."""
    base = scenes_clip()
    return replace(
        base,
        model=replace(base.model, train_text=False),
        order=OrderSettings(global_batch_size=32),
        loss=LossSettings(),
        optim=replace(base.optim, epochs=1, lr=5e-4, warmup_steps=20),
    )


RECIPES: dict[str, Callable[[], TrainRecipe]] = {
    recipe.__name__: recipe
    for recipe in (vitb16, vitl14, clipself_vitb16, regionclip_vitb16, clip_vitb16, mini, scenes_clip, scenes)
}
