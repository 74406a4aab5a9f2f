"""Rows of features from all processes, with their gradients.

Processes hold different numbers of pairs, some of them none. Counts are exchanged first, so a joined tensor has exactly
the rows there are, in rank order, and no padding reaches a loss.

**The factor against DDP's mean.** A loss is a sum over this process's rows, divided by the number of rows of all
processes, so the sum of the processes' losses is the loss of the joined batch. The backward pass of `gather_rows` adds
up what every process's loss says of a row, hence each process's parameter gradient is its own rows' full part, and the
gradient of the joined batch is the *sum* over processes. DistributedDataParallel takes the *mean*: multiply the loss by
the number of processes before `backward()` (`step.py` does).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Return the number of processes: 1 where no process group was started."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def exchange_counts(counts: Sequence[int], device: torch.device) -> list[list[int]]:
    """Return `[W][K]`: the K `counts` of each process, in rank order. Every process must call it."""
    if world_size() == 1:
        return [list(counts)]
    mine = torch.tensor(counts, dtype=torch.int64, device=device)
    everyone = mine.new_empty(world_size() * len(counts))
    dist.all_gather_into_tensor(everyone, mine)
    rows: list[list[int]] = everyone.reshape(world_size(), len(counts)).tolist()
    return rows


def gather_rows(tensors: Sequence[Tensor], counts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return each of K tensors `[n_k, D]` joined over the processes: `[N_k, D]`, in rank order.

    `counts` `[W][K]` is what `exchange_counts` gave for their lengths. All tensors have the same width and dtype. Those
    that need a gradient get the sum of what all processes' losses say. Every process must call it, and then its
    `backward()`, with rows or without: both are one collective.
    """
    if len(counts) == 1:
        return list(tensors)
    joined: tuple[Tensor, ...] = _Gather.apply(counts, *tensors)
    return list(joined)


def gather_ids(ids: Tensor, counts: Sequence[int]) -> Tensor:
    """Return `[N]` int64 ids of all processes, in rank order; `counts` `[W]` says how many each holds."""
    if len(counts) == 1:
        return ids
    (joined,) = _all_gather([ids.unsqueeze(1)], [[count] for count in counts])
    return joined.squeeze(1)


def _all_gather(tensors: Sequence[Tensor], counts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Join K tensors by one collective: each process sends its rows of all kinds, padded to the longest sender."""
    mine = torch.cat(list(tensors))
    longest = max(sum(row) for row in counts)
    if not longest:  # nobody has a row, as all know: nothing is sent
        return [tensor.clone() for tensor in tensors]
    sent = mine.new_zeros(longest, mine.shape[1])
    sent[: len(mine)] = mine
    received = mine.new_empty(len(counts) * longest, mine.shape[1])
    dist.all_gather_into_tensor(received, sent)
    senders = received.unflatten(0, (len(counts), longest))
    pieces = [sender[: sum(row)].split(list(row)) for sender, row in zip(senders, counts, strict=True)]
    return [torch.cat(of_kind) for of_kind in zip(*pieces, strict=True)]


class _Gather(torch.autograd.Function):
    """All kinds go through one node, so every process meets the collectives of the backward pass in the same order."""

    @staticmethod
    def forward(ctx: Any, counts: Sequence[Sequence[int]], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.counts = counts
        joined = _all_gather(tensors, counts)
        ctx.mark_non_differentiable(*(j for j, t in zip(joined, tensors, strict=True) if not t.requires_grad))
        return tuple(joined)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        summed = torch.cat(gradients)
        if len(summed):
            dist.all_reduce(summed)
        mine: list[Tensor | None] = []
        for kind, of_kind in enumerate(summed.split([len(g) for g in gradients])):
            first = sum(row[kind] for row in ctx.counts[: rank()])
            own = of_kind[first : first + ctx.counts[rank()][kind]]
            mine.append(own if ctx.needs_input_grad[1 + kind] else None)
        return (None, *mine)
