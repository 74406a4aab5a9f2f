"""A detector's training from start, or from where it was stopped, to its end, in one process.

The same command goes on from `detector.pt`, to the same bits on a CPU; other settings, data or weights are refused.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from trainer.detection.annotations import DetectionData
from trainer.detection.batches import CanvasBatch, TrainBatches
from trainer.detection.detector import Detector
from trainer.detection.run import build
from trainer.detection.settings import DetectOptimSettings, DetectRecipe, DetectRunSettings
from trainer.model.open import LoadedModel
from trainer.run.assemble import state_fingerprint
from trainer.run.files import CLIP, DETECTOR
from trainer.run.head_training import HeadTraining, keep_clip, take_the_process
from trainer.run.lock import held
from trainer.run.optim import tell_long_warmup
from trainer.run.stop import StopRequest
from trainer.run.train_settings import TrainResult

_WARMUP_START = 0.001
_LOSS_SCALE = 512.0


def train_detector(
    clip: LoadedModel,
    data: DetectionData,
    out: Path,
    recipe: DetectRecipe,
    settings: DetectRunSettings,
    *,
    device: torch.device,
    console: Console,
    stop: StopRequest,
) -> TrainResult:
    """Train a detector on a CLIP's frozen vision tower, into the folder `out`.

    Raises TrainingError for unusable settings, RefusedError where `out` holds another run, StoppedError where the loss
    is not finite or too many images cannot be used.
    """
    take_the_process("fineclip detect train", settings)
    with held(out):
        run = DetectorTraining(clip, data, out, recipe, settings, device=device, console=console)
        return run.run(stop)


def learning_rate(step: int, num_steps: int, settings: DetectOptimSettings) -> float:
    """Return the learning rate of a step, from 0 of `num_steps`."""
    if step < settings.warmup_steps:
        return settings.lr * (_WARMUP_START + (1 - _WARMUP_START) * step / settings.warmup_steps)
    if settings.schedule == "constant":
        return settings.lr
    progress = (step - settings.warmup_steps) / max(num_steps - settings.warmup_steps, 1)
    return settings.lr * (1 + math.cos(math.pi * progress)) / 2


class DetectorTraining(HeadTraining[CanvasBatch]):
    """A training in progress."""

    checkpoint = DETECTOR

    def __init__(
        self,
        clip: LoadedModel,
        data: DetectionData,
        out: Path,
        recipe: DetectRecipe,
        settings: DetectRunSettings,
        *,
        device: torch.device,
        console: Console,
    ) -> None:
        """Stand at the start, or where the last checkpoint is. Raises RefusedError as `train_detector` does."""
        self._clip, self._optim, self._device = clip, recipe.optim, device
        self._keeps_epochs = settings.keep_epochs
        batches = TrainBatches(data, side=recipe.inputs.image_size, optim=recipe.optim)
        self._steps_per_epoch = batches.steps_per_epoch
        start_fingerprint = state_fingerprint(clip.clip.state_dict())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.optim.seed)
            self.detector: Detector = build(clip, data.classes, data.is_base.tolist(), recipe, device=device)
        self.detector.train()
        optim = recipe.optim
        super().__init__(
            out,
            batches,
            settings,
            num_steps=optim.epochs * batches.steps_per_epoch,
            recipe=recipe.plain(),
            data_fingerprint=data.fingerprint(),
            start_fingerprint=start_fingerprint,
            optimizer=torch.optim.AdamW(
                self.detector.parameters(), lr=optim.lr, betas=(0.9, 0.999), weight_decay=optim.weight_decay
            ),
            scaler=torch.amp.GradScaler(
                device.type, init_scale=_LOSS_SCALE, growth_interval=2**31 - 1, enabled=optim.precision == "fp16"
            ),
            console=console,
        )

    def run(self, stop: StopRequest) -> TrainResult:
        """Keep the CLIP beside the checkpoint, and train."""
        tell_long_warmup(self._optim.warmup_steps, self._num_steps, self._console)
        keep_clip(self._clip, self._out / CLIP, self._out / DETECTOR)
        return super().run(stop)

    def learn(self, batch: CanvasBatch) -> tuple[Mapping[str, Tensor], float]:
        """Take a step."""
        optim, device = self._optim, self._device
        torch.manual_seed(optim.seed * 1_000_003 + self._step)  # the samples of a step are the same however it came
        lr = learning_rate(self._step - 1, self._num_steps, optim)
        if not batch.keys:
            return {}, lr
        losses = self.detector.losses(
            batch.canvases.to(device),
            batch.sizes.to(device),
            [boxes.to(device) for boxes in batch.boxes],
            [labels.to(device) for labels in batch.labels],
        )
        loss = self.checked(losses["loss"], batch)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self.detector.parameters(), optim.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return losses, lr

    def save_where_due(self, ends: bool) -> None:
        """Save at the end of an epoch too, and keep that checkpoint where it is wanted."""
        epoch, rest = divmod(self._step, self._steps_per_epoch)
        super().save_where_due(ends or rest == 0)
        if rest == 0 and self._keeps_epochs:
            self.save(f"epoch-{epoch}.pt")

    def state(self) -> dict[str, Tensor]:
        """Return the detector's own weights: the tower is not trained."""
        return self.detector.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take them."""
        self.detector.load_state_dict(state)
