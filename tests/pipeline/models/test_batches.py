import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from itertools import count, islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BrokenModelError, WorkError
from pipeline.models.batches import Batcher, BatchReport, Health
from pipeline.sample import Drop
from schemas.reasons import Reason, Stage


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


class FakeModel:
    """Doubles numbers; `complain` raises for the batches it does not like. Remembers the size of each call."""

    def __init__(self, complain: Callable[[Sequence[int]], None] = lambda batch: None) -> None:
        self.complain = complain
        self.sizes: list[int] = []

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.sizes.append(len(batch))
        self.complain(batch)
        return [2 * number for number in batch]


def batcher(call: Callable, batch_size: int) -> Batcher:
    return Batcher(call, name="fake", stage=Stage.CAPTION, batch_size=batch_size)


def raise_for(bad: set[int], error: Exception) -> Callable[[Sequence[int]], None]:
    def complain(batch: Sequence[int]) -> None:
        if bad & set(batch):
            raise error

    return complain


def out_of_memory_above(limit: int, monsters: frozenset[int] = frozenset()) -> Callable[[Sequence[int]], None]:
    def complain(batch: Sequence[int]) -> None:
        if len(batch) > limit or monsters & set(batch):
            raise OutOfMemoryError("no memory")

    return complain


def test_batches_have_the_asked_size_and_the_last_is_ragged():
    model = FakeModel()
    assert list(batcher(model, 4).run(range(10))) == [(n, 2 * n) for n in range(10)]
    assert model.sizes == [4, 4, 2]


def test_no_items_no_call():
    model = FakeModel()
    assert list(batcher(model, 4).run([])) == []
    assert model.sizes == []


def test_one_poison_in_512_costs_itself_alone_and_few_calls():
    model = FakeModel(raise_for({300}, ValueError("bad pixels")))
    outcomes = list(batcher(model, 512).run(range(512)))
    assert [item for item, _ in outcomes] == list(range(512))
    assert [result for item, result in outcomes if item != 300] == [2 * n for n in range(512) if n != 300]
    drop = outcomes[300][1]
    assert isinstance(drop, Drop)
    assert (drop.reason, drop.stage) == (Reason.MODEL_ERROR, Stage.CAPTION)
    assert drop.message == "ValueError: bad pixels"
    assert len(model.sizes) == 2 * 9 + 1


@given(num_items=st.integers(0, 40), batch_size=st.integers(1, 17), bad=st.sets(st.integers(0, 39)))
def test_exactly_the_bad_items_fail_in_order(num_items, batch_size, bad):
    runner = batcher(FakeModel(raise_for(bad, RuntimeError("bad"))), batch_size)
    outcomes = list(runner.run(range(num_items)))
    assert [item for item, _ in outcomes] == list(range(num_items))
    for item, result in outcomes:
        assert isinstance(result, Drop) if item in bad else result == 2 * item
    assert runner.batch_size == batch_size


def test_out_of_memory_halves_and_remembers():
    model = FakeModel(out_of_memory_above(7))
    runner = batcher(model, 16)
    assert list(runner.run(range(34))) == [(n, 2 * n) for n in range(34)]
    assert model.sizes == [16, 8, *[4] * 8, 2]
    assert runner.batch_size == 4
    assert list(runner.run(range(4))) == [(n, 2 * n) for n in range(4)]
    assert model.sizes[-1] == 4


@given(
    num_items=st.integers(1, 40),
    batch_size=st.integers(1, 17),
    limit=st.integers(1, 20),
    monsters=st.frozensets(st.integers(0, 39), max_size=3),
)
def test_only_items_that_do_not_fit_alone_are_out_of_memory(num_items, batch_size, limit, monsters):
    runner = batcher(FakeModel(out_of_memory_above(limit, monsters)), batch_size)
    for position, (item, result) in enumerate(runner.run(range(num_items))):
        assert item == position
        assert result.reason is Reason.OOM if item in monsters else result == 2 * item


@pytest.mark.parametrize("monster", [0, 5, 15])
def test_one_item_too_large_for_memory_does_not_shrink_later_batches(monster):
    model = FakeModel(out_of_memory_above(99, frozenset({monster})))
    runner = batcher(model, 16)
    outcomes = list(runner.run(range(48)))
    assert [item for item, result in outcomes if isinstance(result, Drop)] == [monster]
    assert runner.batch_size == 16
    assert model.sizes[-2:] == [16, 16]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError("slow"), Reason.TIMEOUT),
        (MemoryError(), Reason.OOM),
        (OutOfMemoryError("cuda"), Reason.OOM),
        (RuntimeError("CUDA error: out of memory"), Reason.OOM),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), Reason.OOM),
        (OSError("disk"), Reason.MODEL_ERROR),
        (AssertionError("shape"), Reason.MODEL_ERROR),
        (StopIteration(), Reason.MODEL_ERROR),
    ],
)
def test_reasons(error, reason):
    (_, first), (_, second) = batcher(FakeModel(raise_for({1}, error)), 2).run([0, 1])
    assert first == 0
    assert (second.reason, second.stage) == (reason, Stage.CAPTION)
    assert second.traceback_hash


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_through(error):
    def interrupted(batch: Sequence[int]) -> list[int]:
        raise error

    with pytest.raises(error):
        list(batcher(interrupted, 2).run([0, 1]))


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3]])
def test_a_wrong_number_of_results_is_a_bug_named_by_its_backend(results):
    with pytest.raises(RuntimeError, match=rf"fake returned {len(results)} results for 2 items"):
        list(batcher(lambda batch: results, 2).run([0, 1]))


def test_errors_of_the_stream_pass_through():
    def broken_stream():
        yield 1
        raise OSError("storage")

    with pytest.raises(OSError, match="storage"):
        list(batcher(FakeModel(), 4).run(broken_stream()))


def test_an_endless_stream_is_read_a_batch_at_a_time():
    numbers = count()
    stream = batcher(FakeModel(), 4).run(numbers)
    assert [item for item, _ in islice(stream, 5)] == [0, 1, 2, 3, 4]
    assert next(numbers) == 8


def test_no_more_than_one_batch_is_held():
    class Thing:
        pass

    alive: weakref.WeakSet[Thing] = weakref.WeakSet()

    def things():
        for _ in range(20):
            thing = Thing()
            alive.add(thing)
            most.append(len(alive))
            yield thing
            del thing

    most: list[int] = []
    gc.disable()  # the count must not depend on the collector
    try:
        for item, _ in batcher(lambda batch: [0] * len(batch), 4).run(things()):
            del item
    finally:
        gc.enable()
    assert max(most) <= 4


def test_batch_size_is_checked():
    with pytest.raises(ValueError, match="fake: batch_size must be at least 1, not 0"):
        batcher(FakeModel(), 0)


@pytest.mark.parametrize("error", [RuntimeError, TimeoutError, OutOfMemoryError])
@pytest.mark.parametrize("batch_size", [1, 4, 8, 32])
def test_a_model_that_fails_on_everything_stops_the_work(error: type[Exception], batch_size: int):
    def broken(batch: Sequence[int]) -> list[int]:
        raise error("an illegal memory access")

    with pytest.raises(WorkError, match="fake failed on 8 items in a row in the same way"):
        list(batcher(broken, batch_size).run(range(40)))


def test_a_model_that_breaks_later_stops_the_work_later():
    """A picture may have many bad crops, one after the other; a device that is gone fails on those of many pictures."""

    def breaking(batch: Sequence[int]) -> list[int]:
        if max(batch) >= 10:
            raise RuntimeError("an illegal memory access")
        return list(batch)

    outcomes = [outcome for _, outcome in batcher(breaking, 5).run(range(10 + 63))]
    assert sum(isinstance(outcome, Drop) for outcome in outcomes) == 63
    with pytest.raises(WorkError, match="64 items in a row"):
        list(batcher(breaking, 5).run(range(10 + 64)))


def test_what_was_seen_of_a_model_holds_for_later_units():
    """Eight bad pictures at the beginning of a shard do not stop a model that answered in the shard before."""

    def breaking(batch: Sequence[int]) -> list[int]:
        if min(batch) < 8:
            raise RuntimeError("bad pixels")
        return list(batch)

    def unit(health: Health) -> list[int | Drop]:
        runner = Batcher(breaking, name="fake", stage=Stage.CAPTION, batch_size=4, health=health)
        return [outcome for _, outcome in runner.run(range(20))]

    with pytest.raises(BrokenModelError, match="8 items in a row"):
        unit(Health())
    assert sum(isinstance(outcome, Drop) for outcome in unit(Health(has_answered=True))) == 8


def test_errors_in_a_row_are_counted_over_small_units():
    def broken(batch: Sequence[int]) -> list[int]:
        raise RuntimeError("a library that does not fit")

    health = Health()

    def unit() -> list[Any]:
        return list(Batcher(broken, name="fake", stage=Stage.CAPTION, batch_size=4, health=health).run(range(5)))

    assert len(unit()) == 5
    with pytest.raises(BrokenModelError):
        unit()


def test_answers_between_errors_show_that_a_model_works():
    low = Drop(reason=Reason.LOW_CONFIDENCE, stage=Stage.CAPTION, message="0.04")

    def call(batch: Sequence[int]) -> list[int | Drop]:
        if any(number % 10 == 0 for number in batch):
            raise RuntimeError("bad crop")
        return [low] * len(batch)

    outcomes = [outcome for _, outcome in batcher(call, 8).run(range(500))]
    assert sum(outcome is not low for outcome in outcomes) == 50


def test_a_gpu_that_is_lost_stops_the_work_at_once():
    def lost(batch: Sequence[int]) -> list[int]:
        if 30 in batch:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return list(batch)

    with pytest.raises(BrokenModelError, match="device-side assert"):
        list(batcher(lost, 4).run(range(40)))


def test_what_a_backend_refuses_is_no_sign_that_it_is_broken():
    refusal = Drop(reason=Reason.MODEL_ERROR, stage=Stage.CAPTION, message="the server refuses the picture")
    outcomes = [outcome for _, outcome in batcher(lambda batch: [refusal] * len(batch), 8).run(range(100))]
    assert outcomes == [refusal] * 100


def test_a_few_items_that_all_fail_are_bad_items():
    def bad(batch: Sequence[int]) -> list[int]:
        raise RuntimeError("bad crop")

    outcomes = [outcome for _, outcome in batcher(bad, 8).run(range(7))]
    assert [isinstance(outcome, Drop) for outcome in outcomes] == [True] * 7


def test_inputs_prepared_ahead_are_let_go_before_a_smaller_batch_is_tried():
    class Inputs:
        def __init__(self, numbers: Sequence[int]) -> None:
            self.numbers = list(numbers)

    alive: weakref.WeakSet[Inputs] = weakref.WeakSet()
    most: list[int] = []

    def prepare(batch: Sequence[int]) -> Inputs:
        inputs = Inputs(batch)
        alive.add(inputs)
        return inputs

    def call(inputs: Inputs) -> list[int]:
        most.append(sum(len(one.numbers) for one in alive))
        if len(inputs.numbers) > 2:
            raise OutOfMemoryError
        return inputs.numbers

    runner: Batcher[int, int] = Batcher(call, prepare=prepare, name="fake", stage=Stage.CAPTION, batch_size=8)
    gc.disable()
    try:
        assert [outcome for _, outcome in runner.run(range(8))] == list(range(8))
    finally:
        gc.enable()
    assert most[0] == 8
    assert max(most[1:]) <= 4  # never the eight of the first call again


class FakePreparedModel(FakeModel):
    """Takes its numbers as a tuple that `prepare` made on another thread; `spoil` raises for some numbers there."""

    def __init__(self, spoil: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.spoil = spoil
        self.prepared: list[tuple[int, ...]] = []
        self.threads: set[str] = set()

    def prepare(self, batch: Sequence[int]) -> tuple[int, ...]:
        self.threads.add(threading.current_thread().name)
        if self.spoil in batch:
            raise ValueError("cannot be resized")
        self.prepared.append(tuple(batch))
        return tuple(batch)

    def __call__(self, batch: Sequence[int]) -> list[int]:
        assert isinstance(batch, tuple)
        return super().__call__(batch)


def prepared_batcher(model: FakePreparedModel, batch_size: int) -> Batcher:
    return Batcher(model, prepare=model.prepare, name="fake", stage=Stage.CAPTION, batch_size=batch_size)


def test_a_thread_prepares_the_next_batch_while_the_model_has_this_one():
    seen: list[int] = []
    model = FakePreparedModel()
    model.complain = lambda batch: seen.append(len(model.prepared))
    ready = threading.Event()
    prepare = model.prepare

    def slow_model(batch: tuple[int, ...]) -> list[int]:
        assert 8 in batch or ready.wait(10)  # the second batch is prepared before the first one is done
        return model(batch)

    def announced(batch: Sequence[int]) -> tuple[int, ...]:
        if 4 in batch:
            ready.set()
        return prepare(batch)

    runner: Batcher[int, int] = Batcher(slow_model, prepare=announced, name="fake", stage=Stage.CAPTION, batch_size=4)
    assert list(runner.run(range(10))) == [(n, 2 * n) for n in range(10)]
    assert model.prepared == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    assert threading.current_thread().name not in model.threads


@given(num_items=st.integers(0, 30), batch_size=st.integers(1, 9), limit=st.integers(1, 9), bad=st.integers(0, 29))
def test_prepared_batches_lose_nothing(num_items, batch_size, limit, bad):
    model = FakePreparedModel(spoil=bad, complain=out_of_memory_above(limit))
    outcomes = list(prepared_batcher(model, batch_size).run(range(num_items)))
    assert [item for item, _ in outcomes] == list(range(num_items))
    for item, result in outcomes:
        assert result.message == "ValueError: cannot be resized" if item == bad else result == 2 * item


def test_two_batches_at_most_are_taken_ahead():
    numbers = count()
    stream = prepared_batcher(FakePreparedModel(), 4).run(numbers)
    assert next(stream) == (0, 0)
    assert next(numbers) == 8
    stream.close()


def test_one_item_can_fail_by_itself_without_bisection():
    drop = Drop(reason=Reason.EMPTY_CAPTION, stage=Stage.CAPTION, message="nothing")
    calls = []

    def call(batch: Sequence[int]) -> list[int | Drop]:
        calls.append(len(batch))
        return [drop if number == 2 else number for number in batch]

    assert [outcome for _, outcome in batcher(call, 4).run(range(4))] == [0, 1, drop, 3]
    assert calls == [4]


def test_an_error_of_the_whole_work_passes_through():
    def gone(batch: Sequence[int]) -> list[int]:
        raise WorkError("the server is gone")

    with pytest.raises(WorkError, match="the server is gone"):
        list(batcher(gone, 4).run(range(4)))


@given(costs=st.lists(st.sampled_from([0.25, 0.5, 1.0, 3.0, 9.0]), max_size=40), limit=st.floats(0.5, 9))
def test_batches_are_filled_by_cost(costs, limit):
    items = list(enumerate(costs))
    seen = []

    def call(batch: Sequence[tuple[int, float]]) -> list[int]:
        seen.append([cost for _, cost in batch])
        if len(batch) > 1 and sum(seen[-1]) > limit:
            raise OutOfMemoryError
        return [number for number, _ in batch]

    runner = Batcher(call, name="fake", stage=Stage.CAPTION, batch_size=4, cost=lambda item: item[1])
    assert [outcome for _, outcome in runner.run(items)] == list(range(len(items)))
    assert all(len(batch) == 1 or sum(batch) <= 4 for batch in seen)
    if limit >= 4:  # memory was never short: no batch could have taken the item that follows it
        for batch, following in pairwise(seen):
            assert sum(batch) + following[0] > 4 or sum(batch) >= 4


def test_the_report_says_what_was_learned_and_how_busy_the_model_was():
    runner = batcher(FakeModel(out_of_memory_above(7)), 16)
    list(runner.run(range(34)))
    report = runner.report
    assert (report.batch_size, report.learned_size, report.items, report.calls) == (16, 4, 34, 11)
    assert report.model_s > 0
    report.add(BatchReport(batch_size=16, learned_size=2, items=6, calls=3))
    assert (report.learned_size, report.items, report.calls) == (2, 40, 14)


def run_groups(sizes: list[int], batch_size: int, window: int | None, *, ahead: bool) -> tuple[list[int], list[int]]:
    """Return the groups as they came out and the sizes of the batches; checks what each group was given."""
    model, got = FakeModel(), []
    runner: Batcher = Batcher(
        model,
        prepare=list if ahead else None,
        name="fake",
        stage=Stage.CAPTION,
        batch_size=batch_size,
    )
    outcomes: dict[int, list[tuple[int, int]]] = {number: [] for number in range(len(sizes))}
    groups = runner.run_groups(
        range(len(sizes)),
        lambda group: (10 * group + number for number in range(sizes[group])),
        lambda group, item, outcome: outcomes[group].append((item, outcome)),
        window=window,
    )
    for group in groups:
        items = [10 * group + number for number in range(sizes[group])]
        assert outcomes[group] == [(item, 2 * item) for item in items]
        got.append(group)
    return got, model.sizes


@given(
    sizes=st.lists(st.integers(0, 9), max_size=30),
    batch_size=st.integers(1, 12),
    window=st.none() | st.integers(1, 6),
)
def test_groups_come_out_in_order_and_batches_do_not_depend_on_looking_ahead(sizes, batch_size, window):
    got, batches = run_groups(sizes, batch_size, window, ahead=False)
    assert got == list(range(len(sizes)))
    assert sum(batches) == sum(sizes)
    assert run_groups(sizes, batch_size, window, ahead=True) == (got, batches)


def test_a_batch_is_not_kept_waiting_for_more_than_a_window_of_groups():
    _, batches = run_groups([1, 0, 0, 0, 1, 0, 1, 0, 1], 64, 3, ahead=False)
    assert batches == [1, 2, 1]


def test_a_group_without_items_goes_on_at_once_where_none_waits():
    drawn = []

    def groups():
        for number in range(6):
            drawn.append(number)
            yield number

    stream = batcher(FakeModel(), 4).run_groups(groups(), lambda group: (), lambda group, item, outcome: None)
    assert next(stream) == 0 and drawn == [0]


def test_a_work_error_while_preparing_stops_the_work():
    def prepare(batch: Sequence[int]) -> list[int]:
        raise WorkError("the server is gone")

    runner: Batcher = Batcher(FakeModel(), prepare=prepare, name="fake", stage=Stage.CAPTION, batch_size=4)
    with pytest.raises(WorkError, match="gone"):
        list(runner.run(range(10)))
