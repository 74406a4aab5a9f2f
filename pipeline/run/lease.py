"""Leases: one worker at a time on a shard, as a saving of work and not as a safeguard (`commit` is the safeguard).

A lease is a file that its holder renews from a thread. It is free to take when it has run out, or when its holder was a
process of this host that is gone: so a job that was killed can be resumed at once. One that ends later than its holder
can have meant is of a clock that goes wrong, and is free too.
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from pipeline.store.process import host, is_gone, process
from pipeline.store.storage import Storage, discards_gathered, in_parallel
from schemas.names import LEASES_DIR
from schemas.stores import asking_once

_Result = TypeVar("_Result")

_NOTE_EVERY_S = 1.0
"""How often a holder says how far it is, where that costs no request."""
_SLACK_S = 5.0
"""By which the clocks of two hosts may differ."""


class _Holder(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    host: str
    process: str
    expires_at: float
    """Seconds since the epoch, by the holder's clock."""
    timeout_s: float
    """For how long the holder takes the lease at a time."""
    run: str = ""
    """Which run the holder works for: a driver and its workers."""
    num_done: int = 0
    """Samples that the holder has finished so far: what a progress bar shows before the shard is there."""

    def seconds_left(self) -> float | None:
        """Return for how long the lease holds unless it is renewed; None for one that is free."""
        left = self.expires_at - time.time()
        if not 0 <= left <= self.timeout_s + _SLACK_S:
            return None
        return None if self.host == host() and is_gone(self.process) else left


class Hold:
    """A lease that is held, and how far its holder is."""

    def __init__(self) -> None:
        self.num_done = 0

    def advance(self) -> None:
        """Count a sample as finished."""
        self.num_done += 1


@contextlib.contextmanager
def hold(storage: Storage, name: str, timeout_s: float, *, run: str = "") -> Iterator[Hold | None]:
    """Hold the lease of `name` for the body, renewed every third of `timeout_s`; yields None if another holds it."""
    lease = _Lease(storage, f"{LEASES_DIR}/{name}.json", timeout_s, run)
    if not lease.take():
        yield None
        return
    held, stop = Hold(), threading.Event()
    renewer = threading.Thread(target=lease.keep, args=(held, stop), name="renewer", daemon=True)
    renewer.start()
    with discards_gathered() as useless:
        try:
            yield held
        finally:
            stop.set()
            renewer.join()
            lease.give_back(useless)


def unit_name(unit: int) -> str:
    """Return the name of a unit's lease."""
    return f"unit-{unit:06d}"


def seconds_left(storage: Storage, name: str) -> float | None:
    """Return for how many seconds the lease of `name` holds unless it is renewed; None if no live worker holds it."""
    holder = _read(storage, f"{LEASES_DIR}/{name}.json")
    return None if holder is None else holder.seconds_left()


def is_held(storage: Storage, name: str) -> bool:
    """Return whether a live worker holds the lease of `name`."""
    return seconds_left(storage, name) is not None


@dataclass(frozen=True, kw_only=True)
class InHand:
    """What live workers hold now, whichever driver they work for."""

    num_units: int
    num_samples: int
    """Finished by the holders, of units that are not done."""
    runs: frozenset[str]
    free_in_s: float
    """Seconds until the first lease runs out unless it is renewed."""


class Leases:
    """The leases in a folder of OUTPUT: listed at each look, each read again once its holder must have renewed it."""

    def __init__(self, storage: Storage, folder: str = LEASES_DIR) -> None:
        self._storage, self._folder = storage, folder
        self._holders: dict[str, _Holder | None] = {}
        """By the name of the file, as read last."""

    def look(self) -> dict[str, tuple["_Holder", float]]:
        """Return the live holders, and for how many seconds each holds unless it renews, by the name of the lease."""
        names = self._storage.names(self._folder)
        stale = [name for name in names if self._storage.is_local or self._may_have_changed(self._holders.get(name))]
        read = in_parallel(self._storage, lambda name: _read(self._storage, f"{self._folder}/{name}"), stale)
        fresh = dict(zip(stale, read, strict=True))
        self._holders = {name: fresh[name] if name in fresh else self._holders[name] for name in names}
        live = {name.removesuffix(".json"): holder for name, holder in self._holders.items() if holder is not None}
        left = {name: holder.seconds_left() for name, holder in live.items()}
        return {name: (live[name], seconds) for name, seconds in left.items() if seconds is not None}

    @staticmethod
    def _may_have_changed(holder: "_Holder | None") -> bool:
        """Say whether a holder is unknown, or may have said more since: remotely it does so when it renews."""
        return holder is None or time.time() > holder.expires_at - holder.timeout_s * 2 / 3

    def in_hand(self) -> InHand:
        """Return what the leases say."""
        live = self.look().values()
        return InHand(
            num_units=len(live),
            num_samples=sum(holder.num_done for holder, _ in live),
            runs=frozenset(holder.run for holder, _ in live),
            free_in_s=min((left for _, left in live), default=0.0),
        )


def this_holder() -> tuple[str, str]:
    """Return the host and the process that leases taken here name."""
    return host(), process(os.getpid())


def free(storage: Storage, name: str, holder: tuple[str, str]) -> None:
    """Remove the lease of `name` if this holder has it: for whoever knows that the holder is dead."""
    path = f"{LEASES_DIR}/{name}.json"
    held = _read(storage, path)
    if held is not None and (held.host, held.process) == holder:
        storage.remove(path)


class _Lease:
    """A lease as its holder has it."""

    def __init__(self, storage: Storage, path: str, timeout_s: float, run: str) -> None:
        self._storage, self._path, self._timeout_s, self._run = storage, path, timeout_s, run
        self._token = secrets.token_hex(8)
        self._expires_at = 0.0
        self._lost = False

    def take(self) -> bool:
        """Take the lease; False if another holds it."""
        if self._decide():
            return True
        holder = _read(self._storage, self._path)
        if holder is not None and holder.seconds_left() is not None:
            return False
        self._storage.remove(self._path)
        return self._decide()

    def _decide(self) -> bool:
        """Put the lease if there is none; anew if the store took so long that little of it is left."""
        if not self._write(self._storage.decide):
            return False
        if time.time() > self._expires_at - self._timeout_s * 2 / 3 and self._is_ours():
            self._write(self._storage.replace)
        return True

    def keep(self, held: Hold, stop: threading.Event) -> None:
        """Renew the lease in time until stopped or robbed of it; locally, whenever its holder has got on too."""
        renew_every = self._timeout_s / 3
        look_every = min(renew_every, _NOTE_EVERY_S) if self._storage.is_local else renew_every
        noted, renew_at = 0, time.monotonic() + renew_every
        while not stop.wait(look_every):
            if held.num_done == noted and time.monotonic() < renew_at:
                continue
            # A lease lost to a storage error costs work done twice, nothing else; one that is put late, another's.
            with contextlib.suppress(OSError), asking_once():
                if not self._is_ours():
                    self._lost = True
                    return
                noted, renew_at = held.num_done, time.monotonic() + renew_every
                self._write(self._storage.replace, noted)

    def give_back(self, useless: Sequence[str]) -> None:
        """Remove the lease unless another has it: one that has run out may have been taken since.

        What the work left behind goes with it, in one request.
        """
        with contextlib.suppress(OSError):  # it runs out by itself, and the work that it was for is done or lost
            ours = not self._lost and (time.time() < self._expires_at or self._is_ours())
            self._storage.remove(*([self._path] if ours else []), *useless)

    def _is_ours(self) -> bool:
        holder = _read(self._storage, self._path)
        return holder is not None and holder.token == self._token

    def _write(self, put: Callable[[str, bytes], _Result], num_done: int = 0) -> _Result:
        """Put the lease for another `timeout_s`; one that cannot be put ends when the last one does."""
        holder = _Holder(
            token=self._token,
            host=host(),
            process=process(os.getpid()),
            expires_at=time.time() + self._timeout_s,
            timeout_s=self._timeout_s,
            run=self._run,
            num_done=num_done,
        )
        result = put(self._path, msgspec.json.encode(holder))
        self._expires_at = holder.expires_at
        return result


def _read(storage: Storage, path: str) -> _Holder | None:
    """Return the holder that the lease names; None for no lease, or one that cannot be read and so holds nothing."""
    try:
        return msgspec.json.decode(storage.read(path), type=_Holder)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
