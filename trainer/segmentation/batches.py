"""Crops in batches, each step's from (seed, epoch, key), and images one by one to measure."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.decode import Pixels, UnusableSampleError, sample_generator
from trainer.evaluate.metrics import Ints
from trainer.segmentation.crops import crop
from trainer.segmentation.data import SegmentData
from trainer.segmentation.settings import SegmentOptimSettings


@dataclass(frozen=True, kw_only=True)
class CropBatch:
    """B crops for the segmenter."""

    pixels: Tensor
    """`[B, 3, S, S]` uint8."""
    labels: Tensor
    """`[B, S, S]` int64: places in the classes, or NO_CLASS."""
    keys: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    """(key, why) of images that cannot be used."""


class TrainCrops(Dataset[CropBatch]):
    """A batch for each step of a training, the same however the run got there."""

    def __init__(self, data: SegmentData, *, side: int, optim: SegmentOptimSettings) -> None:
        """Cut epochs into batches; an epoch leaves out what does not fill one."""
        self._data, self._side, self._optim = data, side, optim
        self._per_epoch = max(len(data) // optim.batch_size, 1)

    def __getitem__(self, step: int) -> CropBatch:
        """Return the batch of a step, from 0."""
        epoch, part = divmod(step, self._per_epoch)
        order = np.random.default_rng([self._optim.seed, epoch]).permutation(len(self._data))
        size, side = self._optim.batch_size, self._side
        crops: list[tuple[Pixels, Ints]] = []
        keys, skipped = [], []
        for number in order[part * size : (part + 1) * size].tolist():
            key = self._data.key(number)
            try:
                pixels, labels = self._data.read(number)
            except UnusableSampleError as error:
                skipped.append((key, str(error)))
                continue
            generator = sample_generator(key, epoch=epoch, seed=self._optim.seed)
            crops.append(crop(pixels, labels, side=side, settings=self._optim, generator=generator))
            keys.append(key)
        pixels = np.stack([one for one, _ in crops]) if crops else np.zeros((0, side, side, 3), dtype=np.uint8)
        labels = np.stack([one for _, one in crops]) if crops else np.zeros((0, side, side), dtype=np.int64)
        return CropBatch(
            pixels=torch.from_numpy(pixels).permute(0, 3, 1, 2),
            labels=torch.from_numpy(labels),
            keys=tuple(keys),
            skipped=tuple(skipped),
        )


@dataclass(frozen=True, kw_only=True)
class MeasuredImage:
    """An image to measure, or why it cannot be."""

    key: str
    pixels: Pixels | None
    labels: Ints | None
    why: str = ""


class MeasuredImages(Dataset[MeasuredImage]):
    """All images in their order."""

    def __init__(self, data: SegmentData) -> None:
        """Take the data."""
        self._data = data

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._data)

    def __getitem__(self, number: int) -> MeasuredImage:
        """Return an image."""
        key = self._data.key(number)
        try:
            pixels, labels = self._data.read(number)
        except UnusableSampleError as error:
            return MeasuredImage(key=key, pixels=None, labels=None, why=str(error))
        return MeasuredImage(key=key, pixels=pixels, labels=labels)
