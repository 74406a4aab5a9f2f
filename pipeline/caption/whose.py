"""Whose servers are asked: some that are there already, or one that the worker starts, and ends, itself."""

from typing import Any

from pipeline.caption.managed import ManagedServer, words_of
from pipeline.caption.secrets import redacted
from pipeline.models.device import Device


class Theirs:
    """Servers that are there already: nothing of them is ours to start, to watch or to tell of."""

    start_s = 10.0
    """Seconds in which a server must first answer, where nobody says how many."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls

    def wait_until_there(self, start_s: float) -> None:
        """Return when the servers can be asked. Raises WorkError where they cannot within `start_s`."""

    def started(self) -> None:
        """Note that all have answered a first time."""

    def patience_s(self, patience_s: float, start_s: float) -> float:
        """Return the seconds that one is waited for which has answered, of those that users give."""
        return patience_s

    def check(self) -> None:
        """Raise WorkError where there is no use in asking any more."""

    def answered(self) -> None:
        """Note that there was an answer."""

    def new_restarts(self) -> int:
        """Return how many times a server was started again since this was last asked."""
        return 0

    def provenance(self) -> dict[str, Any]:
        """Return what the provenance tells of the servers."""
        return {}


class Ours(Theirs):
    """One that runs a command of the user's, on the worker's own GPU."""

    start_s = 1800.0

    def __init__(self, command: str, *, device: Device) -> None:
        """Start it. Raises WorkError where there is no such program."""
        self.managed = ManagedServer(command, device=device)

    def wait_until_there(self, start_s: float) -> None:
        """Return when it listens, and its address is known. Raises WorkError where it does not within `start_s`."""
        self.managed.wait_until_there(start_s)
        self.urls = [self.managed.url]

    def started(self) -> None:
        """Ask it for its version."""
        self.version = self.managed.version()

    def patience_s(self, patience_s: float, start_s: float) -> float:
        """Return at least the time of a start: one that died is started again."""
        return max(patience_s, start_s)

    def check(self) -> None:
        """Raise WorkError where it ended twice without an answer in between."""
        self.managed.check()

    def answered(self) -> None:
        """Note that it works: should it end now, it is started again."""
        self.managed.answered()

    def new_restarts(self) -> int:
        """Return how many times it was started again since this was last asked."""
        return self.managed.new_restarts()

    def provenance(self) -> dict[str, Any]:
        """Return its command, without secrets and port, and its version."""
        return {"server": {"command": redacted(words_of(self.managed.command)), "version": self.version}}
