"""Calls a model batch by batch, keeps the order, and lets one bad item cost itself alone.

items --batches of batch_size places, in stream order--> prepare (a batch ahead) --> call --> (item, result | Drop)
                 an error: bisect until the bad item is alone     out of memory: halve, remember, retry
"""

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import msgspec

from pipeline.errors import BrokenModelError, WorkError
from pipeline.models.device import enter_thread, release_memory
from pipeline.sample import Drop, drop_of
from schemas.reasons import Reason, Stage

_BROKEN_FROM_THE_START, _BROKEN_LATER = 8, 64
"""Errors alike in a row from which on the model is broken, not its items: before it ever answered, and after."""
_LOST = ("cuda error", "device-side assert", "cudnn_status", "cublas_status")
"""What messages say when a GPU's context is gone: whatever is asked next in this process fails too."""

Item = TypeVar("Item")
Group = TypeVar("Group")
Result = TypeVar("Result")


class _Slot(Generic[Group]):
    """A group whose items are with the model, or still to come."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.num_left = 0
        """Items listed whose outcome is not there yet."""
        self.is_listed = False
        """Whether no more items will come."""

    @property
    def is_done(self) -> bool:
        return self.is_listed and self.num_left == 0


_Batch = list[tuple[_Slot[Group], Item]]


class BatchReport(msgspec.Struct, kw_only=True):
    """What a model's batches came to in a unit of work; for the run's log, never for a shard."""

    batch_size: int
    """Places a batch, as asked for."""
    learned_size: int
    """Places a batch once the model ran out of memory; `batch_size` where it never did."""
    items: int = 0
    calls: int = 0
    """Of the model, those that failed and those that bisect a failed batch included."""
    unfinished: int = 0
    """Answers that were cut short, kept or not."""
    restarts: int = 0
    """Times that the worker's own server of the model was started again."""
    model_s: float = 0.0
    """Seconds in the model's calls."""
    waited_s: float = 0.0
    """Seconds that the model stood still because its next inputs were not prepared yet."""

    def add(self, other: "BatchReport") -> None:
        """Add another unit's figures; of the learned sizes the smaller one stays."""
        self.learned_size = min(self.learned_size, other.learned_size)
        self.items += other.items
        self.calls += other.calls
        self.unfinished += other.unfinished
        self.restarts += other.restarts
        self.model_s += other.model_s
        self.waited_s += other.waited_s


class Health:
    """What a worker has seen of a model, over all its units: whether it ever answered, and its errors in a row.

    It decides only when to stop, never what is in a batch, so no byte depends on what a worker did before.
    """

    def __init__(self, *, has_answered: bool = False) -> None:
        """Begin with nothing seen, or with a model that has answered already."""
        self._has_answered = has_answered
        self._last_origin: tuple[Reason, str] | None = None
        self.num_alike = 0
        """Items in a row that raised the same error."""

    def is_broken_by(self, outcome: object) -> bool:
        """Return whether this outcome, after those before it, is that of a broken model.

        A drop that the backend itself returned for an item is an answer about that item.
        """
        if not isinstance(outcome, Drop) or outcome.traceback_hash is None:
            self._has_answered = True
            self._last_origin, self.num_alike = None, 0
            return False
        origin = (outcome.reason, outcome.traceback_hash)
        self.num_alike = self.num_alike + 1 if origin == self._last_origin else 1
        self._last_origin = origin
        is_lost = outcome.reason is not Reason.OOM and any(sign in outcome.message.lower() for sign in _LOST)
        return is_lost or self.num_alike >= (_BROKEN_LATER if self._has_answered else _BROKEN_FROM_THE_START)


class Batcher(Generic[Item, Result]):
    """Runs a proposer or captioner over a stream of items.

    Batches depend on the order of the items alone, never on timing, so equal streams give equal batches. What a
    `Batcher` learned about memory holds for its later streams; each unit of work has one of its own, so that its
    batches do not depend on the units a worker had before.
    """

    batch_size: int
    """Places of the next batch: as asked for, or less once the model ran out of memory."""

    def __init__(
        self,
        call: Callable[[Any], Sequence[Result | Drop]],
        *,
        name: str,
        stage: Stage,
        batch_size: int,
        prepare: Callable[[Sequence[Item]], Any] | None = None,
        cost: Callable[[Item], float] | None = None,
        health: Health | None = None,
    ) -> None:
        """Wrap `call`, which returns one result an item, in order, or the drop of that item.

        It is called with what `prepare` made of a batch, or without a `prepare` with the batch. `prepare` runs on a
        thread of its own, one batch ahead of the model. `cost` says how many of the `batch_size` places an item takes
        (1 by default). `health` is what is known of the model from before. `name` is the backend's, for errors; `stage`
        goes into the drops. Raises ValueError for a `batch_size` below 1.
        """
        if batch_size < 1:
            raise ValueError(f"{name}: batch_size must be at least 1, not {batch_size}")
        self._call = call
        self._prepare = prepare
        self._cost = cost or _one_place
        self._name = name
        self._stage = stage
        self.batch_size = batch_size
        self._health = health or Health()
        self.report = BatchReport(batch_size=batch_size, learned_size=batch_size)

    def run(self, items: Iterable[Item]) -> Iterator[tuple[Item, Result | Drop]]:
        """Yield each item with its result, or with why it has none, in order; as `run_groups` does it."""
        outcomes: deque[Result | Drop] = deque()

        def take(group: Item, item: Item, outcome: Result | Drop) -> None:
            outcomes.append(outcome)

        for item in self.run_groups(items, lambda item: (item,), take):
            yield item, outcomes.popleft()
            del item  # or it would be held while the next batch is read

    def run_groups(
        self,
        groups: Iterable[Group],
        items: Callable[[Group], Iterable[Item]],
        take: Callable[[Group, Item, Result | Drop], None],
        *,
        window: int | None = None,
    ) -> Iterator[Group]:
        """Yield each group, in order, once `take` was given the outcome of each of its items.

        Batches are filled across groups. One that is not full goes to the model when `window` groups have ended since
        its first item: a count of groups, whatever was read ahead. A group without items goes on when those before it
        have.

        Lazy: one batch, and with a `prepare` one more, is taken from `groups` and held at a time. Any Exception of the
        call is taken for one of the model: its batch is bisected until the items that raise it are alone. A WorkError
        is one of the whole work, and passes through, as errors of `groups` do. Raises RuntimeError, naming the backend,
        where the number of results is not that of items.
        """
        waiting: deque[_Slot[Group]] = deque()
        for batch, prepared in self._ahead(self._filled(groups, items, waiting, window)):
            if batch:
                outcomes = list(self._unless_broken(self._isolate([item for _, item in batch], prepared)))
                self.report.items += len(batch)
                self.report.learned_size = self.batch_size
                for (slot, item), outcome in zip(batch, outcomes, strict=True):
                    take(slot.group, item, outcome)
                    slot.num_left -= 1
                del slot, item, outcome, outcomes
            del batch, prepared  # or they would be held while the next batch is read
            while waiting and waiting[0].is_done:
                yield waiting.popleft().group

    def _filled(
        self,
        groups: Iterable[Group],
        items: Callable[[Group], Iterable[Item]],
        waiting: "deque[_Slot[Group]]",
        window: int | None,
    ) -> Iterator["_Batch[Group, Item]"]:
        """Yield batches that take at most `batch_size` places or are of one item; an empty one where a group can go on.

        Each group begun is put into `waiting`.
        """
        batch: _Batch[Group, Item] = []
        places, num_ended = 0.0, 0
        for group in groups:
            slot = _Slot(group)
            waiting.append(slot)
            for item in items(group):
                cost = self._cost(item)
                if batch and places + cost > self.batch_size:
                    yield batch
                    batch, places, num_ended = [], 0.0, 0
                slot.num_left += 1
                batch.append((slot, item))
                del item
                places += cost
                if places >= self.batch_size:
                    yield batch
                    batch, places, num_ended = [], 0.0, 0
            del group
            slot.is_listed = True
            num_ended += bool(batch)
            if batch and window is not None and num_ended >= window:
                yield batch
                batch, places, num_ended = [], 0.0, 0
            if waiting and waiting[0].is_done:
                yield []
        if batch:
            yield batch

    def _places(self, batch: Sequence[Item]) -> float:
        return sum(map(self._cost, batch))

    def _ahead(
        self, batches: Iterator["_Batch[Group, Item]"]
    ) -> Iterator[tuple["_Batch[Group, Item]", "_Prepared | None"]]:
        """Yield each batch with its inputs, which a thread prepares while the model has the batch before it."""
        if self._prepare is None:
            for batch in batches:
                yield batch, None
                del batch
            return
        with ThreadPoolExecutor(1, thread_name_prefix="prepare", initializer=enter_thread) as pool:
            waiting: tuple[_Batch[Group, Item], _Prepared | None] | None = None
            for batch in batches:
                inputs = [item for _, item in batch]
                started = batch, _Prepared(pool.submit(self._prepared, inputs)) if batch else None
                del batch, inputs
                if waiting is not None:
                    yield waiting
                waiting = started
            if waiting is not None:
                yield waiting

    def _unless_broken(self, outcomes: Iterator[Result | Drop]) -> Iterator[Result | Drop]:
        """Yield the outcomes; raise BrokenModelError where they tell of a model that is broken."""
        for outcome in outcomes:
            if self._health.is_broken_by(outcome):
                assert isinstance(outcome, Drop)
                times = f"{self._health.num_alike} items in a row in the same way"
                raise BrokenModelError(
                    f"{self._name} failed on {times}, each alone: {outcome.message}; nothing of this shard was kept. "
                    "If its items are to blame, --filter can leave them out"
                )
            yield outcome

    def _isolate(self, batch: list[Item], prepared: "_Prepared | None") -> Iterator[Result | Drop]:
        """Yield the outcome of each item of a batch, in order; the parts still to do wait on a stack."""
        size_before = self.batch_size
        parts = [batch]
        while parts:
            part = parts.pop()
            if len(part) > 1 and self._places(part) > self.batch_size:
                end = self._end_of_fit(part)
                parts += [part[end:], part[:end]]
                continue
            outcome = self._attempt(part, prepared if part is batch else None)
            if not isinstance(outcome, Drop):
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
                release_memory()
                self.batch_size = math.ceil(self._places(part) / 2)
            parts += [part[half:], part[:half]]

    def _end_of_fit(self, part: Sequence[Item]) -> int:
        """Return how many of the first items fit into a batch: at least one, and not all of them."""
        places = itertools.accumulate(map(self._cost, part))
        return min(max(1, sum(total <= self.batch_size for total in places)), len(part) - 1)

    def _attempt(self, part: list[Item], prepared: "_Prepared | None") -> Sequence[Result | Drop] | Drop:
        """Return the results of a part, or the drop of the part as a whole.

        The error becomes a Drop here, so that no traceback keeps the model's tensors alive during the next attempt.
        """
        started = time.perf_counter()
        inputs = self._prepared(part) if prepared is None else prepared.take()
        self.report.waited_s += time.perf_counter() - started
        if isinstance(inputs, Drop):
            return inputs
        try:
            results = self._timed_call(inputs)
        except WorkError:
            raise
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, and one item must not stop a shard
            return self._failure_of(error)
        if len(results) != len(part):
            raise RuntimeError(f"{self._name} returned {len(results)} results for {len(part)} items: a bug of its own")
        return results

    def _prepared(self, part: list[Item]) -> Any:
        """Return the call's argument for a part, or the Drop of preparing it."""
        if self._prepare is None:
            return part
        try:
            return self._prepare(part)
        except WorkError:
            raise
        except Exception as error:  # noqa: BLE001 - as below
            return self._failure_of(error)

    def _failure_of(self, error: Exception) -> Drop:
        return drop_of(error, _reason(error), self._stage)

    def _timed_call(self, inputs: Any) -> Sequence[Result | Drop]:
        started = time.perf_counter()
        try:
            return self._call(inputs)
        finally:
            self.report.calls += 1
            self.report.model_s += time.perf_counter() - started


class _Prepared:
    """The inputs of a batch, made on another thread and handed out once: nothing here keeps them alive any longer."""

    def __init__(self, future: "Future[Any]") -> None:
        self._future: Future[Any] | None = future

    def take(self) -> Any:
        """Wait for the inputs, or their Drop."""
        future, self._future = self._future, None
        assert future is not None
        return future.result()


def _one_place(item: object) -> float:
    return 1.0


def padded_size(count: int, batch_size: int) -> int:
    """Return the smallest of batch_size, batch_size / 2, / 4, ... (rounded up) that holds `count`.

    Backends pad short batches to it: few shapes to compile, and the same shape for the same number of items.
    """
    size = batch_size
    while size > 1 and (size + 1) // 2 >= count:
        size = (size + 1) // 2
    return max(size, count)


def _reason(error: Exception) -> Reason:
    # Told by name and message, as CUDA, its libraries and torch each have their own: this module must not import torch.
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    if names & {"MemoryError", "OutOfMemoryError"} or "out of memory" in text or "alloc_failed" in text:
        return Reason.OOM
    return Reason.TIMEOUT if isinstance(error, TimeoutError) else Reason.MODEL_ERROR
