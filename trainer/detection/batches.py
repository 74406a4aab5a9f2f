"""Canvases in batches: by step to train, each from (seed, epoch, key), and in the order of the data to measure."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.decode import Pixels, UnusableSampleError, sample_generator
from trainer.detection.annotations import AnnotatedImage, DetectionData
from trainer.detection.canvas import Canvas, fit, jitter
from trainer.detection.settings import DetectOptimSettings


@dataclass(frozen=True, kw_only=True)
class CanvasBatch:
    """B images for the detector; the ragged lists have an entry for each."""

    canvases: Tensor
    """`[B, 3, S, S]` uint8."""
    sizes: Tensor
    """`[B, 2]` int64: (height, width) of the image in its canvas."""
    boxes: list[Tensor]
    """`[n, 4]` float32 xyxy, pixels of the canvas."""
    labels: list[Tensor]
    """`[n]` int64."""
    scales: list[tuple[float, float]]
    """(x, y): pixels of the canvas for one of the image."""
    images: list[AnnotatedImage]
    """What was read, without pixels where they are not asked for."""
    keys: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    """(key, why) of images that cannot be used."""


def collate(canvases: list[Canvas], images: list[AnnotatedImage], skipped: list[tuple[str, str]]) -> CanvasBatch:
    """Return a batch of canvases and the images that they are of."""
    side = canvases[0].pixels.shape[0] if canvases else 0
    stacked = np.stack([one.pixels for one in canvases]) if canvases else np.zeros((0, side, side, 3), dtype=np.uint8)
    return CanvasBatch(
        canvases=torch.from_numpy(stacked).permute(0, 3, 1, 2),
        sizes=torch.tensor([one.size for one in canvases], dtype=torch.int64).reshape(-1, 2),
        boxes=[torch.from_numpy(one.boxes) for one in canvases],
        labels=[torch.from_numpy(one.labels) for one in canvases],
        scales=[one.scale for one in canvases],
        images=images,
        keys=tuple(one.key for one in images),
        skipped=tuple(skipped),
    )


class TrainBatches(Dataset[CanvasBatch]):
    """A batch for each step of a training, the same however the run got there."""

    def __init__(self, data: DetectionData, *, side: int, optim: DetectOptimSettings) -> None:
        """Cut epochs into batches; an epoch leaves out what does not fill one."""
        self._data, self._side, self._optim = data, side, optim
        self.steps_per_epoch = max(len(data) // optim.batch_size, 1)

    def __getitem__(self, step: int) -> CanvasBatch:
        """Return the batch of a step, from 0."""
        epoch, part = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self._optim.seed, epoch]).permutation(len(self._data))
        size = self._optim.batch_size
        canvases, images, skipped = [], [], []
        for number in order[part * size : (part + 1) * size].tolist():
            try:
                image = self._data.read(number)
            except UnusableSampleError as error:
                skipped.append((self._data.key(number), str(error)))
                continue
            generator = sample_generator(image.key, epoch=epoch, seed=self._optim.seed)
            canvas = jitter(
                image.pixels, image.boxes, image.labels, side=self._side, settings=self._optim, generator=generator
            )
            canvases.append(canvas)
            images.append(_without_pixels(image))
        return collate(canvases, images, skipped)


class MeasuredCanvases(Dataset[CanvasBatch]):
    """All images in their order, fitted, a few at a time."""

    def __init__(self, data: DetectionData, *, side: int, batch_size: int) -> None:
        """`side` is the canvas's, in pixels."""
        self._data, self._side, self._size = data, side, batch_size

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._data) // self._size)

    def __getitem__(self, batch: int) -> CanvasBatch:
        """Return a batch, from 0."""
        canvases, images, skipped = [], [], []
        for number in range(batch * self._size, min((batch + 1) * self._size, len(self._data))):
            try:
                image = self._data.read(number)
            except UnusableSampleError as error:
                skipped.append((self._data.key(number), str(error)))
                continue
            canvases.append(fit(image.pixels, image.boxes, image.labels, self._side))
            images.append(_without_pixels(image))
        return collate(canvases, images, skipped)


_NO_PIXELS: Pixels = np.zeros((0, 0, 3), dtype=np.uint8)


def _without_pixels(image: AnnotatedImage) -> AnnotatedImage:
    """Return an image without the pixels, which would travel from worker to trainer for nothing."""
    return AnnotatedImage(
        key=image.key, pixels=_NO_PIXELS, boxes=image.boxes, labels=image.labels, is_crowd=image.is_crowd
    )
