"""What `torch.save` wrote, read without running its code and by its checksums.

A file that is cut fails to load by itself. One in which a disk or a copy changed a bit does not: torch has checksums
written and looks at none of them, and weights that are a little wrong would be taken for right.
"""

import contextlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from os import PathLike
from typing import IO, Any, BinaryIO, cast

import torch

from trainer.errors import TrainingError

_TORCH_SCRIPT = "TorchScript"
_UNREADABLE = (
    *(OSError, EOFError, LookupError, TypeError, ValueError, AttributeError, RuntimeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
"""What torch raises for files that are none of its own."""


def load_saved(path: str | PathLike[str], what: str) -> dict[str, Any]:
    """Return the dictionary that a file holds, its tensors on the CPU.

    Raises TrainingError, saying that the file is not `what`, where it is no such file, holds code, or is damaged.
    """
    try:
        with warnings.catch_warnings():  # that of TorchScript is an error, told in words of our own
            warnings.filterwarnings("ignore", message=".*TorchScript")
            content = torch.load(path, map_location="cpu", weights_only=True)
        damaged = _damaged(path)
    except _UNREADABLE as error:
        raise TrainingError(f"{path}: not {what}: {_in_words(error)}") from error
    if damaged is not None:
        raise TrainingError(f"{path}: damaged since it was written ({damaged} has another checksum): fetch it again")
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise TrainingError(f"{path}: not {what}: it holds a {type(content).__name__}, and no tensors by name")
    return cast(dict[str, Any], content)


def _damaged(path: str | PathLike[str]) -> str | None:
    """Return which part of a file has another checksum than it was written with; files of old releases have none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as parts:
        damaged = parts.testzip()
        pickled = next((name for name in parts.namelist() if name.endswith("/data.pkl")), damaged)
        if damaged == pickled and pickled is not None and _all_differ(parts):
            return None  # torch.serialization.set_crc32_options(False) has no true checksums written
        return damaged


def _all_differ(parts: zipfile.ZipFile) -> bool:
    """Return whether no part that has content has its checksum."""
    for part in parts.infolist():
        with contextlib.suppress(zipfile.BadZipFile), parts.open(part) as file:
            while file.read(1 << 20):
                pass
            if part.file_size:
                return False
    return True


def _in_words(error: Exception) -> str:
    """Return what torch says; of its advice, which is to run the file's code, nothing."""
    if _TORCH_SCRIPT in str(error):
        return (
            "it is a TorchScript program, as OpenAI's own downloads are; for those give --pretrained openai, or the "
            "same weights as open_clip_model.safetensors"
        )
    return (str(error).splitlines() or ["it is empty"])[0]


def save_tensors(content: Mapping[str, Any], file: BinaryIO) -> None:
    """Write what `load_saved` reads. Raises the OSError of a write that failed, of which torch keeps nothing."""
    watched = _Watched(file)
    try:
        torch.save(content, cast(IO[bytes], watched))
    except RuntimeError:
        if watched.error is None:
            raise
        raise watched.error from None


class _Watched:
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()
