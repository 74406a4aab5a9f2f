"""Whole shards given to the workers of all ranks, as webdataset, open_clip and img2dataset's readers do: what is lost.

Rank r takes shards r, r + world_size, ...; its worker w takes every workers-th of these, from w on. A worker leaves out
the samples that do not fill a batch, and all ranks stop with the one that has the fewest batches. `fineclip train`
reads by sample, and loses none of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.doctor.findings import Findings
from schemas.text import counted

_MANY = 0.02
"""The share of samples lost an epoch, 0 to 1, that is worth a warning."""


@dataclass(frozen=True, kw_only=True)
class LoaderShape:
    """How a training job reads."""

    world_size: int = 1
    """Processes, one a GPU."""
    workers: int = 1
    """Reading processes of each rank."""
    batch_size: int = 1
    """Samples a batch of each rank."""

    @property
    def num_workers(self) -> int:
        """Of all ranks."""
        return self.world_size * self.workers


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Samples that an epoch leaves out."""

    num_samples: int
    """Of the data set."""
    by_batching: int
    """Did not fill a batch of their worker."""
    by_ranks: int
    """Of batches that a rank has more than the one with the fewest."""

    @property
    def total(self) -> int:
        """Samples left out for either reason."""
        return self.by_batching + self.by_ranks


def dropped_samples(sizes: Sequence[int], shape: LoaderShape) -> Dropped:
    """Return what an epoch over shards of `sizes` samples, in their order, leaves out."""
    batches = [0] * shape.world_size
    for rank in range(shape.world_size):
        own = sizes[rank :: shape.world_size]
        batches[rank] = sum(sum(own[worker :: shape.workers]) // shape.batch_size for worker in range(shape.workers))
    whole = sum(batches) * shape.batch_size
    seen = min(batches) * shape.world_size * shape.batch_size
    return Dropped(num_samples=sum(sizes), by_batching=sum(sizes) - whole, by_ranks=whole - seen)


def check_loading(sizes: Sequence[int], shape: LoaderShape, findings: Findings) -> None:
    """Report whether training shards of `sizes` samples suit `shape`, and how many samples an epoch loses."""
    readers = f"{counted(shape.world_size, 'rank')} x {counted(shape.workers, 'worker')}"
    remedy = "train with `fineclip train`, which reads by sample and leaves none out"
    if sum(sizes) < shape.num_workers:
        remedy += f"; or use fewer workers: the data set has {counted(sum(sizes), 'sample')}"
    else:
        size = sum(sizes) // shape.num_workers
        shards = counted(-(-sum(sizes) // size), "shard")
        remedy += f"; or annotate into a new OUTPUT with `--shard-size {size}` (and `--repack` for tars), {shards}"
        remedy += "; or use fewer workers"
    if len(sizes) < shape.num_workers:
        idle = f"{shape.num_workers - len(sizes)} of {shape.num_workers} workers get none"
        message = f"{counted(len(sizes), 'training shard')} for {readers}: {idle}, and loaders by shard refuse or hang"
        findings.error("shards-per-worker", message, remedy=remedy)
    dropped = dropped_samples(sizes, shape)
    message = (
        f"loaders by shard ({readers}, batches of {shape.batch_size}) leave out {dropped.total:,} of "
        f"{counted(dropped.num_samples, 'sample')} per epoch: {dropped.by_batching:,} in batches not filled, "
        f"{dropped.by_ranks:,} in batches that other ranks lack"
    )
    if dropped.total > _MANY * dropped.num_samples:
        findings.warning("dropped-samples", message, remedy=remedy)
    else:
        findings.note("dropped-samples", message, remedy="none needed")
