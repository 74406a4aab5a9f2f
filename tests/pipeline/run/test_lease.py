"""Who may take a lease, and when."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.run.lease import hold, is_held, seconds_left, unit_name
from pipeline.store.process import host, process
from pipeline.store.storage import Storage, open_storage
from schemas.stores import _asks_once

LONG = 1000.0
FILE = "_leases/unit-000007.json"
NAME = unit_name(7)


@pytest.fixture(params=["local", "object"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An OUTPUT of each kind, empty."""
    return open_storage(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/out")


def put(storage: Storage, **changes: Any) -> None:
    """Write the lease of somebody on another host, who renewed it just now."""
    holder = {
        "token": "theirs",
        "host": "elsewhere",
        "process": "1:1",
        "expires_at": time.time() + LONG,
        "timeout_s": LONG,
    }
    storage.replace(FILE, json.dumps(holder | changes).encode())


def takes(storage: Storage) -> bool:
    with hold(storage, NAME, LONG) as held:
        return held is not None


def test_a_lease_is_held_by_one_and_given_back(storage: Storage) -> None:
    assert not is_held(storage, NAME)
    with hold(storage, NAME, LONG) as held:
        assert held
        assert is_held(storage, NAME)
        assert not takes(storage)
        assert is_held(storage, NAME), "who did not get it must not give it back"
    assert not is_held(storage, NAME)
    assert storage.names("_leases") == []


def test_it_is_given_back_after_an_error(storage: Storage) -> None:
    with pytest.raises(ZeroDivisionError), hold(storage, NAME, LONG):
        raise ZeroDivisionError
    assert storage.names("_leases") == []


def test_a_lease_of_another_host_holds_until_it_expires(storage: Storage) -> None:
    put(storage)
    assert is_held(storage, NAME)
    assert not takes(storage)
    put(storage, expires_at=time.time() - 1)
    assert not is_held(storage, NAME)
    assert takes(storage)


@pytest.mark.parametrize(("ahead", "held"), [(LONG + 4, True), (LONG + 60, False), (30 * 24 * 3600, False)])
def test_a_lease_that_ends_later_than_its_holder_can_mean_is_free(storage: Storage, ahead: float, held: bool) -> None:
    """A clock that is wrong must not keep a unit from everybody."""
    put(storage, expires_at=time.time() + ahead)
    assert is_held(storage, NAME) is held
    assert takes(storage) is not held


def test_seconds_left_say_when_it_is_free(storage: Storage) -> None:
    assert seconds_left(storage, NAME) is None
    put(storage, expires_at=time.time() + 40)
    left = seconds_left(storage, NAME)
    assert left is not None
    assert 39 < left <= 40


def test_a_holder_of_another_pid_namespace_of_this_host_is_not_judged_by_its_number(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers share a host name and a boot, and each has processes 1, 2, 3."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    boot, _, namespace = host().rpartition(":")
    assert namespace == str(Path("/proc/self/ns/pid").stat().st_ino)
    put(storage, host=f"{boot}:{int(namespace) + 1}", process=f"{child.pid}:1")
    assert is_held(storage, NAME), "there is no such process here, but there may be one there"
    put(storage, host=host(), process=f"{child.pid}:1")
    assert not is_held(storage, NAME)


def test_a_remote_lease_costs_two_requests_and_two_for_each_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage("memory://frugal/out")
    asked: list[str] = []

    def counted(name: str, operation: Any) -> Any:
        return lambda *arguments: (asked.append(name), operation(*arguments))[1]

    for name in ("decide", "read", "replace", "remove"):
        monkeypatch.setattr(storage, name, counted(name, getattr(storage, name)))
    with hold(storage, NAME, 6.0) as held:
        assert held
        for _ in range(12):
            held.advance()
            time.sleep(0.1)
    assert asked == ["decide", "remove"], "progress alone is not told"
    asked.clear()
    with hold(storage, NAME, 0.9):
        wait_until(lambda: asked.count("replace") == 2)
    assert asked == ["decide", "read", "replace", "read", "replace", "remove"]


def test_a_lease_of_a_process_that_is_gone_is_free_at_once(storage: Storage) -> None:
    code = "from pipeline.store.process import process; import os; print(process(os.getpid()))"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    put(storage, host=host(), process=gone)
    assert not is_held(storage, NAME)
    assert takes(storage)


def test_a_process_number_that_was_given_again_is_another_process(storage: Storage) -> None:
    put(storage, host=host(), process=f"{os.getpid()}:1")
    assert not is_held(storage, NAME)


def test_a_lease_of_a_living_process_of_this_host_holds(storage: Storage) -> None:
    put(storage, host=host(), process=process(os.getpid()))
    assert is_held(storage, NAME)
    assert not takes(storage)


def test_a_zombie_holds_nothing(storage: Storage) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as child:
        put(storage, host=host(), process=process(child.pid))
        assert is_held(storage, NAME)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
        assert not is_held(storage, NAME)


def test_without_proc_a_process_is_known_by_its_number(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(path: Path, *_: Any) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", no_proc)
    monkeypatch.setattr(Path, "readlink", no_proc)
    assert host() == socket.gethostname()
    put(storage, host=host(), process=f"{os.getpid()}:unknown")
    assert is_held(storage, NAME)
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    put(storage, host=host(), process=f"{child.pid}:unknown")
    assert not is_held(storage, NAME)


@pytest.mark.parametrize("data", [b"", b"{", b'{"token": "t"}', b"\xff"])
def test_a_lease_that_cannot_be_read_is_free(storage: Storage, data: bytes) -> None:
    storage.replace(FILE, data)
    assert not is_held(storage, NAME)
    assert takes(storage)


def wait_until(condition: Any) -> None:
    while not condition():
        time.sleep(0.002)


def expiry(storage: Storage) -> float:
    expires_at: float = json.loads(storage.read(FILE))["expires_at"]
    return expires_at


def test_a_lease_is_renewed(storage: Storage) -> None:
    with hold(storage, NAME, 0.03):
        first = expiry(storage)
        wait_until(lambda: expiry(storage) > first)
        assert expiry(storage) > first


def test_a_lease_that_was_taken_over_is_left_alone(storage: Storage) -> None:
    with hold(storage, NAME, 0.03):
        renewer = next(thread for thread in threading.enumerate() if thread.name == "renewer")
        put(storage)
        renewer.join()
    assert json.loads(storage.read(FILE))["token"] == "theirs"


def test_a_lost_renewal_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path / "out"))
    drops = iter([OSError("the store is away")])
    replace = storage.replace

    def replace_later(name: str, data: bytes) -> None:
        for drop in drops:
            raise drop
        replace(name, data)

    with ExitStack() as stack:
        stack.enter_context(hold(storage, NAME, 0.03))
        first = expiry(storage)
        monkeypatch.setattr(storage, "replace", replace_later)
        wait_until(lambda: expiry(storage) > first)
    assert next(drops, None) is None


def test_a_lease_that_another_took_after_a_lost_renewal_is_left_alone(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is that of the last renewal that was written."""

    def lose(name: str, data: bytes) -> None:
        raise OSError("the store is away")

    with hold(storage, NAME, 0.9):
        ends_at = expiry(storage)
        monkeypatch.setattr(storage, "replace", lose)
        wait_until(lambda: time.time() > ends_at + 0.05)
        monkeypatch.undo()
        put(storage)
    assert json.loads(storage.read(FILE))["token"] == "theirs"


def test_a_lease_that_took_long_to_put_is_put_anew(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = type(storage).decide

    def slow(self: Storage, name: str, data: bytes) -> bool:
        time.sleep(1.5)
        return decide(self, name, data)

    monkeypatch.setattr(type(storage), "decide", slow)
    with hold(storage, NAME, 3.0) as held:
        left = seconds_left(storage, NAME)
        assert held and left is not None and left > 2.0


def test_a_lease_is_renewed_in_time_or_not_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A renewal that waited for the store would be put over the lease of whoever has it by then."""
    storage = open_storage(f"memory://{tmp_path.name}/out")
    once: list[bool] = []
    replace = type(storage).replace
    monkeypatch.setattr(
        type(storage), "replace", lambda self, *given: (once.append(_asks_once.get()), replace(self, *given))
    )
    with hold(storage, NAME, 0.3):
        time.sleep(0.5)
    assert once and all(once)
