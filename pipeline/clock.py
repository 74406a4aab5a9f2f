"""Where a worker's time goes, by stage of the flow. Times go to `_run/` and the closing table, never into a shard."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


class StageClock:
    """Adds up the wall time of stages; a stage entered within another takes its time away from the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the body's time as `stage`."""
        self._charge()
        self._stack.append(stage)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def timed(self, stage: str, items: Iterable[_T]) -> Iterator[_T]:
        """Yield from `items`, counting the time it takes to get each as `stage`."""
        iterator = iter(items)
        while True:
            with self(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._stack:
            stage = self._stack[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now
