"""`fineclip status`: failed units by host, and a bar from anywhere until the data set is complete."""

import threading
import time
from pathlib import Path

import pytest

from pipeline.plan.make import make_plan
from pipeline.plan.plan import Plan
from pipeline.run import job
from pipeline.run.log import Ending, RunLog
from pipeline.settings import PlanSettings
from pipeline.store.storage import open_storage
from tests.builders import configuration, run, write_tars


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where the data set of `plan` is."""
    return tmp_path / "out"


@pytest.fixture
def plan(tmp_path: Path, output: Path) -> Plan:
    """A planned data set of three shards."""
    tars = write_tars(tmp_path / "tars", num_tars=3, num_images=4)
    return make_plan(open_storage(str(output)), [str(tars)], configuration(), PlanSettings())


def test_failed_units_are_told_by_host(plan: Plan, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run_id, unit, host, ending in (
        ("1", 0, "one", Ending.STORAGE),
        ("1", 1, "one", Ending.FAILED),
        ("1", 2, "two", Ending.SERVER),
        ("2", 2, "two", Ending.DONE),
    ):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        RunLog(plan.storage, run_id).write(unit, ending, stage="annotate", message=f"what went wrong with {unit}")
    outcome = run("status", output)
    assert "Failed on one: 2 units, the last was unit 1: what went wrong with 1\n" in outcome.out
    assert "Failed on two" not in outcome.out, "a later try did not fail"


def test_a_failure_of_a_unit_that_is_done_since_is_not_told(tmp_path: Path, plan: Plan, output: Path) -> None:
    RunLog(plan.storage, "1").write(0, Ending.STORAGE, stage="annotate", message="passed")
    job.annotate([str(tmp_path / "tars")], str(output), configuration=configuration())
    assert "Failed" not in run("status", output).out


def test_a_list_of_the_dead_that_is_empty_is_said_to_be(tmp_path: Path, plan: Plan, output: Path) -> None:
    """Not on standard output, which programs read."""
    job.annotate([str(tmp_path / "tars")], str(output), configuration=configuration())
    everything, of_one = run("status", output, "--dead"), run("status", output, "--reason", "oom")
    assert (everything.code, everything.out, everything.err) == (0, "", "no image and no region is dead\n")
    assert (of_one.code, of_one.out, of_one.err) == (0, "", "no image and no region is dead of oom\n")


def test_a_list_of_the_dead_says_what_is_not_made_yet(plan: Plan, output: Path) -> None:
    """Or the dead of a job that was stopped would be taken for those of all of it."""
    outcome = run("status", output, "--dead")
    num_shards = sum(len(plan.shards(unit)) for unit in range(plan.num_units))
    assert (outcome.code, outcome.out) == (0, "")
    assert f"not made yet, so not listed: what dies in {num_shards} shards\n" in outcome.err


def test_watching_shows_the_fleet_until_all_is_done(
    tmp_path: Path, plan: Plan, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cli.progress._LOG_EVERY_S", 0.0)
    monkeypatch.setattr("pipeline.run.watch._EVERY_S", 0.0)
    started = threading.Event()

    def work() -> None:
        started.wait(60)
        job.annotate([str(tmp_path / "tars")], str(plan.storage.url), configuration=configuration())

    fleet = threading.Thread(target=work)
    fleet.start()
    sleep = time.sleep
    monkeypatch.setattr("pipeline.cli.status.time.sleep", lambda seconds: (started.set(), sleep(0.01)))
    outcome = run("status", output, "--watch")
    fleet.join()
    assert outcome.code == 0
    assert outcome.err.splitlines()[0] == "0 images, 0 of 3 shards, 0.0 images/s (0 drivers, 0 workers)"
    assert "(1 driver, 1 worker)" in outcome.err
    assert "3 shards" in outcome.out and "complete." in outcome.out
