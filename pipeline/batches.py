"""Calls a model batch by batch, keeps the order, and lets one bad item cost itself alone.

items --batches of batch_size, in stream order--> call --> (item, result | Failure), in the same order
                 an error: bisect until the bad item is alone     out of memory: halve, remember, retry
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

from pipeline.errors import WorkError
from pipeline.failures import Failure, failure_of
from schemas.reasons import Reason, Stage

_BROKEN_AT = 8
"""Items of a batch from which on it is told from a few bad items that they all fail alike."""
_BROKEN = (Reason.MODEL_ERROR, Reason.TIMEOUT)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Runs a proposer or captioner over a stream of items.

    Batches depend on the order of the items alone, never on timing, so equal streams give equal batches. What a
    `Batcher` learned about memory holds for its later streams; each unit of work has one of its own, so that its
    batches do not depend on the units a worker had before.
    """

    batch_size: int
    """Items of the next batch: as asked for, or less once the model ran out of memory."""

    def __init__(
        self, call: Callable[[Sequence[Item]], Sequence[Result]], *, name: str, stage: Stage, batch_size: int
    ) -> None:
        """Wrap `call`, which returns one result an item, in order.

        `name` is the backend's, for errors; `stage` goes into the failures. Raises ValueError for a `batch_size`
        below 1.
        """
        if batch_size < 1:
            raise ValueError(f"{name}: batch_size must be at least 1, not {batch_size}")
        self._call = call
        self._name = name
        self._stage = stage
        self.batch_size = batch_size

    def run(self, items: Iterable[Item]) -> Iterator[tuple[Item, Result | Failure]]:
        """Yield each item with its result, or with why it has none, in the order of `items`.

        Lazy: one batch is taken from `items` and held at a time; only the last is smaller. Any Exception of the call is
        taken for one of the model: its batch is bisected until the items that raise it are alone. Errors of `items`
        itself pass through. Raises RuntimeError, naming the backend, where the number of results is not that of items.
        """
        stream = iter(items)
        while batch := list(islice(stream, self.batch_size)):
            outcomes = list(self._isolate(batch))
            self._stop_if_broken(outcomes)
            yield from zip(batch, outcomes, strict=True)
            del batch, outcomes  # or they would be held while the next batch is read

    def _stop_if_broken(self, outcomes: Sequence[Result | Failure]) -> None:
        """Raise WorkError where all items of a batch failed in the same way: that is the model, and nothing to keep."""
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        origins = {(failure.reason, failure.traceback_hash) for failure in failures}
        if len(failures) == len(outcomes) >= _BROKEN_AT and len(origins) == 1 and failures[0].reason in _BROKEN:
            raise WorkError(
                f"{self._name} failed on all {len(outcomes)} items of a batch in the same way, on each alone too: "
                f"{failures[0].message}; nothing of this shard was kept"
            )

    def _isolate(self, batch: list[Item]) -> Iterator[Result | Failure]:
        """Yield the outcome of each item of a batch, in order; the parts still to do wait on a stack."""
        size_before = self.batch_size
        parts = [batch]
        while parts:
            part = parts.pop()
            if len(part) > self.batch_size:
                parts += [part[self.batch_size :], part[: self.batch_size]]
                continue
            outcome = self._attempt(part)
            if not isinstance(outcome, Failure):
                yield from outcome
                continue
            out_of_memory = outcome.reason is Reason.OOM
            if len(part) == 1:
                if out_of_memory:
                    # What does not fit alone says nothing about the size of batches: unlearn what it taught.
                    self.batch_size = size_before
                yield outcome
                continue
            half = (len(part) + 1) // 2
            if out_of_memory:
                self.batch_size = half
            parts += [part[half:], part[:half]]

    def _attempt(self, part: list[Item]) -> Sequence[Result] | Failure:
        """Return the results of a part, or the failure of the part as a whole.

        The error becomes a Failure here, so that no traceback keeps the model's tensors alive during the next attempt.
        """
        try:
            results = self._call(part)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, and one item must not stop a shard
            return failure_of(error, _reason(error), self._stage)
        if len(results) != len(part):
            raise RuntimeError(f"{self._name} returned {len(results)} results for {len(part)} items: a bug of its own")
        return results


def padded_size(count: int, batch_size: int) -> int:
    """Return the smallest of batch_size, batch_size / 2, / 4, ... (rounded up) that holds `count`.

    Backends pad short batches to it: few shapes to compile, and the same shape for the same number of items.
    """
    size = batch_size
    while size > 1 and (size + 1) // 2 >= count:
        size = (size + 1) // 2
    return max(size, count)


def _reason(error: Exception) -> Reason:
    # torch's OutOfMemoryError is told by name: this module must not import torch.
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return Reason.OOM
    return Reason.TIMEOUT if isinstance(error, TimeoutError) else Reason.MODEL_ERROR
