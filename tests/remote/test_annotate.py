"""Jobs whose INPUT and OUTPUT lie on S3, through trouble on the way: complete, and identical to the undisturbed job."""

import time
from pathlib import Path

import pytest

from tests.builders import CHEAP, Outcome, data_files, run, write_photos, write_tars
from tests.pipeline.store.s3_server import forget_s3fs
from tests.remote.conftest import Store
from tests.remote.proxy import TROUBLES, Trouble, some

FOUND = ("--proposer", "selective_search", "--captioner", "rule", "--shard-size", "4")


def annotate(source: str | Path, output: str | Path, *flags: str) -> Outcome:
    forget_s3fs()
    return run("annotate", source, output, *(flags or CHEAP), "--max-dead", "1")


@pytest.mark.parametrize("seed", [1, 2])
def test_five_percent_of_the_requests_fail_and_the_data_set_is_that_of_a_folder(
    store: Store, tmp_path: Path, seed: int
) -> None:
    source = store.put(write_tars(tmp_path / "tars", num_tars=10, num_images=2), "tars")
    assert annotate(source, tmp_path / "local").code == 0
    store.proxy.forget()
    store.proxy.trouble = some(seed)
    ended = annotate(source, f"{store.url}/out")
    assert ended.code == 0, ended.err
    assert set(store.proxy.struck) == set(TROUBLES), "all kinds"
    assert sum(store.proxy.struck.values()) > 0.03 * len(store.proxy.asked)
    assert store.files("out") == data_files(tmp_path / "local")


def test_images_of_a_folder_come_through_the_same_trouble(store: Store, tmp_path: Path) -> None:
    source = store.put(write_photos(tmp_path / "photos", 24), "photos")
    assert annotate(source, tmp_path / "local", *FOUND).code == 0
    store.proxy.trouble = some(3, share=0.1)
    ended = annotate(source, tmp_path / "found", *FOUND)
    assert ended.code == 0, ended.err
    assert sum(store.proxy.struck.values()) >= 3
    assert data_files(tmp_path / "found") == data_files(tmp_path / "local")


def down_from(request_number: int, seconds: float) -> object:
    """Return what befalls requests: an outage that begins with one of them."""
    seen, ends = iter(range(10**6)), [float("inf")]

    def outage(request: str) -> Trouble | None:
        if next(seen) < request_number:
            return None
        if ends[0] == float("inf"):
            ends[0] = time.monotonic() + seconds
        return "reset" if time.monotonic() < ends[0] else None

    return outage


@pytest.mark.parametrize("begins", [12, 40])
def test_a_short_outage_is_waited_out(store: Store, tmp_path: Path, begins: int) -> None:
    source = store.put(write_tars(tmp_path / "tars", num_tars=4, num_images=2), "tars")
    assert annotate(source, tmp_path / "local").code == 0
    store.proxy.forget()
    store.proxy.trouble = down_from(begins, 1.5)
    ended = annotate(source, f"{store.url}/out")
    assert ended.code == 0, ended.err
    assert store.proxy.struck["reset"] > 1
    assert store.files("out") == data_files(tmp_path / "local")


@pytest.mark.usefixtures("impatient")
def test_a_store_that_stays_away_is_exit_code_5_and_the_same_command_goes_on(store: Store, tmp_path: Path) -> None:
    source = store.put(write_tars(tmp_path / "tars", num_tars=4, num_images=2), "tars")
    assert annotate(source, tmp_path / "local").code == 0
    store.proxy.forget()
    store.proxy.trouble = down_from(40, 3600)
    ended = annotate(source, f"{store.url}/out")
    assert ended.code == 5, ended.err
    assert "then run the same command again" in ended.err
    assert "Traceback" not in ended.err
    store.proxy.forget()
    assert annotate(source, f"{store.url}/out").code == 0
    assert store.files("out") == data_files(tmp_path / "local")
