"""Stopping a run from outside: a signal asks for it, the step in hand is finished and a checkpoint written."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

_AT_ONCE_S = 3.0
"""Signals this near to the first are the same wish: a process group's, and torchrun passing it on."""


@dataclass
class StopRequest:
    """Set from a signal handler: the step in hand is finished, a checkpoint written, and the run ends."""

    requested: bool = False


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request to stop after the step; a later one ends the process at once."""
    stop = StopRequest()
    first = 0.0

    def request(number: int, _: object) -> None:
        nonlocal first
        if stop.requested and time.monotonic() - first > _AT_ONCE_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not stop.requested:
            stop.requested, first = True, time.monotonic()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
