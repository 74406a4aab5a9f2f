"""Half-written files of killed attempts go with the next job that starts; those of a live attempt stay."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import digests
from tests.faults import jobs
from tests.faults.fault_points import Control, Fault

pytestmark = pytest.mark.faults
Start = Callable[..., subprocess.Popen[str]]
HALF_WRITTEN = Fault(operation="write", target=r"train-000000\.tar\.[0-9a-z-]+", when="before", nth=50)
SECOND_LEASE = Fault(operation="decide", target=r"_leases/unit-000001\.json", when="after")


def half_written(output: Path) -> set[str]:
    return {path.name for path in (output / "_attempts").glob("train-000000.*")}


def test_a_job_that_starts_sweeps_what_a_killed_one_left(source: Path, output: Path) -> None:
    assert jobs.run(source, output, fault=HALF_WRITTEN).code == -signal.SIGKILL
    left = half_written(output)
    assert len(left) == 2, "a tar and a table"
    started = Fault(operation="decide", target=r"_leases/unit-000000\.json", when="before")
    assert jobs.run(source, output, fault=started).code == -signal.SIGKILL
    assert half_written(output) == set()


def test_what_a_live_attempt_writes_is_not_swept(
    start: Start, source: Path, output: Path, undisturbed: dict[str, str], control: Control
) -> None:
    held = Fault(
        operation="write", target=HALF_WRITTEN.target, when="before", nth=50, action="hold", control=str(control.folder)
    )
    first = start(source, output, fault=held)
    jobs.wait_until(lambda: control.pid, first)
    writing = half_written(output)
    assert len(writing) == 2
    assert jobs.run(source, output, fault=SECOND_LEASE).code == -signal.SIGKILL
    assert half_written(output) == writing
    control.release()
    ended = jobs.finish(first)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed
