"""A source of equal units, the data set it makes on this machine alone, and a look for processes left behind."""

import os
import secrets
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from pipeline.run import job
from tests.builders import configuration, digests, write_tars
from tests.engines import slurm as real_slurm
from tests.engines.services import MARK, NUM_UNITS, check_none_left
from tests.engines.table import Table
from tests.faults import jobs

_TABLE = Table()


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker by which a test says what it shows."""
    config.addinivalue_line("markers", "survives(engine, fault): shows that a job on the engine survives the fault")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note in the table what was survived."""
    report = yield
    if report.when == "call" and report.passed:
        for marker in item.iter_markers("survives"):
            engine, fault = marker.args
            _TABLE.faults.setdefault(engine, []).append(fault)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, where there is one."""
    if len(_TABLE.jobs) > 1:
        terminalreporter.section("engines: whole jobs, against two local workers")
        for line in _TABLE.lines():
            terminalreporter.write_line(line)
        load = " ".join(f"{each:.1f}" for each in os.getloadavg())
        terminalreporter.write_line(f"{NUM_UNITS} tars of 5 images, half a second and more each; load average {load}")


@pytest.fixture(scope="session")
def table() -> Table:
    """Where tests note what a whole job cost."""
    return _TABLE


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tars of equal size, a shard each."""
    return write_tars(tmp_path_factory.mktemp("engines"), num_tars=NUM_UNITS, num_images=5)


@pytest.fixture(scope="session")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of the data set, made in this process."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    job.annotate([str(source)], str(output), configuration=configuration())
    return digests(output)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An OUTPUT that does not exist yet."""
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process outlives its test."""
    value = secrets.token_hex(8)
    monkeypatch.setenv(MARK, value)
    yield
    check_none_left(value)


@pytest.fixture(scope="session")
def slurm_programs() -> None:
    """Slurm is installed."""
    real_slurm.install()


@pytest.fixture
def slurm(slurm_programs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a running Slurm's files."""
    del slurm_programs
    with real_slurm.cluster(tmp_path / "slurm", monkeypatch):
        yield tmp_path / "slurm"


class Gate:
    """Holds workers at their first unit until all are there, and makes every unit take a while.

    So that what is measured is who does how much, and not who was started first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open_for(self, num_workers: int, *running: subprocess.Popen[str]) -> None:
        """Let the workers go on once so many have come."""
        for process in running:
            jobs.wait_until(lambda: len([*self._folder.glob("ready-*")]) >= num_workers, process)
        (self._folder / "go").touch()


@pytest.fixture
def gate(source: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate at the source's files, in every process that is started."""
    folder = tmp_path / "gate"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, pathlib, sys, time\n"
        f"gate, source = pathlib.Path({str(folder)!r}), {str(source)!r}\n"
        f"plan = pathlib.Path({str(output / '_plan' / 'plan.json')!r})\n"  # a driver reads tars before it is there
        "def look(name, arguments):\n"
        "    if name == 'open' and str(arguments[0]).startswith(source) and plan.exists():\n"
        "        (gate / f'ready-{os.uname().nodename}-{os.getpid()}').touch()\n"
        "        while not (gate / 'go').exists():\n"
        "            time.sleep(0.01)\n"
        "        time.sleep(0.5)\n"
        "sys.addaudithook(look)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}{os.pathsep}{folder}")
    return Gate(folder)
