"""Spark standalone, a master and two workers, by beam-pyspark-runner: Beam's own job server jar is not to be had here.

It is pinned to old versions of Beam and pyspark, which it does not need: `pip install pyspark==3.5.9`, then
`pip install --no-deps beam-pyspark-runner==0.0.3`.
"""

import contextlib
import importlib.util
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
from tests.engines.table import Table
from tests.faults import jobs

_MISSING = [name for name in ("pyspark", "beam_pyspark_runner") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        bool(_MISSING) or shutil.which("java") is None,
        reason=f"NOT TESTED: Spark. Install Java, pyspark and beam-pyspark-runner; see {Path(__file__).name}",
    ),
]
_SPARK = "Spark 3.5.9, a master and 2 workers"
_RUNNER = "--runner=beam_pyspark_runner.pyspark_runner.PySparkRunner"


@pytest.fixture
def workers(gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two workers of a master; jobs that are started go there."""
    del gate  # whose PYTHONPATH they inherit
    (home,) = importlib.util.find_spec("pyspark").submodule_search_locations  # type: ignore[union-attr,misc]
    monkeypatch.setenv("SPARK_HOME", home)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    port = free_port()
    options = {
        "spark.default.parallelism": str(NUM_UNITS),  # unset, all units go to one executor
        "spark.driver.host": "127.0.0.1",
        "spark.executorEnv.PYTHONPATH": os.environ["PYTHONPATH"],
        "spark.ui.enabled": "false",
    }
    flags = " ".join(f"--conf {name}={value}" for name, value in options.items())
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"--master spark://127.0.0.1:{port} {flags} pyspark-shell")
    start = (f"{home}/bin/spark-class", "org.apache.spark.deploy")
    with contextlib.ExitStack() as stack:

        def run(kind: str, port: int, *arguments: str | Path, log: str) -> subprocess.Popen[bytes]:
            command = (start[0], f"{start[1]}.{kind}", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0")
            return stack.enter_context(service(*command, *arguments, port=port, log=tmp_path / log))

        run("master.Master", port, log="master.log")
        one_each = ("--cores", "1", "--memory", "1g", "--work-dir", tmp_path / "work", f"spark://127.0.0.1:{port}")
        yield [run("worker.Worker", free_port(), *one_each, log=f"worker{number}.log") for number in range(2)]


def _start(source: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline", "annotate", str(source), str(output), *jobs.BACKENDS, "--", _RUNNER]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0)


def test_two_workers_do_as_much_as_each_other(
    source: Path,
    output: Path,
    gate: Gate,
    workers: list[subprocess.Popen[bytes]],
    undisturbed: dict[str, str],
    table: Table,
) -> None:
    del workers
    with table.measure(_SPARK, output):
        started = _start(source, output)
        gate.open_for(2, started)
        ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed
    check_shared(output, 2)


@pytest.mark.survives(_SPARK, "a dead worker")
def test_the_death_of_a_worker_costs_its_unit_in_hand(
    source: Path, output: Path, gate: Gate, workers: list[subprocess.Popen[bytes]], undisturbed: dict[str, str]
) -> None:
    started = _start(source, output)
    gate.open_for(2, started)
    jobs.wait_until(lambda: len([*output.glob("train-*.json")]) > 3, started)
    os.killpg(workers[0].pid, signal.SIGKILL)
    ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed
