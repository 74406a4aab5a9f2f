"""Weights as safetensors: half precision on disk, float32 in memory, loaded strictly."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class WeightsError(ValueError):
    """A weights file does not fit the model; the message names the file and the first keys that differ."""


def save_half(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict with its floating point tensors in fp16. Raises ValueError where one does not fit into it."""
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in halves.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {name} has values beyond fp16")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in halves.items()}, path)


def load_strictly(model: nn.Module, path: Path) -> None:
    """Load a file of `save_half` into `model`, whose own dtypes stay. Raises WeightsError unless every key fits."""
    fit_strictly(model, load_file(path), path)


def fit_strictly(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the state dict read from `path` into `model`, whose own dtypes stay. Raises WeightsError as above."""
    expected = model.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    wanted = {name: tuple(value.shape) for name, value in expected.items()}
    if shapes != wanted:
        differing = sorted(n for n in shapes.keys() | wanted.keys() if shapes.get(n) != wanted.get(n))
        raise WeightsError(
            f"{path} does not fit {type(model).__name__}: {len(differing)} keys, such as {differing[:3]}"
        )
    model.load_state_dict(state, strict=True)
