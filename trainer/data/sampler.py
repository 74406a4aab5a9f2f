"""Which image comes when. An epoch is a permutation; a place in it is one integer, the step.

    order = epoch_order(index.shard, seed=0, epoch=3, shuffle="global")
    mine = local_batch(order, step_in_epoch=17, global_batch_size=256, rank=1, world_size=8)

Each image comes exactly once an epoch, whatever the shards, processes and workers: the last batch of an epoch is
smaller, and spread over the processes as evenly as can be. The same images make a step on any number of processes.
"""

import numpy as np
import numpy.typing as npt

from trainer.hyperparameters import Shuffle

OPEN_SHARDS = 8
"""Shards whose images are mixed with each other by `shards`."""

Order = npt.NDArray[np.int64]


def epoch_order(shard: npt.NDArray[np.int32], *, seed: int, epoch: int, shuffle: Shuffle) -> Order:
    """Return `[I]` int64: the images in the order of an epoch. `shard` `[I]` says where each is, ascending."""
    generator = np.random.default_rng([seed, epoch])
    if shuffle == "global":
        return generator.permutation(len(shard))
    starts = np.searchsorted(shard, np.arange(shard[-1] + 2))
    shards = generator.permutation(len(starts) - 1)
    groups = [shards[first : first + OPEN_SHARDS] for first in range(0, len(shards), OPEN_SHARDS)]
    mixed = [np.concatenate([np.arange(starts[s], starts[s + 1]) for s in group]) for group in groups]
    return np.concatenate([generator.permutation(images) for images in mixed]).astype(np.int64)


def steps_per_epoch(num_images: int, global_batch_size: int) -> int:
    """Return the number of steps of an epoch, the smaller last one included."""
    return -(-num_images // global_batch_size)


def local_batch(order: Order, *, step_in_epoch: int, global_batch_size: int, rank: int, world_size: int) -> Order:
    """Return this process's images of a step; it may get none, in the last step of an epoch."""
    batch = order[step_in_epoch * global_batch_size :][:global_batch_size]
    return np.array_split(batch, world_size)[rank]
