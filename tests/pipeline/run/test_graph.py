"""What the graph is made of: ids alone between its steps, and hints where two pools ask for accelerators."""

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2

from pipeline.plan.make import make_plan
from pipeline.run import job
from pipeline.run.graph import build
from pipeline.run.worker import WorkerSettings
from pipeline.settings import PlanSettings, RunSettings
from pipeline.store.storage import open_storage
from tests.builders import configuration, digests, write_tars

ONE, OTHER = "type:nvidia-l4;count:1;install-nvidia-driver", "type:nvidia-a100-80gb;count:1"


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two tars, for two shards."""
    return write_tars(tmp_path / "tars", num_tars=2, num_images=2)


def _graph(tars: Path, run: RunSettings) -> beam_runner_api_pb2.Pipeline:
    plan = make_plan(open_storage(str(tars.parent / "out")), [str(tars)], configuration(), PlanSettings())
    pipeline = beam.Pipeline()
    build(pipeline, [0, 1], WorkerSettings(plan=plan, configuration=configuration(), run=run, run_id="run"))
    return pipeline.to_runner_api()


def _accelerators(graph: beam_runner_api_pb2.Pipeline) -> dict[str, str]:
    """The accelerator that each step of ours asks for, where it asks for one."""
    urn = common_urns.resource_hints.ACCELERATOR.urn
    components = graph.components
    return {
        step.unique_name: components.environments[step.environment_id].resource_hints[urn].decode()
        for step in components.transforms.values()
        if step.unique_name in ("Plan", "Spread", "Propose", "Barrier", "Caption", "Annotate")
        and urn in components.environments[step.environment_id].resource_hints
    }


def test_two_pools_ask_for_two_accelerators(tars: Path) -> None:
    run = RunSettings(two_pools=True, propose_accelerator=ONE, caption_accelerator=OTHER)
    assert _accelerators(_graph(tars, run)) == {"Propose": ONE, "Caption": OTHER}


@pytest.mark.parametrize("two_pools", [False, True])
def test_nothing_is_asked_for_by_default(tars: Path, two_pools: bool) -> None:
    assert _accelerators(_graph(tars, RunSettings(two_pools=two_pools))) == {}


def test_hints_change_no_byte(tars: Path, tmp_path: Path) -> None:
    run = RunSettings(two_pools=True, propose_accelerator=ONE, caption_accelerator=OTHER)
    job.annotate([str(tars)], str(tmp_path / "hinted"), configuration=configuration(), run=run)
    job.annotate([str(tars)], str(tmp_path / "plain"), configuration=configuration())
    assert digests(tmp_path / "hinted") == digests(tmp_path / "plain")


@pytest.mark.parametrize("changes", [{}, {"two_pools": True, "engine": "ray"}])
def test_accelerators_are_of_two_pools_on_beam(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="of the two steps of --two-pools on Beam"):
        RunSettings(propose_accelerator=ONE, **changes)  # type: ignore[arg-type]
