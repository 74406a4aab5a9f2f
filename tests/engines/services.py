"""Processes of engines that a test starts and ends, and what is left of them afterwards."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MARK = "FINECLIP_ENGINE_TEST"
"""A variable of the environment that all processes of a test inherit, by whomever they were started."""
PATIENCE_S = 60.0
NUM_UNITS = 30
"""Of equal work, in the source that all engines are given."""


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def service(*command: str | Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a session of its own, from when it listens at `port`; it is ended by TERM, or else killed."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*map(str, command)], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_for_port(port, process, log)
        yield process
    finally:
        end(process)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something listens at `port`."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None and time.monotonic() < deadline, f"it does not listen:\n{log.read_text()}"
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process by TERM; one that does not end in time is killed."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def marked(value: str) -> dict[int, str]:
    """The processes other than this one that inherited the mark, with their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    found.pop(os.getpid(), None)
    return {pid: command for pid, command in found.items() if command}


def check_none_left(value: str) -> None:
    """Fail if a process with the mark outlives its test by more than a moment; it is killed then."""
    deadline = time.monotonic() + 15
    while (left := marked(value)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"processes were left behind: {left}"


def units_by(output: Path) -> dict[str, int]:
    """How many units each worker of the newest data set did, by the names in its log (`pipeline.run.log`)."""
    counts: dict[str, int] = {}
    for path in (output / "_run").glob("*.unit-*.jsonl"):
        worker, _, _ = path.name.split(".")[-2].rpartition("-")
        counts[worker] = counts.get(worker, 0) + 1
    return counts


def spread(counts: Sequence[int]) -> float:
    """The most units of a worker over the mean."""
    return max(counts) * len(counts) / sum(counts)


def check_shared(output: Path, num_workers: int) -> None:
    """Each unit was done once, all workers did some, and none much more than the others."""
    counts = units_by(output)
    assert sum(counts.values()) == NUM_UNITS, f"each unit once: {counts}"
    assert len(counts) == num_workers, counts
    assert spread([*counts.values()]) <= 1.2, counts
