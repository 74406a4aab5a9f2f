"""Where a worker's models run, and with how many threads. Imports torch only when asked."""

import functools
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class DeviceError(ValueError):
    """The device asked for is not there, or taken; the message says what to do. Commands exit 2 on it."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device as a run asked for it; not part of the fingerprint."""

    name: str = "auto"
    """`auto` (a free CUDA device where there are any, else the CPU), `cpu`, `cuda` (a free one) or `cuda:N`."""
    torch_threads: int = 1
    """CPU threads of torch in each worker. Its results depend on their number in the last digits, so it is fixed: not
    the machine's cores over the workers, which would differ from run to run."""

    def resolve(self) -> str:
        """Set torch's threads and return the device's torch name; a free GPU stays this process's own until it ends.

        Raises DeviceError where the device is not there, or every GPU is another worker's.
        """
        import torch

        torch.set_num_threads(self.torch_threads)
        if self.name == "auto" and not torch.cuda.is_available():
            return "cpu"
        if self.name.startswith("cuda") and not torch.cuda.is_available():
            raise DeviceError(f"--device {self.name}: torch finds no CUDA device here; give --device cpu")
        return f"cuda:{leased_gpu()}" if self.name in ("auto", "cuda") else self.name

    def hardware_kind(self) -> str:
        """Return what results may differ by in their last digits: the GPU's name, or CPU instructions and threads."""
        import torch

        device = self.resolve()
        if device.startswith("cuda"):
            return torch.cuda.get_device_name(device)
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {self.torch_threads} threads"


@functools.cache
def leased_gpu() -> int:
    """Return the index of a GPU that no other worker process of this machine holds, and hold it from now on.

    The lock file is taken before CUDA starts on the device, and falls with the process. Raises DeviceError where all
    are held.
    """
    from filelock import FileLock, Timeout

    count = num_gpus()
    for index, name in enumerate(_gpu_names(count)):
        lock = FileLock(Path(tempfile.gettempdir()) / f"fineclip-gpu-{name}.lock", mode=0o666)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _held.append(lock)
        return index
    raise DeviceError(
        f"all {count} GPUs of this machine are held by other workers, one each: start at most {count} here (--workers)"
    )


_held: list[Any] = []
"""The lease of this process; a lock that nobody refers to would be released."""


def num_gpus() -> int:
    """Return the number of CUDA devices, without starting CUDA on any; 0 where torch is not installed."""
    try:
        import torch
    except ImportError:
        return 0
    return int(torch.cuda.device_count())


def _gpu_names(count: int) -> list[str]:
    """Return what names each visible GPU on this machine, whichever of them this process may see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",")] if visible else []
    return names[:count] if len(names) >= count else [str(index) for index in range(count)]


def release_memory() -> None:
    """Give memory that torch keeps for later back to the GPU, so that a smaller batch finds it whole."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


CPU = Device(name="cpu")
