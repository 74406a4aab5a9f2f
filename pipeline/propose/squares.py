"""A batch of letterboxed squares on its way to a model: one of few shapes, whatever images are in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.models.batches import padded_size
from pipeline.propose.letterbox import Letterboxed, letterbox
from pipeline.sample import DecodedImage, Pixels


@dataclass(frozen=True, kw_only=True)
class Squares:
    """The squares of some images, on the CPU."""

    pixels: Tensor
    """`[P, S, S, 3]` uint8 RGB, pinned if they go to a GPU: the images' squares, then black ones up to the shape."""
    fitted: tuple[Letterboxed, ...]
    """How the square of each image was made."""


def as_squares(
    images: Sequence[DecodedImage],
    side: int,
    *,
    batch_size: int,
    device: str,
    fit: Callable[[Pixels, int], Letterboxed] = letterbox,
) -> Squares:
    """Return images as one batch of squares of `side` pixels, padded to a power-of-two share of `batch_size`.

    `fit` brings one to its square; the batch is pinned where `device` is a GPU.
    """
    fitted = [fit(image.pixels, side) for image in images]
    batch = torch.zeros(
        (padded_size(len(fitted), batch_size), side, side, 3), dtype=torch.uint8, pin_memory=device.startswith("cuda")
    )
    np.stack([one.pixels for one in fitted], out=batch.numpy()[: len(fitted)])
    return Squares(pixels=batch, fitted=tuple(fitted))


def as_input(pixels: Tensor, device: str) -> Tensor:
    """Return `[P, S, S, 3]` uint8 pixels as `[P, 3, S, S]` float32 in 0..1 on `device`, where they become floats."""
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).contiguous().float() / 255
