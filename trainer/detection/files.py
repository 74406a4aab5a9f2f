"""The files of a detector's run: without torch, so that a wrong name is told at once."""

from pathlib import Path

from trainer.errors import TrainingError
from trainer.run.files import CLIP, DETECTOR, SEGMENTER


def find_detector(name: str) -> Path | None:
    """Return the checkpoint that `name` means, a run's folder or one of its files; None where it is no detector's."""
    path = Path(name)
    if path.is_dir():
        path = path / DETECTOR
    is_detector = path.is_file() and path.suffix == ".pt" and (path.parent / CLIP).is_dir()
    return path if is_detector else None


def checked_detector(name: str) -> Path:
    """Return the checkpoint that `name` means. Raises TrainingError where it is no detector's."""
    path = find_detector(name)
    if path is None and (Path(name) / SEGMENTER).exists():
        raise TrainingError(f"--model {name}: it is a segmenter's run: `fineclip segment` takes it")
    if path is None:
        raise TrainingError(
            f"--model {name}: no detector is there (a folder with {DETECTOR} and {CLIP}/); train one by `fineclip "
            f"detect train --model {name} --data coco:... --out RUN`, or score true boxes without one by `detect "
            "evaluate --head none`"
        )
    return path
