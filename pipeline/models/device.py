"""Where a worker's models run, and with how many threads. Imports torch only when asked."""

import contextlib
import errno
import functools
import gc
import os
import platform
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass


class DeviceError(ValueError):
    """The device asked for is not there, or taken; the message says what to do. Commands exit 2 on it."""

    exit_code = 2


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
        if self.name == "cpu" or (self.name == "auto" and not torch.cuda.is_available()):
            return "cpu"
        if not torch.cuda.is_available():
            raise DeviceError(f"--device {self.name}: torch finds no CUDA device here; give --device cpu")
        index = leased_gpu() if self.name in ("auto", "cuda") else named_gpu(self.name)
        _current.index = index
        enter_thread()
        return f"cuda:{index}"

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

    Raises DeviceError where all are held.
    """
    count = num_gpus()
    for index in range(count):
        if _hold(index):
            return index
    raise DeviceError(
        f"all {count} GPUs of this machine are held by other workers, one each: start at most {count} here (--workers)"
    )


@functools.cache
def named_gpu(name: str) -> int:
    """Return the index in `cuda:N`. It is held too where it is free, so that those who look for a free one pass it by.

    Raises DeviceError where there is no such GPU.
    """
    index = name.removeprefix("cuda:")
    if not index.isdecimal() or int(index) >= num_gpus():
        raise DeviceError(f"--device {name}: this machine has {num_gpus()} CUDA devices, cuda:0 being the first")
    _hold(int(index))
    return int(index)


def _hold(index: int) -> bool:
    """Take the lease of a GPU, unless another process has it.

    It is an abstract socket's name: unlike a lock file it has no owner, needs no folder that all users share, and falls
    with the process, however that ends. Containers with networks of their own do not see each other's leases.
    """
    lease = socket.socket(socket.AF_UNIX)
    try:
        lease.bind(f"\0fineclip-gpu-{gpu_id(index)}")
    except OSError as error:
        lease.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    _leases.append(lease)
    return True


_leases: list[socket.socket] = []
"""What this process holds; a socket that nobody refers to would be closed."""


def _close_leases() -> None:
    while _leases:
        _leases.pop().close()


os.register_at_fork(after_in_child=_close_leases)  # or a child would hold its parent's lease after that has ended


def gpu_id(index: int) -> str:
    """Return what names a GPU on this machine, whichever GPUs this process may see."""
    import torch

    return str(torch.cuda.get_device_properties(index).uuid)


class _Current:
    index: int | None = None
    """Of the GPU that this process's models run on."""


_current = _Current()


def enter_thread() -> None:
    """Make the process's GPU the current one of the calling thread: CUDA's own default is the first, another's."""
    if _current.index is not None:
        import torch

        torch.cuda.set_device(_current.index)


def leaves_cpu_free(torch_threads: int) -> bool:
    """Return whether another thread can prepare inputs beside a model: on a GPU, or where the model has one CPU thread.

    Teams of torch's threads wait by spinning, so two of them on the same cores slow each other down: measured on 2
    cores, captions took 1.3 times as long with inputs prepared beside a model of 2 threads as with inputs in turn.
    """
    return _current.index is not None or torch_threads == 1


@contextlib.contextmanager
def same_threads() -> Iterator[None]:
    """Undo what the body does to torch's number of threads: libraries set it by the machine's cores."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def num_gpus() -> int:
    """Return the number of CUDA devices, without starting CUDA on any; 0 where torch is not installed."""
    try:
        import torch
    except ImportError:
        return 0
    return int(torch.cuda.device_count())


def release_memory() -> None:
    """Give memory that torch keeps for later back to the GPU, so that a smaller batch finds it whole."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


CPU = Device(name="cpu")
