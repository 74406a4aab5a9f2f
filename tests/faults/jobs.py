"""Running the real command as a process, with or without a fault armed in it."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.processes import children_of
from tests.faults.fault_points import Fault

_HERE = Path(__file__).parent
FINECLIP = Path(sys.executable).with_name("fineclip")
BACKENDS = ("--proposer", "manual", "--captioner", "rule")
PATIENCE_S = 90.0
"""After which a wait is given up as a hang; no test depends on how long anything takes."""


@dataclass(frozen=True)
class Ended:
    """A job that has ended."""

    code: int
    text: str


def start(source: Path, output: Path, *flags: str, fault: Fault | None = None) -> subprocess.Popen[str]:
    """Start `fineclip annotate` with cheap backends."""
    return launch("annotate", source, output, *BACKENDS, *flags, fault=fault)


def launch(*arguments: str | Path, fault: Fault | None = None) -> subprocess.Popen[str]:
    """Start `fineclip ARGUMENTS` in a process group of its own, as a terminal would."""
    environment = dict(os.environ)
    if fault is not None:
        others = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
        environment["PYTHONPATH"] = os.pathsep.join([str(_HERE / "site"), *others])
        environment["FINECLIP_FAULT_MODULES"] = str(_HERE)
        environment["FINECLIP_FAULT"] = msgspec.json.encode(fault).decode()
    return subprocess.Popen(
        [FINECLIP, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def finish(process: subprocess.Popen[str]) -> Ended:
    """Wait for the job's end; one that hangs is killed, and fails the test."""
    try:
        text, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
        raise AssertionError(f"the job hangs; it said:\n{text}") from None
    return Ended(process.returncode, text)


def catches(process: subprocess.Popen[str], number: int) -> bool:
    """Whether the process has a handler for the signal, as Linux tells."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def workers_of(pid: int) -> list[int]:
    """The processes that the process `pid` started."""
    return children_of(pid)


def is_alive(pid: int) -> bool:
    """Whether the process has not ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def run(source: Path, output: Path, *flags: str, fault: Fault | None = None) -> Ended:
    """Run `fineclip annotate` to its end."""
    return finish(start(source, output, *flags, fault=fault))


def wait_until(condition: Callable[[], object], job: subprocess.Popen[str] | None = None) -> None:
    """Wait until `condition` holds; fails the test if it never does, or if `job` ends before."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if job is not None and job.poll() is not None:
            assert condition(), f"the job has ended before:\n{job.communicate()[0]}"
            return
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
