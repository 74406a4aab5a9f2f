"""Whole jobs in this process, on Beam's in-memory runner: resume, drain, other jobs, trouble with the store."""

import errno
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.errors import EngineError, InterruptedRunError
from pipeline.plan import make
from pipeline.plan.check import PlanError
from pipeline.read.read import read_items
from pipeline.run import beam_engine, job, lease
from pipeline.run.job import Drain, JobResult, Progress
from pipeline.run.log import Ending
from pipeline.run.worker import Worker
from pipeline.settings import PlanSettings, RunSettings
from pipeline.store.storage import LocalStorage, StorageError, open_storage
from pipeline.write.shards import BalanceError
from schemas.dataset import Dataset
from schemas.names import ShardName
from tests.builders import check_balance, configuration, digests, members, write_tar, write_tars

Run = Callable[..., JobResult]


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars, for three shards."""
    return write_tars(tmp_path_factory.mktemp("job"), num_tars=3, num_images=4)


@pytest.fixture(scope="module")
def undisturbed(tars: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a data set made from `tars` without a disturbance."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    annotate([tars], output)
    return digests(output)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An OUTPUT that does not exist yet."""
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short."""
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    monkeypatch.setattr(job, "_POLL_S", 0.01)


def annotate(inputs: Sequence[Path], output: Path | str, **changes: Any) -> JobResult:
    changes.setdefault("configuration", configuration())
    return job.annotate([str(path) for path in inputs], str(output), **changes)


def shards(output: Path) -> list[str]:
    return [path.stem for path in sorted(output.glob("train-*.json"))]


def test_a_job_makes_a_data_set(tars: Path, output: Path) -> None:
    result = annotate([tars], output)
    assert (result.num_units_run, result.drained) == (3, False)
    assert (result.totals.images.inputs, result.totals.images.ok, result.totals.regions.ok) == (12, 12, 24)
    assert {"read", "decode", "propose", "caption", "write", "commit"} <= result.seconds.keys()
    assert result.dataset == json.loads((output / "dataset.json").read_text())
    check_balance(output)
    assert [sample.key for sample in Dataset.open(output).samples("train-000001")] == [f"00001000{i}" for i in range(4)]


def test_nothing_is_left_over(tars: Path, output: Path) -> None:
    annotate([tars], output)
    assert {path.name for path in output.iterdir() if path.is_dir()} == {"_plan", "_commit", "_run"}
    assert not [path for path in (output / "_run").iterdir() if path.suffix != ".jsonl"]


def test_two_pools_write_the_same_files(tars: Path, output: Path, undisturbed: dict[str, str]) -> None:
    annotate([tars], output, run=RunSettings(two_pools=True))
    assert digests(output) == undisturbed


def test_a_finished_job_does_not_start_an_engine(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate([tars], output)
    monkeypatch.setattr(job, "load_engine", None)
    assert annotate([tars], output).num_units_run == 0
    assert digests(output) == undisturbed


def test_resume_does_what_is_missing_and_nothing_else(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate([tars], output)
    for name in ("train-000001.tar", "train-000001.parquet", "train-000001.json", "_commit/train-000001.json"):
        (output / name).unlink()
    worked = _note_units(monkeypatch)
    assert annotate([tars], output).num_units_run == 1
    assert worked == [1]
    assert digests(output) == undisturbed


def _note_units(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    worked = []
    annotate_unit = Worker.annotate

    def noting(self: Worker, unit: int) -> Ending:
        worked.append(unit)
        return annotate_unit(self, unit)

    monkeypatch.setattr(Worker, "annotate", noting)
    return worked


def test_a_decided_shard_is_published_without_work(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate([tars], output)
    (output / "_attempts").mkdir()
    name = "train-000001.parquet"
    digest = json.loads((output / "_commit/train-000001.json").read_text())["files"][name]["sha256"]
    (output / name).rename(output / "_attempts" / f"{name}.{digest[:16]}")
    (output / "train-000001.json").unlink()
    monkeypatch.setattr(job, "load_engine", None)
    assert annotate([tars], output).num_units_run == 0
    assert digests(output) == undisturbed


def test_what_killed_jobs_left_is_removed(tars: Path, output: Path, undisturbed: dict[str, str]) -> None:
    annotate([tars], output)
    left = ["_attempts/train-000001.tar." + "0" * 16, "_attempts/small." + "0" * 16, "_leases/unit-000001.json"]
    left += ["_attempts/_plan.units.parquet." + "0" * 16, "_proposals/unit-000000.msgpack"]
    for name in left:
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_bytes(b"left")
    annotate([tars], output)
    assert digests(output) == undisturbed


def test_what_a_job_that_appends_keeps_is_not_removed(tars: Path, output: Path) -> None:
    annotate([tars], output)
    theirs = ["_attempts/train-000003.tar." + "0" * 16, "_attempts/_plan.plan-1.json." + "0" * 16]
    theirs += ["_leases/unit-000003.json", "_proposals/unit-000003.msgpack"]
    for name in theirs:
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_bytes(b"theirs")
    annotate([tars], output)
    assert [(output / name).read_bytes() for name in theirs] == [b"theirs"] * 4


def test_append_adds_shards(tmp_path: Path, output: Path) -> None:
    source = write_tars(tmp_path / "tars", num_tars=1, num_images=2)
    annotate([source], output)
    before = digests(output)
    write_tar(source / "00009.tar", [members("new")])
    with pytest.raises(PlanError, match="--append"):
        annotate([source], output)
    assert annotate([source], output, append=True).num_units_run == 1
    after = digests(output)
    assert shards(output) == ["train-000000", "train-000001"]
    assert [name for name, digest in before.items() if after[name] != digest and name.startswith("train-")] == []
    check_balance(output)


def test_another_configuration_is_refused_and_touches_nothing(tars: Path, output: Path) -> None:
    annotate([tars], output)
    before = digests(output)
    with pytest.raises(PlanError, match="drop_empty"):
        annotate([tars], output, configuration=configuration(drop_empty=True))
    assert digests(output) == before


def _hold_up(monkeypatch: pytest.MonkeyPatch, unit: int, action: Callable[[], object]) -> None:
    """Do something once, before a worker begins a unit."""
    annotate_unit = Worker.annotate
    waiting = [action]

    def held_up(self: Worker, number: int) -> Ending:
        if number == unit and waiting:
            waiting.pop()()
        return annotate_unit(self, number)

    monkeypatch.setattr(Worker, "annotate", held_up)


def test_a_drained_job_finishes_what_is_in_hand_and_can_be_resumed(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = Drain()
    units: list[int] = []

    def request() -> None:
        drain.request()
        while not list((output / "_run").glob("*.drain")):
            time.sleep(0.001)

    _hold_up(monkeypatch, 1, request)
    result = annotate([tars], output, drain=drain)
    assert result.drained
    assert 0 < result.totals.num_shards < 3
    assert not result.dataset["complete"]
    assert not list((output / "_run").glob("*.drain"))
    units = [int(name[-6:]) for name in shards(output)]
    resumed = annotate([tars], output)
    assert resumed.num_units_run == 3 - len(units)
    assert resumed.dataset["complete"]
    assert digests(output) == undisturbed


def test_a_job_that_is_drained_at_once_does_nothing(tars: Path, output: Path) -> None:
    drain = Drain()
    drain.request()
    assert annotate([tars], output, drain=drain).drained
    assert shards(output) == []


def test_a_unit_that_another_job_holds_is_waited_for(tars: Path, output: Path, undisturbed: dict[str, str]) -> None:
    storage = open_storage(str(output))
    make.make_plan(storage, [str(tars)], configuration(), PlanSettings())
    waited: list[Progress] = []
    theirs = lease.hold(storage, lease.unit_name(1), 1000, run="theirs")
    assert theirs.__enter__()

    def watch(progress: Progress) -> None:
        if re.fullmatch(r"other drivers work on 1, free in (9\d\d|1,?000) s unless renewed", progress.note):
            waited.append(progress)
            if len(waited) == 1:
                assert shards(output) == ["train-000000", "train-000002"]
                theirs.__exit__(None, None, None)

    assert annotate([tars], output, watch=watch).num_units_run == 3
    assert (waited[0].num_drivers, waited[0].num_workers) == (1, 1)
    assert digests(output) == undisturbed


def test_a_run_in_which_nothing_moves_ends(tars: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that hangs renews its lease: that is no movement."""
    let_go = threading.Event()

    def hang(*arguments: Any, **named: Any) -> Any:
        let_go.wait(60)
        raise OSError("let go")

    monkeypatch.setattr("pipeline.annotate.read_items", hang)
    with pytest.raises(InterruptedRunError, match=r"nothing has moved for 1 s \(--stall-timeout-s\)"):
        annotate([tars], output, run=RunSettings(stall_timeout_s=1, lease_timeout_s=1))
    let_go.set()
    for thread in threading.enumerate():  # else it goes on in the tests that follow, with what these replace
        if thread.name == "engine":
            thread.join(60)
            assert not thread.is_alive()


def test_a_unit_that_another_job_finishes_meanwhile_is_not_done_again(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other job gives its lease back between our first look and our lease."""
    decide = LocalStorage.decide
    made: list[str] = []

    def other_first(self: LocalStorage, name: str, data: bytes) -> bool:
        if name == "_leases/unit-000001.json" and not made:
            made.append(name)
            annotate([tars], output)
        return decide(self, name, data)

    monkeypatch.setattr(LocalStorage, "decide", other_first)
    annotate([tars], output)
    logs = [json.loads(path.read_text()) for path in (output / "_run").glob("*.unit-000001.*")]
    assert [log["report"]["images"]["ok"] for log in logs] == [4], "the unit was done once"
    assert digests(output) == undisturbed


def test_dataset_json_counts_shards_that_another_job_finishes_meanwhile(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drained job writes `dataset.json` after another job has finished everything, and must not take it back."""
    finalise, drain, other = job.finalise, Drain(), ["runs once"]

    def other_first(*arguments: Any) -> Any:
        monkeypatch.setattr(job, "finalise", finalise)
        if other:
            other.pop()
            annotate([tars], output)
            (output / "dataset.json").unlink()
        return finalise(*arguments)

    monkeypatch.setattr(job, "finalise", other_first)
    drain.request()
    assert annotate([tars], output, drain=drain).dataset["complete"]
    assert digests(output) == undisturbed


def test_transient_trouble_of_the_store_is_tried_again(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drops = [OSError(errno.EIO, os.strerror(errno.EIO))] * 2
    settle = LocalStorage.settle

    def settle_later(self: LocalStorage, path: Path, name: str) -> None:
        if "train-000001.parquet" in name and drops:
            raise drops.pop()
        settle(self, path, name)

    monkeypatch.setattr(LocalStorage, "settle", settle_later)
    annotate([tars], output)
    assert drops == []
    assert digests(output) == undisturbed


@pytest.mark.parametrize("operation", ["sizes", "names", "read", "replace", "remove"])
def test_what_the_driver_cannot_do_at_once_it_tries_again(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Now and then it fails, in driver and workers alike."""
    original, calls = getattr(LocalStorage, operation), itertools.count(1)

    def flaky(self: LocalStorage, *arguments: Any, **named: Any) -> Any:
        if str(output) in self.url and next(calls) % (13 if operation == "read" else 5) == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.url)
        return original(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, operation, flaky)
        annotate([tars], output)
    assert next(calls) > 5
    assert digests(output) == undisturbed


def _full(monkeypatch: pytest.MonkeyPatch, *operations: str, only: str = "") -> None:
    """Let operations on names that contain `only` fail as on a full disk, once the job is planned."""

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def fail(self: LocalStorage, *arguments: Any) -> Any:
            if only in str(arguments) and Path(self.url, "_plan/plan.json").exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.url)
            return original(self, *arguments)

        return fail

    for operation in operations:
        monkeypatch.setattr(LocalStorage, operation, failing(getattr(LocalStorage, operation)))


def test_a_full_disk_is_a_storage_error_and_can_be_resumed(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _full(patch, "settle", only="train-000001.parquet")
        with pytest.raises(StorageError, match="the disk is full: free space, then run the same command again"):
            annotate([tars], output)
    assert shards(output) == ["train-000000", "train-000002"]
    annotate([tars], output)
    assert digests(output) == undisturbed


def test_a_disk_too_full_for_the_log_is_a_storage_error_too(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _full(patch, "settle", "create", "replace")
        with pytest.raises(StorageError, match="the disk is full"):
            annotate([tars], output)
    annotate([tars], output)
    assert digests(output) == undisturbed


def test_passes_that_do_nothing_end_the_job(tars: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that loses a unit again and again is not run for ever."""
    annotate_unit, passes = Worker.annotate, []

    def losing(self: Worker, unit: int) -> Ending:
        if unit == 2:
            passes.append(unit)
            return Ending.DONE
        return annotate_unit(self, unit)

    monkeypatch.setattr(Worker, "annotate", losing)
    with pytest.raises(InterruptedRunError, match=r"3 passes left the same 1 units undone; see _run/"):
        annotate([tars], output)
    assert len(passes) == 4, "one pass that got on, and three that did not"
    assert shards(output) == ["train-000000", "train-000001"]


def test_a_unit_that_the_engine_loses_once_is_done_by_the_next_pass(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate_unit, lost = Worker.annotate, []

    def losing(self: Worker, unit: int) -> Ending:
        if unit == 0 and not lost:
            lost.append(unit)
            return Ending.DONE
        return annotate_unit(self, unit)

    monkeypatch.setattr(Worker, "annotate", losing)
    annotate([tars], output)
    assert lost
    assert digests(output) == undisturbed


def test_counts_that_do_not_balance_are_an_error_of_the_job(
    tars: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.annotate.select", lambda *arguments, **named: [])
    with pytest.raises(BalanceError, match=r"train-00000\d: regions: .* do not balance; this is a bug"):
        annotate([tars], output)
    assert shards(output) == []
    endings = {json.loads(path.read_text())["ending"] for path in (output / "_run").glob("*.jsonl")}
    assert endings == {"unbalanced"}


def test_fewer_images_than_planned_are_an_error(tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tars(tmp_path / "tars", num_tars=1, num_images=4)

    def losing(*arguments: Any, **named: Any) -> list[Any]:
        return list(read_items(*arguments, **named))[1:]

    monkeypatch.setattr("pipeline.annotate.read_items", losing)
    with pytest.raises(BalanceError, match="4 images were planned, 3 came in"):
        annotate([source], output, plan=PlanSettings(limit=4))


def test_engine_options_are_checked_before_any_work(tars: Path, output: Path) -> None:
    with pytest.raises(EngineError, match="DaskRunner"):
        annotate([tars], output, engine_options=["--runner=DaskRunner"])
    assert shards(output) == []


def test_progress_is_shown_up_to_the_end(tars: Path, output: Path) -> None:
    seen: list[Progress] = []
    annotate([tars], output, watch=seen.append)
    done = [progress.num_units_done for progress in seen]
    assert done == sorted(done)
    assert all(progress.plan.num_units == 3 for progress in seen)


def test_a_job_on_an_object_store(
    tars: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs: the second finds everything done."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = f"memory://{tmp_path.name}/out"
    assert annotate([tars], url).totals.num_shards == 3
    store = fsspec.filesystem("memory")
    store.get(f"/{tmp_path.name}/out/", f"{tmp_path}/copy/", recursive=True)
    copied = {name: digest for name, digest in digests(tmp_path / "copy").items() if digest != "folder"}
    assert copied == {name: digest for name, digest in undisturbed.items() if digest != "folder"}
    assert annotate([tars], url).num_units_run == 0
    assert Dataset.open(url).shards == tuple(ShardName("train", index) for index in range(3))
    assert list(open_storage(url).scratch.iterdir()) == []


def test_an_engine_that_never_ends_is_left_once_all_units_are_done(
    tars: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beam waits for ever for a worker process that it lost touch with."""
    monkeypatch.setattr(job, "_LINGER_S", 0.2)
    let_go = threading.Event()
    run_units = beam_engine.run_units

    def lingering(units: Any, settings: Any, options: Any, wait: Any) -> None:
        run_units(units, settings, options, wait)
        thread = threading.Thread(target=let_go.wait, args=(60,))
        thread.start()
        while thread.is_alive():
            wait(thread)

    monkeypatch.setattr(beam_engine, "run_units", lingering)
    assert not annotate([tars], output).drained
    assert not let_go.is_set()
    let_go.set()
    assert digests(output) == undisturbed
