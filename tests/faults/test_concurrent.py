"""Several jobs on one OUTPUT make one data set, each shard committed once; also where one is paused and wakes late."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.builders import check_balance, digests, members, write_tar, write_tars
from tests.faults import jobs
from tests.faults.fault_points import Control, Fault

pytestmark = pytest.mark.faults

Start = Callable[..., subprocess.Popen[str]]


@pytest.mark.parametrize("flags", [(), ("--workers", "2"), ("--two-pools",)])
def test_two_jobs_at_once(
    start: Start, source: Path, output: Path, undisturbed: dict[str, str], flags: tuple[str, ...]
) -> None:
    processes = [start(source, output, *flags) for _ in range(2)]
    for ended in [jobs.finish(process) for process in processes]:
        assert ended.code == 0, ended.text
    assert digests(output) == undisturbed
    check_balance(output)


def test_the_second_job_of_another_configuration_is_refused(
    start: Start, source: Path, output: Path, control: Control
) -> None:
    fault = Fault(
        operation="publish", target=r"train-000000\.tar", when="before", action="hold", control=str(control.folder)
    )
    first = start(source, output, fault=fault)
    jobs.wait_until(lambda: control.pid, first)
    second = jobs.run(source, output, "--select.max-iou", "0.5")
    assert second.code == 3, second.text
    assert "select.max_iou: 0.7 in OUTPUT, 0.5 now" in second.text
    control.release()
    assert jobs.finish(first).code == 0


_TOKEN = "[0-9a-f]{16}"
_WRITER = "[0-9a-z-]+"
"""What ends the name of a file in work."""
PAUSES = {
    "planning": Fault(operation="finish", target=rf"_plan\.units\.parquet\.{_WRITER}", when="before"),
    "lease taken": Fault(operation="decide", target=r"_leases/unit-000000\.json", when="after"),
    "writing": Fault(operation="write", target=rf"train-000000\.tar\.{_WRITER}", when="before", nth=50),
    "tar settled": Fault(operation="settle", target=rf"_attempts/train-000000\.tar\.{_TOKEN}", when="after"),
    "decided": Fault(operation="create", target=r"_commit/train-000000\.json", when="after"),
    "tar published": Fault(operation="publish", target=r"train-000000\.tar", when="after"),
    "sizes.json": Fault(operation="replace", target=r"sizes\.json", when="before"),
    "clean-up": Fault(operation="remove_folder", target="_attempts", when="before"),
}
"""Where the first job stops; the second finds its lease run out, and finishes everything.

A few of many: `test_commit` pauses before every operation of a commit, without processes.
"""


def _stopping(fault: Fault, control: Control) -> Fault:
    return msgspec.structs.replace(fault, action="stop", control=str(control.folder))


@pytest.mark.parametrize("moment", PAUSES)
def test_a_paused_job_that_wakes_late_changes_nothing(
    start: Start, source: Path, output: Path, undisturbed: dict[str, str], control: Control, moment: str
) -> None:
    paused = _stopping(PAUSES[moment], control)
    first = start(source, output, "--lease-timeout-s", "1", fault=paused)
    jobs.wait_until(lambda: control.pid, first)
    second = jobs.run(source, output, "--lease-timeout-s", "1")
    assert second.code == 0, second.text
    if moment != "clean-up":
        assert digests(output) == undisturbed
    os.kill(first.pid, signal.SIGCONT)
    ended = jobs.finish(first)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed


def test_a_paused_worker_process_that_wakes_late_changes_nothing(
    start: Start, source: Path, output: Path, undisturbed: dict[str, str], control: Control
) -> None:
    paused = _stopping(PAUSES["writing"], control)
    first = start(source, output, "--workers", "2", "--lease-timeout-s", "1", fault=paused)
    jobs.wait_until(lambda: control.pid, first)
    assert control.pid is not None
    second = jobs.run(source, output, "--lease-timeout-s", "1")
    assert second.code == 0, second.text
    os.kill(control.pid, signal.SIGCONT)
    ended = jobs.finish(first)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed


def test_a_job_that_appends_while_another_ends(start: Start, tmp_path: Path, output: Path, control: Control) -> None:
    """The first job's clean-up must leave what the second, which has added shards, is committing."""
    source = write_tars(tmp_path / "growing", num_tars=1, num_images=4)
    ending = Fault(operation="decide", target=r"train-000000\.json", when="after")
    first_control, second_control = Control(tmp_path / "first"), Control(tmp_path / "second")
    for one in (first_control, second_control):
        one.folder.mkdir()
    first = start(source, output, fault=_stopping(ending, first_control))
    jobs.wait_until(lambda: first_control.pid, first)
    write_tar(source / "00001.tar", [members("new")])
    settled = Fault(operation="sync", target="_attempts", when="after", nth=2)
    second = start(source, output, "--append", fault=_stopping(settled, second_control))
    jobs.wait_until(lambda: second_control.pid, second)
    os.kill(first.pid, signal.SIGCONT)
    assert jobs.finish(first).code == 0
    os.kill(second.pid, signal.SIGCONT)
    ended = jobs.finish(second)
    assert ended.code == 0, ended.text
    assert len(list(output.glob("train-*.json"))) == 2
    check_balance(output)
