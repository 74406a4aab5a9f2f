"""From shards to batches: worker processes read images, decode and collate whole batches, in order.

A batch depends on its step alone, so a run can go on at any step with any number of workers. `Batches` reads images by
their byte ranges, in any order; `streams.py` reads whole tars.
"""

import contextlib
import signal
from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from schemas.dataset import Dataset, DatasetError
from trainer.data.batch import LoadedBatch, collate
from trainer.data.decode import DecodedSample, UnusableSampleError, decode_sample, sample_generator
from trainer.data.index import SampleIndex
from trainer.data.sampler import Order, epoch_order, local_batch, steps_per_epoch
from trainer.errors import StoppedError
from trainer.hyperparameters import OrderSettings, SampleSettings

_Item = TypeVar("_Item")


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
        self._dataset, self._index = dataset, index
        self._order_settings, self._samples = order, samples
        self._rank, self._world_size = rank, world_size
        self._steps_per_epoch = steps_per_epoch(len(index), order.global_batch_size)
        self._epoch_order: tuple[int, Order] | None = None

    def first_step(self, epoch: int) -> int:
        """Return the first step of an epoch: the number of steps before it."""
        return epoch * self._steps_per_epoch

    def place(self, step: int) -> tuple[int, int]:
        """Return the epoch of a step, and its number in it."""
        return divmod(step, self._steps_per_epoch)

    def loaded(self, first_step: int, last_step: int, num_workers: int) -> Generator[LoadedBatch, None, None]:
        """Yield the batches of `first_step` to before `last_step`, from `num_workers` processes or none."""
        return load_in_order(self, range(first_step, last_step), num_workers)

    def __getitem__(self, step: int) -> LoadedBatch:
        """Return the batch of a step, from 0; images that cannot be used are missing and listed."""
        epoch, step_in_epoch = self.place(step)
        used, samples, skipped = [], [], []
        for image in self._images(epoch, step_in_epoch):
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

    def _images(self, epoch: int, step_in_epoch: int) -> list[int]:
        """Return the rows of this process's images of a step."""
        rows: list[int] = local_batch(
            self._order(epoch),
            step_in_epoch=step_in_epoch,
            global_batch_size=self._order_settings.global_batch_size,
            rank=self._rank,
            world_size=self._world_size,
        ).tolist()
        return rows

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
        return decode_sample(
            self._content(image),
            index.boxes[first:stop],
            size=(width, height),
            key=index.key(image),
            epoch=epoch,
            seed=self._order_settings.seed,
            settings=self._samples,
        )

    def _content(self, image: int) -> bytes:
        """Return an image's stored bytes. Raises UnusableSampleError where they are not to be had."""
        index = self._index
        shard, offset = index.shards[index.shard[image]], int(index.tar_offset[image])
        try:
            return self._dataset.read_image(shard, tar_offset=offset, tar_size=int(index.tar_size[image]))
        except DatasetError as error:
            raise UnusableSampleError(str(error)) from error


def load_batches(
    batches: TorchDataset[LoadedBatch], *, first_step: int, last_step: int, num_workers: int
) -> "LoadedSteps[LoadedBatch]":
    """Return the batches of `first_step` to before `last_step`, in order, from `num_workers` processes or none."""
    return load_steps(batches, range(first_step, last_step), num_workers)


def load_in_order(items: TorchDataset[_Item], numbers: Sequence[int], num_workers: int) -> Generator[_Item, None, None]:
    """Yield the items of `numbers`, in order, from `num_workers` processes or none; these end with this."""
    return in_turn([load_steps(items, numbers, num_workers)], [0] * len(numbers))


def load_steps(items: TorchDataset[_Item], numbers: Sequence[int], num_workers: int) -> "LoadedSteps[_Item]":
    """Return the items of `numbers`, in order; worker processes have them in turn. The first are read at once."""
    loader: DataLoader[_Item | Exception] = DataLoader(
        _Telling(items),
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        prefetch_factor=2 if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )
    return LoadedSteps(loader)


class LoadedSteps(Iterator[_Item]):
    """Items as they come. Worker processes, which no signal ends, end with the last item, an error, or `close`."""

    def __init__(self, loader: "DataLoader[_Item | Exception]") -> None:
        """Start the workers."""
        self._items = iter(loader)

    def __next__(self) -> _Item:
        """Return the next item. Raises what reading it raised."""
        loaded: _Item | Exception = next(self._items)
        if isinstance(loaded, Exception):
            self.close()
            raise loaded
        return loaded

    def close(self) -> None:
        """End the workers; harmless to repeat. Torch ends them when nothing refers to them, as a traceback may do."""
        if hasattr(self._items, "_shutdown_workers"):
            self._items._shutdown_workers()


class _Telling(TorchDataset[_Item | Exception]):
    """Items whose errors are handed over: raised in a worker, they would reach the user as its traceback."""

    def __init__(self, items: TorchDataset[_Item]) -> None:
        self._items = items

    def __getitem__(self, number: int) -> _Item | Exception:
        try:
            item = self._items[number]
            if get_worker_info() is not None:
                _share(item)
            return item
        except (OSError, DatasetError, StoppedError) as error:
            return error


def _share(item: object) -> None:
    """Put an item's tensors where the training process finds them. Raises StoppedError where there is no room.

    Torch would do so later, in a thread of the worker: an error there is lost, and the run would wait forever.
    """
    state = item.__getstate__()
    for value in state.values() if isinstance(state, dict) else ():
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, Tensor) and not tensor.is_shared():
                try:
                    tensor.share_memory_()
                except RuntimeError as error:
                    if "Too many open files" in str(error):
                        raise StoppedError(
                            f"a batch cannot be shared ({error}): allow more open files (ulimit -n), or give fewer "
                            "--workers, 0 for none. The same command goes on from the last checkpoint"
                        ) from error
                    raise StoppedError(
                        f"shared memory has no room for a batch ({error}): make /dev/shm larger (--shm-size in Docker) "
                        "or give fewer --workers, 0 for none. The same command goes on from the last checkpoint"
                    ) from error


def in_turn(loaders: Sequence[LoadedSteps[_Item]], owners: Sequence[int]) -> Generator[_Item, None, None]:
    """Yield the items of `loaders`, each from its owner; the workers of all end with this."""
    with contextlib.ExitStack() as stack:
        for loader in loaders:
            stack.callback(loader.close)
        for owner in owners:
            yield next(loaders[owner])


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # What a terminal or scheduler sends to a process group reaches workers too. The run finishes its step first, and a
    # worker that had died would fail it; the run is what ends them, and they end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
