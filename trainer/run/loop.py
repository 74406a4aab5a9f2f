"""A run from start, or from where it was stopped, to its end.

    RUN/last.pt best.pt      checkpoints: the latest, and the best by the evaluation
    RUN/model                the result, a `local-dir:` folder for open_clip
    RUN/*.jsonl tensorboard  reports (`log.py`)

The same command goes on from `last.pt`, to the same bits on a CPU; other settings or data are refused.
"""

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console

from schemas.boxes import area
from schemas.dataset import Dataset
from trainer.cores import default_threads
from trainer.data.batches import Batches
from trainer.data.index import SampleIndex, build_index
from trainer.errors import StoppedError
from trainer.loss.gather import rank, world_size
from trainer.model.context import count_cut
from trainer.model.export import average_weights, export
from trainer.model.open import LoadedModel
from trainer.recipes import TrainRecipe
from trainer.run.assemble import Parts, assemble, load_start, losses_of_data, open_batches
from trainer.run.checkpoints import Checkpoint, check_same_run, load_checkpoint, save_checkpoint, with_contents
from trainer.run.files import BEST, LAST
from trainer.run.held_out import Evaluation, held_out_evaluation
from trainer.run.lock import held
from trainer.run.log import LoggedStep, TrainLog
from trainer.run.optim import learning_rate, tell_long_warmup
from trainer.run.step import StepResult
from trainer.run.stop import StopRequest
from trainer.run.train_settings import TrainResult, TrainSettings

MODEL_FOLDER = "model"
_FEW_SKIPPED = 10
"""Unusable samples that never stop a run, if others are usable."""


def train(
    dataset: Dataset,
    out: Path,
    recipe: TrainRecipe,
    settings: TrainSettings,
    *,
    device: torch.device,
    console: Console,
    stop: StopRequest | None = None,
) -> TrainResult:
    """Train on the `train` shards of a data set, into the folder `out`. All processes must call it.

    Raises TrainingError for unusable settings or data, RefusedError where `out` holds another run, StoppedError when
    the loss is not finite or too many samples are unusable.
    """
    stop = stop or StopRequest()
    # More threads than cores do not share them: they wait for each other, many times longer.
    torch.set_num_threads(settings.threads or default_threads(settings.workers))
    index = build_index(dataset, "train")
    outside = index.num_regions - int(recipe.samples.within_limits(area(index.boxes)).sum())
    if outside:
        console.print(
            f"{outside} of {index.num_regions} regions are outside --min-area-px and --max-area-px: not trained on",
            highlight=False,
        )
    evaluation = held_out_evaluation(dataset, settings)
    losses_of_data(recipe, index)  # what is refused here leaves no folder
    with held(out):
        parts = assemble(
            recipe,
            index,
            device=device,
            text_cache=settings.text_cache or str(out / "text_cache"),
            max_images=settings.micro_batch_size or recipe.order.global_batch_size,
            compile_blocks=settings.compile,
            watch_texts=lambda done, total: console.print(f"embedded {done} of {total} texts", highlight=False),
            stopping=lambda: stop.requested,
        )
        tell_cut_captions(parts.model, index, console)
        batches = open_batches(dataset, index, recipe, tell=lambda told: console.print(told, highlight=False))
        loop = TrainLoop(
            out,
            recipe=recipe,
            settings=settings,
            parts=parts,
            batches=batches,
            evaluation=evaluation,
            data_fingerprint=dataset.data_fingerprint(),
            console=console,
        )
        tell_long_warmup(recipe.optim.warmup_steps, loop.num_steps, console)
        result = loop.run(stop)
        if result.finished and rank() == 0:
            state: Any = parts.model.clip.state_dict()
            if recipe.model.alpha != 1:
                start = load_start(recipe.model, seed=recipe.order.seed, expected=parts.start_fingerprint)
                state = {name: tensor.cpu() for name, tensor in state.items()}
                state = average_weights(state, start.clip.state_dict(), recipe.model.alpha)
            export(state, parts.model, out / MODEL_FOLDER, "local-dir")
    return result


def tell_cut_captions(model: LoadedModel, index: SampleIndex, console: Console) -> None:
    """Say how many captions are longer than the text tower takes."""
    length = model.tokenize([""]).shape[1]
    for what, texts in (("images", index.image_captions), ("regions", index.region_captions)):
        cut = count_cut(texts, model.tokenize, length)
        if cut.num_cut:
            about = "about " if cut.is_sample else ""
            console.print(
                f"{about}{cut.num_cut} of {cut.num_texts} captions of {what} have more than {length} tokens and are "
                "cut: --context-length takes longer ones",
                highlight=False,
            )


class TrainLoop:
    """A run in progress."""

    def __init__(
        self,
        out: Path,
        *,
        recipe: TrainRecipe,
        settings: TrainSettings,
        parts: Parts,
        batches: Batches,
        evaluation: Evaluation | None,
        data_fingerprint: str,
        console: Console,
    ) -> None:
        """Stand at the start of the run, or where its last checkpoint is. Raises RefusedError as `train` does."""
        self._out, self._recipe, self._settings, self._parts = out, recipe, settings, parts
        self._batches, self._evaluation, self._console = batches, evaluation, console
        self._data_fingerprint = data_fingerprint
        processes = {"number of processes (of --stream)": world_size()} if recipe.order.stream else {}
        self._decides_result: dict[str, Any] = with_contents(recipe.plain()) | processes
        """All that does: a stream is divided among the processes, so their number is of it."""
        self.num_steps = batches.first_step(recipe.optim.epochs)
        """Of the whole run."""
        self._step, self._samples_seen, self._skipped = 0, 0, 0
        self._best: float | None = None
        self._metrics: dict[str, float] = {}
        self._first_skip: tuple[str, str] | None = None
        self._pending: list[tuple[int, tuple[str, ...], torch.Tensor]] = []
        """Steps whose loss was not looked at: number, this process's keys, this process's part."""
        if (out / LAST).exists():
            self._resume(out / LAST)

    def run(self, stop: StopRequest) -> TrainResult:
        """Train until the end, until `stop_after`, or until any process is asked to stop."""
        settings = self._settings
        last_step = min(self.num_steps, settings.stop_after or self.num_steps)
        with (
            TrainLog(
                self._out,
                rank=rank(),
                world_size=world_size(),
                first_step=self._step,
                num_steps=self.num_steps,
                tensorboard=settings.tensorboard,
                console=self._console,
            ) as self._log,
            ExitStack() as stack,
        ):
            if self._step == 0 and self._evaluation is not None:
                self._evaluate(self._evaluation)
            self._since = Since(time.monotonic())
            loaded = self._batches.loaded(self._step, last_step, settings.workers)
            stack.callback(loaded.close)
            for batch in loaded:
                # The seed of a step's randomness is the same however the run got there.
                seed = (self._recipe.order.seed * 1_000_003 + self._step) * 1_009
                torch.manual_seed(seed + rank())
                lr = learning_rate(self._step, self.num_steps, self._recipe.optim)
                result = self._parts.step.run(batch, lr=lr, seed=seed, stop=stop.requested)
                self._count(result, batch.keys, batch.skipped)
                ends = result.stop or self._step == last_step
                if ends or self._step % settings.log_every == 0:
                    self._report(result, lr)
                self._evaluate_and_save(ends)
                if ends:
                    break
        return TrainResult(step=self._step, num_steps=self.num_steps, metrics=self._metrics)

    def _count(self, result: StepResult, keys: tuple[str, ...], skipped: tuple[tuple[str, str], ...]) -> None:
        """Count what a step used and skipped. Raises StoppedError where too much was skipped."""
        self._step += 1
        self._samples_seen += result.num_images
        self._skipped += result.num_skipped
        self._since.images += result.num_images
        self._since.regions += result.num_regions
        self._pending.append((self._step, keys, result.losses.loss))
        self._first_skip = self._first_skip or next(iter(skipped), None)
        self._log.skipped(self._step, skipped)
        seen = self._samples_seen + self._skipped
        too_many = self._skipped > max(_FEW_SKIPPED, self._settings.max_skipped * seen)
        if too_many or (self._ends_epoch and not self._samples_seen):
            named = "see the other processes' messages" if self._first_skip is None else ": ".join(self._first_skip)
            raise StoppedError(f"{self._skipped} of {seen} samples cannot be used; the first: {named}")

    @property
    def _ends_epoch(self) -> bool:
        return self._batches.place(self._step)[1] == 0

    def _report(self, result: StepResult, lr: float) -> None:
        """Write a line of the log, of all processes' losses together."""
        self._check_finite()
        losses = result.losses
        names = ("global_loss", "region_loss", "distill_loss", "hard_negative_loss", "loss")
        present = [name for name in names if getattr(losses, name) is not None]
        values = torch.stack([getattr(losses, name).float() for name in present])
        if world_size() > 1:
            dist.all_reduce(values)
        by_name: dict[str, float | None] = dict.fromkeys(names)
        by_name |= dict(zip(present, values.tolist(), strict=True))
        now = time.monotonic()
        seconds = max(now - self._since.time, 1e-9)
        line = LoggedStep(
            step=self._step,
            samples_seen=self._samples_seen,
            lr=lr,
            images_per_s=self._since.images / seconds,
            duplicate_rate=losses.num_duplicates / max(losses.num_texts, 1),
            **by_name,  # type: ignore[arg-type]  # "loss" is always there
        )
        self._log.step(line, regions_per_s=self._since.regions / seconds)
        self._since = Since(now)

    def _evaluate_and_save(self, ends: bool) -> None:
        """Do what is due after a step; a checkpoint is never written of a loss that is not finite."""
        settings, at_end = self._settings, self._step == self.num_steps
        due = settings.eval_every is not None and (self._step % settings.eval_every == 0 or at_end)
        if self._evaluation is not None and due:
            self._check_finite()
            self._evaluate(self._evaluation)
        if ends or self._ends_epoch or self._step % settings.checkpoint_every == 0:
            self._check_finite()
            self._save(LAST)

    def _evaluate(self, evaluation: Evaluation) -> None:
        self._metrics = evaluation(self._parts)
        self._log.evaluation(self._step, self._metrics)
        watched = next(value for name, value in self._metrics.items() if "recall@1" in name)
        if self._best is None or watched > self._best:
            self._best = watched
            self._save(BEST)

    def _check_finite(self) -> None:
        """Raise StoppedError, naming step and keys, if a loss since the last look was not finite."""
        if not self._pending:
            return
        joined = torch.stack([part for _, _, part in self._pending])
        if world_size() > 1:
            dist.all_reduce(joined)
        pending, self._pending = self._pending, []
        for (step, keys, _), loss in zip(pending, joined.tolist(), strict=True):
            if not math.isfinite(loss):
                raise StoppedError(
                    f"step {step}: the loss is {loss}; this process's images were {', '.join(keys)}. "
                    f"{self._out / LAST} is from before it, if it is there; try a smaller --lr, --clip-norm or "
                    "--precision"
                )

    def _save(self, name: str) -> None:
        if rank() != 0:
            return
        step = self._parts.step
        ema = step.teacher if self._recipe.loss.teacher == "ema" else None
        checkpoint = Checkpoint(
            recipe=self._decides_result,
            data_fingerprint=self._data_fingerprint,
            start_fingerprint=self._parts.start_fingerprint,
            step=self._step,
            samples_seen=self._samples_seen,
            samples_skipped=self._skipped,
            best=self._best,
            model=step.student.clip.state_dict(),
            teacher=None if ema is None else ema.backbone.state_dict(),
            optimizer=step.optimizer.state_dict(),
            scaler=step.scaler.state_dict(),
        )
        save_checkpoint(self._out / name, checkpoint)

    def _resume(self, path: Path) -> None:
        """Go on from a checkpoint, if it is of these settings and data."""
        checkpoint = load_checkpoint(path)
        check_same_run(
            checkpoint,
            recipe=self._decides_result,
            data_fingerprint=self._data_fingerprint,
            start_fingerprint=self._parts.start_fingerprint,
            where=str(self._out),
        )
        step = self._parts.step
        step.student.clip.load_state_dict(checkpoint.model)
        if step.teacher is not None and checkpoint.teacher is not None:
            step.teacher.backbone.load_state_dict(checkpoint.teacher)
        step.optimizer.load_state_dict(checkpoint.optimizer)
        step.scaler.load_state_dict(checkpoint.scaler)
        self._step, self._best = checkpoint.step, checkpoint.best
        self._samples_seen, self._skipped = checkpoint.samples_seen, checkpoint.samples_skipped
        self._console.print(f"going on after step {self._step}", highlight=False)


@dataclass
class Since:
    """What was done since the last report."""

    time: float
    images: int = 0
    regions: int = 0
