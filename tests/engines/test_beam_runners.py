"""Beam's runners beside the local one: its job service, external workers, Prism. The same bytes, through faults."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import digests
from tests.engines.conftest import Gate
from tests.engines.services import NUM_UNITS, check_shared, free_port, service
from tests.engines.table import LOCAL, Table
from tests.faults import jobs
from tests.faults.fault_points import Fault

PRISM = "github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0"
engines, survives = pytest.mark.engines, pytest.mark.survives
_LOOPBACK = "Beam's job service, the driver as its worker"
_POOL = "Beam's job service, a pool of workers"
_PRISM = "Prism, the driver as its worker"
Pool = tuple[subprocess.Popen[bytes], list[str]]
"""The pool's process, and the options that use it."""


@pytest.fixture
def job_service(tmp_path: Path) -> Iterator[list[str]]:
    """Beam's own job service, in a process; the options with which a job goes there."""
    port = free_port()
    command = (sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", "--job_port", str(port))
    with service(*command, port=port, log=tmp_path / "service.log"):
        yield ["--", "--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}"]


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Beam's pool of external workers, which starts the first `python` of PATH, and the options that use it."""
    port = free_port()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = (sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", "--service_port", str(port))
    with service(*command, port=port, log=tmp_path / "pool.log") as process:
        yield process, ["--environment_type=EXTERNAL", f"--environment_config=127.0.0.1:{port}"]


def test_the_job_service_with_the_driver_as_its_worker(
    source: Path, output: Path, job_service: list[str], undisturbed: dict[str, str]
) -> None:
    ended = jobs.run(source, output, *job_service, "--environment_type=LOOPBACK")
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed


@engines
def test_what_the_job_service_costs(
    source: Path, output: Path, job_service: list[str], undisturbed: dict[str, str], gate: Gate, table: Table
) -> None:
    with table.measure(_LOOPBACK, output):
        started = jobs.start(source, output, *job_service, "--environment_type=LOOPBACK")
        gate.open_for(1, started)
        ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed


@engines
@pytest.mark.parametrize("flags", [(), ("--two-pools",)])
def test_external_workers(
    source: Path,
    output: Path,
    gate: Gate,
    table: Table,
    job_service: list[str],
    pool: Pool,
    undisturbed: dict[str, str],
    flags: tuple[str, ...],
) -> None:
    with table.measure(", ".join([_POOL, *flags]), output):
        started = jobs.start(source, output, *flags, *job_service, *pool[1])
        gate.open_for(1, started)
        ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed


@engines
@survives(_POOL, "a dead worker: code 7, resumed")
def test_a_killed_external_worker_ends_the_job_which_goes_on_elsewhere(
    source: Path,
    output: Path,
    gate: Gate,
    job_service: list[str],
    pool: Pool,
    undisturbed: dict[str, str],
) -> None:
    """Beam's job service itself would wait for ever."""
    process, options = pool
    started = jobs.start(source, output, "--stall-timeout-s", "5", *job_service, *options)
    gate.open_for(1, started)
    jobs.wait_until(lambda: len([*output.glob("train-*.json")]) > 2, started)
    for pid in jobs.workers_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    ended = jobs.finish(started)
    assert (ended.code, "nothing has moved for 5 s" in ended.text) == (7, True), ended.text
    assert jobs.run(source, output).code == 0
    assert digests(output) == undisturbed


@engines
@survives(_POOL, "TERM, INT: drained")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_external_workers(
    source: Path,
    output: Path,
    gate: Gate,
    job_service: list[str],
    pool: Pool,
    undisturbed: dict[str, str],
    number: signal.Signals,
) -> None:
    started = jobs.start(source, output, *job_service, *pool[1])
    gate.open_for(1, started)
    jobs.wait_until(lambda: len([*output.glob("train-*.json")]) > 2, started)
    started.send_signal(number)
    ended = jobs.finish(started)
    assert ended.code == 4, ended.text
    assert 2 < len([*output.glob("train-*.json")]) < NUM_UNITS, "it stopped on the way"
    assert jobs.run(source, output, *job_service, *pool[1]).code == 0
    assert digests(output) == undisturbed


@pytest.fixture(scope="session")
def prism(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Prism, handed over by $FINECLIP_PRISM or built by Go; the options with which a job goes there."""
    binary = os.environ.get("FINECLIP_PRISM")
    if binary is None:
        if shutil.which("go") is None:
            pytest.skip("NOT TESTED: Prism. Name its binary by FINECLIP_PRISM, or install Go, which builds it")
        folder = tmp_path_factory.mktemp("go")
        subprocess.run(["go", "install", PRISM], env={**os.environ, "GOBIN": str(folder)}, check=True)
        binary = str(folder / "prism")
    return ["--", "--runner=PrismRunner", f"--prism_location={binary}", "--environment_type=LOOPBACK"]


@engines
def test_prism(
    source: Path, output: Path, prism: list[str], undisturbed: dict[str, str], gate: Gate, table: Table
) -> None:
    with table.measure(_PRISM, output):
        started = jobs.start(source, output, *prism)
        gate.open_for(1, started)
        ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed


@engines
@survives(_PRISM, "TERM, INT to the group: drained; a dead driver: resumed")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_prism_ends_with_its_driver(
    source: Path, output: Path, prism: list[str], undisturbed: dict[str, str], gate: Gate, number: signal.Signals
) -> None:
    """A signal to the whole group, as a terminal sends it: Prism is in a session of its own, and units are finished."""
    fault = Fault(operation="publish", target=r"train-000003\.tar", when="before") if number == signal.SIGKILL else None
    gate.open_for(0)
    started = jobs.start(source, output, *prism, fault=fault)
    if fault is None:
        jobs.wait_until(lambda: len([*output.glob("train-*.json")]) > 2, started)
        os.killpg(started.pid, number)
    ended = jobs.finish(started)
    assert ended.code == (4 if fault is None else -9), ended.text
    assert jobs.run(source, output, *prism).code == 0
    assert digests(output) == undisturbed


@engines
def test_two_local_workers_do_as_much_as_each_other(
    source: Path, output: Path, gate: Gate, undisturbed: dict[str, str], table: Table
) -> None:
    """Beam hashes the units: without turns at what is left, one of two may get 16 of 24."""
    with table.measure(LOCAL, output):
        started = jobs.start(source, output, "--workers", "2")
        gate.open_for(2, started)
        ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed
    check_shared(output, 2)
