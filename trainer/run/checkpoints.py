"""Checkpoints: one file that appears whole or not at all, with all that a run needs to go on to the same bits.

No random state is in it: every step draws from (seed, step, process), so the step is the state.
"""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from schemas.hashes import canonical_json
from schemas.store_errors import StorageError
from trainer.errors import RefusedError, TrainingError
from trainer.model.saved_file import load_saved, save_tensors

VERSION = "2"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run at the end of a step."""

    recipe: dict[str, Any]
    """The settings that the result depends on, as plain values."""
    data_fingerprint: str
    """`Dataset.data_fingerprint` of what is trained on."""
    start_fingerprint: str
    """Of the weights that training started from."""
    step: int
    """Steps done; the next one's number."""
    samples_seen: int
    """Images used so far, of all processes."""
    samples_skipped: int
    """Images so far that could not be used."""
    best: float | None
    """The best value so far of the metric that is watched."""
    model: dict[str, Tensor]
    """The model's state, under open_clip's names."""
    teacher: dict[str, Tensor] | None
    """The moving average's state; None for other teachers."""
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a crash leaves the file that was there before, or this one.

    Raises StorageError where it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            save_tensors({"checkpoint_version": VERSION, **vars(checkpoint)}, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: {error.strerror}: free space or make it writable, then run the same command again; without a new "
            "checkpoint it goes on from the one before"
        ) from error
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, onto the CPU. Raises TrainingError for files that are none, or of another version."""
    what = "a checkpoint of `fineclip train` or `detect train`"
    content = load_saved(path, what)
    version = content.pop("checkpoint_version", None)
    expected = {field.name for field in fields(Checkpoint)}
    if version is None or (version == VERSION and content.keys() != expected):
        raise TrainingError(f"{path}: not {what}: it holds {', '.join(sorted(content)[:5]) or 'nothing'}")
    if version != VERSION:
        raise TrainingError(f"{path}: checkpoint version {version!r}, where this release reads {VERSION!r}")
    return Checkpoint(**content)


def check_same_run(
    checkpoint: Checkpoint, *, recipe: dict[str, Any], data_fingerprint: str, start_fingerprint: str, where: str
) -> None:
    """Raise RefusedError, naming what differs, unless a run of these settings and data may go on from `checkpoint`."""
    differing = [
        f"{name} is {recipe.get(name)}, where it was {checkpoint.recipe.get(name)}"
        for name in sorted(recipe.keys() | checkpoint.recipe.keys())
        if canonical_json(recipe.get(name)) != canonical_json(checkpoint.recipe.get(name))
    ]
    if differing:
        raise RefusedError(f"{where} holds a run of other settings: {'; '.join(differing)}; take another --out")
    if checkpoint.data_fingerprint != data_fingerprint:
        raise RefusedError(
            f"{where} holds a run on other data (shards, overlays or filter lists changed since): restore them, or "
            "take another --out"
        )
    if checkpoint.start_fingerprint != start_fingerprint:
        raise RefusedError(f"{where} holds a run that started from other weights; take another --out")
