"""A segmenter from its run.

RUN/clip          the CLIP that training started from, as open_clip loads it
RUN/segmenter.pt  the latest checkpoint; the CLIP's trained weights are in it
RUN/metrics.jsonl step, loss, lr, images_per_s
RUN/skipped.jsonl step, key and why, for images that could not be used
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.errors import TrainingError
from trainer.model.open import LoadedModel
from trainer.run.checkpoints import Checkpoint, load_checkpoint
from trainer.run.files import CLIP
from trainer.run.load import load_any
from trainer.segmentation.segmenter import Segmenter
from trainer.segmentation.settings import SegmentRecipe


@dataclass(frozen=True, kw_only=True)
class TrainedSegmenter:
    """A segmenter's run, opened."""

    clip: LoadedModel
    """What training started from."""
    recipe: SegmentRecipe
    checkpoint: Checkpoint

    def segmenter(self, *, device: torch.device) -> Segmenter:
        """Return the segmenter, in eval mode on `device`; its CLIP is `clip`, which gets the trained weights."""
        segmenter = build(self.clip, self.recipe, device=device, tune=False)
        segmenter.load_trained(self.checkpoint.model)
        return segmenter.eval()


def open_segmenter(path: Path) -> TrainedSegmenter:
    """Open a segmenter's checkpoint. Raises TrainingError where it or the CLIP beside it cannot be used."""
    checkpoint = load_checkpoint(path)
    try:
        recipe = SegmentRecipe.of_plain(checkpoint.recipe)
    except KeyError as error:
        raise TrainingError(f"{path}: not a checkpoint of `fineclip segment train`") from error
    return TrainedSegmenter(clip=load_any(str(path.parent / CLIP)).model, recipe=recipe, checkpoint=checkpoint)


def build(
    clip: LoadedModel,
    recipe: SegmentRecipe,
    *,
    device: torch.device,
    tune: bool,
    gradient_checkpointing: bool = False,
) -> Segmenter:
    """Return a segmenter of fresh weights, drawn from torch's random numbers, on `device`; the CLIP is moved there.

    Its CLIP is trained if `tune` and the recipe's learning rate for it is not 0.
    """
    clip.clip.to(device)
    return Segmenter(
        clip,
        settings=recipe.head,
        inputs=recipe.inputs,
        precision=recipe.optim.precision,
        tune=tune and recipe.optim.clip_lr_scale > 0,
        gradient_checkpointing=gradient_checkpointing,
    ).to(device)
