"""Which process reads which shards of a stream, and which of its images make a step.

    shards of an epoch -> processes -> lanes -> batches of one lane each, the lanes in turn

Shards are shuffled and dealt to the processes in turn, and a process's to its lanes, as webdataset deals them to nodes
and workers. A lane's images are shuffled by webdataset's buffer. Random numbers come from the seed, the epoch and the
names of shards alone. A process has the same lanes whatever the number of its workers, which share them: so a step is
the same on any number of workers, and a place in a run is one integer, the step. It is *not* the same on another number
of processes. Every process can work out how many steps the others have: one that has none left takes part in the steps
of the others with an empty batch.
"""

import functools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import webdataset

from schemas.hashes import sha256

LANES = 8
"""Tars that a process has open at a time, at most; more workers than these have nothing to read."""
MIXED = 256
"""Images of a lane among which the next one is drawn: with `LANES`, what bounds the images held as files."""

Rows = npt.NDArray[np.int64]
"""Rows of images in the `SampleIndex`."""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Shards that are read one after the other, and the batches that their images make."""

    shards: tuple[int, ...]
    batches: tuple[Rows, ...]


@dataclass(frozen=True)
class Turn:
    """A step of a process that has images."""

    lane: int
    number: int
    """Which of the lane's batches it is."""


class EpochLanes:
    """One epoch of a process, and how long it is for all of them."""

    def __init__(
        self,
        names: Sequence[str],
        starts: Rows,
        *,
        seed: int,
        epoch: int,
        global_batch_size: int,
        rank: int,
        world_size: int,
    ) -> None:
        """`names` are the shards'; the images of shard i are rows `starts[i]` up to `starts[i + 1]`."""
        self._names, self._starts, self._key = names, starts, f"{seed}\n{epoch}"
        with_images = [shard for shard in range(len(names)) if starts[shard] < starts[shard + 1]]
        shards = _shuffled(with_images, among=len(with_images), key=self._key)
        sizes = [len(part) for part in np.array_split(np.arange(global_batch_size), world_size)]
        lanes = [_deal(of_process, LANES) for of_process in _deal(shards, world_size)]
        counts = [[self._num_batches(lane, size) for lane in own] for own, size in zip(lanes, sizes, strict=True)]
        self._lanes, self._counts, self._size = lanes[rank], counts[rank], sizes[rank]
        own = self._counts
        self.turns = [
            Turn(lane, number)
            for number in range(max(own, default=0))
            for lane in range(len(own))
            if number < own[lane]
        ]
        """Of this process, in order; the epoch may go on after the last."""
        self.num_steps = max(map(sum, counts))
        """Of the whole epoch, the same for all processes."""
        self.num_empty = world_size * self.num_steps - sum(map(sum, counts))
        """Batches of all processes that have no image."""
        self.lane = functools.cache(self._lane)

    def _num_batches(self, lane: Sequence[int], size: int) -> int:
        return -(-sum(int(self._starts[shard + 1] - self._starts[shard]) for shard in lane) // size)

    def _lane(self, lane: int) -> Lane:
        """Return a lane of this process. Its batches are as equal as can be: a small one trains badly."""
        shards = self._lanes[lane]
        rows = [row for shard in shards for row in range(self._starts[shard], self._starts[shard + 1])]
        mixed = np.array(_shuffled(rows, among=MIXED, key=f"{self._key}\n{self._names[shards[0]]}"), dtype=np.int64)
        return Lane(shards=tuple(shards), batches=tuple(np.array_split(mixed, self._counts[lane])))


def _shuffled(items: Iterable[int], *, among: int, key: str) -> list[int]:
    """Return the items as webdataset's buffer of `among` shuffles them, with the random numbers of `key`."""
    generator = random.Random(int(sha256(key.encode())[:32], 16))
    return list(webdataset.shuffle(among, initial=among, rng=generator)(iter(items)))


def _deal(shards: Sequence[int], num_hands: int) -> list[list[int]]:
    """Return what each of `num_hands` gets of shards that are dealt in turn."""
    return [list(shards[hand::num_hands]) for hand in range(num_hands)]
