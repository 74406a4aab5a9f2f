"""A detector's training from start, or from where it was stopped, to its end, in one process.

The same command goes on from `detector.pt`, to the same bits on a CPU; other settings, data or weights are refused.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from trainer.cores import default_threads
from trainer.detection.annotations import DetectionData
from trainer.detection.batches import CanvasBatch, TrainBatches, load
from trainer.detection.detector import Detector
from trainer.detection.files import CLIP, DETECTOR, METRICS, SKIPPED
from trainer.detection.run import build
from trainer.detection.settings import DetectOptimSettings, DetectRecipe, DetectRunSettings
from trainer.errors import StoppedError, TrainingError
from trainer.loss.gather import world_size
from trainer.model.export import export
from trainer.model.open import LoadedModel
from trainer.run.assemble import state_fingerprint
from trainer.run.checkpoints import Checkpoint, check_same_run, load_checkpoint, save_checkpoint
from trainer.run.log import duration, forget_after
from trainer.run.stop import StopRequest
from trainer.run.train_settings import TrainResult

_WARMUP_START = 0.001
_LOSS_SCALE = 512.0
_FEW_SKIPPED = 10
"""Unusable images that never stop a run, if others are usable."""


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
    if world_size() > 1:
        raise TrainingError("`fineclip detect train` runs in one process: start it without torchrun")
    torch.set_num_threads(settings.threads or default_threads(settings.workers))
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


class DetectorTraining:
    """A training in progress."""

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
        self._clip, self._out, self._recipe, self._settings = clip, out, recipe, settings
        self._device, self._console = device, console
        self._data_fingerprint = data.fingerprint()
        self._start_fingerprint = state_fingerprint(clip.clip.state_dict())
        self._batches = TrainBatches(data, side=recipe.inputs.image_size, optim=recipe.optim)
        self._num_steps = recipe.optim.epochs * self._batches.steps_per_epoch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.optim.seed)
            self.detector: Detector = build(clip, data.classes, data.is_base.tolist(), recipe, device=device)
        self.detector.train()
        optim = recipe.optim
        self._optimizer = torch.optim.AdamW(
            self.detector.parameters(), lr=optim.lr, betas=(0.9, 0.999), weight_decay=optim.weight_decay
        )
        self._scaler = torch.amp.GradScaler(
            device.type, init_scale=_LOSS_SCALE, growth_interval=2**31 - 1, enabled=optim.precision == "fp16"
        )
        self._step = self._samples_seen = self._skipped = 0
        if (out / DETECTOR).exists():
            self._resume(load_checkpoint(out / DETECTOR))

    def run(self, stop: StopRequest) -> TrainResult:
        """Train until the end, until `stop_after`, or until asked to stop."""
        last_step = min(self._num_steps, self._settings.stop_after or self._num_steps)
        self._out.mkdir(parents=True, exist_ok=True)
        if not (self._out / CLIP).exists():
            export(self._clip.clip.state_dict(), self._clip, self._out / CLIP, "local-dir")
        for name in (METRICS, SKIPPED):
            forget_after(self._out / name, self._step)
        began, images_before = time.monotonic(), self._samples_seen
        self._began = (began, self._step)
        for batch in load(self._batches, range(self._step, last_step), workers=self._settings.workers):
            losses, lr = self._learn(batch)
            ends = stop.requested or self._step == last_step
            if ends or self._step % self._settings.log_every == 0:
                rate = (self._samples_seen - images_before) / max(time.monotonic() - began, 1e-9)
                self._report(losses, lr, rate)
                began, images_before = time.monotonic(), self._samples_seen
            self._save_where_due(ends)
            if ends:
                break
        return TrainResult(step=self._step, num_steps=self._num_steps)

    def _learn(self, batch: CanvasBatch) -> tuple[dict[str, Tensor], float]:
        """Take a step. Raises StoppedError where the loss is not finite or too much was skipped."""
        self._count(batch)
        optim = self._recipe.optim
        torch.manual_seed(optim.seed * 1_000_003 + self._step)  # the samples of a step are the same however it came
        lr = learning_rate(self._step - 1, self._num_steps, optim)
        if not len(batch.canvases):
            return {}, lr
        device = self._device
        losses = self.detector.losses(
            batch.canvases.to(device),
            batch.sizes.to(device),
            [boxes.to(device) for boxes in batch.boxes],
            [labels.to(device) for labels in batch.labels],
        )
        total = losses["loss"].item()
        if not math.isfinite(total):
            raise StoppedError(
                f"step {self._step}: the loss is {total}; its images were {', '.join(batch.keys)}. "
                "Try a smaller --lr, or --precision fp32"
            )
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(losses["loss"]).backward()
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self.detector.parameters(), optim.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return losses, lr

    def _count(self, batch: CanvasBatch) -> None:
        self._step += 1
        self._samples_seen += len(batch.keys)
        self._skipped += len(batch.skipped)
        for key, why in batch.skipped:
            self._write(SKIPPED, {"step": self._step, "key": key, "why": why})
        seen = self._samples_seen + self._skipped
        too_many = self._skipped > max(_FEW_SKIPPED, self._settings.max_skipped * seen)
        if too_many or not self._samples_seen:
            key, why = batch.skipped[0] if batch.skipped else ("", "")
            raise StoppedError(f"{self._skipped} of {seen} images cannot be used; one of them, {key}: {why}")

    def _report(self, losses: Mapping[str, Tensor], lr: float, images_per_s: float) -> None:
        values = {name: value.item() for name, value in losses.items()}
        self._write(METRICS, {"step": self._step, **values, "lr": lr, "images_per_s": images_per_s})
        said = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        began, first_step = self._began
        left_s = (time.monotonic() - began) / (self._step - first_step) * (self._num_steps - self._step)
        self._console.print(
            f"step {self._step}/{self._num_steps}: {said}, {images_per_s:.1f} images/s, {duration(left_s)} left",
            highlight=False,
            soft_wrap=True,
        )

    def _write(self, name: str, line: Mapping[str, Any]) -> None:
        with (self._out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _save_where_due(self, ends: bool) -> None:
        epoch, rest = divmod(self._step, self._batches.steps_per_epoch)
        if ends or rest == 0 or self._step % self._settings.checkpoint_every == 0:
            self._save(DETECTOR)
        if rest == 0 and self._settings.keep_epochs:
            self._save(f"epoch-{epoch}.pt")

    def _save(self, name: str) -> None:
        checkpoint = Checkpoint(
            recipe=self._recipe.plain(),
            data_fingerprint=self._data_fingerprint,
            start_fingerprint=self._start_fingerprint,
            step=self._step,
            samples_seen=self._samples_seen,
            samples_skipped=self._skipped,
            best=None,
            model=self.detector.state_dict(),
            teacher=None,
            optimizer=self._optimizer.state_dict(),
            scaler=self._scaler.state_dict(),
        )
        save_checkpoint(self._out / name, checkpoint)

    def _resume(self, checkpoint: Checkpoint) -> None:
        check_same_run(
            checkpoint,
            recipe=self._recipe.plain(),
            data_fingerprint=self._data_fingerprint,
            start_fingerprint=self._start_fingerprint,
            where=str(self._out),
        )
        self.detector.load_state_dict(checkpoint.model)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._scaler.load_state_dict(checkpoint.scaler)
        self._step, self._samples_seen = checkpoint.step, checkpoint.samples_seen
        self._skipped = checkpoint.samples_skipped
        self._console.print(f"going on after step {self._step}", highlight=False)
