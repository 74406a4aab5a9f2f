"""From truth to batches: images read, decoded upright and collated, in order, in worker processes."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from schemas.boxes import Boxes, clip, is_valid
from trainer.data.batch import LoadedBatch, collate
from trainer.data.decode import DecodedSample, UnusableSampleError, enlarge
from trainer.data.sampler import local_batch, steps_per_epoch
from trainer.evaluate.masks import Mask, patch_shares
from trainer.evaluate.pixels import decode_upright, is_raw_frame, turn_boxes, turn_mask
from trainer.evaluate.truth import Truth


@dataclass(frozen=True, kw_only=True)
class MeasuredBatch(LoadedBatch):
    """A batch with the masks of its regions."""

    mask_shares: Tensor
    """`[N, h w]` float32: the share of each patch that a region's mask covers; 0 where it has none."""


class MeasuredBatches(TorchDataset[LoadedBatch]):
    """A process's batches of a truth's images, in order."""

    def __init__(
        self,
        truth: Truth,
        *,
        batch_size: int,
        crop_scale: float,
        grid: tuple[int, int] | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """`batch_size` counts all processes' images; with `grid`, (rows, columns) of patches, masks are read."""
        self.num_batches = steps_per_epoch(len(truth.images), batch_size)
        self._truth, self._batch_size, self._crop_scale, self._grid = truth, batch_size, crop_scale, grid
        self._rank, self._world_size = rank, world_size
        self._num_patches = 0 if grid is None else grid[0] * grid[1]

    def __getitem__(self, number: int) -> MeasuredBatch:
        """Return a batch; images that cannot be used are missing and listed."""
        images = local_batch(
            np.arange(len(self._truth.images)),
            step_in_epoch=number,
            global_batch_size=self._batch_size,
            rank=self._rank,
            world_size=self._world_size,
        )
        used, samples, shares, skipped = [], [], [], []
        for image in images.tolist():
            try:
                sample, covered = self._sample(image)
            except UnusableSampleError as error:
                skipped.append((self._truth.images.key(image), str(error)))
                continue
            used.append(image)
            samples.append(sample)
            shares.append(covered)
        loaded = collate(
            samples,
            keys=[self._truth.images.key(image) for image in used],
            image_index=used,
            caption_index=[-1] * len(used),
            first_region=[int(self._truth.region_start[image]) for image in used],
            skipped=skipped,
        )
        masks = torch.from_numpy(np.concatenate([np.zeros((0, self._num_patches), np.float32), *shares]))
        fields = {field.name: getattr(loaded, field.name) for field in dataclasses.fields(loaded)}
        return MeasuredBatch(**fields, mask_shares=masks)

    def _sample(self, image: int) -> tuple[DecodedSample, npt.NDArray[np.float32]]:
        """Return an image with its regions, upright, and the patches that their masks cover."""
        truth = self._truth
        pixels, orientation = decode_upright(truth.images.read(image))
        height, width = pixels.shape[:2]
        stated = truth.images.size(image)
        is_raw = is_raw_frame(stated, (width, height), orientation)
        first, stop = truth.region_start[image : image + 2].tolist()
        boxes: Boxes = truth.boxes[first:stop]
        if is_raw:
            boxes = turn_boxes(boxes, (height, width), orientation)
        boxes = clip(boxes, width, height)
        regions = np.flatnonzero(is_valid(boxes))
        boxes = boxes[regions]
        shares = [self._shares(first + int(r), (width, height), orientation if is_raw else None) for r in regions]
        sample = DecodedSample(
            pixels=pixels,
            boxes=boxes,
            crop_boxes=enlarge(boxes, self._crop_scale, width=width, height=height),
            regions=regions.astype(np.int64),
        )
        return sample, np.concatenate([np.zeros((0, self._num_patches), np.float32), *shares])

    def _shares(self, region: int, size: tuple[int, int], turned: int | None) -> npt.NDArray[np.float32]:
        """Return `[1, h w]`: what a mask covers; `turned` is the orientation of a frame that is not upright."""
        if self._grid is None:
            return np.zeros((1, 0), np.float32)
        mask: Mask | None = None
        if self._truth.masks is not None:
            try:
                mask = self._truth.masks.of(region, size if turned is None else size[::-1])
            except (OSError, ValueError) as error:
                raise UnusableSampleError(f"the mask of a region cannot be read: {error}") from error
        if mask is None:
            return np.zeros((1, self._num_patches), np.float32)
        if turned is not None:
            mask = turn_mask(mask, turned)
        if mask.shape != size[::-1]:
            raise UnusableSampleError(
                f"a mask of {mask.shape[1]} x {mask.shape[0]}, the image has {size[0]} x {size[1]}"
            )
        return patch_shares(mask, self._grid).reshape(1, -1)
