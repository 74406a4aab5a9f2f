"""From shards to batches: worker processes read byte ranges, decode and collate whole batches, in order.

A batch depends on its step alone, so a run can go on at any step with any number of workers.
"""

import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from schemas.dataset import Dataset, DatasetError
from trainer.data.batch import LoadedBatch, collate
from trainer.data.decode import DecodedSample, UnusableSampleError, decode_sample, sample_generator
from trainer.data.index import SampleIndex
from trainer.data.sampler import Order, epoch_order, local_batch, steps_per_epoch
from trainer.hyperparameters import OrderSettings, SampleSettings


class Batches(TorchDataset[LoadedBatch]):
    """A process's batches by step, counted over all epochs."""

    def __init__(
        self,
        dataset: Dataset,
        index: SampleIndex,
        *,
        order: OrderSettings,
        samples: SampleSettings,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Draw batches of `dataset`, whose images and regions `index` lists."""
        self.steps_per_epoch = steps_per_epoch(len(index), order.global_batch_size)
        self._dataset, self._index = dataset, index
        self._order_settings, self._samples = order, samples
        self._rank, self._world_size = rank, world_size
        self._epoch_order: tuple[int, Order] | None = None

    def __getitem__(self, step: int) -> LoadedBatch:
        """Return the batch of a step, from 0; images that cannot be used are missing and listed."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        images = local_batch(
            self._order(epoch),
            step_in_epoch=step_in_epoch,
            global_batch_size=self._order_settings.global_batch_size,
            rank=self._rank,
            world_size=self._world_size,
        )
        used, samples, skipped = [], [], []
        for image in images.tolist():
            try:
                samples.append(self._sample(image, epoch))
                used.append(image)
            except UnusableSampleError as error:
                skipped.append((self._index.key(image), str(error)))
        return collate(
            samples,
            keys=[self._index.key(image) for image in used],
            image_index=used,
            caption_index=[self._caption(image, epoch) for image in used],
            first_region=[int(self._index.region_start[image]) for image in used],
            skipped=skipped,
        )

    def _order(self, epoch: int) -> Order:
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            settings = self._order_settings
            order = epoch_order(self._index.shard, seed=settings.seed, epoch=epoch, shuffle=settings.shuffle)
            self._epoch_order = (epoch, order)
        return self._epoch_order[1]

    def _caption(self, image: int, epoch: int) -> int:
        first, stop = self._index.caption_start[image : image + 2].tolist()
        if stop == first:
            return -1
        key = f"caption of {self._index.key(image)}"
        generator = sample_generator(key, epoch=epoch, seed=self._order_settings.seed)
        return int(first) + int(generator.integers(stop - first))

    def _sample(self, image: int, epoch: int) -> DecodedSample:
        index = self._index
        first, stop = index.region_start[image : image + 2].tolist()
        width, height = index.sizes[image].tolist()
        shard, offset = index.shards[index.shard[image]], int(index.tar_offset[image])
        try:
            content = self._dataset.read_image(shard, tar_offset=offset, tar_size=int(index.tar_size[image]))
        except DatasetError as error:
            raise UnusableSampleError(str(error)) from error
        return decode_sample(
            content,
            index.boxes[first:stop],
            size=(width, height),
            key=index.key(image),
            epoch=epoch,
            seed=self._order_settings.seed,
            settings=self._samples,
        )


def load_batches(
    batches: TorchDataset[LoadedBatch], *, first_step: int, last_step: int, num_workers: int
) -> Iterator[LoadedBatch]:
    """Yield the batches of steps `first_step` to before `last_step`, in order, from `num_workers` processes or none."""
    loader: DataLoader[LoadedBatch] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first_step, last_step),
        num_workers=num_workers,
        prefetch_factor=2 if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )
    return iter(loader)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # What a terminal or scheduler sends to a process group reaches workers too. The run finishes its step first, and a
    # worker that had died would fail it; the run is what ends them, and they end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
