"""This process among those of a run, and its device: `accelerate` finds both, however the processes were launched."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState

from trainer.errors import TrainingError


@contextmanager
def joined_processes(device: str) -> Iterator[torch.device]:
    """Join the run's other processes, if any, and yield this one's device.

    `device` is `auto` (CUDA where there is one), `cpu` or `cuda`. Raises TrainingError where there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device here; give --device cpu")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")  # the run sets its threads itself
        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    try:
        yield state.device
    finally:
        state.destroy_process_group()
        PartialState._reset_state()  # a process may run several commands, on other devices
