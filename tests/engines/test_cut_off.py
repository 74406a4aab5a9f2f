"""A host is cut off from the network for half a minute, and comes back: nothing is lost, and nothing hangs."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.builders import digests
from tests.engines.conftest import Gate
from tests.engines.network import CUT_S, ON_A_NETWORK, Host, network
from tests.engines.services import NUM_UNITS, PATIENCE_S, end, free_port, units_by
from tests.faults import jobs
from tests.pipeline.store.s3_server import BUCKET, point_s3fs_at, serve

pytestmark = [pytest.mark.engines, ON_A_NETWORK, pytest.mark.timeout(600)]
_STARTED = "Ray runtime started."
"""What `ray start` says when its node is up."""


@pytest.fixture
def hosts() -> Iterator[tuple[str, list[Host]]]:
    """This machine's address, and two hosts."""
    with network("one", "two") as made:
        yield made


def start(host: Host, *command: str | Path) -> subprocess.Popen[str]:
    """Start a command on a host."""
    return subprocess.Popen(
        host.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )


def cut_off(host: Host) -> None:
    """Cut the host off for a while."""
    host.cut()
    time.sleep(CUT_S)
    host.join()


@pytest.mark.survives("plain drivers, 2 hosts", "a host cut off for 30 s")
def test_a_plain_driver_that_is_cut_off_from_the_store_goes_on(
    source: Path,
    output: Path,
    gate: Gate,
    undisturbed: dict[str, str],
    hosts: tuple[str, list[Host]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other host does the rest, once the lease of the first has run out, and both commands end well."""
    address, (one, two) = hosts
    with serve(address) as server:
        point_s3fs_at(server.url, monkeypatch)
        fs = fsspec.filesystem("s3")
        fs.mkdir(BUCKET)
        url = f"s3://{BUCKET}/out"
        (output / "_plan").mkdir(parents=True)
        (output / "_plan" / "plan.json").touch()  # from here on the gate makes units last
        gate.open_for(0)
        command = (jobs.FINECLIP, "annotate", source, url, *jobs.BACKENDS, "--lease-timeout-s", "15")
        drivers = [start(one, *command), start(two, *command)]

        def markers() -> list[str]:
            fs.invalidate_cache()
            return list(fs.glob(f"{BUCKET}/out/train-*.json"))

        jobs.wait_until(lambda: len(markers()) > 3, drivers[0])
        cut_off(one)
        for driver in drivers:
            ended = jobs.finish(driver)
            assert ended.code == 0, ended.text
        fs.get(f"{BUCKET}/out", str(tmp_path / "copy"), recursive=True)
    assert digests(tmp_path / "copy") == undisturbed


@contextlib.contextmanager
def ray_node(command: list[str], log: Path) -> Iterator[None]:
    """Run `ray start --block ...` until the end of the body, which begins when the node is up.

    Of nodes of one machine that start at the same time, one sometimes gives up.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while _STARTED not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, f"no node of Ray:\n{log.read_text()}"
            time.sleep(0.1)
        yield
    finally:
        end(process)


@pytest.fixture
def cluster(
    hosts: tuple[str, list[Host]], gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """Ray with its head here, without work, and a node on each host; the options with which a job goes there."""
    del gate  # whose PYTHONPATH the nodes inherit
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # a token of an earlier run here would be asked for
    address, nodes = hosts
    port = free_port()
    ray = str(Path(sys.executable).with_name("ray"))
    small = ("--object-store-memory=80000000", "--block", "--disable-usage-stats")
    head = [ray, "start", "--head", f"--node-ip-address={address}", f"--port={port}", "--num-cpus=0", *small]
    with contextlib.ExitStack() as stack:
        stack.enter_context(ray_node([*head, "--include-dashboard=false"], tmp_path / "head.log"))
        for node in nodes:
            joined = (ray, "start", f"--address={address}:{port}", f"--node-ip-address={node.address}", "--num-cpus=1")
            stack.enter_context(ray_node(node.command(*joined, *small), tmp_path / f"{node.name}.log"))
        yield ["--engine", "ray", "--", "--address", f"{address}:{port}", "--num-workers", "2"]


@pytest.mark.survives("Ray, 2 nodes", "a node cut off for 30 s")
def test_a_node_of_ray_that_is_cut_off_goes_on(
    source: Path,
    output: Path,
    gate: Gate,
    undisturbed: dict[str, str],
    hosts: tuple[str, list[Host]],
    cluster: list[str],
) -> None:
    """Ray does not call it dead within that time; what it was doing is finished, once."""
    started = jobs.start(source, output, *cluster)
    gate.open_for(2, started)
    jobs.wait_until(lambda: len([*output.glob("train-*.json")]) > 3, started)
    cut_off(hosts[1][0])
    ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed
    assert sum(units_by(output).values()) == NUM_UNITS, "each unit once"
