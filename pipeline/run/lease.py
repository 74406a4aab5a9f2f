"""Leases: one worker at a time on a shard, as a saving of work and not as a safeguard (`commit` is the safeguard).

A lease is a file that its holder renews from a thread. It is free to take when it has run out, or when its holder was a
process of this host that is gone: so a job that was killed can be resumed at once.
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.store.storage import Storage
from schemas.names import LEASES_DIR

_NOTE_EVERY_S = 1.0


class _Holder(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    host: str
    process: str
    expires_at: float
    """Seconds since the epoch, by the holder's clock."""
    num_done: int = 0
    """Samples that the holder has finished so far: what a progress bar shows before the shard is there."""


class Hold:
    """A lease that is held, and how far its holder is."""

    def __init__(self) -> None:
        self.num_done = 0

    def advance(self) -> None:
        """Count a sample as finished."""
        self.num_done += 1


@contextlib.contextmanager
def hold(storage: Storage, name: str, timeout_s: float) -> Iterator[Hold | None]:
    """Hold the lease of `name` for the body, renewed every third of `timeout_s`; yields None if another holds it."""
    token = secrets.token_hex(8)
    path = f"{LEASES_DIR}/{name}.json"
    if not _take(storage, path, token, timeout_s):
        yield None
        return
    held, stop = Hold(), threading.Event()
    renewer = threading.Thread(target=_renew, args=(storage, path, token, timeout_s, held, stop), daemon=True)
    renewer.start()
    try:
        yield held
    finally:
        stop.set()
        renewer.join()
        if _token_of(storage, path) == token:
            storage.remove(path)


def unit_name(unit: int) -> str:
    """Return the name of a unit's lease."""
    return f"unit-{unit:06d}"


def is_held(storage: Storage, name: str) -> bool:
    """Return whether a live worker holds the lease of `name`."""
    holder = _read(storage, f"{LEASES_DIR}/{name}.json")
    return holder is not None and not _is_over(holder)


def samples_in_hand(storage: Storage) -> int:
    """Return how many samples the holders of all leases have finished, of units that are not done."""
    holders = [_read(storage, f"{LEASES_DIR}/{name}") for name in storage.names(LEASES_DIR)]
    return sum(holder.num_done for holder in holders if holder is not None and not _is_over(holder))


def this_holder() -> tuple[str, str]:
    """Return the host and the process that leases taken here name."""
    return _host(), _process(os.getpid())


def free(storage: Storage, name: str, holder: tuple[str, str]) -> None:
    """Remove the lease of `name` if this holder has it: for whoever knows that the holder is dead."""
    path = f"{LEASES_DIR}/{name}.json"
    held = _read(storage, path)
    if held is not None and (held.host, held.process) == holder:
        storage.remove(path)


def _take(storage: Storage, path: str, token: str, timeout_s: float) -> bool:
    data = msgspec.json.encode(_holder(token, timeout_s))
    if storage.decide(path, data):
        return True
    holder = _read(storage, path)
    if holder is not None and not _is_over(holder):
        return False
    storage.remove(path)
    return storage.decide(path, data)


def _renew(storage: Storage, path: str, token: str, timeout_s: float, held: Hold, stop: threading.Event) -> None:
    """Renew the lease in time, and sooner where its holder has got on, until stopped or robbed of it."""
    noted, renew_at = 0, time.monotonic() + timeout_s / 3
    while not stop.wait(min(timeout_s / 3, _NOTE_EVERY_S)):
        if held.num_done == noted and time.monotonic() < renew_at:
            continue
        with contextlib.suppress(OSError):  # a lease lost to a storage error costs work done twice, nothing else
            if _token_of(storage, path) != token:
                return
            noted, renew_at = held.num_done, time.monotonic() + timeout_s / 3
            storage.replace(path, msgspec.json.encode(_holder(token, timeout_s, noted)))


def _holder(token: str, timeout_s: float, num_done: int = 0) -> _Holder:
    return _Holder(
        token=token,
        host=_host(),
        process=_process(os.getpid()),
        expires_at=time.time() + timeout_s,
        num_done=num_done,
    )


def _read(storage: Storage, path: str) -> _Holder | None:
    """Return the holder that the lease names; None for no lease, or one that cannot be read and so holds nothing."""
    try:
        return msgspec.json.decode(storage.read(path), type=_Holder)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _token_of(storage: Storage, path: str) -> str | None:
    holder = _read(storage, path)
    return holder.token if holder else None


def _is_over(holder: _Holder) -> bool:
    if holder.expires_at < time.time():
        return True
    return holder.host == _host() and _process(int(holder.process.split(":")[0])) != holder.process


def _host() -> str:
    """Return a name for this boot of this host, so that a restarted machine does not respect its old leases."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}:{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return socket.gethostname()


def _process(pid: int) -> str:
    """Return `pid:start`, where start tells the process from a later one with the same number; "pid:" if it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        alive = _is_alive(pid)
        return f"{pid}:unknown" if alive else f"{pid}:"
    state, start_ticks = after_name[0], after_name[19]
    return f"{pid}:" if state in "ZX" else f"{pid}:{start_ticks}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
