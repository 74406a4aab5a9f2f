"""The same promises of local folders and of object stores (memory:// stands for those)."""

import errno
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import fsspec
import pytest
import requests
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.store.storage import ObjectStorage, Storage, StorageError, open_storage, retried, storage_errors


@pytest.fixture(params=["local", "object"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """An OUTPUT that does not exist yet."""
    if request.param == "local":
        yield open_storage(str(tmp_path / "out"))
    else:
        yield open_storage("memory://storage/out")
        if fsspec.filesystem("memory").exists("/storage"):
            fsspec.filesystem("memory").rm("/storage", recursive=True)


@pytest.fixture
def local(tmp_path: Path) -> Storage:
    """A local OUTPUT."""
    return open_storage(str(tmp_path / "out"))


def settled(storage: Storage, name: str, data: bytes) -> None:
    storage.scratch.mkdir(parents=True, exist_ok=True)
    path = storage.scratch / f"written.{os.getpid()}"
    path.write_bytes(data)
    storage.settle(path, name)
    assert not path.exists()


def test_nothing_is_there_at_first(storage: Storage) -> None:
    assert storage.names("") == storage.names("_commit") == []
    assert storage.size("a.json") is None
    storage.remove("a.json")
    storage.remove_folder("_attempts")
    with pytest.raises(FileNotFoundError):
        storage.read("a.json")
    with pytest.raises(FileNotFoundError):
        storage.open("a.json")


def test_settle_publish_and_remove_move_a_file(storage: Storage) -> None:
    settled(storage, "_attempts/a.0123", b"data")
    storage.sync("_attempts")
    storage.publish("_attempts/a.0123", "a.tar")
    storage.remove("_attempts/a.0123", "_attempts/none")
    storage.sync("")
    assert storage.read("a.tar") == b"data"
    assert storage.names("_attempts") == []
    assert storage.names("") == ["a.tar"]


def test_publish_replaces_and_says_when_nothing_is_there(storage: Storage) -> None:
    storage.replace("a.tar", b"old")
    settled(storage, "_attempts/a.0123", b"new")
    storage.publish("_attempts/a.0123", "a.tar")
    assert storage.read("a.tar") == b"new"
    storage.remove("_attempts/a.0123")
    with pytest.raises(FileNotFoundError):
        storage.publish("_attempts/a.0123", "a.tar")
    assert storage.read("a.tar") == b"new"


def test_decide_is_for_the_first_alone(storage: Storage) -> None:
    assert storage.decide("_commit/a.json", b"first")
    assert not storage.decide("_commit/a.json", b"second")
    assert storage.read("_commit/a.json") == b"first"


def test_a_decision_whose_reply_was_lost_is_ones_own(storage: Storage) -> None:
    storage.decide("_commit/a.json", b"first")
    assert storage.decide("_commit/a.json", b"first"), "the put was done, its reply lost, and it was tried again"


def test_sizes_come_sorted_and_from_a_name_on(storage: Storage) -> None:
    for name, data in (("b", b"1"), ("a", b""), ("c", b"123"), ("_run/d", b"4")):
        storage.replace(name, data)
    assert list(storage.sizes("").items()) == [("a", 0), ("b", 1), ("c", 3)]
    assert storage.sizes("", after="a") == {"b": 1, "c": 3}
    assert storage.sizes("", after="bb") == {"c": 3}
    assert storage.sizes("_run") == {"d": 1}
    assert storage.sizes("_none") == {}


@pytest.mark.parametrize("name", ["a*.tar", "a[1].tar", "a?.tar"])
def test_names_are_never_patterns(storage: Storage, name: str) -> None:
    storage.replace(f"_attempts/{name}", b"chosen")
    storage.replace("_attempts/a1.tar", b"another")
    storage.publish(f"_attempts/{name}", name)
    assert storage.read(name) == b"chosen"
    assert storage.names("") == [name]
    storage.remove(f"_attempts/{name}", name)
    assert storage.names("") == []
    assert storage.names("_attempts") == ["a1.tar"]


def test_a_store_that_keeps_its_promise_passes_the_check(storage: Storage) -> None:
    storage.check()
    assert storage.names("_attempts") == []


def test_a_store_that_ignores_the_condition_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake store writes whatever it is told to, as those do that do not know If-None-Match."""
    pipe_file = MemoryFileSystem.pipe_file

    def ignorant(self: MemoryFileSystem, path: str, value: bytes, mode: str = "overwrite") -> None:
        pipe_file(self, path, value, mode="overwrite")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", ignorant)
    storage = open_storage("memory://ignorant/out")
    with pytest.raises(StorageError, match="replaces an object that was to be created only if it is absent"):
        storage.check()
    assert storage.names("_attempts") == []


def test_replace_changes_the_whole_content(storage: Storage) -> None:
    storage.replace("_run/a", b"longer than the next")
    storage.replace("_run/a", b"short")
    assert storage.read("_run/a") == b"short"
    assert storage.size("_run/a") == 5


def test_open_reads_at_any_place(storage: Storage) -> None:
    storage.replace("a", b"0123456789")
    with storage.open("a") as file:
        file.seek(4)
        assert file.read(3) == b"456"


def test_names_are_sorted_and_of_one_folder(storage: Storage) -> None:
    for name in ("b", "a", "_run/c", "_run/deep/d"):
        storage.replace(name, b"")
    assert storage.names("") == ["a", "b"]
    assert storage.names("_run") == ["c"]


def test_a_folder_with_files_stays(storage: Storage) -> None:
    storage.replace("_leases/a", b"held")
    storage.remove_folder("_leases")
    assert storage.read("_leases/a") == b"held"


def test_survives_pickling(storage: Storage) -> None:
    storage.replace("a", b"data")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"data"


def test_one_of_many_threads_decides(local: Storage) -> None:
    together = threading.Barrier(8)

    def decide(caller: int) -> bool:
        together.wait()
        return local.decide("_commit/a.json", b"%d" % caller)

    with ThreadPoolExecutor(8) as pool:
        chosen = list(pool.map(decide, range(8)))
    assert chosen.count(True) == 1
    assert local.read("_commit/a.json") == b"%d" % chosen.index(True)


def test_temporary_files_do_not_stay(local: Storage) -> None:
    local.decide("_commit/a.json", b"")
    local.decide("_commit/a.json", b"")
    local.replace("a", b"")
    assert local.names("_attempts") == []


def test_a_failed_write_leaves_no_temporary_file(local: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        local.replace("a", b"data")
    assert local.names("_attempts") == local.names("") == []


@pytest.mark.parametrize("operation", ["link", "replace"])
def test_a_swept_temporary_file_is_written_again(
    local: Storage, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    original, swept = getattr(os, operation), []

    def sweep_first(temporary: Path, name: Path) -> None:
        if not swept:
            swept.append(temporary)
            temporary.unlink()
            temporary.parent.rmdir()
        original(temporary, name)

    monkeypatch.setattr(os, operation, sweep_first)
    if operation == "link":
        assert local.decide("_commit/a.json", b"data")
    else:
        local.replace("_commit/a.json", b"data")
    assert swept
    assert local.read("_commit/a.json") == b"data"


def test_no_hard_links_is_said(local: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, destination: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StorageError, match="no hard links; choose another OUTPUT"):
        local.decide("_commit/a.json", b"")


@pytest.mark.parametrize("in_the_way", ["out", "out/_commit"])
def test_a_file_in_the_way_is_said(local: Storage, tmp_path: Path, in_the_way: str) -> None:
    path = tmp_path / in_the_way
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(StorageError, match="a file is in the way: choose another OUTPUT"), storage_errors(local.url):
        local.decide("_commit/a.json", b"")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "the disk is full: free space"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EROFS, "read-only: choose another OUTPUT"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "run the same command again once the cause is gone"),
    ],
)
def test_storage_errors_say_what_to_do(code: int, remedy: str) -> None:
    with pytest.raises(StorageError, match=f"^out/a.tar: .*{remedy}"), storage_errors("out"):
        raise OSError(code, os.strerror(code), "out/a.tar")


class FakeHttpError(Exception):
    """As gcsfs raises it, with the status of the reply."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the server said {code}")
        self.code = code


class FakeRefreshError(Exception):
    """Named as google.auth names what it raises for a login that has run out."""


FakeRefreshError.__name__ = "RefreshTokenError"
LIBRARY_ERRORS = [
    (FakeHttpError(503), "FakeHttpError: the server said 503; run the same command again", True),
    (FakeHttpError(403), "the server said 403; permission denied", False),
    (OSError("Forbidden: bucket/out"), "Forbidden: bucket/out; permission denied", False),
    (PermissionError("Access Denied"), "Access Denied; permission denied", False),
    (FakeRefreshError("expired"), "RefreshTokenError: expired; give the store's credentials", False),
    (aiohttp.ServerDisconnectedError(), "Server disconnected; .*run the same command again", True),
    (requests.ConnectionError("no route"), "no route; check the address and the network", True),
    (TimeoutError(), "TimeoutError: ; check the address and the network", True),
    (KeyError("Contents"), "KeyError: 'Contents'; run the same command again", False),
]
OPERATIONS: dict[str, Callable[[Storage], object]] = {
    "pipe_file": lambda storage: storage.replace("a", b""),
    "cat_file": lambda storage: storage.read("a"),
    "info": lambda storage: storage.size("a"),
    "ls": lambda storage: storage.sizes(""),
    "cp_file": lambda storage: storage.publish("a", "b"),
    "rm_file": lambda storage: storage.remove("a"),
}


@pytest.mark.parametrize(("error", "sentence", "waits"), LIBRARY_ERRORS)
def test_whatever_a_library_raises_is_a_storage_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str, waits: bool
) -> None:
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    monkeypatch.setattr("schemas.stores._stores", {})  # that the last case's was given up
    storage = open_storage("memory://troubled/out")
    for operation, call in OPERATIONS.items():

        def fail(*_: Any, **__: Any) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, operation, fail)
            with pytest.raises(StorageError, match=f"^memory://troubled/out/.*{sentence}") as raised:
                call(storage)
        assert ("(tried for" in str(raised.value)) is waits


def test_what_may_pass_is_tried_again_once_the_store_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    storage = open_storage("memory://flaky/out")
    cat_file, failures = MemoryFileSystem.cat_file, [FakeHttpError(503), FakeHttpError(503)]

    def flaky(self: MemoryFileSystem, *arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return cat_file(self, *arguments, **options)

    storage.replace("a", b"data")
    monkeypatch.setattr(MemoryFileSystem, "cat_file", flaky)
    assert storage.read("a") == b"data"
    assert failures == []
    failures += [FakeHttpError(503)] * 4
    with pytest.raises(StorageError, match=r"memory://never/out/a: .*tried for"):
        open_storage("memory://never/out").read("a")
    assert failures == [], "it is tried less often"


@pytest.mark.parametrize(("error", "tries"), [(OSError(errno.EIO, "io"), 3), (OSError(errno.ENOSPC, "full"), 1)])
def test_only_what_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: OSError, tries: int) -> None:
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    tried = []

    def fail() -> None:
        tried.append(error)
        raise error

    with pytest.raises(OSError, match=r"io|full"):
        retried(fail)
    assert len(tried) == tries


def test_storage_errors_pass_storage_errors_on() -> None:
    with pytest.raises(StorageError, match=r"^as it was$"), storage_errors("out"):
        raise StorageError("as it was")


def test_an_unknown_protocol_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match=r"nosuch://bucket/out.*OUTPUT"):
        open_storage("nosuch://bucket/out")


def test_scratch_of_an_object_store_is_local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pickled = pickle.dumps(ObjectStorage("memory://out"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert pickle.loads(pickled).scratch == tmp_path / f"fineclip-attempts-{os.getuid()}"
