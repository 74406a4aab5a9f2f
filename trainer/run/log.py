"""What a run reports: a JSON line a logged step, TensorBoard's files, and a line on the terminal.

RUN/metrics.jsonl    step, samples_seen, global_loss, region_loss, distill_loss, hard_negative_loss, loss, lr,
                         images_per_s, duplicate_rate
RUN/evaluation.jsonl step and the metrics of each evaluation
RUN/skipped.jsonl    step, key and why, for samples that could not be used (skipped-1.jsonl: of process 1, ...)
"""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import msgspec
from rich.console import Console


class LoggedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `metrics.jsonl`. A loss that the recipe leaves out is null."""

    step: int
    """Steps done."""
    samples_seen: int
    global_loss: float | None
    region_loss: float | None
    distill_loss: float | None
    hard_negative_loss: float | None = None
    loss: float
    """The weighted sum."""
    lr: float
    images_per_s: float
    """Of all processes, since the line before."""
    duplicate_rate: float
    """Share of the step's captions that another image or region of the step has too."""


METRICS, EVALUATION, SKIPPED = "metrics.jsonl", "evaluation.jsonl", "skipped.jsonl"


class TrainLog:
    """Writes the reports of a run; processes but the first report the samples that they skip, and nothing else."""

    def __init__(
        self,
        folder: Path,
        *,
        rank: int = 0,
        world_size: int = 1,
        first_step: int,
        num_steps: int,
        tensorboard: bool,
        console: Console,
    ) -> None:
        """Take up the reports at `first_step`: what an interrupted run wrote beyond it is forgotten."""
        self._console, self._num_steps = console, num_steps
        self._first_logged: tuple[int, float] | None = None
        self._files: dict[str, TextIO] = {}
        self._board = _board(folder, first_step) if tensorboard and rank == 0 else None
        names = {SKIPPED: f"skipped-{rank}.jsonl"} if rank else {name: name for name in (METRICS, EVALUATION, SKIPPED)}
        for path in folder.glob("skipped-*.jsonl") if rank == 0 else ():
            if int(path.stem.removeprefix("skipped-")) >= world_size:  # of a process that there is no longer
                forget_after(path, first_step)
        for name, file_name in names.items():
            forget_after(folder / file_name, first_step)
            self._files[name] = (folder / file_name).open("a", encoding="utf-8")

    def __enter__(self) -> "TrainLog":
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()

    def step(self, line: LoggedStep, *, regions_per_s: float) -> None:
        """Report a step."""
        self._write(METRICS, msgspec.to_builtins(line))
        self._to_board(line.step, {**msgspec.to_builtins(line), "regions_per_s": regions_per_s})
        seconds = self._seconds_a_step(line.step)
        left = "" if seconds is None else f", {duration((self._num_steps - line.step) * seconds)} left"
        losses = ", ".join(
            f"{name} {value:.4f}" for name in ("global", "region", "distill", "hard_negative")
            if (value := getattr(line, f"{name}_loss")) is not None
        )  # fmt: skip
        self._console.print(
            f"step {line.step}/{self._num_steps}: loss {line.loss:.4f} ({losses}), {line.images_per_s:.1f} images/s, "
            f"{regions_per_s:.1f} regions/s{left}",
            highlight=False,
        )

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report an evaluation."""
        self._write(EVALUATION, {"step": step, **metrics})
        self._to_board(step, metrics)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self._console.print(f"step {step}: {shown}", highlight=False)

    def skipped(self, step: int, samples: Sequence[tuple[str, str]]) -> None:
        """Report samples of this process that could not be used."""
        for key, why in samples:
            self._write(SKIPPED, {"step": step, "key": key, "why": why})

    def _write(self, name: str, line: Mapping[str, Any]) -> None:
        if name in self._files:
            self._files[name].write(json.dumps(line) + "\n")
            self._files[name].flush()

    def _to_board(self, step: int, values: Mapping[str, Any]) -> None:
        if self._board is not None:
            for name, value in values.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(name, value, step)

    def _seconds_a_step(self, step: int) -> float | None:
        """Return the mean time of the steps since the first that was reported; None for that one."""
        now = time.monotonic()
        if self._first_logged is None:
            self._first_logged = (step, now)
            return None
        first_step, started = self._first_logged
        return (now - started) / max(step - first_step, 1)


def _board(folder: Path, first_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder / "tensorboard", purge_step=first_step + 1)


def forget_after(path: Path, step: int) -> None:
    """Keep the lines of a report up to `step`, none for 0; what a crash cut off or filled with zeros goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if step else ():
        with contextlib.suppress(ValueError, LookupError, TypeError):
            if json.loads(line)["step"] <= step:
                kept.append(f"{line}\n")
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)


def duration(seconds: float) -> str:
    """Return hours and minutes, minutes or seconds in words."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{round(seconds)} s"
