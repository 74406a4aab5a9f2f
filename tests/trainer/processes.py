"""Runs a function in several real processes that form a gloo group, and returns what each gave."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_processes(function: Callable[..., Any], world_size: int, *arguments: Any) -> list[Any]:
    """Return `function(*arguments)` of each process, in rank order; an exception in one fails the caller."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _start, args=(function, world_size, folder, arguments), nprocs=world_size, start_method="fork"
        )
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world_size)]


def _start(rank: int, function: Callable[..., Any], world_size: int, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    try:
        torch.save(function(*arguments), Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
