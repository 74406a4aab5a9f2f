"""`--metrics-port`: what a scraper reads while a job runs, and a port that is taken."""

import socket
import urllib.request
from pathlib import Path

import pytest

from pipeline.cli.metrics import PortError, served
from pipeline.run import job
from pipeline.run.job import Progress
from tests.builders import CHEAP, configuration, run, write_tars

pytest.importorskip("prometheus_client", reason="NOT TESTED: --metrics-port. Install prometheus-client")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _read(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_scraper_reads_what_the_driver_saw_last(tmp_path: Path) -> None:
    tars, port, seen = write_tars(tmp_path / "tars", num_tars=3, num_images=4), _free_port(), list[Progress]()
    job.annotate([str(tars)], str(tmp_path / "out"), configuration=configuration(), watch=seen.append)
    last = seen[-1]
    with served(port) as tell:
        assert _read(port) == {}, "nothing is known yet"
        tell(last)
        told = _read(port)
    assert told["fineclip_units"] == 3
    assert told["fineclip_units_done_total"] == last.num_units_done
    assert told['fineclip_images_total{status="ok"}'] == last.totals.images.ok
    assert told['fineclip_regions_total{status="filtered"}'] == last.totals.regions.num_filtered
    assert told['fineclip_regions_total{status="dead"}'] == 0
    with pytest.raises(OSError, match="refused"):
        _read(port)


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortError), served(port):
            pass
        outcome = run("annotate", "scenes:4", tmp_path / "out", *CHEAP, "--metrics-port", str(port))
    assert (outcome.code, f"--metrics-port {port}: Address already in use; choose another" in outcome.err) == (2, True)


def test_a_port_that_is_none_is_refused(tmp_path: Path) -> None:
    outcome = run("annotate", "scenes:4", tmp_path / "out", *CHEAP, "--metrics-port", "0")
    assert outcome.code == 2
    assert "--metrics-port is 0, but must be between 1 and 65535" in outcome.err
