"""A shard is committed exactly once, in an order that survives a loss of power, whoever races and wherever it ends."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.store.commit import (
    FinishedFile,
    commit,
    decided,
    repaired_stems,
    repairs,
    roll_forward,
    sweep,
    withdraw,
)
from pipeline.store.storage import LocalStorage, Storage, StorageError, open_storage
from schemas.hashes import sha256
from schemas.records import FileDigest

NAMES = ("s.tar", "s.parquet", "s.json")


@pytest.fixture(params=["local", "object"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An OUTPUT of each kind, empty."""
    return open_storage(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/out")


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    """A local OUTPUT."""
    return LocalStorage(str(tmp_path / "out"))


def attempt(storage: Storage, content: str) -> dict[str, FinishedFile]:
    """The finished files of an attempt whose bytes tell it from others."""
    storage.scratch.mkdir(parents=True, exist_ok=True)
    files = {}
    for name in NAMES:
        data = f"{name} {content}".encode()
        path = storage.scratch / f"{name}.{os.urandom(8).hex()}"
        path.write_bytes(data)
        files[name] = FinishedFile(path=path, digest=FileDigest(sha256=sha256(data), size=len(data)))
    return files


def contents(storage: Storage) -> list[str]:
    return [storage.read(name).decode() for name in NAMES]


def of(content: str) -> list[str]:
    return [f"{name} {content}" for name in NAMES]


def test_commit_publishes_the_files(storage: Storage) -> None:
    assert decided(storage) == set()
    assert commit(storage, "s", attempt(storage, "a"))
    assert contents(storage) == of("a")
    assert decided(storage) == {"s"}
    assert storage.names("_attempts") == []


def test_the_second_attempt_comes_second_and_leaves_nothing(storage: Storage) -> None:
    commit(storage, "s", attempt(storage, "a"))
    assert not commit(storage, "s", attempt(storage, "b"))
    assert contents(storage) == of("a")
    assert storage.names("_attempts") == []


def test_equal_attempts_are_the_same_attempt(storage: Storage) -> None:
    commit(storage, "s", attempt(storage, "a"))
    assert commit(storage, "s", attempt(storage, "a"))
    assert contents(storage) == of("a")
    assert storage.names("_attempts") == []


class EndedError(Exception):
    """Stands for the end of a process."""


class Before:
    """A storage that calls `action` once, before the `nth` of its operations that change something."""

    def __init__(self, storage: Storage, nth: int, action: Callable[[], None]) -> None:
        self._storage, self._left, self._action = storage, nth, action

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._storage, name)
        if name not in ("settle", "sync", "decide", "create", "publish", "replace", "remove"):
            return operation

        def counted(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == -1:
                self._action()
            return operation(*arguments)

        return counted


def ending(storage: Storage, nth: int) -> Any:
    """A storage whose process ends before its `nth` operation."""

    def end() -> None:
        raise EndedError

    return Before(storage, nth, end)


@pytest.mark.parametrize("nth", range(9))
def test_attempts_never_mix_wherever_the_first_ends(storage: Storage, nth: int) -> None:
    with pytest.raises(EndedError):
        commit(ending(storage, nth), "s", attempt(storage, "a"))
    was_decided = decided(storage) == {"s"}
    assert commit(storage, "s", attempt(storage, "b")) is not was_decided
    assert contents(storage) == of("a" if was_decided else "b")


@pytest.mark.parametrize("nth", range(4, 9))
def test_roll_forward_finishes_what_was_decided(storage: Storage, nth: int) -> None:
    with pytest.raises(EndedError):
        commit(ending(storage, nth), "s", attempt(storage, "a"))
    assert roll_forward(storage, "s")
    assert roll_forward(storage, "s")
    assert contents(storage) == of("a")


def test_a_decision_without_the_marker_finds_it_among_the_attempts(storage: Storage) -> None:
    files = attempt(storage, "a")
    digests = {name: file.digest for name, file in files.items()}
    for name, file in files.items():
        storage.settle(file.path, f"_attempts/{name}.{file.digest.sha256[:16]}")
    storage.decide("_commit/s.json", msgspec.json.encode({"files": digests}))
    assert roll_forward(storage, "s")
    assert contents(storage) == of("a")
    assert storage.names("_attempts") == []


def test_roll_forward_of_what_was_not_decided(storage: Storage) -> None:
    with pytest.raises(EndedError):
        commit(ending(storage, 3), "s", attempt(storage, "a"))
    assert not roll_forward(storage, "s")
    assert storage.names("") == []


@pytest.mark.parametrize("nth", range(9))
def test_a_holder_that_was_paused_anywhere_finds_the_others_files(storage: Storage, nth: int) -> None:
    """Before any of its operations, another job commits, publishes and sweeps."""
    published: list[str] = []

    def meanwhile() -> None:
        commit(storage, "s", attempt(storage, "b"))
        sweep(storage, NAMES)
        published.extend(contents(storage))

    paused: Any = Before(storage, nth, meanwhile)
    chosen = commit(paused, "s", attempt(storage, "a"))
    assert contents(storage) == published == of("a" if chosen else "b")
    assert chosen is (nth > 3)
    sweep(storage, NAMES)
    assert storage.names("_attempts") == []


def test_lost_files_of_a_decision_are_an_error_that_says_what_to_do(storage: Storage) -> None:
    with pytest.raises(EndedError):
        commit(ending(storage, 4), "s", attempt(storage, "a"))
    for name in storage.names("_attempts"):
        storage.remove(f"_attempts/{name}")
    with pytest.raises(StorageError, match=r"s\.tar was committed with .* remove _commit/s\.json"):
        roll_forward(storage, "s")


def test_a_damaged_decision_is_an_error(storage: Storage) -> None:
    storage.replace("_commit/s.json", b"{")
    with pytest.raises(StorageError, match=r"_commit/s\.json is damaged"):
        roll_forward(storage, "s")


def test_lost_attempts_without_a_decision_are_an_error(storage: Storage) -> None:
    files = attempt(storage, "a")
    files["s.tar"].path.unlink()
    with pytest.raises(FileNotFoundError):
        commit(storage, "s", files)
    assert decided(storage) == set()


def test_sweep_leaves_what_may_still_be_published(storage: Storage) -> None:
    with pytest.raises(EndedError):
        commit(ending(storage, 4), "s", attempt(storage, "a"))
    storage.replace("_attempts/t.tar.0123456789abcdef", b"")
    storage.replace("_attempts/small.0123456789abcdef", b"")
    sweep(storage, ["t.tar", "t.json"])
    assert [name.rpartition(".")[0] for name in storage.names("_attempts")] == ["s.parquet", "s.tar"]
    assert roll_forward(storage, "s")


class Recorder:
    """Records what is asked of the file system: fsync, link and rename, by names relative to OUTPUT."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self._root = root
        self.operations: list[str] = []
        originals = {name: getattr(os, name) for name in ("fsync", "link", "rename", "replace")}

        def fsync(descriptor: int) -> None:
            self.operations.append(f"sync {self._name(Path(f'/proc/self/fd/{descriptor}').readlink())}")
            originals["fsync"](descriptor)

        def moving(name: str) -> Any:
            def move(source: Path, destination: Path) -> None:
                self.operations.append(f"{name} {self._name(source)} -> {self._name(destination)}")
                originals[name](source, destination)

            return move

        monkeypatch.setattr(os, "fsync", fsync)
        for name in ("link", "rename", "replace"):
            monkeypatch.setattr(os, name, moving(name))

    def _name(self, path: object) -> str:
        folder, _, name = os.path.relpath(str(path), self._root).rpartition("/")
        stem = ".".join(part for part in name.split(".") if len(part) != 16 and "-" not in part)  # no hash, no token
        return f"{folder}/{stem}" if folder else stem or "."


def test_order_on_a_recording_file_system(local: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = attempt(local, "a")
    recorder = Recorder(monkeypatch, tmp_path / "out")
    commit(local, "s", files)
    assert recorder.operations == [
        # the files are on the disk ...
        "sync _attempts/s.tar",
        "rename _attempts/s.tar -> _attempts/s.tar",
        "sync _attempts/s.parquet",
        "rename _attempts/s.parquet -> _attempts/s.parquet",
        # ... and so are their names, before the decision names them
        "sync _attempts",
        "sync _attempts/small",
        "link _attempts/small -> _commit/s.json",
        "sync _commit",
        # the decision is on the disk before anything is published, and the data before the marker
        "rename _attempts/s.tar -> s.tar",
        "rename _attempts/s.parquet -> s.parquet",
        "sync .",
        "sync _attempts/small",
        "link _attempts/small -> s.json",
        "sync .",
    ]


def repaired(storage: Storage, content: str, repair: int = 1) -> bool:
    return commit(storage, "s", attempt(storage, content), repair=repair)


def test_a_repair_stands_in_the_place_of_what_was_published(storage: Storage) -> None:
    commit(storage, "s", attempt(storage, "a"))
    assert repaired(storage, "b")
    assert contents(storage) == of("b")
    assert repaired(storage, "c", 2)
    assert contents(storage) == of("c")
    assert storage.names("_attempts") == []
    assert repairs(decided(storage)) == {"s": 2}


def test_an_older_decision_is_never_published_again(storage: Storage) -> None:
    commit(storage, "s", attempt(storage, "a"))
    assert repaired(storage, "b")
    assert not commit(storage, "s", attempt(storage, "a")), "of the same bytes as the first, long after"
    assert contents(storage) == of("b")
    assert repaired(storage, "c", 2)
    assert not repaired(storage, "b")
    assert not repaired(storage, "d")
    assert roll_forward(storage, "s")
    assert contents(storage) == of("c")
    assert storage.names("_attempts") == []


@pytest.mark.parametrize("nth", range(12))
def test_a_repair_that_ends_anywhere_is_done_or_not(storage: Storage, nth: int) -> None:
    """What is read with a marker is that marker's, at every moment; rolling forward ends with one or the other."""
    commit(storage, "s", attempt(storage, "a"))
    with contextlib.suppress(EndedError):
        commit(ending(storage, nth), "s", attempt(storage, "b"), repair=1)
    was_decided = "s.r1" in decided(storage)
    if storage.size("s.json") is not None:
        assert contents(storage) in (of("a"), of("b"))
    assert roll_forward(storage, "s")
    assert contents(storage) == of("b" if was_decided else "a")
    assert repaired(storage, "c") is not was_decided
    assert contents(storage) == of("b" if was_decided else "c")


@pytest.mark.parametrize("nth", range(12))
@pytest.mark.parametrize("newest", [1, 2])
def test_a_holder_that_was_paused_in_a_repair_finds_the_others(storage: Storage, nth: int, newest: int) -> None:
    """Before any of its operations, others repair the shard, once or twice, and sweep."""
    commit(storage, "s", attempt(storage, "a"))
    met: list[bool] = []

    def meanwhile() -> None:
        roll_forward(storage, "s")
        for number in range(1, newest + 1):
            repaired(storage, f"b{number}", number)
        sweep(storage, [stem for name in NAMES for stem in repaired_stems(name, newest)])
        met.append(True)

    paused: Any = Before(storage, nth, meanwhile)
    chosen = commit(paused, "s", attempt(storage, "c"), repair=1)
    last = "c" if not met or (chosen and newest == 1) else f"b{newest}"
    assert contents(storage) == of("b2" if met and newest == 2 else last)
    assert roll_forward(storage, "s")
    assert contents(storage) == of("b2" if met and newest == 2 else last)


@pytest.mark.parametrize("nth", range(9))
def test_a_first_commit_that_was_paused_never_covers_a_repair(storage: Storage, nth: int) -> None:
    met: list[bool] = []

    def meanwhile() -> None:
        commit(storage, "s", attempt(storage, "a"))
        repaired(storage, "b")
        met.append(True)

    paused: Any = Before(storage, nth, meanwhile)
    commit(paused, "s", attempt(storage, "a"))
    roll_forward(storage, "s")
    assert contents(storage) == of("b" if met else "a")


def test_what_is_withdrawn_takes_its_repairs_along(storage: Storage) -> None:
    commit(storage, "s", attempt(storage, "a"))
    commit(storage, "t", attempt(storage, "a"))
    repaired(storage, "b")
    withdraw(storage, "s", "s.json")
    assert decided(storage) == {"t"}
    assert commit(storage, "s", attempt(storage, "d"))
    assert contents(storage) == of("d")


def test_the_marker_of_a_repair_goes_first_and_comes_last(
    local: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(local, "s", attempt(local, "a"))
    files = attempt(local, "b")
    recorder = Recorder(monkeypatch, tmp_path / "out")
    unlink = Path.unlink

    def recording(path: Path, missing_ok: bool = False) -> None:
        if path.name == "s.json":
            recorder.operations.append("remove s.json")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", recording)
    commit(local, "s", files, repair=1)
    assert recorder.operations[recorder.operations.index("sync _commit") + 1 :] == [
        # no reader takes the shard before its marker is gone for good, nor after before all of it is there
        "remove s.json",
        "sync .",
        "rename _attempts/s.tar.r1 -> s.tar",
        "rename _attempts/s.parquet.r1 -> s.parquet",
        "sync .",
        "sync _attempts/small",
        "link _attempts/small -> s.json",
        "sync .",
    ]
