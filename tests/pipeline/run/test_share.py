"""Workers that an engine gave unequal shares end together, and what another has is left to it."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from pipeline.errors import UnseenOutputError
from pipeline.plan.make import make_plan
from pipeline.run import lease
from pipeline.run.log import Ending, RunLog
from pipeline.run.share import Share
from pipeline.run.worker import Worker, WorkerSettings, token_file
from pipeline.settings import PlanSettings, RunSettings
from pipeline.store.storage import open_storage
from tests.builders import configuration, write_tars

_NUM_UNITS = 20


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    """What a worker of a planned job of twenty units is built from."""
    tars = write_tars(tmp_path / "tars", num_tars=_NUM_UNITS, num_images=1)
    plan = make_plan(open_storage(str(tmp_path / "out")), [str(tars)], configuration(), PlanSettings())
    plan.storage.replace(token_file("run"), b"")
    return WorkerSettings(plan=plan, configuration=configuration(), run=RunSettings(), run_id="run")


def test_a_worker_that_was_given_one_unit_takes_half(settings: WorkerSettings) -> None:
    """Two workers in step: one is given 19 ids, the other one."""
    done: dict[str, list[int]] = {"many": [], "one": []}
    step = threading.Barrier(2, timeout=60)

    def run(name: str, given: list[int]) -> None:
        worker, share = Worker(settings), Share(settings, range(_NUM_UNITS), "annotate")

        def annotate(unit: int) -> Ending:
            ending = worker.annotate(unit)
            if ending is Ending.DONE:
                done[name].append(unit)
            with contextlib.suppress(threading.BrokenBarrierError):
                step.wait()
            return ending

        for unit in given:
            share.work_on(unit, annotate)
        step.abort()  # the other goes on alone

    many = threading.Thread(target=run, args=("many", [unit for unit in range(_NUM_UNITS) if unit != 7]))
    many.start()
    run("one", [7])
    many.join()
    assert sorted(done["many"] + done["one"]) == list(range(_NUM_UNITS)), "each once"
    assert max(map(len, done.values())) <= 1.2 * _NUM_UNITS / 2


def test_what_others_hold_failed_at_or_did_is_left_alone(settings: WorkerSettings) -> None:
    storage, worked = settings.plan.storage, list[int]()
    Worker(settings).annotate(1)
    RunLog(storage, "run").write(2, Ending.STORAGE, stage="annotate", message="its source is broken")
    RunLog(storage, "run").write(4, Ending.STORAGE, stage="propose", message="of another stage")
    RunLog(storage, "before").write(5, Ending.STORAGE, stage="annotate", message="of another run")

    def note(unit: int) -> Ending:
        worked.append(unit)
        return Ending.DONE

    with lease.hold(storage, lease.unit_name(3), 60):
        Share(settings, range(6), "annotate").work_on(0, note)
    assert worked == [0, 4, 5]


def test_the_unit_that_was_given_is_tried_whoever_failed_at_it(settings: WorkerSettings) -> None:
    """Else a second pass of the run would not do what failed in the first."""
    RunLog(settings.plan.storage, "run").write(0, Ending.STORAGE, stage="annotate", message="it could not be read")
    worked: list[int] = []

    def drained(unit: int) -> Ending:
        worked.append(unit)
        return Ending.DRAINED

    share = Share(settings, range(3), "annotate")
    share.work_on(0, drained)
    assert worked == [0], "a drained run takes no further unit"


def test_a_worker_that_does_not_see_the_output_says_so(settings: WorkerSettings) -> None:
    settings.plan.storage.remove(token_file("run"))
    sentence = (
        rf"^host {socket.gethostname()} does not see the driver's OUTPUT: it cannot read {settings.plan.storage.url}"
    )
    with pytest.raises(UnseenOutputError, match=sentence):
        Worker(settings)
