"""What `train` and `evaluate` do with their options, once torch is needed."""

import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console

from schemas.dataset import Dataset
from trainer.cli.options import EvaluateOptions, TrainOptions
from trainer.data.index import build_index
from trainer.errors import DONE, INTERRUPTED, TrainingError
from trainer.evaluate.evaluate import check_task, embed, evaluate, needs_regions
from trainer.evaluate.zeroshot import DEFAULT_TEMPLATES
from trainer.loss.gather import rank
from trainer.model.student import Student
from trainer.run.load import LoadedCheckpoint, load_any
from trainer.run.loop import train
from trainer.run.processes import process_group
from trainer.run.train_settings import StopRequest, TrainResult


def train_run(options: TrainOptions) -> int:
    """Train, or go on training, and return the exit code. Raises what `loop.train` raises."""
    with process_group(options.run.device) as device, _stopping_on_signals() as stop:
        console = Console(emoji=False, stderr=True, quiet=rank() != 0)
        dataset = Dataset.open(options.data, overlays=options.overlays, filters=options.filters)
        result = train(
            dataset, Path(options.out), options.recipe, options.run, device=device, console=console, stop=stop
        )
        return _closing(result, stop, options, console)


def _closing(result: TrainResult, stop: StopRequest, options: TrainOptions, console: Console) -> int:
    if result.finished:
        console.print(f"Done: {result.step} steps. The model is in {options.out}/model.", highlight=False)
        return DONE
    command = "the same command" if stop.requested else "the command without --stop-after"
    console.print(
        f"Stopped after step {result.step} of {result.num_steps}; {command} goes on from there.", highlight=False
    )
    return INTERRUPTED if stop.requested else DONE


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request to stop after the step; the second one ends the process."""
    stop = StopRequest()

    def request(number: int, _: object) -> None:
        stop.requested = True
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def evaluate_model(options: EvaluateOptions) -> int:
    """Write a model's metrics and return the exit code. Raises TrainingError and DatasetError."""
    with process_group(options.device) as device:
        loaded = load_any(options.checkpoint, image_size=options.image_size, alpha=options.alpha)
        metrics = _measure(loaded, options, device)
        if rank() == 0:
            written = {"checkpoint": options.checkpoint, "data": options.data, "split": options.split, **metrics}
            Path(options.out).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
            Console(emoji=False).print_json(data=metrics)
    return DONE


def _measure(loaded: LoadedCheckpoint, options: EvaluateOptions, device: torch.device) -> dict[str, dict[str, float]]:
    dataset = Dataset.open(options.data, overlays=options.overlays, filters=options.filters)
    index = build_index(dataset, options.split)
    for task in options.tasks:
        check_task(task, index)
    loaded.model.clip.to(device)
    embedded = embed(
        Student(loaded.model.clip).backbone,
        loaded.model.preparation(loaded.settings),
        dataset,
        index,
        settings=options.settings,
        regions=any(needs_regions(task) for task in options.tasks),
        device=device,
    )
    templates = _templates(options.templates)
    return {task: evaluate(task, embedded, loaded.model, device=device, templates=templates) for task in options.tasks}


def _templates(path: str | None) -> Sequence[str]:
    if path is None:
        return DEFAULT_TEMPLATES
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--templates {path}: {error}") from error
    if not lines or any("{}" not in line for line in lines):
        raise TrainingError(f"--templates {path}: every line needs {{}} where the class name goes")
    return lines
