"""A segmenter's training from start, or from where it was stopped, to its end, in one process.

The same command goes on from `segmenter.pt`, to the same bits on a CPU; other settings, data or weights are refused.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from trainer.cores import default_threads
from trainer.errors import StoppedError, TrainingError
from trainer.loss.gather import world_size
from trainer.model.export import export
from trainer.model.open import LoadedModel
from trainer.run.assemble import state_fingerprint
from trainer.run.checkpoints import Checkpoint, check_same_run, load_checkpoint, save_checkpoint
from trainer.run.log import duration, forget_after
from trainer.run.stop import StopRequest
from trainer.run.train_settings import TrainResult
from trainer.segmentation.batches import CropBatch, TrainCrops, load
from trainer.segmentation.data import SegmentData
from trainer.segmentation.files import CLIP, METRICS, SEGMENTER, SKIPPED
from trainer.segmentation.mask_loss import mask_loss
from trainer.segmentation.run import build
from trainer.segmentation.segmenter import Segmenter
from trainer.segmentation.settings import SegmentOptimSettings, SegmentRecipe, SegmentRunSettings
from trainer.segmentation.tuning import forget_keys, restore_keys

_FEW_SKIPPED = 10
"""Unusable images that never stop a run, if others are usable."""
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
    if world_size() > 1:
        raise TrainingError("`fineclip segment train` runs in one process: start it without torchrun")
    torch.set_num_threads(settings.threads or default_threads(settings.workers))
    run = SegmenterTraining(clip, data, out, recipe, settings, device=device, console=console)
    return run.run(stop)


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


class SegmenterTraining:
    """A training in progress."""

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
        self._out, self._recipe, self._settings = out, recipe, settings
        self._device, self._console = device, console
        self._data_fingerprint = data.fingerprint()
        self._start_fingerprint = state_fingerprint(clip.clip.state_dict())
        out.mkdir(parents=True, exist_ok=True)
        if not (out / CLIP).exists():
            export(clip.clip.state_dict(), clip, out / CLIP, "local-dir")
        self._batches = TrainCrops(data, side=recipe.inputs.crop_px, optim=recipe.optim)
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
        self._optimizer = optimizer_of(self.segmenter, recipe.optim)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.optim.precision == "fp16")
        self._step = self._samples_seen = self._skipped = 0
        if (out / SEGMENTER).exists():
            self._resume(load_checkpoint(out / SEGMENTER))

    def run(self, stop: StopRequest) -> TrainResult:
        """Train until the end, until `stop_after`, or until asked to stop."""
        num_steps = self._recipe.optim.steps
        last_step = min(num_steps, self._settings.stop_after or num_steps)
        for name in (METRICS, SKIPPED):
            forget_after(self._out / name, self._step)
        began, images_before = time.monotonic(), self._samples_seen
        self._began = (began, self._step)
        for batch in load(self._batches, range(self._step, last_step), workers=self._settings.workers):
            loss, lr = self._learn(batch)
            ends = stop.requested or self._step == last_step
            if ends or self._step % self._settings.log_every == 0:
                rate = (self._samples_seen - images_before) / max(time.monotonic() - began, 1e-9)
                self._report(loss, lr, rate)
                began, images_before = time.monotonic(), self._samples_seen
            if ends or self._step % self._settings.checkpoint_every == 0:
                self._save()
            if ends:
                break
        return TrainResult(step=self._step, num_steps=num_steps)

    def _learn(self, batch: CropBatch) -> tuple[float, float]:
        """Take a step; return loss and learning rate. Raises StoppedError where the loss is not finite."""
        self._count(batch)
        optim, segmenter = self._recipe.optim, self.segmenter
        lr = optim.lr * (1 + math.cos(math.pi * (self._step - 1) / optim.steps)) / 2
        if not batch.keys:
            return float("nan"), lr
        texts = segmenter.texts(self._tokens) if self._fixed_texts is None else self._fixed_texts
        logits = segmenter(batch.pixels.to(self._device).float(), texts)
        loss = mask_loss(logits, batch.labels.to(self._device), ignored=optim.ignored)
        if not math.isfinite(loss.item()):
            raise StoppedError(
                f"step {self._step}: the loss is {loss.item()}; its images were {', '.join(batch.keys)}. "
                "Try a smaller --lr, or --precision fp32"
            )
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
        return loss.item(), lr

    def _count(self, batch: CropBatch) -> None:
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

    def _report(self, loss: float, lr: float, images_per_s: float) -> None:
        known = {} if math.isnan(loss) else {"loss": loss}
        self._write(METRICS, {"step": self._step, **known, "lr": lr, "images_per_s": images_per_s})
        said = f"loss {loss:.4f}, " if known else ""
        steps = self._recipe.optim.steps
        began, first_step = self._began
        left_s = (time.monotonic() - began) / (self._step - first_step) * (steps - self._step)
        self._console.print(
            f"step {self._step}/{steps}: {said}{images_per_s:.1f} images/s, {duration(left_s)} left",
            highlight=False,
            soft_wrap=True,
        )

    def _write(self, name: str, line: Mapping[str, Any]) -> None:
        with (self._out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        checkpoint = Checkpoint(
            recipe=self._recipe.plain(),
            data_fingerprint=self._data_fingerprint,
            start_fingerprint=self._start_fingerprint,
            step=self._step,
            samples_seen=self._samples_seen,
            samples_skipped=self._skipped,
            best=None,
            model=self.segmenter.trained_state(),
            teacher=None,
            optimizer=self._optimizer.state_dict(),
            scaler=self._scaler.state_dict(),
        )
        save_checkpoint(self._out / SEGMENTER, checkpoint)

    def _resume(self, checkpoint: Checkpoint) -> None:
        check_same_run(
            checkpoint,
            recipe=self._recipe.plain(),
            data_fingerprint=self._data_fingerprint,
            start_fingerprint=self._start_fingerprint,
            where=str(self._out),
        )
        self.segmenter.load_trained(checkpoint.model)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._scaler.load_state_dict(checkpoint.scaler)
        self._step, self._samples_seen = checkpoint.step, checkpoint.samples_seen
        self._skipped = checkpoint.samples_skipped
        self._console.print(f"going on after step {self._step}", highlight=False)
