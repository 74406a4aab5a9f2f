"""File systems of stores: they travel, their libraries are brief, and what is said of both in the environment holds.

How they wait is tested on a server, in `tests/pipeline/store/test_s3.py`.
"""

import pickle
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from schemas.store_errors import StorageError
from schemas.stores import Patient, asking_once, open_fs, protocols


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec keeps its file systems, and we what we know of stores."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setattr("schemas.stores._stores", {})
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)


def test_a_path_is_no_store(tmp_path: Path) -> None:
    for path in (str(tmp_path), f"file://{tmp_path}"):
        fs, local = open_fs(path)
        assert isinstance(fs, LocalFileSystem) and local == str(tmp_path)


def test_a_store_travels_to_another_process() -> None:
    fs, path = open_fs("memory://travels/a")
    fs.pipe_file(path, b"data")
    sent = pickle.loads(pickle.dumps(fs))
    assert isinstance(sent, Patient)
    assert sent.cat_file(path) == fs.anew().cat_file(path) == b"data"


def test_the_library_of_s3_tries_briefly_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    fs, _ = open_fs("s3://bucket/a")
    assert (fs.retries, fs.config_kwargs) == (2, {"retries": {"total_max_attempts": 1}})
    chained, _ = open_fs("simplecache::s3://bucket/a")
    assert chained.fs.retries == 2
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "4")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert open_fs("s3://bucket/a")[0].config_kwargs == {}
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"retries": {"total_max_attempts": 9}}})
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert open_fs("s3://bucket/b")[0].config_kwargs == {"retries": {"total_max_attempts": 9}}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/a", {"s3", "s3a"}),
        ("filecache::s3://bucket/a", {"filecache"}),
        ("memory://other/a", {"memory"}),
        ("a", {"file", "local"}),
    ],
)
def test_a_chain_goes_by_its_outermost_part(url: str, expected: set[str]) -> None:
    assert protocols(open_fs(url)[0]) == expected


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (ConnectionResetError("gone"), 7),
        (TimeoutError(), 7),
        (PermissionError("no"), 1),
        (FileNotFoundError("a"), 1),
        (FileExistsError("a"), 1),
        (OSError(22, "Invalid range"), 1),
        (ValueError("ours"), 1),
    ],
)
def test_what_the_store_answers_is_no_reason_to_wait(error: Exception, tries: int) -> None:
    fs, path = open_fs("memory://answers/a")
    fs.pipe_file(path, b"data")
    tried = []

    def fail() -> None:
        tried.append(error)
        raise error

    with pytest.raises(StorageError if tries > 1 else type(error)):
        fs.wait_for(fail, path)
    assert len(tried) == tries


def test_reads_of_an_open_file_wait_too() -> None:
    fs, path = open_fs("memory://opened/a")
    failures = [ConnectionResetError("gone"), ConnectionResetError("gone")]

    class FakeCache:
        @staticmethod
        def fetcher(start: int, end: int) -> bytes:
            if failures:
                raise failures.pop()
            return b"data"[start:end]

    class FakeFile:
        cache = FakeCache()

    fs._fs = type("FakeFileSystem", (), {"open": lambda *_, **__: FakeFile()})()
    fs._store.has_answered = True
    assert fs.open(path).cache.fetcher(0, 2) == b"da"
    assert failures == []


def test_what_would_be_worse_late_is_asked_once() -> None:
    fs, path = open_fs("memory://once/a")
    asked = []

    def fails() -> None:
        asked.append(1)
        raise ConnectionResetError("gone")

    with asking_once(), pytest.raises(ConnectionResetError):
        fs.wait_for(fails, path)
    assert len(asked) == 1
    with pytest.raises(StorageError, match="gone"):
        fs.wait_for(fails, path)
    assert len(asked) > 2


def test_a_store_that_was_given_up_is_named_beside_what_it_was_given_up_for() -> None:
    fs, _ = open_fs("memory://up/a")

    def fails() -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(StorageError):
        fs.wait_for(fails, "up/a")
    with pytest.raises(StorageError, match=r"memory://up/a: gone.*memory://up was given up a moment ago"):
        fs.wait_for(lambda: None, "up/b")


def test_errors_in_place_of_ranges_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    fs, path = open_fs("memory://ranges/a")
    monkeypatch.setattr(fs._fs, "cat_ranges", lambda *given, **options: [ConnectionResetError("gone")])
    assert len(fs.cat_ranges([path], 0, None, on_error="return")) == 1
    assert not fs._store.has_answered
    monkeypatch.setattr(fs._fs, "cat_ranges", lambda *given, **options: [ConnectionResetError("gone"), b"data"])
    fs.cat_ranges([path] * 2, 0, None, on_error="return")
    assert fs._store.has_answered
