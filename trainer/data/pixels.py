"""On the device: ragged uint8 images to the model's input, and windows of them to the teacher's crops.

Everything is squashed to its size, as in the paper: antialiased, the aspect ratio not kept. The values are those of
Pillow's resize to within rounding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer.data.batch import LoadedBatch
from trainer.hyperparameters import Interpolation


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How pixels become a model's input."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: tuple[int, int]
    """(height, width) of images."""
    crop_size: int
    """Side of crops."""
    interpolation: Interpolation = "bilinear"

    def images(self, batch: LoadedBatch) -> Tensor:
        """Return `[B, 3, H, W]` float32: the images, squashed and normalised."""
        return self._prepared(_images(batch), self.image_size, batch.pixels.device)

    def crops(self, batch: LoadedBatch) -> Tensor:
        """Return `[N, 3, S, S]` float32: the regions' crops, cut from the full image, squashed and normalised."""
        images = _images(batch)
        windows = zip(batch.region_image_index.tolist(), batch.crop_boxes.tolist(), strict=True)
        crops = [images[owner][:, y0:y1, x0:x1] for owner, (x0, y0, x1, y1) in windows]
        return self._prepared(crops, (self.crop_size, self.crop_size), batch.pixels.device)

    def squashed(self, image: Tensor) -> Tensor:
        """Return `[3, H, W]` float32: one image `[3, h, w]` uint8, squashed and normalised."""
        return self._prepared([image], self.image_size, image.device)[0]

    def _prepared(self, images: list[Tensor], size: tuple[int, int], device: torch.device) -> Tensor:
        """Return `[n, 3, H, W]` float32, squashed and normalised, of images `[3, h, w]` uint8 of any size."""
        prepared = torch.empty(len(images), 3, *size, dtype=torch.float32, device=device)
        for image, place in zip(images, prepared, strict=True):
            place.copy_(self._squash(image, size))
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device).reshape(3, 1, 1) * 255
            for values in (self.mean, self.std)
        )
        return prepared.sub_(mean).div_(std)

    def _squash(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Return `[3, H, W]` in 0..255 of an image `[3, h, w]` uint8; on CPUs it stays uint8, which is fast there."""
        on_cpu = image.device.type == "cpu"
        image = image[None].contiguous(memory_format=torch.channels_last) if on_cpu else image[None].float()
        squashed = interpolate(image, size=size, mode=self.interpolation, antialias=True, align_corners=False)[0]
        return squashed if on_cpu else squashed.round().clamp(0, 255)


def _images(batch: LoadedBatch) -> list[Tensor]:
    """Return views of the images in a batch, `[3, h, w]` uint8 each."""
    sizes: list[list[int]] = batch.image_sizes.tolist()
    flat = batch.pixels.split([3 * height * width for height, width in sizes])
    return [part.view(height, width, 3).permute(2, 0, 1) for part, (height, width) in zip(flat, sizes, strict=True)]
