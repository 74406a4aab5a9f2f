"""The files of a segmenter's run: without torch, so that a wrong name is told at once."""

from pathlib import Path

from trainer.errors import TrainingError
from trainer.run.files import CLIP, DETECTOR, SEGMENTER


def find_segmenter(name: str) -> Path | None:
    """Return the checkpoint that `name` means, a run's folder or its file; None where it is no segmenter's."""
    path = Path(name)
    if path.is_dir():
        path = path / SEGMENTER
    return path if path.name == SEGMENTER and path.is_file() and (path.parent / CLIP).is_dir() else None


def checked_segmenter(name: str) -> Path:
    """Return the checkpoint that `name` means. Raises TrainingError where it is no segmenter's."""
    path = find_segmenter(name)
    if path is None and (Path(name) / DETECTOR).exists():
        raise TrainingError(f"--model {name}: it is a detector's run: `fineclip detect` takes it")
    if path is None:
        raise TrainingError(
            f"--model {name}: no segmenter is there (a folder with {SEGMENTER} and {CLIP}/); train one by `fineclip "
            f"segment train --model {name} --data coco-stuff:... --out RUN`, or measure the raw cost volume without "
            "one by `segment evaluate --head none`"
        )
    return path
