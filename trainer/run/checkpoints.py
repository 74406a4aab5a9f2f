"""Checkpoints: one file that appears whole or not at all, with all that a run needs to go on to the same bits.

No random state is in it: every step draws from (seed, step, process), so the step is the state.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.hashes import canonical_json
from schemas.store_errors import StorageError
from trainer.errors import RefusedError, StoppedError, TrainingError
from trainer.evaluate.templates import NAMED
from trainer.model.saved_file import load_saved, save_tensors

VERSION = "2"
_LEAST_SCALE = 2.0**-24
"""Of the loss in fp16: it is halved at each step whose gradients are not finite, and such a step changes nothing."""
_FILES: dict[str, Collection[str]] = {"concepts": (), "templates": NAMED}
"""Settings that may name a file, and what of their values never does."""
_CONTENT = "content of --"


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

    Raises StorageError where it cannot be written, StoppedError where its numbers are worth nothing.
    """
    _check_numbers(checkpoint, path)
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


def _check_numbers(checkpoint: Checkpoint, path: Path) -> None:
    """Raise StoppedError for weights that are not finite, though the loss was, or a loss scale that came to nothing.

    A run would go on from such a checkpoint, again and again, to the same end.
    """
    floating = {name: tensor for name, tensor in checkpoint.model.items() if tensor.is_floating_point()}
    finite = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist() if floating else []
    remedy = f"{path} is from before it, if it is there; try a smaller --lr or --clip-norm, or --precision fp32"
    for name, is_finite in zip(floating, finite, strict=True):
        if not is_finite:
            raise StoppedError(f"step {checkpoint.step}: the weights {name} are not finite. {remedy}")
    if checkpoint.scaler.get("scale", 1.0) < _LEAST_SCALE:
        raise StoppedError(
            f"step {checkpoint.step}: no gradient was finite for many steps, and nothing was learnt in them. {remedy}"
        )


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


def with_contents(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's settings with the sha256 of each file that they name: its content decides the result."""
    named = {
        name: Path(recipe[name])
        for name, built_in in _FILES.items()
        if recipe.get(name) and recipe[name] not in built_in
    }
    return recipe | {
        f"{_CONTENT}{name}": sha256(path.read_bytes()).hexdigest() for name, path in named.items() if path.is_file()
    }


def check_same_run(
    checkpoint: Checkpoint, *, recipe: dict[str, Any], data_fingerprint: str, start_fingerprint: str, where: str
) -> None:
    """Raise RefusedError, naming what differs, unless a run of these settings and data may go on from `checkpoint`."""
    # Checkpoints of older releases have no hash of the files.
    unknown = {name for name in recipe if name.startswith(_CONTENT)} - checkpoint.recipe.keys()
    differing = [
        f"{name} is {recipe.get(name)}, where it was {checkpoint.recipe.get(name)}"
        for name in sorted((recipe.keys() | checkpoint.recipe.keys()) - unknown)
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
