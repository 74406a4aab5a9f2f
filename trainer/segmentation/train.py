"""A segmenter's training from start, or from where it was stopped, to its end, in one process.

The same command goes on from `segmenter.pt`, to the same bits on a CPU; other settings, data or weights are refused.
"""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from trainer.data.decode import UnusableSampleError
from trainer.errors import TrainingError
from trainer.model.open import LoadedModel
from trainer.run.assemble import state_fingerprint
from trainer.run.files import CLIP, SEGMENTER
from trainer.run.head_training import HeadTraining, keep_clip, take_the_process
from trainer.run.lock import held
from trainer.run.stop import StopRequest
from trainer.run.train_settings import TrainResult
from trainer.segmentation.batches import CropBatch, TrainCrops
from trainer.segmentation.data import SegmentData
from trainer.segmentation.mask_loss import NO_CLASS, mask_loss
from trainer.segmentation.run import build
from trainer.segmentation.segmenter import Segmenter
from trainer.segmentation.settings import SegmentOptimSettings, SegmentRecipe, SegmentRunSettings
from trainer.segmentation.tuning import forget_keys, restore_keys

_LOOKED_AT = 100
"""Images at most, in their order."""
_NORMS = (nn.LayerNorm, nn.GroupNorm)


def train_segmenter(
    clip: LoadedModel,
    data: SegmentData,
    out: Path,
    recipe: SegmentRecipe,
    settings: SegmentRunSettings,
    *,
    device: torch.device,
    console: Console,
    stop: StopRequest,
) -> TrainResult:
    """Train a segmenter, and queries and values of the CLIP under it, into the folder `out`.

    Raises TrainingError for unusable settings, RefusedError where `out` holds another run, StoppedError where the loss
    is not finite or too many images cannot be used.
    """
    take_the_process("fineclip segment train", settings)
    check_labelled(data)
    with held(out):
        run = SegmenterTraining(clip, data, out, recipe, settings, device=device, console=console)
        return run.run(stop)


def check_labelled(data: SegmentData) -> None:
    """Raise TrainingError where no pixel of the first images has a class: training would learn that there are none."""
    num_read = 0
    for image in range(min(len(data), _LOOKED_AT)):
        with contextlib.suppress(UnusableSampleError):
            _, labels = data.read(image)
            num_read += 1
            if (labels != NO_CLASS).any():
                return
    if num_read:
        raise TrainingError(
            f"{data.where}: no pixel of {num_read} images that were looked at has a class that is trained on: are "
            "these the maps and the list that belong together?"
        )


def optimizer_of(segmenter: Segmenter, optim: SegmentOptimSettings) -> torch.optim.AdamW:
    """Return AdamW with a group for the segmenter's norms, for its other weights, and for the CLIP's."""
    of_norms = {
        parameter
        for module in segmenter.modules()
        if isinstance(module, _NORMS)
        for parameter in module.parameters(recurse=False)
    }
    others = [parameter for parameter in segmenter.parameters() if parameter not in of_norms]
    norms = [parameter for parameter in segmenter.parameters() if parameter in of_norms]
    groups: list[dict[str, Any]] = [
        {"params": others, "scale": 1.0, "weight_decay": optim.weight_decay},
        {"params": norms, "scale": 1.0, "weight_decay": 0.0},
    ]
    if segmenter.tuned:
        tuned = [one.parameter for one in segmenter.tuned]
        groups.append({"params": tuned, "scale": optim.clip_lr_scale, "weight_decay": optim.weight_decay})
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(0.9, 0.999))


class SegmenterTraining(HeadTraining[CropBatch]):
    """A training in progress."""

    checkpoint = SEGMENTER

    def __init__(
        self,
        clip: LoadedModel,
        data: SegmentData,
        out: Path,
        recipe: SegmentRecipe,
        settings: SegmentRunSettings,
        *,
        device: torch.device,
        console: Console,
    ) -> None:
        """Stand at the start, or where the last checkpoint is. Raises RefusedError as `train_segmenter` does."""
        self._optim, self._device = recipe.optim, device
        start_fingerprint = state_fingerprint(clip.clip.state_dict())
        out.mkdir(parents=True, exist_ok=True)
        keep_clip(clip, out / CLIP, out / SEGMENTER)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.optim.seed)
            self.segmenter: Segmenter = build(
                clip,
                recipe,
                device=device,
                tune=True,
                gradient_checkpointing=settings.gradient_checkpointing,
            )
        self.segmenter.train()
        self._tokens = self.segmenter.sentences(data.classes)
        self._fixed_texts: Tensor | None = None
        if not any(not one.name.startswith("visual.") for one in self.segmenter.tuned):
            with torch.no_grad():
                self._fixed_texts = self.segmenter.texts(self._tokens)
        super().__init__(
            out,
            TrainCrops(data, side=recipe.inputs.crop_px, optim=recipe.optim),
            settings,
            num_steps=recipe.optim.steps,
            recipe=recipe.plain(),
            data_fingerprint=data.fingerprint(),
            start_fingerprint=start_fingerprint,
            optimizer=optimizer_of(self.segmenter, recipe.optim),
            scaler=torch.amp.GradScaler(device.type, enabled=recipe.optim.precision == "fp16"),
            console=console,
        )

    def learn(self, batch: CropBatch) -> tuple[Mapping[str, Tensor], float]:
        """Take a step."""
        optim, segmenter = self._optim, self.segmenter
        lr = optim.lr * (1 + math.cos(math.pi * (self._step - 1) / optim.steps)) / 2
        if not batch.keys:
            return {}, lr
        texts = segmenter.texts(self._tokens) if self._fixed_texts is None else self._fixed_texts
        logits = segmenter(batch.pixels.to(self._device).float(), texts)
        loss = self.checked(mask_loss(logits, batch.labels.to(self._device), ignored=optim.ignored), batch)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        forget_keys(segmenter.tuned)
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        restore_keys(segmenter.tuned)
        return {"loss": loss}, lr

    def state(self) -> dict[str, Tensor]:
        """Return the segmenter's weights, and those of the CLIP that are trained."""
        return self.segmenter.trained_state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take them."""
        self.segmenter.load_trained(state)
