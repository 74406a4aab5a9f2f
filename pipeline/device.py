"""Where a worker's models run, and with how many threads. Imports torch only when asked."""

from dataclasses import dataclass


class DeviceError(ValueError):
    """The device asked for is not there; the message says what is. Commands exit 2 on it."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device as a run asked for it; not part of the fingerprint."""

    name: str = "auto"
    """`auto` (CUDA where there is one, else the CPU), `cpu`, `cuda` or `cuda:N`."""
    torch_threads: int = 1
    """CPU threads of torch in each worker. Its results depend on their number in the last digits, so it is fixed: not
    the machine's cores over the workers, which would differ from run to run."""

    def resolve(self) -> str:
        """Set torch's threads and return the device's torch name. Raises DeviceError where it is not there."""
        import torch

        torch.set_num_threads(self.torch_threads)
        if self.name == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.name.startswith("cuda") and not torch.cuda.is_available():
            raise DeviceError(f"--device {self.name}: torch finds no CUDA device here; give --device cpu")
        return self.name


def has_cuda() -> bool:
    """Return whether torch finds a CUDA device; False where torch is not installed."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


CPU = Device(name="cpu")
