"""From shards to batches where the shards are read whole, one after the other, as object stores like it.

Which images make a step is `lanes.py`'s affair, where they come from `tars.py`'s; decoding, regions, texts and batches
are those of `Batches`.
"""

from collections.abc import Generator
from typing import Any

import numpy as np

from schemas.dataset import Dataset
from trainer.data.batch import LoadedBatch
from trainer.data.batches import Batches, in_turn, load_steps
from trainer.data.index import SampleIndex
from trainer.data.lanes import LANES, EpochLanes, Turn
from trainer.data.tars import TarReader
from trainer.errors import TrainingError
from trainer.hyperparameters import OrderSettings, SampleSettings


class StreamedBatches(Batches):
    """A process's batches by step, counted over all epochs. A step is cheap after the one before it in its lane."""

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
        """Draw batches of `dataset`. Raises TrainingError for more processes than images a step."""
        super().__init__(dataset, index, order=order, samples=samples, rank=rank, world_size=world_size)
        if order.global_batch_size < world_size:
            raise TrainingError(
                f"--stream --global-batch-size {order.global_batch_size}: each of the {world_size} processes reads "
                f"shards of its own; give {world_size} or more"
            )
        self._starts = np.searchsorted(index.shard, np.arange(len(index.shards) + 1)).astype(np.int64)
        self._first_steps = [0]
        self._epoch: tuple[int, EpochLanes] | None = None
        self._current: TarReader | None = None
        self._readers: dict[int, tuple[int, Turn, TarReader]] = {}
        """By lane: the epoch and the turn that come next, and what reads their images."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker is sent: open tars stay here."""
        return {**vars(self), "_readers": {}, "_current": None, "_epoch": None}

    def first_step(self, epoch: int) -> int:
        """Return the first step of an epoch: the number of steps before it. Epochs differ in their steps."""
        while len(self._first_steps) <= epoch:
            done = len(self._first_steps) - 1
            self._first_steps.append(self._first_steps[-1] + self._lanes_of(done).num_steps)
        return self._first_steps[epoch]

    def place(self, step: int) -> tuple[int, int]:
        """Return the epoch of a step, and its number in it."""
        epoch = 0
        while self.first_step(epoch + 1) <= step:
            epoch += 1
        return epoch, step - self.first_step(epoch)

    def loaded(self, first_step: int, last_step: int, num_workers: int) -> Generator[LoadedBatch, None, None]:
        """Yield the batches of `first_step` to before `last_step`; each lane is one worker's, so a tar is read once."""
        num_loaders = min(max(num_workers, 1), LANES)
        steps = range(first_step, last_step)
        owners = [0 if turn is None else turn.lane % num_loaders for turn in map(self._turn, steps)]
        own: list[list[int]] = [[] for _ in range(num_loaders)]
        for step, owner in zip(steps, owners, strict=True):
            own[owner].append(step)
        loaders = [load_steps(self, of_worker, min(num_workers, 1)) for of_worker in own]
        return in_turn(loaders, owners)

    def epoch_lanes(self, epoch: int) -> EpochLanes:
        """Return who reads what in an epoch."""
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._lanes_of(epoch))
        return self._epoch[1]

    def _lanes_of(self, epoch: int) -> EpochLanes:
        return EpochLanes(
            [str(shard) for shard in self._index.shards],
            self._starts,
            seed=self._order_settings.seed,
            epoch=epoch,
            global_batch_size=self._order_settings.global_batch_size,
            rank=self._rank,
            world_size=self._world_size,
        )

    def _turn(self, step: int) -> Turn | None:
        epoch, step_in_epoch = self.place(step)
        turns = self.epoch_lanes(epoch).turns
        return turns[step_in_epoch] if step_in_epoch < len(turns) else None

    def _images(self, epoch: int, step_in_epoch: int) -> list[int]:
        """Return the rows of this process's images of a step; `_current` reads the lane that they come from."""
        lanes = self.epoch_lanes(epoch)
        if step_in_epoch >= len(lanes.turns):
            return []
        turn = lanes.turns[step_in_epoch]
        batches = lanes.lane(turn.lane).batches
        self._current = self._reader(epoch, turn)
        self._readers[turn.lane] = (epoch, Turn(turn.lane, turn.number + 1), self._current)
        rows: list[int] = batches[turn.number].tolist()
        return rows

    def _reader(self, epoch: int, turn: Turn) -> TarReader:
        """Return what reads a lane from `turn` on: the one in hand, where it stands there."""
        in_hand = self._readers.get(turn.lane)
        if in_hand is not None and in_hand[:2] == (epoch, turn):
            return in_hand[2]
        lane = self.epoch_lanes(epoch).lane(turn.lane)
        rest = np.concatenate(lane.batches[turn.number :]).tolist()
        return TarReader(self._dataset, self._index, shards=lane.shards, images=rest)

    def _content(self, image: int) -> bytes:
        """Return an image's stored bytes, out of the lane in hand."""
        assert self._current is not None
        return self._current.read(image)
