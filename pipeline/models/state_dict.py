"""A checkpoint's state dict into its model: every key fits, or none is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class WeightsError(ValueError):
    """A weights file does not fit the model; the message names the file and the first keys that differ."""


def fit_strictly(model: "nn.Module", state: Mapping[str, "Tensor"], path: Path) -> None:
    """Load the state dict read from `path` into `model`, whose own dtypes stay.

    Raises WeightsError unless keys and shapes are the model's own.
    """
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if shapes != wanted:
        differing = sorted(n for n in shapes.keys() | wanted.keys() if shapes.get(n) != wanted.get(n))
        raise WeightsError(
            f"{path} does not fit {type(model).__name__}: {len(differing)} keys, such as {differing[:3]}"
        )
    model.load_state_dict(state, strict=True)
