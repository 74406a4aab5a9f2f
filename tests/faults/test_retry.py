"""Killed at any moment or shared by two drivers, `retry` and `materialize --drop` end with the same files.

Readers read all the while: they see each shard as it was or as it is repaired, whole, or are told that it is being
repaired; never a mixture, and never fewer shards.
"""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from pipeline.plan.plan import load_plan
from pipeline.run.status import Markers, units_to_do
from pipeline.store.storage import open_storage
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.hashes import sha256
from tests.builders import annotate, check_balance, data_files, image_rows, run
from tests.faults import jobs
from tests.faults.fault_points import Control, Fault
from tests.pipeline.retry.conftest import mend, write_pictures

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

_SHARD = "train-000001"
_TOKEN = "[0-9a-f]{16}"
_WRITER = "[0-9a-z-]+"
NUM_SHARDS = 3
BROKEN, MENDED = (1, 2, 5, 7, 9), (1, 2, 5)
"""Of twelve pictures, four a shard: all that is broken is mended in the first shard, half in the second, none after."""


def _fault(when: str, operation: str, target: str, nth: int = 1) -> Fault:
    return Fault(operation=operation, target=target, when=when, nth=nth)  # type: ignore[arg-type]


POINTS = {
    "lease taken": _fault("after", "decide", r"_leases/unit-000001\.json"),
    "tar opened": _fault("after", "open", rf"{_SHARD}\.tar\.{_WRITER}"),
    "tar half written": _fault("before", "write", rf"{_SHARD}\.tar\.{_WRITER}", nth=5),
    "tar settled": _fault("after", "settle", rf"_attempts/{_SHARD}\.tar\.r1\.{_TOKEN}"),
    "parquet settled": _fault("after", "settle", rf"_attempts/{_SHARD}\.parquet\.r1\.{_TOKEN}"),
    "before decision": _fault("before", "create", rf"_commit/{_SHARD}\.r1\.json"),
    "after decision": _fault("after", "create", rf"_commit/{_SHARD}\.r1\.json"),
    "before the marker goes": _fault("before", "remove", rf"{_SHARD}\.json"),
    "after the marker is gone": _fault("after", "remove", rf"{_SHARD}\.json"),
    "after tar is published": _fault("after", "publish", rf"{_SHARD}\.tar"),
    "after parquet is published": _fault("after", "publish", rf"{_SHARD}\.parquet"),
    "before marker is published": _fault("before", "decide", rf"{_SHARD}\.json"),
    "after marker is published": _fault("after", "decide", rf"{_SHARD}\.json"),
    "before attempts are removed": _fault("before", "remove", rf"_attempts/{_SHARD}.*"),
    "before log": _fault("before", "replace", r"_run/.*\.unit-000001\..*\.jsonl"),
    "before dataset.json": _fault("before", "replace", r"dataset\.json"),
    "after dataset.json": _fault("after", "replace", r"dataset\.json"),
}
SEEDS = range(30)
"""Of times: even ones from the start of the job, odd ones from its first lease, while shards are repaired."""


def retry(data: Path, *flags: str, fault: Fault | None = None) -> subprocess.Popen[str]:
    return jobs.launch("retry", data, "--where", "reason=decode", "--max-dead", "1", *flags, fault=fault)


def finished(process: subprocess.Popen[str]) -> jobs.Ended:
    ended = jobs.finish(process)
    assert ended.code == 0, ended.text
    return ended


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "source", 12, broken=BROKEN)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three shards whose source was mended since, in part; its source stays where it is."""
    folder = tmp_path_factory.mktemp("annotated")
    write_pictures(folder / "source", 12, broken=BROKEN)
    finished(jobs.start(folder / "source", folder / "data", "--shard-size", "4", "--max-dead", "1"))
    mend(folder / "source", *MENDED)
    return folder / "data"


@pytest.fixture(scope="module")
def undisturbed(annotated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The files of an undisturbed `retry`, and how many seconds it took from its first lease on."""
    data = tmp_path_factory.mktemp("undisturbed") / "data"
    shutil.copytree(annotated, data)
    process = retry(data)
    jobs.wait_until(lambda: (data / "_leases").exists(), process)
    leased = time.monotonic()
    finished(process)
    check_balance(data)
    return data_files(data), time.monotonic() - leased


@pytest.fixture
def data(annotated: Path, tmp_path: Path) -> Path:
    shutil.copytree(annotated, tmp_path / "data")
    return tmp_path / "data"


Seen = dict[str, str]
"""What a reader sees of each shard: a hash of its rows, records and images."""


def read_all(data: Path) -> Seen:
    """Read every shard from end to end, and its images by the places that the table gives."""
    opened = Dataset.open(data)
    seen = {}
    for shard in opened.shards:
        rows = opened.regions(shards=[shard]).to_pylist()
        samples = list(opened.samples(shard, verify=True))
        places = {row["key"]: (row["tar_offset"], row["tar_size"]) for row in rows if row["tar_offset"] is not None}
        assert places.keys() == {sample.key for sample in samples}, f"a mixture in {shard}"
        for sample in samples:
            offset, size = places[sample.key]
            image = opened.read_image(shard, tar_offset=offset, tar_size=size)
            assert sha256(image) == sample.record.image_sha256, f"a mixture in {shard}: {sample.key}"
        seen[str(shard)] = sha256(repr((rows, [(each.key, each.record) for each in samples])).encode())
    return seen


class Readers:
    """Threads that open the data set again and again, and one that goes on with what it opened before."""

    def __init__(self, data: Path, states: list[Seen]) -> None:
        self._data, self._states = data, states
        self._stop = threading.Event()
        self.faults: list[str] = []
        self.num_whole = 0
        """Times that all shards were read."""
        self._opened = Dataset.open(data)
        self._rows = [
            row
            for row in self._opened.regions(["key", "region_id", "tar_offset", "tar_size", "shard"]).to_pylist()
            if row["region_id"] is None and row["tar_offset"] is not None
        ]
        self._hashes = {
            sample.key: sample.record.image_sha256
            for shard in self._opened.shards
            for sample in self._opened.samples(shard)
        }
        self._opened = Dataset.open(data)
        self._threads = [
            threading.Thread(target=self._run, args=(read,)) for read in (self._open, self._go_on, self._count)
        ]

    def _run(self, read: object) -> None:
        while not self._stop.wait(0.02):
            try:
                read()  # type: ignore[operator]
            except DatasetError as error:
                if "repaired" not in str(error):
                    self.faults.append(str(error))
            except Exception as error:  # noqa: BLE001 - a fault of the test's subject, told by the test
                self.faults.append(repr(error))

    def _open(self) -> None:
        seen = read_all(self._data)
        if len(seen) != NUM_SHARDS:
            self.faults.append(f"{len(seen)} shards")
        for shard, state in seen.items():
            if all(state != known[shard] for known in self._states):
                self.faults.append(f"{shard} is neither as it was nor as it is repaired")
        self.num_whole += 1

    def _go_on(self) -> None:
        for row in self._rows:
            image = self._opened.read_image(row["shard"], tar_offset=row["tar_offset"], tar_size=row["tar_size"])
            if sha256(image) != self._hashes[row["key"]]:
                self.faults.append(f"{row['key']}: the bytes of something else")

    def _count(self) -> None:
        storage = open_storage(str(self._data))
        plan = load_plan(storage)
        assert plan is not None
        markers = Markers(storage).refresh()
        markers.add_repairing(shard for unit in units_to_do(plan, markers) for shard in plan.shards(unit))
        if markers.totals.num_shards != NUM_SHARDS:
            self.faults.append(f"status counts {markers.totals.num_shards} shards")

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def reading(data: Path, states: list[Seen]) -> Iterator[Readers]:
    """Read all the while; what readers must not have seen fails the test."""
    readers = Readers(data, states)
    readers.start()
    try:
        yield readers
    finally:
        readers.stop()
    assert readers.faults == []


@pytest.fixture(scope="module")
def states(
    annotated: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path_factory: pytest.TempPathFactory
) -> list[Seen]:
    """What readers may see: the data set before, and after."""
    after = tmp_path_factory.mktemp("after")
    for name, content in undisturbed[0].items():
        (after / name).write_bytes(content)
    return [read_all(annotated), read_all(after)]


@pytest.mark.parametrize("moment", POINTS)
def test_kill_at_a_point(
    moment: str, data: Path, undisturbed: tuple[dict[str, bytes], float], states: list[Seen]
) -> None:
    with reading(data, states):
        assert jobs.finish(retry(data, fault=POINTS[moment])).code == -signal.SIGKILL, "the point was never reached"
        finished(retry(data))
    assert data_files(data) == undisturbed[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_kill_at_a_time(seed: int, data: Path, undisturbed: tuple[dict[str, bytes], float], states: list[Seen]) -> None:
    files, duration = undisturbed
    share = (seed + random.Random(seed).random()) / len(SEEDS)
    with reading(data, states):
        process = retry(data)
        if seed % 2:
            jobs.wait_until(lambda: (data / "_leases").exists() or process.poll() is not None)
        time.sleep(share * duration)
        process.send_signal(signal.SIGKILL)
        jobs.finish(process)
        finished(retry(data))
    assert data_files(data) == files
    check_balance(data)


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
def test_two_drivers_at_once(
    data: Path, undisturbed: tuple[dict[str, bytes], float], states: list[Seen], flags: tuple[str, ...]
) -> None:
    with reading(data, states) as readers:
        for process in [retry(data, *flags) for _ in range(2)]:
            finished(process)
    assert data_files(data) == undisturbed[0]
    assert readers.num_whole > 0


PAUSES = (
    "lease taken",
    "tar settled",
    "before decision",
    "after decision",
    "before the marker goes",
    "after the marker is gone",
    "after tar is published",
    "before marker is published",
)


@pytest.mark.parametrize("moment", PAUSES)
def test_a_paused_driver_that_wakes_late_changes_nothing(
    moment: str, data: Path, undisturbed: tuple[dict[str, bytes], float], states: list[Seen], control: Control
) -> None:
    paused = msgspec.structs.replace(POINTS[moment], action="stop", control=str(control.folder))
    with reading(data, states):
        first = retry(data, "--lease-timeout-s", "1", fault=paused)
        jobs.wait_until(lambda: control.pid, first)
        finished(retry(data, "--lease-timeout-s", "1"))
        finished(retry(data, "--lease-timeout-s", "1"))  # what is dead still is repeated once more: a newer repair
        assert data_files(data) == undisturbed[0]
        os.kill(first.pid, signal.SIGCONT)
        finished(first)
    assert data_files(data) == undisturbed[0]


def _holding(target: str, control: Control) -> Fault:
    return Fault(operation="publish", target=target, when="before", action="hold", control=str(control.folder))


def test_annotate_at_work_is_not_interfered_with(tmp_path: Path, source: Path, control: Control) -> None:
    held = _holding(r"train-000002\.tar", control)
    first = jobs.start(source, tmp_path / "out", "--shard-size", "4", "--max-dead", "1", fault=held)
    jobs.wait_until(lambda: control.pid, first)
    refused = jobs.finish(retry(tmp_path / "out"))
    assert refused.code == 3, refused.text
    assert "1 of 3 units are still to be made; another job is at work on 1 unit of it" in refused.text
    control.release()
    finished(first)
    finished(retry(tmp_path / "out"))


def materialize(data: Path, output: Path, drop: Path, fault: Fault | None = None) -> subprocess.Popen[str]:
    return jobs.launch("materialize", data, output, "--drop", drop, fault=fault)


@pytest.fixture(scope="module")
def dropped(annotated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], float]:
    """A list, the files of an undisturbed `materialize --drop`, and its duration in seconds."""
    folder = tmp_path_factory.mktemp("dropped")
    (folder / "drop.txt").write_text("0000\n0006\n0007\n")
    started = time.monotonic()
    finished(materialize(annotated, folder / "out", folder / "drop.txt"))
    duration = time.monotonic() - started
    check_balance(folder / "out")
    return folder / "drop.txt", data_files(folder / "out"), duration


@pytest.mark.parametrize("seed", SEEDS)
def test_materialize_killed_at_a_time(
    seed: int, annotated: Path, dropped: tuple[Path, dict[str, bytes], float], tmp_path: Path
) -> None:
    drop, files, duration = dropped
    process = materialize(annotated, tmp_path / "out", drop)
    time.sleep((0.2 + 0.8 * (seed + random.Random(seed).random()) / len(SEEDS)) * duration)
    process.send_signal(signal.SIGKILL)
    jobs.finish(process)
    finished(materialize(annotated, tmp_path / "out", drop))
    assert data_files(tmp_path / "out") == files
    absent = jobs.finish(jobs.launch("doctor", tmp_path / "out", "--absent", drop))
    assert absent.code == 0, absent.text


def test_materialize_of_a_data_set_that_is_repaired_meanwhile(
    data: Path, dropped: tuple[Path, dict[str, bytes], float], tmp_path: Path, control: Control
) -> None:
    """It ends with a sentence, and never with shards of two states."""
    held = _holding(r"train-000000\.tar", control)
    process = materialize(data, tmp_path / "out", dropped[0], fault=held)
    jobs.wait_until(lambda: control.pid, process)
    finished(retry(data))
    control.release()
    ended = jobs.finish(process)
    assert ended.code == 2, ended.text
    assert "the shard was repaired since the data set was opened; open it again" in ended.text


def test_half_of_250_corrupt_inputs_among_5000(tmp_path: Path) -> None:
    """Those that were mended are repaired, and no byte of a shard that holds none of them changes."""
    broken = random.Random(20).sample(range(5000), 250)
    mended, left = sorted(broken[:125]), sorted(broken[125:])
    source, output = write_pictures(tmp_path / "source", 5000, broken=tuple(broken)), tmp_path / "out"
    annotate(source, output, "--shard-size", "50")
    assert {key for key, row in image_rows(output).items() if row["status"] == "dead"} == {f"{n:04d}" for n in broken}
    before = data_files(output)
    mend(source, *mended)
    retried = run("retry", output, "--where", "reason=decode", "--max-dead", "1")
    assert retried.code == 0, retried
    assert "250 rows of 9" in retried.out
    assert "Dead images: 250 before, 125 now." in retried.out
    after = data_files(output)
    changed = {name.partition(".")[0] for name in after if name.startswith("train-") and before[name] != after[name]}
    assert changed == {f"train-{number // 50:06d}" for number in mended}
    assert {key for key, row in image_rows(output).items() if row["status"] == "dead"} == {f"{n:04d}" for n in left}
    check_balance(output)
    mend(source, *left)
    assert run("retry", output, "--where", "reason=decode").code == 0
    annotate(source, tmp_path / "clean", "--shard-size", "50")
    assert data_files(output) == data_files(tmp_path / "clean")
