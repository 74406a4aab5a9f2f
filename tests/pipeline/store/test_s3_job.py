"""Whole jobs on S3 (moto): requests are counted, and trouble of servers, networks and logins is met."""

import contextlib
import functools
import hashlib
import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from pipeline.run import job
from pipeline.run.lease import Leases, hold, unit_name
from pipeline.run.status import Markers
from pipeline.store.storage import open_storage
from tests.builders import CHEAP, Outcome, configuration, data_files, run, write_tars
from tests.pipeline.store.s3_server import BUCKET, S3Server, Trouble, forget_credentials, forget_s3fs, point_s3fs_at

OUTPUT = f"s3://{BUCKET}/out"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tars, for four shards."""
    return write_tars(tmp_path_factory.mktemp("source"), num_tars=4, num_images=5)


def annotate(source: Path, output: str | Path) -> Outcome:
    return run("annotate", source, output, *CHEAP, "--max-dead", "1")


def sha256s(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def in_bucket() -> dict[str, bytes]:
    fs = fsspec.filesystem("s3")
    fs.invalidate_cache()
    return {
        entry["name"].rsplit("/", 1)[-1]: fs.cat_file(entry["name"])
        for entry in fs.ls(f"{BUCKET}/out", detail=True)
        if entry["type"] == "file"
    }


@pytest.fixture(scope="module")
def wanted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of the same job in a folder."""
    output = tmp_path_factory.mktemp("local") / "out"
    assert annotate(source, output).code == 0
    return sha256s(data_files(output))


def test_a_shard_takes_twelve_requests_in_all(source: Path, server: S3Server, wanted: dict[str, str]) -> None:
    """Ten of its worker, two of the driver; polls go by the clock, and are counted by the next test."""
    assert annotate(source, OUTPUT).code == 0
    of_shard = [request for request in server.asked if re.search(r"(train|unit)-000002", request)]
    polled = [request for request in of_shard if request.startswith("GET /bucket/out/_leases/")]
    asked = Counter(map(anonymous, of_shard)) - Counter(map(anonymous, polled))
    assert server.count("POST /bucket") == 4 + 1 + 1, "one a shard; one of the plan, one of the run"
    assert sum(asked.values()) + 1 == 12, asked
    assert sha256s(in_bucket()) == wanted


def test_four_shards_more_take_48_requests_more(tmp_path: Path, server: S3Server) -> None:
    """So that nothing is asked for each shard that does not have its name in it."""
    asked = []
    for num_tars in (4, 8):
        tars = write_tars(tmp_path / f"{num_tars}", num_tars=num_tars, num_images=1)
        server.asked.clear()
        assert annotate(tars, f"{OUTPUT}{num_tars}").code == 0
        asked.append(len([request for request in server.asked if not is_of_the_clock(request)]))
    assert asked[1] - asked[0] <= 4 * 12, asked


def anonymous(request: str) -> str:
    return re.sub(r"[0-9a-f]{16}$|\d{8}T\d{6}-[0-9a-f]{6}", "*", request)


def is_of_the_clock(request: str) -> bool:
    """Say whether a request is made every few seconds: a look for progress, for leases, for the end of the run."""
    return request.startswith(("LIST", "GET /bucket/out4/_leases", "GET /bucket/out8/_leases")) or ".drain" in request


def test_looks_go_by_the_clock_not_by_the_shard(source: Path, server: S3Server) -> None:
    assert annotate(source, OUTPUT).code == 0
    listed = Counter(request.partition("?")[2].split()[0] for request in server.asked if request.startswith("LIST"))
    assert listed["out%2F_leases%2F"] <= 4, "the watch, the share, the end"
    assert sum(".drain" in request and request.startswith("GET") for request in server.asked) <= 2
    assert not [request for request in server.asked if re.match(r"GET .*_run/.*\.done\.", request)][1:], "one a worker"


def test_what_many_workers_hold_is_not_read_at_every_look(server: S3Server) -> None:
    storage = open_storage(OUTPUT)
    held = [hold(storage, unit_name(unit), 60) for unit in range(3)]
    with contextlib.ExitStack() as stack:
        for lease in held:
            stack.enter_context(lease)
        leases = Leases(storage)
        server.asked.clear()
        assert [leases.in_hand().num_units for _ in range(4)] == [3] * 4
        assert (server.count("LIST"), server.count("GET")) == (4, 3)


def test_a_lease_that_was_renewed_is_read_again(server: S3Server) -> None:
    storage = open_storage(OUTPUT)
    with hold(storage, unit_name(0), 3) as held:
        assert held is not None
        leases = Leases(storage)
        assert leases.in_hand().num_samples == 0
        held.advance()
        ends = time.monotonic() + 20
        while leases.in_hand().num_samples == 0 and time.monotonic() < ends:
            time.sleep(0.2)
        assert leases.in_hand().num_samples == 1


def test_two_drivers_in_one_bucket_share_the_work(tmp_path: Path, server: S3Server) -> None:
    """Each shard is made once, and no driver reads at every look what the other holds."""
    tars = write_tars(tmp_path / "tars", num_tars=16, num_images=1)
    drive = functools.partial(job.annotate, [str(tars)], configuration=configuration())
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(drive, [OUTPUT, OUTPUT]))
    assert [result.totals.num_shards for result in ended] == [16, 16]
    made = Counter(request for request in server.asked if re.match(r"PUT .*_attempts/train-\d+\.tar", request))
    assert len(made) == 16
    assert sum(made.values()) <= 18, made
    drive(str(tmp_path / "alone"))
    assert sha256s(in_bucket()) == sha256s(data_files(tmp_path / "alone"))


def test_a_finished_job_asks_a_few_times_whatever_its_size(source: Path, server: S3Server) -> None:
    assert annotate(source, OUTPUT).code == 0
    server.asked.clear()
    assert annotate(source, OUTPUT).code == 0
    markers = sum(bool(re.fullmatch(r"GET .*/train-\d+\.json", request)) for request in server.asked)
    assert markers == 4, "each is read once"
    assert not [request for request in server.asked if request.endswith((".tar", ".parquet")) and "train" in request]


def test_a_poll_is_one_listing_from_the_first_shard_that_is_missing(source: Path, server: S3Server) -> None:
    assert annotate(source, OUTPUT).code == 0
    storage = open_storage(OUTPUT)
    fs = fsspec.filesystem("s3")
    fs.mv(f"{BUCKET}/out/train-000002.json", f"{BUCKET}/elsewhere")
    server.asked.clear()
    markers = Markers(storage).refresh()
    assert sorted(server.asked) == [
        "GET /bucket/out/train-000000.json",
        "GET /bucket/out/train-000001.json",
        "GET /bucket/out/train-000003.json",
        "LIST /bucket?out%2F",
    ]
    fs.mv(f"{BUCKET}/elsewhere", f"{BUCKET}/out/train-000002.json")
    server.asked.clear()
    assert [shard.index for shard, _ in markers.refresh()] == [0, 1, 2, 3]
    assert server.asked == ["LIST /bucket?out%2F train-000001.~", "GET /bucket/out/train-000002.json"]


def test_status_of_many_shards_reads_them_at_once(source: Path, server: S3Server) -> None:
    """`status` on 2,500 shards took as many requests one after another."""
    assert annotate(source, OUTPUT).code == 0
    together = threading.Barrier(4, timeout=20)

    def meet(request: str) -> None:
        if request.startswith("GET /bucket/out/train-"):
            together.wait()

    server.trouble = meet
    assert len(list(Markers(open_storage(OUTPUT)).refresh())) == 4


def test_nothing_is_left_over(source: Path, server: S3Server) -> None:
    assert annotate(source, OUTPUT).code == 0
    fs = fsspec.filesystem("s3")
    folders = {path.split("/")[2] for path in fs.find(f"{BUCKET}/out") if path.count("/") > 2}
    assert folders == {"_plan", "_commit", "_run"}


@pytest.mark.parametrize("trouble", ["500", "reset", "lost reply"])
def test_trouble_on_the_way_changes_nothing(
    source: Path, server: S3Server, wanted: dict[str, str], trouble: Trouble
) -> None:
    """Every eleventh request fails."""
    asked = iter(range(1, 10**6))
    server.trouble = lambda request: None if next(asked) % 11 else trouble
    ended = annotate(source, OUTPUT)
    assert ended.code == 0, ended.err
    server.trouble = lambda request: None
    assert sha256s(in_bucket()) == wanted


def test_a_store_that_ignores_conditions_is_refused_before_any_work(source: Path, server: S3Server) -> None:
    server.trouble = lambda request: "ignores conditions"
    refused = annotate(source, OUTPUT)
    assert refused.code == 5
    assert "s3://bucket/out: the store replaces an object that was to be created only if it is absent" in refused.err
    assert not server.count("PUT /bucket/out/_plan", "PUT /bucket/out/_commit")


@pytest.mark.parametrize("command", ["annotate", "status"])
def test_no_credentials_are_exit_code_5_with_a_sentence(
    source: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    forget_credentials(monkeypatch)
    ended = annotate(source, OUTPUT) if command == "annotate" else run("status", OUTPUT)
    assert ended.code == 5, ended.err
    assert "Unable to locate credentials; give the store's credentials" in ended.err


def test_nobody_listening_is_exit_code_5_with_a_sentence(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    point_s3fs_at(f"http://127.0.0.1:{port}", monkeypatch)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    ended = annotate(source, OUTPUT)
    assert ended.code == 5, ended.err
    assert "check the address and the network" in ended.err
    forget_s3fs()
