"""What Dataflow would be sent, as far as a dry run goes: Google's clients are faked, and nothing is run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions

from pipeline.plan.make import make_plan
from pipeline.run.beam_engine import check_options
from pipeline.run.graph import build
from pipeline.run.worker import WorkerSettings
from pipeline.settings import PlanSettings, RunSettings
from pipeline.store.storage import open_storage
from tests.builders import configuration

pytestmark = pytest.mark.engines

IMAGE = "registry/fineclip-worker"
OPTIONS = [
    "--runner=DataflowRunner", "--project=project-one", "--region=europe-west4", "--temp_location=gs://bucket-one/tmp",
    "--staging_location=gs://bucket-one/staging", f"--sdk_container_image={IMAGE}", "--sdk_location=container",
    "--experiments=use_runner_v2", "--dry_run=true", "--no_auth",
]  # fmt: skip
ACCELERATOR = "beam:resources:accelerator:v1"


@pytest.fixture
def fake_google() -> Iterator[None]:
    """Stands for the object store that Beam asks before and stages files to."""
    storage = pytest.importorskip("google.cloud.storage", reason="NOT TESTED: Dataflow. Install [dataflow]")
    apiclient = pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient")
    client = apiclient.DataflowApplicationClient
    with (
        mock.patch.object(storage, "Client"),
        mock.patch.object(client, "stage_file"),
        mock.patch.object(client, "_gcs_file_copy"),
        mock.patch.object(GoogleCloudOptions, "_handle_temp_and_staging_locations", lambda self, validator: []),
    ):
        yield


@pytest.mark.filterwarnings("default")  # Google's clients warn of each other
def test_two_pools_reach_dataflow_with_image_and_accelerators(fake_google: None, tmp_path: Path) -> None:
    del fake_google
    run = RunSettings(two_pools=True, propose_accelerator="type:one;count:1", caption_accelerator="type:two;count:1")
    plan = make_plan(
        open_storage(f"memory://{tmp_path.name}"), ["scenes:20"], configuration(), PlanSettings(shard_size=10)
    )
    pipeline = beam.Pipeline(options=check_options(OPTIONS, run))
    build(pipeline, [0, 1], WorkerSettings(plan=plan, configuration=configuration(), run=run, run_id="run"))
    components: Any = pipeline.run().job.proto_pipeline.components
    environments = {
        step.unique_name: components.environments[step.environment_id]
        for step in components.transforms.values()
        if step.unique_name in ("Plan", "Propose", "Caption")
    }
    hints = {name: dict(environment.resource_hints) for name, environment in environments.items()}
    assert hints == {
        "Plan": {},
        "Propose": {ACCELERATOR: b"type:one;count:1"},
        "Caption": {ACCELERATOR: b"type:two;count:1"},
    }
    assert all(IMAGE.encode() in environment.payload for environment in environments.values())
