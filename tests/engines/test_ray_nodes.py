"""A Ray cluster of several nodes on this machine: the same bytes, through the death of a node."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.builders import digests
from tests.engines.conftest import Gate
from tests.engines.services import NUM_UNITS, check_shared
from tests.engines.table import Table
from tests.faults import jobs

Nodes = tuple[list[Any], list[str]]
"""Ray's own cluster and its two nodes; the options that go there."""
pytestmark = pytest.mark.engines
_NODES = "Ray, 2 nodes"
survives = pytest.mark.survives

_SMALL = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture
def cluster(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A head that takes no work and two nodes, and the options with which a job goes there."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 0, "object_store_memory": _SMALL["object_store_memory"], "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(**_SMALL) for _ in range(2)]
        cluster.wait_for_nodes()
        yield [cluster, *nodes], ["--engine", "ray", "--", "--address", cluster.address]
    finally:
        cluster.shutdown()


def test_two_workers_on_this_machine(
    source: Path, output: Path, gate: Gate, undisturbed: dict[str, str], table: Table
) -> None:
    with table.measure("Ray, on this machine, 2 workers", output):
        started = jobs.start(source, output, "--engine", "ray", "--workers", "2")
        gate.open_for(2, started)
        ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed
    check_shared(output, 2)


def test_two_nodes_do_as_much_as_each_other(
    source: Path, output: Path, gate: Gate, cluster: Nodes, undisturbed: dict[str, str], table: Table
) -> None:
    with table.measure(_NODES, output):
        started = jobs.start(source, output, *cluster[1])
        gate.open_for(2, started)
        ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed
    check_shared(output, 2)


@survives(_NODES, "a dead node")
def test_the_death_of_a_node_costs_its_unit_in_hand(
    source: Path, output: Path, gate: Gate, cluster: Nodes, undisturbed: dict[str, str]
) -> None:
    (ray_cluster, one, _), options = cluster
    started = jobs.start(source, output, *options)
    gate.open_for(2, started)
    jobs.wait_until(lambda: len([*output.glob("train-*.json")]) > 3, started)
    ray_cluster.remove_node(one, allow_graceful=False)
    ended = jobs.finish(started)
    assert ended.code == 0, ended.text
    assert digests(output) == undisturbed


@survives(_NODES, "TERM, INT: drained")
@pytest.mark.parametrize("number", [15, 2])
def test_a_signal_drains_the_cluster(
    source: Path,
    output: Path,
    gate: Gate,
    cluster: Nodes,
    undisturbed: dict[str, str],
    number: int,
) -> None:
    started = jobs.start(source, output, *cluster[1])
    gate.open_for(2, started)
    jobs.wait_until(lambda: len([*output.glob("train-*.json")]) > 3, started)
    started.send_signal(number)
    ended = jobs.finish(started)
    assert ended.code == 4, ended.text
    assert len([*output.glob("train-*.json")]) < NUM_UNITS, "it stopped on the way"
    assert jobs.run(source, output, *cluster[1]).code == 0
    assert digests(output) == undisturbed
