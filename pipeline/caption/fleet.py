"""Several servers of one model that share the requests: one that is gone is left out until it answers again."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from pipeline.caption.client import Client
from pipeline.caption.patience import PatientServer, Sleep
from pipeline.errors import ServerGoneError
from pipeline.sample import Drop

_SHORT_PATIENCE_S = 10.0
"""How long requests wait for a server that is gone while others are there."""
_AWAY_S = 30.0
"""How long it is left out before one request tries it again."""

Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Member:
    client: Client
    server: PatientServer
    under_way: int = 0
    away_until: float = float("-inf")
    is_suspect: bool = False
    """It was gone, and has not answered since: one request at a time tries it."""


class Fleet:
    """One server or several. For many threads."""

    def __init__(
        self,
        clients: Sequence[Client],
        probe: Callable[[Client], object],
        *,
        tries: int,
        patience_s: float,
        per_minute: int | None,
    ) -> None:
        """Each server has a `PatientServer` of its own, for which these settings are."""
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._members = [
            _Member(
                client=client,
                server=PatientServer(client, probe, tries=tries, patience_s=patience_s, per_minute=per_minute),
            )
            for client in clients
        ]

    def start(self, start_s: float, *, began: float | None = None) -> None:
        """Return when all servers have answered, which are waited for at once, from `began` (monotonic seconds) on.

        Raises as `PatientServer.start` does; the first that fails ends the waiting for the others.
        """
        began = time.monotonic() if began is None else began
        failed = threading.Event()

        def sleep(seconds: float) -> None:
            if failed.wait(max(seconds, 0)):
                raise CancelledError

        with ThreadPoolExecutor(len(self._members), thread_name_prefix="caption server") as pool:
            starting = [pool.submit(member.server.start, start_s, began, sleep) for member in self._members]
            wait(starting, return_when=FIRST_EXCEPTION)
            failed.set()
        errors = [error for one in starting if (error := one.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, CancelledError)):
            raise error

    def ask(self, request: Callable[[Client], Answer], item: str, sleep: Sleep = time.sleep) -> Answer | Drop:
        """Return what a server answers, as `PatientServer.ask` does; ServerGoneError where the last one is gone."""
        while True:
            member, is_last = self._chosen()
            patience_s = self._patience_s if is_last else min(_SHORT_PATIENCE_S, self._patience_s)
            try:
                answer = member.server.ask(request, item, sleep, patience_s=patience_s)
            except ServerGoneError as error:
                with self._lock:
                    member.under_way -= 1
                    was_up, member.is_suspect = not member.is_suspect, True
                    member.away_until = time.monotonic() + _AWAY_S
                if is_last:
                    raise
                if was_up:
                    _log.warning("%s; meanwhile the other servers are asked", error)
            except BaseException:
                with self._lock:
                    member.under_way -= 1
                raise
            else:
                with self._lock:
                    member.under_way -= 1
                    member.is_suspect = False
                return answer

    def _chosen(self) -> tuple[_Member, bool]:
        """Return the server with the fewest requests under way, counted as having one more, and whether it is the last.

        Where all are away, the one that went first is asked again.
        """
        with self._lock:
            now = time.monotonic()
            up = [
                member
                for member in self._members
                if member.away_until <= now and not (member.is_suspect and member.under_way)
            ]
            sure = [member for member in up if not member.is_suspect]
            member = min(up, key=_load) if up else min(self._members, key=lambda member: member.away_until)
            member.under_way += 1
            return member, not [other for other in sure if other is not member]


def _load(member: _Member) -> int:
    return member.under_way
