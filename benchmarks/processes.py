"""Commands run to their end, with what they cost: time, processor time, peak memory; of one process or of all of a job.

Linux alone: everything is read from /proc or told by the kernel.
"""

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A command that has ended."""

    wall_s: float
    cpu_s: float
    """User and system time, worker processes included."""
    peak_mib: float
    """Resident set of the command's process, or of its largest worker's."""
    output: str
    """What it printed."""


def run(*command: str | Path, env: dict[str, str] | None = None) -> Ended:
    """Run a command to its end. Raises SystemExit, with what it printed, if it fails."""
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} ended with exit code {process.returncode}:\n{text}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Ended(wall_s=wall_s, cpu_s=cpu_s, peak_mib=usage.ru_maxrss / 1024, output=text)


def peak_mib(pid: int) -> float:
    """Return the peak resident set of a process so far; 0 for one that has ended."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return 0.0


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def memory_mib(pids: Iterable[int]) -> float:
    """Return what processes hold together now, a page that several share counted once (proportional set size)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


@contextmanager
def watching_memory(pids: Callable[[], Iterable[int]]) -> Iterator[list[float]]:
    """Look four times a second at what the processes that `pids` names hold together; yields the growing list."""
    seen, stop = [0.0], threading.Event()

    def look() -> None:
        while not stop.wait(_SAMPLE_S):
            seen.append(memory_mib(pids()))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
