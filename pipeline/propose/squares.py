"""Proposers whose model takes squares: images letterboxed into a batch of one of few shapes, and boxes back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backends import BackendBase
from pipeline.models.batches import padded_size
from pipeline.models.device import Device
from pipeline.models.weights import ModelFiles
from pipeline.propose.letterbox import Letterboxed, letterbox
from pipeline.propose.order import best_first
from pipeline.sample import DecodedImage, Pixels, Proposals

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Squares:
    """The squares of some images, on the CPU."""

    pixels: "Tensor"
    """`[P, S, S, 3]` uint8 RGB, pinned if they go to a GPU: the images' squares, then black ones up to the shape."""
    fitted: tuple[Letterboxed, ...]
    """How the square of each image was made."""


class SquaredProposer(BackendBase):
    """Brings images to squares of `image_side`, and what is found in them back. A subclass says what that is."""

    def __init__(self, config: Any, *, files: ModelFiles, libraries: Mapping[str, str], device: Device) -> None:
        """Keep what the provenance is made of, and take the device."""
        super().__init__(config, files=files, libraries=libraries)
        self._device = device.resolve()

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the proposals of each image in its own frame, best first."""
        return self.detect(self.prepare(images))

    def prepare(self, images: Sequence[DecodedImage]) -> Squares:
        """Return the images as squares, padded with black ones to a power-of-two share of `batch_size`."""
        import torch

        side = self.config.image_side
        fitted = [self.fit(image.pixels, side) for image in images]
        shape = (padded_size(len(fitted), self.batch_size), side, side, 3)
        batch = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._device.startswith("cuda"))
        np.stack([one.pixels for one in fitted], out=batch.numpy()[: len(fitted)])
        return Squares(pixels=batch, fitted=tuple(fitted))

    def detect(self, prepared: Squares) -> list[Proposals]:
        """Return what `propose` does for the images of `prepare`."""
        return [
            best_first(replace(found, boxes=one.to_image(found.boxes)))
            for one, found in zip(prepared.fitted, self.look(prepared), strict=False)  # padding is left out
        ]

    def fit(self, pixels: Pixels, side: int) -> Letterboxed:
        """Bring one image to its square."""
        return letterbox(pixels, side)

    def look(self, prepared: Squares) -> Iterable[Proposals]:
        """Run the model; return the proposals of each square, those of padding last or not at all.

        Boxes count the square's pixels.
        """
        raise NotImplementedError


def as_input(pixels: "Tensor", device: str) -> "Tensor":
    """Return `[P, S, S, 3]` uint8 pixels as `[P, 3, S, S]` float32 in 0..1 on `device`, where they become floats."""
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).contiguous().float() / 255
