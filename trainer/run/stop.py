"""Stopping a run from outside: a signal asks for it, the step in hand is finished and a checkpoint written."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class StopRequest:
    """Set from a signal handler: the step in hand is finished, a checkpoint written, and the run ends."""

    requested: bool = False


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request to stop after the step; the second one ends the process."""
    stop = StopRequest()

    def request(number: int, _: object) -> None:
        stop.requested = True
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
