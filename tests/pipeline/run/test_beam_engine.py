"""Which engines are refused, and that a worker process that dies ends the job instead of hanging it."""

import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from pipeline.errors import EngineError, InterruptedRunError
from pipeline.plan.make import make_plan
from pipeline.run import beam_engine, job
from pipeline.run.beam_engine import check_options, run_units
from pipeline.run.worker import WorkerSettings, token_file
from pipeline.settings import PlanSettings, RunSettings
from pipeline.store.storage import open_storage
from tests.builders import configuration, digests, write_tars
from tests.faults import jobs
from tests.faults.fault_points import Fault


@pytest.mark.parametrize(
    ("options", "workers", "problem"),
    [
        (["--runner=DaskRunner"], 1, "loses records without an error; use another runner"),
        (["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"], 1, "loses records"),
        (["--direct_running_mode=multi_threading"], 1, "loses records in about half of its runs.*use --workers"),
        (["--runer=FlinkRunner"], 1, r"^--runer: Beam knows no such option; did you mean --runner\?$"),
        (["--runner=FlinkRunner", "--flink_mastr=x"], 1, "--flink_mastr: .* did you mean --flink_master"),
        (["--runner=FlinkRuner"], 1, "--runner=FlinkRuner: Unexpected pipeline runner"),
        (["--runner=no.such.Runner"], 1, "--runner=no.such.Runner: No module named 'no'"),
        (["--bogus"], 1, "--bogus: Beam knows no such option"),
        (["--runner=FlinkRunner"], 2, "--workers is for this machine; give --runner=FlinkRunner its own options"),
    ],
)
def test_engines_that_lose_records_and_unknown_ones_are_refused(
    options: Sequence[str], workers: int, problem: str
) -> None:
    with pytest.raises(EngineError, match=problem):
        check_options(options, RunSettings(workers=workers))


@pytest.mark.parametrize("options", [[], ["--runner=DirectRunner"], ["--runner=FnApiRunner"], ["--runner=direct"]])
@pytest.mark.parametrize(("workers", "mode"), [(1, "in_memory"), (3, "multi_processing")])
def test_local_runners_are_pinned(options: Sequence[str], workers: int, mode: str) -> None:
    checked = check_options(options, RunSettings(workers=workers))
    assert checked.view_as(StandardOptions).runner == "DirectRunner"
    direct = checked.view_as(DirectOptions)
    assert (direct.direct_running_mode, direct.direct_num_workers) == (mode, workers)
    assert beam_engine._runner(checked) is not None


def test_another_runner_is_left_to_beam() -> None:
    assert beam_engine._runner(check_options(["--runner=FlinkRunner"], RunSettings())) is None


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Three tars, for three shards."""
    return write_tars(tmp_path / "tars", num_tars=3, num_images=4)


@pytest.fixture
def worker_settings(tars: Path, tmp_path: Path) -> WorkerSettings:
    """What a worker of a planned job is built from."""
    plan = make_plan(open_storage(str(tmp_path / "out")), [str(tars)], configuration(), PlanSettings())
    plan.storage.replace(token_file("run"), b"")
    return WorkerSettings(plan=plan, configuration=configuration(), run=RunSettings(), run_id="run")


def _join(thread: threading.Thread) -> None:
    thread.join()


def test_the_graph_annotates_the_units_it_is_given(worker_settings: WorkerSettings, tmp_path: Path) -> None:
    run_units([0, 2], worker_settings, check_options([], RunSettings()), _join)
    assert [path.name for path in sorted((tmp_path / "out").glob("train-*.tar"))] == [
        "train-000000.tar",
        "train-000002.tar",
    ]


def test_an_error_of_the_engine_reaches_the_caller(
    worker_settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object) -> None:
        raise RuntimeError("the engine is broken")

    monkeypatch.setattr(beam_engine, "build", failing)
    with pytest.raises(InterruptedRunError, match=r"the engine failed: RuntimeError: the engine is broken; _run/run"):
        run_units([0], worker_settings, check_options([], RunSettings()), _join)
    kept = worker_settings.plan.storage.read("_run/run.engine.txt").decode()
    assert "in failing" in kept and "the engine is broken" in kept


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_does_not_see_the_output_fails_the_engine(worker_settings: WorkerSettings, workers: int) -> None:
    """As one in a container without the volume: the driver's token is not where it looks."""
    worker_settings.plan.storage.remove(token_file("run"))
    sentence = (
        rf"^the engine failed: host {socket.gethostname()} does not see the driver's OUTPUT: .*write it; _run/run"
    )
    with pytest.raises(InterruptedRunError, match=sentence):
        run_units([0], worker_settings, check_options([], RunSettings(workers=workers)), _join)


@pytest.mark.parametrize("runner", ["DataflowRunner", "apache_beam.runners.dataflow.dataflow_runner.DataflowRunner"])
@pytest.mark.parametrize(("is_local", "where"), [(True, "OUTPUT .*/out"), (False, "INPUT .*00000.tar")])
def test_paths_of_this_machine_are_refused_for_machines_elsewhere(
    worker_settings: WorkerSettings, runner: str, is_local: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(worker_settings.plan.storage), "is_local", is_local)
    with pytest.raises(EngineError, match=rf"^{where} is a path of this machine, .* give URLs of an object store"):
        run_units([0], worker_settings, PipelineOptions([f"--runner={runner}"]), _join)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (["--runner=SparkRunner", "--spark_master_url=spark://head:7077"], "spark_master_url", "spark://head:7077"),
        (["--runner=SparkRunner", "--spark_job_server_jar=server.jar"], "spark_job_server_jar", "server.jar"),
        (["--runner=FlinkRunner", "--flink_master=head:8081"], "flink_master", "head:8081"),
        (["--runner=FlinkRunner", "--parallelism=40"], "job_server_timeout", 30 * 24 * 3600),
        (["--runner=PortableRunner", "--job_server_timeout=60"], "job_server_timeout", 60),
    ],
)
def test_options_of_engines_behind_a_job_server_are_parsed(options: list[str], name: str, value: object) -> None:
    assert check_options(options, RunSettings()).get_all_options()[name] == value


def test_the_thread_of_a_dead_worker_is_noticed_and_no_other(worker_settings: WorkerSettings) -> None:
    errors: list[BaseException] = []
    before = threading.excepthook

    def die() -> None:
        raise RuntimeError("Worker subprocess exited with return code -9")

    with beam_engine._noticing_dead_workers(errors):
        thread = threading.Thread(target=die, name="run_worker")
        thread.start()
        thread.join()
    assert threading.excepthook is before
    (error,) = errors
    assert isinstance(error, InterruptedRunError)
    assert "return code -9" in str(error)
    assert "--workers" in str(error)


def test_a_killed_worker_process_ends_the_job_which_can_be_resumed(tars: Path, tmp_path: Path) -> None:
    fault = Fault(operation="finish", target=r"train-000001\.tar\..*", when="before")
    ended = jobs.run(tars, tmp_path / "out", "--workers", "2", fault=fault)
    assert ended.code == 7, ended.text
    assert "a worker process died" in ended.text
    assert "INFO:apache_beam" not in ended.text, "Beam's own steps are not for our users"
    for output in ("out", "undisturbed"):
        job.annotate([str(tars)], str(tmp_path / output), configuration=configuration())
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed")
