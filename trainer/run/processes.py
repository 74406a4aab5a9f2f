"""This process among those of a run, and its device: `accelerate` finds both, however the processes were launched."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState

from trainer.errors import StoppedError, TrainingError

_LAUNCHERS = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun and accelerate set together."""
_OF_WORKER = "DataLoader worker"
"""In what torch raises, wherever the command is just then, when a worker process ends before its time."""
_WORKER_DIED = (
    "a process that decodes images died: {}. Most often memory has run out, or shared memory (df -h /dev/shm; in "
    "Docker, --shm-size): give fewer --workers, 0 for none. The same command goes on from the last checkpoint"
)


@contextmanager
def joined_processes(device: str) -> Iterator[torch.device]:
    """Join the run's other processes, if any, and yield this one's device.

    `device` is `auto` (CUDA where there is one), `cpu` or `cuda`. Raises TrainingError where there is no such device,
    or a launcher's variables are there in part; StoppedError where a process that decodes images died inside.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device here; give --device cpu")
    _check_launcher()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")  # the run sets its threads itself
        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    try:
        yield state.device
    except RuntimeError as error:
        if _OF_WORKER not in str(error):
            raise
        raise StoppedError(_WORKER_DIED.format(str(error).splitlines()[0])) from error
    finally:
        state.destroy_process_group()
        PartialState._reset_state()  # a process may run several commands, on other devices


def _check_launcher() -> None:
    """Raise TrainingError where variables of a launcher are set in part, as a shell or a script of Slurm's may.

    A process with LOCAL_RANK would wait for others; processes with WORLD_SIZE alone would each be the whole run.
    """
    is_set = {name: os.environ.get(name, "") not in ("", "-1") for name in _LAUNCHERS}
    several = os.environ.get("WORLD_SIZE", "1") not in ("", "1")
    if (is_set["LOCAL_RANK"] or several) and not all(is_set.values()):
        there, missing = ([name for name in _LAUNCHERS if is_set[name] is wanted] for wanted in (True, False))
        raise TrainingError(
            f"the environment has {', '.join(there)} without {', '.join(missing)}: a launcher sets all of them. Start "
            f"by torchrun or `accelerate launch`, or for one process: unset {' '.join(there)}"
        )
