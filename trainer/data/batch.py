"""A process's part of a step's images, as workers hand it over: ragged and in uint8, in one block of memory.

Crops are not copied in workers: a crop is a window of its image, and images travel once, as decoded. Resizing and
normalising happen on the device (`pixels.py`).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.boxes import scale
from trainer.data.decode import DecodedSample


@dataclass(frozen=True, kw_only=True)
class LoadedBatch:
    """B images with N regions. Only `pixels` and `boxes_norm` leave the host: nothing else is computed with."""

    keys: tuple[str, ...]
    """Of the B images."""
    image_index: Tensor
    """`[B]` int64: the images' rows in the `SampleIndex`."""
    caption_index: Tensor
    """`[B]` int64: the row in the `SampleIndex` of the caption that the step gives each image; -1 for none."""
    pixels: Tensor
    """`[sum of 3 h w]` uint8: the images one after another, each `[h, w, 3]` RGB."""
    image_sizes: Tensor
    """`[B, 2]` int64: (height, width) of each in `pixels`."""
    boxes_norm: Tensor
    """`[N, 4]` float32 xyxy in fractions of their image."""
    crop_boxes: Tensor
    """`[N, 4]` int64 xyxy, pixels of their image: what the teacher sees."""
    region_image_index: Tensor
    """`[N]` int64: which of the B images each region is of."""
    region_index: Tensor
    """`[N]` int64: the regions' rows in the `SampleIndex`."""
    skipped: tuple[tuple[str, str], ...]
    """(key, why) of planned images that could not be used."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker sends: each tensor would take a shared memory and an open file, so pixels alone do."""
        small = {name: value.numpy() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return {**vars(self), **small, "pixels": self.pixels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = {name: torch.from_numpy(value) for name, value in state.items() if isinstance(value, np.ndarray)}
        vars(self).update(state | arrays)

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device

    def pin_memory(self) -> "LoadedBatch":
        """Return the batch with what goes to a device in pinned memory (called by torch's DataLoader)."""
        return dataclasses.replace(self, pixels=self.pixels.pin_memory(), boxes_norm=self.boxes_norm.pin_memory())

    def to(self, device: torch.device) -> "LoadedBatch":
        """Return the batch with its pixels and boxes on `device`."""
        pixels, boxes_norm = (tensor.to(device, non_blocking=True) for tensor in (self.pixels, self.boxes_norm))
        return dataclasses.replace(self, pixels=pixels, boxes_norm=boxes_norm)


def collate(
    samples: Sequence[DecodedSample],
    *,
    keys: Sequence[str],
    image_index: Sequence[int],
    caption_index: Sequence[int],
    first_region: Sequence[int],
    skipped: Sequence[tuple[str, str]],
) -> LoadedBatch:
    """Return decoded samples as one batch. `first_region` are the rows of each image's first region in the index."""
    sizes = [sample.pixels.shape[:2] for sample in samples]
    norm = [scale(s.boxes, 1 / width, 1 / height) for s, (height, width) in zip(samples, sizes, strict=True)]
    regions = [sample.regions + first for sample, first in zip(samples, first_region, strict=True)]
    counts = [len(sample.boxes) for sample in samples]
    flat, at = np.empty(sum(sample.pixels.size for sample in samples), dtype=np.uint8), 0
    for sample in samples:
        flat[at : at + sample.pixels.size].reshape(sample.pixels.shape)[...] = sample.pixels
        at += sample.pixels.size
    return LoadedBatch(
        keys=tuple(keys),
        image_index=torch.tensor(image_index, dtype=torch.int64),
        caption_index=torch.tensor(caption_index, dtype=torch.int64),
        pixels=torch.from_numpy(flat),
        image_sizes=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        boxes_norm=torch.from_numpy(np.concatenate([np.zeros((0, 4), np.float32), *norm])),
        crop_boxes=torch.from_numpy(np.concatenate([np.zeros((0, 4), np.int64), *(s.crop_boxes for s in samples)])),
        region_image_index=torch.from_numpy(np.repeat(np.arange(len(samples)), counts).astype(np.int64)),
        region_index=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *regions])),
        skipped=tuple(skipped),
    )


def split_batch(batch: LoadedBatch, max_images: int) -> list[LoadedBatch]:
    """Return the batch in pieces of at most `max_images` images, in order; an empty one is a piece of its own."""
    num_images = len(batch.keys)
    if num_images <= max_images:
        return [batch]
    ends = (3 * batch.image_sizes.prod(dim=1)).cumsum(0).tolist()
    pieces = []
    for first in range(0, num_images, max_images):
        images = slice(first, min(first + max_images, num_images))
        own = (batch.region_image_index >= images.start) & (batch.region_image_index < images.stop)
        pieces.append(
            dataclasses.replace(
                batch,
                keys=batch.keys[images],
                image_index=batch.image_index[images],
                caption_index=batch.caption_index[images],
                pixels=batch.pixels[ends[images.start - 1] if images.start else 0 : ends[images.stop - 1]],
                image_sizes=batch.image_sizes[images],
                boxes_norm=batch.boxes_norm[own],
                crop_boxes=batch.crop_boxes[own],
                region_image_index=batch.region_image_index[own] - images.start,
                region_index=batch.region_index[own],
            )
        )
    return pieces
