"""Training from S3 by both loaders, through trouble on the way: the same run as from a folder; requests counted."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.dataset import Dataset
from schemas.store_errors import StorageError
from tests.pipeline.store.s3_server import forget_s3fs
from tests.remote.conftest import Store
from tests.remote.proxy import Trouble, some
from tests.trainer.run.test_loop import RUN, assert_same_run, run_training
from tests.trainer.runs import RECIPE, change, write_data

STREAM = change(RECIPE, stream=True)
SIZES = (9, 4, 6)
TAR = re.compile(r"GET .*train-\d+\.tar$")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data", SIZES)
    return tmp_path / "data"


def tars_asked(store: Store) -> Counter[str]:
    """Return how often each tar was asked for."""
    return Counter(filter(TAR.match, store.proxy.asked))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_asks_for_each_tar_once_an_epoch(store: Store, folder: Path, tmp_path: Path, workers: int) -> None:
    url = store.put(folder, "data")
    run_training(url, tmp_path / "run", STREAM, replace(RUN, workers=workers))
    assert sorted(tars_asked(store).values()) == [2, 2, 2], "two epochs"
    assert not store.proxy.count("HEAD", ends=".tar")


def test_the_exact_loader_asks_for_each_image(store: Store, folder: Path, tmp_path: Path) -> None:
    url = store.put(folder, "data")
    run_training(url, tmp_path / "run", change(RECIPE, epochs=1))
    assert tars_asked(store).total() == sum(SIZES)


@pytest.mark.parametrize("recipe", [RECIPE, STREAM], ids=["exact", "stream"])
def test_a_fifth_of_the_requests_fail_and_the_run_is_that_of_a_folder(
    store: Store, folder: Path, tmp_path: Path, recipe: object
) -> None:
    url = store.put(folder, "data")
    run_training(str(folder), tmp_path / "local", recipe)
    store.proxy.trouble = some(5, share=0.2)
    run_training(url, tmp_path / "remote", recipe, replace(RUN, workers=2))
    assert sum(store.proxy.struck.values()) >= 2
    assert_same_run(tmp_path / "remote", tmp_path / "local")


@pytest.mark.parametrize("trouble", ["cut", "reset", "500", "slow", "lost reply"])
def test_a_tar_goes_on_from_where_its_connection_broke(
    store: Store, folder: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.01)
    dataset = Dataset.open(store.put(folder, "data"))
    first = iter([trouble])
    store.proxy.forget()
    store.proxy.trouble = lambda request: next(first, None)
    with dataset.open_tar("train-000000") as file:
        content = file.read()
    assert content == (folder / "train-000000.tar").read_bytes()
    assert len(store.proxy.asked) == (1 if trouble == "slow" else 2)


@pytest.mark.usefixtures("impatient")
def test_a_store_that_stays_away_ends_the_run_with_a_sentence_and_it_goes_on(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    url = store.put(folder, "data")
    run = replace(RUN, workers=2, checkpoint_every=1)
    recipe = change(STREAM, epochs=3)
    tars = iter(range(1000))
    store.proxy.trouble = lambda request: "reset" if TAR.match(request) and next(tars) > 3 else None
    with pytest.raises(StorageError, match=r"train-00000\d\.tar: .*then run the same command again") as ended:
        run_training(url, tmp_path / "found", recipe, run)
    assert "Traceback" not in str(ended.value)
    store.proxy.forget()
    forget_s3fs()
    assert run_training(url, tmp_path / "found", recipe, run).finished
    run_training(str(folder), tmp_path / "expected", recipe)
    assert_same_run(tmp_path / "found", tmp_path / "expected")


def test_later_epochs_come_out_of_fsspec_s_cache(store: Store, folder: Path, tmp_path: Path) -> None:
    url = store.put(folder, "data")
    cached = f"filecache::{url}"
    from fsspec.config import conf

    conf["filecache"] = {"cache_storage": str(tmp_path / "cache"), "same_names": True}
    try:
        run_training(cached, tmp_path / "run", STREAM)
    finally:
        del conf["filecache"]
    assert sorted(tars_asked(store).values()) == [1, 1, 1], "of two epochs"
    assert sorted(path.name for path in (tmp_path / "cache").glob("*.tar")) == [f"train-{i:06d}.tar" for i in range(3)]
