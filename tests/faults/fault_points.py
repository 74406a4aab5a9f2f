"""Named moments between two operations on OUTPUT at which a process can be killed, stopped or held.

`arm` wraps the operations of `LocalStorage` and `HashingFile` in this very process, which is one of the job under test.
"""

import functools
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.store.storage import LocalStorage
from pipeline.write.shard_writer import HashingFile


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What happens when one operation on one kind of file is reached."""

    operation: str
    """A method of `LocalStorage` or `HashingFile`; "open" is the start of a `HashingFile`, "link" the hard link."""
    target: str
    """A pattern that the name of the file or folder operated on matches in full."""
    when: Literal["before", "after"]
    nth: int = 1
    """Which of the matching calls."""
    action: Literal["kill", "stop", "hold"] = "kill"
    """SIGKILL or SIGSTOP to this process; or wait until `Control.release`."""
    control: str = ""
    """The folder of the `Control`, for "stop" and "hold"."""


class Control:
    """How a test and a process that it holds talk to each other: by files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reached, self._released = folder / "reached", folder / "released"

    @property
    def pid(self) -> int | None:
        """The process that has reached its fault, or None."""
        return int(self._reached.read_text()) if self._reached.exists() else None

    def release(self) -> None:
        """Let processes that are held go on, and hold no more."""
        self._released.touch()

    def report(self) -> None:
        """Say that this process has reached its fault."""
        temporary = self._reached.with_suffix(f".{os.getpid()}")
        temporary.write_text(str(os.getpid()))
        temporary.rename(self._reached)

    def wait(self) -> None:
        """Wait for `release`."""
        while not self._released.exists():
            time.sleep(0.01)


def arm(encoded: str) -> None:
    """Arm the JSON of a `Fault` in this process."""
    fault = msgspec.json.decode(encoded, type=Fault)
    name_of = _NAMES[fault.operation]
    if fault.operation == "link":
        os.link = _armed(os.link, fault, name_of)
    elif fault.operation == "open":
        HashingFile.__init__ = _armed(HashingFile.__init__, fault, name_of)  # type: ignore[method-assign]
    else:
        owner = HashingFile if fault.operation in ("write", "finish") else LocalStorage
        setattr(owner, fault.operation, _armed(getattr(owner, fault.operation), fault, name_of))


_NAMES: dict[str, Callable[..., str]] = {
    "open": lambda file, path: path.name,
    "write": lambda file, data: file.path.name,
    "finish": lambda file: file.path.name,
    "link": lambda source, destination: os.fspath(destination),
    "settle": lambda storage, path, name: name,
    "sync": lambda storage, folder: folder,
    "decide": lambda storage, name, data: name,
    "create": lambda storage, name, data: name,
    "publish": lambda storage, name, final_name: final_name,
    "replace": lambda storage, name, data: name,
    "remove": lambda storage, *names: " ".join(names),
    "remove_folder": lambda storage, folder: folder,
}
"""Operation -> which of its arguments names what it operates on."""


def _armed(operation: Callable[..., Any], fault: Fault, name_of: Callable[..., str]) -> Callable[..., Any]:
    calls = 0

    @functools.wraps(operation)
    def wrapper(*arguments: Any) -> Any:
        nonlocal calls
        if re.fullmatch(fault.target, name_of(*arguments)) is None:
            return operation(*arguments)
        calls += 1
        if calls != fault.nth:
            return operation(*arguments)
        if fault.when == "before":
            if fault.operation == "write":
                arguments[0].flush()  # so that half a file lies on the disk
            _act(fault)
            return operation(*arguments)
        result = operation(*arguments)
        _act(fault)
        return result

    return wrapper


def _act(fault: Fault) -> None:
    if fault.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    control = Control(Path(fault.control))
    control.report()
    if fault.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        control.wait()
