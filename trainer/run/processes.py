"""This process among those of a run: `accelerate launch` and `torchrun` say so in the environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from trainer.errors import TrainingError


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Join the run's other processes, if any, and yield this one's device.

    `device` is `auto` (CUDA where there is one), `cpu` or `cuda`. Raises TrainingError where there is no such device.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise TrainingError("--device cuda: torch finds no CUDA device here; give --device cpu")
    kind = "cuda" if device == "cuda" or (device == "auto" and has_cuda) else "cpu"
    found = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(found)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield found
        return
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield found
    finally:
        dist.destroy_process_group()
