"""Plain drivers on one OUTPUT, as hosts: network, process ids and host name of their own. No engine is needed."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders import digests
from tests.engines.conftest import Gate
from tests.engines.services import NUM_UNITS, check_shared, units_by
from tests.engines.table import Table
from tests.faults import jobs

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None,
        reason="NOT TESTED: drivers on hosts. Namespaces are made by `unshare`, as root",
    ),
]
_HOSTS = "plain drivers, 2 hosts"
survives = pytest.mark.survives
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(source: Path, output: Path) -> Iterator[Start]:
    """Starts a driver on a host of its own; what runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(host: str, *flags: str) -> subprocess.Popen[str]:
        driver = [str(jobs.FINECLIP), "annotate", str(source), str(output), *jobs.BACKENDS, *flags]
        namespaces = ["unshare", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        process = subprocess.Popen(
            [*namespaces, "sh", "-c", 'hostname "$0" && exec "$@"', host, *driver],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def driver(process: subprocess.Popen[str]) -> int:
    """The driver's process id, as this host sees it."""
    (pid,) = jobs.workers_of(process.pid)
    return pid


def num_done(output: Path) -> int:
    """How many shards there are."""
    return len([*output.glob("train-*.json")])


def finish(*processes: subprocess.Popen[str]) -> None:
    """Wait until all have ended well."""
    for process in processes:
        ended = jobs.finish(process)
        assert ended.code == 0, ended.text


@pytest.mark.parametrize("num_hosts", [2, 3])
def test_hosts_do_as_much_as_each_other(
    start: Start, output: Path, gate: Gate, undisturbed: dict[str, str], table: Table, num_hosts: int
) -> None:
    with table.measure(f"plain drivers, {num_hosts} hosts", output):
        drivers = [start(f"host{number}") for number in range(num_hosts)]
        gate.open_for(num_hosts, *drivers)
        finish(*drivers)
    assert digests(output) == undisturbed
    check_shared(output, num_hosts)


@survives(_HOSTS, "a dead host")
def test_a_killed_host_loses_its_unit_in_hand_and_nothing_else(
    start: Start, output: Path, gate: Gate, undisturbed: dict[str, str]
) -> None:
    """Its lease is another host's, so it is waited for."""
    one, two = start("one", "--lease-timeout-s", "3"), start("two", "--lease-timeout-s", "3")
    gate.open_for(2, one, two)
    jobs.wait_until(lambda: num_done(output) > 3, one)
    os.kill(driver(one), signal.SIGKILL)
    finish(two)
    assert jobs.finish(one).code != 0
    assert digests(output) == undisturbed


@survives(_HOSTS, "TERM, INT: drained")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drained_host_leaves_the_rest_to_the_others(
    start: Start, output: Path, gate: Gate, undisturbed: dict[str, str], number: signal.Signals
) -> None:
    one, two = start("one"), start("two")
    gate.open_for(2, one, two)
    jobs.wait_until(lambda: num_done(output) > 3, one)
    os.kill(driver(one), number)
    assert jobs.finish(one).code == 4
    finish(two, start("late"))
    assert digests(output) == undisturbed


@survives(_HOSTS, "a host stopped for longer than its lease")
def test_a_host_that_is_cut_off_for_long_does_no_harm_when_it_comes_back(
    start: Start, output: Path, gate: Gate, undisturbed: dict[str, str]
) -> None:
    """Stopped for longer than its lease: another has done its unit meanwhile."""
    one, two = start("one", "--lease-timeout-s", "2"), start("two", "--lease-timeout-s", "2")
    gate.open_for(2, one, two)
    jobs.wait_until(lambda: num_done(output) > 3, one)
    stopped = driver(one)
    os.kill(stopped, signal.SIGSTOP)
    finish(two)
    os.kill(stopped, signal.SIGCONT)
    finish(one)
    assert digests(output) == undisturbed


@survives(_HOSTS, "equal host names")
def test_two_hosts_of_one_name_do_not_take_each_others_leases(
    start: Start, output: Path, undisturbed: dict[str, str]
) -> None:
    """As containers that share a host's name: each has a process 1."""
    finish(start("same"), start("same"))
    assert digests(output) == undisturbed
    assert sum(units_by(output).values()) == NUM_UNITS, "each unit once"
