"""Where a command writes, looked at before hours of work: what is in the way is said first. And how it ended."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from schemas.store_errors import StorageError, check_here
from trainer.errors import DONE, INTERRUPTED
from trainer.run.train_settings import TrainResult


def check_folder(path: str, named: str) -> None:
    """Raise StorageError unless the folder `path` may be written, or made; `named` is how it is given: `--out`."""
    check_here(path, named)
    _check_parent(Path(path), f"{named} {path}", named)


def check_file(path: str, named: str) -> None:
    """Raise StorageError unless the file `path` may be written, in a folder that is there or can be made."""
    check_here(path, named)
    file = Path(path)
    if file.is_dir():
        raise StorageError(f"{named} {path}: a folder is in the way: name a file")
    if os.path.lexists(file) and not os.access(path, os.W_OK):
        raise StorageError(f"{named} {path}: permission denied: choose another {named}")
    _check_parent(file.parent, f"{named} {path}", named)


def _check_parent(folder: Path, where: str, named: str) -> None:
    """Look at a folder, or at the nearest one above it that is there."""
    nearest = next(place for place in (folder, *folder.parents, Path("/")) if os.path.lexists(place))
    if not nearest.is_dir():
        raise StorageError(f"{where}: a file is in the way ({nearest}): choose another {named}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"{where}: permission denied: choose another {named}")
    try:  # rights are not all: file systems may be read-only, full, or none that files are made on
        Path(tempfile.mkdtemp(prefix=".fineclip-", dir=nearest)).rmdir()
    except OSError as error:
        raise StorageError(f"{where}: {error.strerror}: choose another {named}") from error


def tell_end(console: Console, result: TrainResult, made: str, *, asked_to_stop: bool) -> int:
    """Say how a training ended, with `made`, a sentence about its result; return the command's exit code."""
    if result.finished:
        console.print(f"Done: {result.step} steps. {made}", highlight=False)
        return DONE
    command = "the same command" if asked_to_stop else "the command without --stop-after"
    console.print(
        f"Stopped after step {result.step} of {result.num_steps}; {command} goes on from there.", highlight=False
    )
    return INTERRUPTED if asked_to_stop else DONE


def tell_skipped(console: Console, skipped: Sequence[tuple[str, str]]) -> None:
    """Say which images could not be used, by (key, why)."""
    for key, why in skipped:
        console.print(f"skipped {key}: {why}", highlight=False, markup=False, soft_wrap=True)
