"""Asked to end, a job finishes the shards in hand, exits 4, and can be resumed; killed, its workers end too."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.builders import digests
from tests.faults import jobs
from tests.faults.fault_points import Control, Fault

pytestmark = pytest.mark.faults

Start = Callable[..., subprocess.Popen[str]]

ONE, TWO = (), ("--workers", "2")


def _in_hand(control: Control) -> Fault:
    """Hold whoever is about to publish the data of train-000000."""
    folder = str(control.folder)
    return Fault(operation="publish", target=r"train-000000\.tar", when="before", action="hold", control=folder)


def _drains(output: Path) -> bool:
    return any((output / "_run").glob("*.drain"))


def _terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def _press_ctrl_c(pid: int) -> None:
    os.killpg(pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("ask", "flags"),
    [(_terminate, ONE), (_terminate, TWO), (_terminate, ("--two-pools",)), (_press_ctrl_c, ONE), (_press_ctrl_c, TWO)],
)
def test_shards_in_hand_are_finished(
    start: Start,
    source: Path,
    output: Path,
    undisturbed: dict[str, str],
    control: Control,
    ask: Callable[[int], None],
    flags: Sequence[str],
) -> None:
    process = start(source, output, *flags, fault=_in_hand(control))
    jobs.wait_until(lambda: control.pid, process)
    ask(process.pid)
    jobs.wait_until(lambda: _drains(output), process)
    control.release()
    ended = jobs.finish(process)
    finished = sorted(path.name for path in output.glob("train-*.json"))
    if flags != TWO:  # where two work, the other may have done the rest before it was asked
        assert ended.code == 4, ended.text
        assert "The same command goes on from" in ended.text
        assert len(finished) < 3
    assert ended.code in (0, 4), ended.text
    assert "train-000000.json" in finished, ended.text
    assert not _drains(output)
    resumed = jobs.run(source, output, *flags)
    assert resumed.code == 0, resumed.text
    assert digests(output) == undisturbed


def test_the_second_signal_ends_at_once(
    start: Start, source: Path, output: Path, undisturbed: dict[str, str], control: Control
) -> None:
    process = start(source, output, fault=_in_hand(control))
    jobs.wait_until(lambda: control.pid, process)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        jobs.wait_until(lambda: _drains(output), process)
    assert jobs.finish(process).code == 4
    assert not (output / "train-000000.json").exists()
    resumed = jobs.run(source, output)
    assert resumed.code == 0, resumed.text
    assert digests(output) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("wait_s", [0.0, 0.3, 0.7, 1.2, 2.0])
def test_the_first_signal_works_in_every_phase(
    start: Start, source: Path, output: Path, undisturbed: dict[str, str], number: int, wait_s: float
) -> None:
    process = start(source, output)
    jobs.wait_until(lambda: jobs.catches(process, signal.SIGTERM), process)  # our own code has begun
    time.sleep(wait_s)
    process.send_signal(number)
    ended = jobs.finish(process)
    assert ended.code in (0, 4), ended.text
    assert "Traceback" not in ended.text
    assert jobs.run(source, output).code == 0
    assert digests(output) == undisturbed


def test_workers_of_a_killed_driver_end_and_their_shards_count(
    start: Start, source: Path, output: Path, undisturbed: dict[str, str], control: Control
) -> None:
    process = start(source, output, *TWO, fault=_in_hand(control))
    jobs.wait_until(lambda: control.pid, process)
    workers = jobs.workers_of(process.pid)
    assert control.pid in workers
    process.kill()
    process.wait()
    resuming = start(source, output)
    jobs.wait_until(lambda: (output / "train-000002.json").exists(), resuming)
    control.release()
    resumed = jobs.finish(resuming)
    assert resumed.code == 0, resumed.text
    jobs.wait_until(lambda: not any(map(jobs.is_alive, workers)))
    assert digests(output) == undisturbed
