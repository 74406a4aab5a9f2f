"""A detector from its run.

RUN/clip          the CLIP that it stands on, as open_clip loads it
RUN/detector.pt   the latest checkpoint; epoch-N.pt, where they are kept
RUN/metrics.jsonl step, losses, lr, images_per_s
RUN/skipped.jsonl step, key and why, for images that could not be used
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from trainer.detection.detector import IMAGENET_MEAN, IMAGENET_STD, Classes, Detector
from trainer.detection.settings import DetectRecipe, InputSettings
from trainer.errors import TrainingError
from trainer.evaluate.templates import read_templates
from trainer.evaluate.texts import TextEncoder
from trainer.model.open import LoadedModel
from trainer.run.checkpoints import Checkpoint, load_checkpoint
from trainer.run.files import CLIP
from trainer.run.load import load_any

BACKGROUND_NAME = "background"
"""What the text of no class says."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A detector's run, opened."""

    clip: LoadedModel
    recipe: DetectRecipe
    checkpoint: Checkpoint

    def detector(self, names: Sequence[str], is_base: Sequence[bool], *, device: torch.device) -> Detector:
        """Return the detector with classes of these names, in eval mode on `device`."""
        detector = build(self.clip, names, is_base, self.recipe, device=device)
        detector.load_state_dict(self.checkpoint.model)
        return detector.eval()


def open_detector(path: Path) -> Trained:
    """Open a detector's checkpoint. Raises TrainingError where it or the CLIP beside it cannot be used."""
    checkpoint = load_checkpoint(path)
    try:
        recipe = DetectRecipe.of_plain(checkpoint.recipe)
    except KeyError as error:
        raise TrainingError(f"{path}: a checkpoint of `fineclip train`, not of `fineclip detect train`") from error
    return Trained(clip=load_any(str(path.parent / CLIP)).model, recipe=recipe, checkpoint=checkpoint)


def build(
    clip: LoadedModel, names: Sequence[str], is_base: Sequence[bool], recipe: DetectRecipe, *, device: torch.device
) -> Detector:
    """Return a detector of fresh weights, drawn from torch's random numbers, on `device`; the CLIP is moved there."""
    clip.clip.to(device)
    mean, std = colours_of(clip, recipe.inputs)
    return Detector(
        cast(nn.Module, clip.clip.visual),
        classes_of(clip, names, is_base, recipe.inputs, device=device),
        settings=recipe.detector,
        image_size=recipe.inputs.image_size,
        mean=mean,
        std=std,
        precision=recipe.optim.precision,
    ).to(device)


def colours_of(clip: LoadedModel, inputs: InputSettings) -> tuple[Any, Any]:
    """Return mean and deviation of colours, as `inputs` say."""
    return (clip.mean, clip.std) if inputs.normalisation == "clip" else (IMAGENET_MEAN, IMAGENET_STD)


def classes_of(
    clip: LoadedModel, names: Sequence[str], is_base: Sequence[bool], inputs: InputSettings, *, device: torch.device
) -> Classes:
    """Return the texts' features of class names and of background. Raises TrainingError for unusable templates."""
    encoder = TextEncoder(model=clip, device=device, templates=read_templates(inputs.templates))
    texts = encoder.class_names([*names, BACKGROUND_NAME]).clone().to(device)
    return Classes(texts=texts, is_base=torch.tensor(list(is_base), dtype=torch.bool, device=device))
