"""The training of what stands on a CLIP, a detector or a segmenter, in one process: how it goes on, tells, and is kept.

The same command goes on from its checkpoint, to the same bits on a CPU; other settings, data or weights are refused.

RUN/CHECKPOINT     the latest state
RUN/metrics.jsonl  step, losses, lr, images_per_s
RUN/skipped.jsonl  images that could not be used
"""

import json
import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset

from trainer.cores import default_threads
from trainer.data.batches import load_in_order
from trainer.errors import StoppedError, TrainingError
from trainer.loss.gather import world_size
from trainer.model.export import export
from trainer.model.open import LoadedModel
from trainer.run.checkpoints import Checkpoint, check_same_run, load_checkpoint, save_checkpoint, with_contents
from trainer.run.log import duration, forget_after
from trainer.run.stop import StopRequest
from trainer.run.train_settings import RunSettings, TrainResult

_METRICS, _SKIPPED = "metrics.jsonl", "skipped.jsonl"
_FEW_SKIPPED = 10
"""Unusable images that never stop a run, if others are usable."""


class Batch(Protocol):
    """Images of a step."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Images that are used."""

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(key, why) of those that cannot be."""


_Batch = TypeVar("_Batch", bound=Batch)


def take_the_process(command: str, settings: RunSettings) -> None:
    """Set torch's threads. Raises TrainingError where several processes run `command`."""
    if world_size() > 1:
        raise TrainingError(f"`{command}` runs in one process: start it without torchrun")
    torch.set_num_threads(settings.threads or default_threads(settings.workers))


def keep_clip(clip: LoadedModel, folder: Path, checkpoint: Path) -> None:
    """Keep the CLIP that a run stands on beside its checkpoint, whole or not at all.

    What is there without a checkpoint is of a run that was killed early, perhaps with another CLIP: it is written anew.
    """
    if checkpoint.exists() and folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    for left in (partial, folder):
        shutil.rmtree(left, ignore_errors=True)
    export(clip.clip.state_dict(), clip, partial, "local-dir")
    partial.rename(folder)


class HeadTraining(ABC, Generic[_Batch]):
    """A training in progress. A kind of it says what a step does, and which weights are kept."""

    checkpoint: ClassVar[str]
    """The file's name."""

    def __init__(
        self,
        out: Path,
        batches: Dataset[_Batch],
        settings: RunSettings,
        *,
        num_steps: int,
        recipe: dict[str, Any],
        data_fingerprint: str,
        start_fingerprint: str,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        console: Console,
    ) -> None:
        """Stand at the start, or where the last checkpoint in `out` is. Raises RefusedError where it is another run's.

        A kind calls this last, since its weights are loaded here; `recipe` is plain, as JSON has it.
        """
        self._out, self._batches, self._settings, self._console = out, batches, settings, console
        self._num_steps = num_steps
        self._is_of: dict[str, Any] = {
            "recipe": with_contents(recipe),
            "data_fingerprint": data_fingerprint,
            "start_fingerprint": start_fingerprint,
        }
        self._optimizer, self._scaler = optimizer, scaler
        self._step = self._samples_seen = self._skipped = 0
        if (out / self.checkpoint).exists():
            self._resume(load_checkpoint(out / self.checkpoint))

    @abstractmethod
    def learn(self, batch: _Batch) -> tuple[Mapping[str, Tensor], float]:
        """Take a step, which is counted already; return losses by name and the learning rate.

        A batch without an image has none. Raises StoppedError where the loss is not finite.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the weights to keep."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the weights that `state` returned."""

    def run(self, stop: StopRequest) -> TrainResult:
        """Train until the end, until `stop_after`, or until asked to stop."""
        last_step = min(self._num_steps, self._settings.stop_after or self._num_steps)
        for name in (_METRICS, _SKIPPED):
            forget_after(self._out / name, self._step)
        began, images_before = time.monotonic(), self._samples_seen
        self._began = (began, self._step)
        for batch in load_in_order(self._batches, range(self._step, last_step), self._settings.workers):
            self._count(batch)
            losses, lr = self.learn(batch)
            ends = stop.requested or self._step == last_step
            if ends or self._step % self._settings.log_every == 0:
                rate = (self._samples_seen - images_before) / max(time.monotonic() - began, 1e-9)
                self._report(losses, lr, rate)
                began, images_before = time.monotonic(), self._samples_seen
            self.save_where_due(ends)
            if ends:
                break
        return TrainResult(step=self._step, num_steps=self._num_steps)

    def save_where_due(self, ends: bool) -> None:
        """Save a checkpoint where `--checkpoint-every` wants one, and at the end."""
        if ends or self._step % self._settings.checkpoint_every == 0:
            self.save(self.checkpoint)

    def save(self, name: str) -> None:
        """Save the state as a file of the run."""
        checkpoint = Checkpoint(
            **self._is_of,
            step=self._step,
            samples_seen=self._samples_seen,
            samples_skipped=self._skipped,
            best=None,
            model=self.state(),
            teacher=None,
            optimizer=self._optimizer.state_dict(),
            scaler=self._scaler.state_dict(),
        )
        save_checkpoint(self._out / name, checkpoint)

    def checked(self, loss: Tensor, batch: _Batch) -> Tensor:
        """Return the loss. Raises StoppedError where it is not finite."""
        if not math.isfinite(loss.item()):
            raise StoppedError(
                f"step {self._step}: the loss is {loss.item()}; its images were {', '.join(batch.keys)}. "
                "Try a smaller --lr, or --precision fp32"
            )
        return loss

    def _count(self, batch: _Batch) -> None:
        """Count a batch. Raises StoppedError where too much was skipped."""
        self._step += 1
        self._samples_seen += len(batch.keys)
        self._skipped += len(batch.skipped)
        for key, why in batch.skipped:
            self._write(_SKIPPED, {"step": self._step, "key": key, "why": why})
        seen = self._samples_seen + self._skipped
        too_many = self._skipped > max(_FEW_SKIPPED, self._settings.max_skipped * seen)
        if too_many or not self._samples_seen:
            key, why = batch.skipped[0] if batch.skipped else ("", "")
            raise StoppedError(f"{self._skipped} of {seen} images cannot be used; one of them, {key}: {why}")

    def _report(self, losses: Mapping[str, Tensor], lr: float, images_per_s: float) -> None:
        values = {name: value.item() for name, value in losses.items()}
        self._write(_METRICS, {"step": self._step, **values, "lr": lr, "images_per_s": images_per_s})
        said = "".join(f"{name} {value:.4f}, " for name, value in values.items())
        began, first_step = self._began
        left_s = (time.monotonic() - began) / (self._step - first_step) * (self._num_steps - self._step)
        self._console.print(
            f"step {self._step}/{self._num_steps}: {said}{images_per_s:.1f} images/s, {duration(left_s)} left",
            highlight=False,
            soft_wrap=True,
        )

    def _write(self, name: str, line: Mapping[str, Any]) -> None:
        with (self._out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _resume(self, checkpoint: Checkpoint) -> None:
        check_same_run(checkpoint, **self._is_of, where=str(self._out))
        self.load_state(checkpoint.model)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._scaler.load_state_dict(checkpoint.scaler)
        self._step, self._samples_seen = checkpoint.step, checkpoint.samples_seen
        self._skipped = checkpoint.samples_skipped
        self._console.print(f"going on after step {self._step}", highlight=False)
