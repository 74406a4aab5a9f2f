"""Times of stages add up, by a clock that the test moves."""

from collections.abc import Iterator

import pytest

from pipeline.clock import StageClock


class FakeTime:
    """Stands for `time`: it passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The time that `pipeline.clock` reads."""
    fake = FakeTime()
    monkeypatch.setattr("pipeline.clock.time", fake)
    return fake


def test_times_of_a_stage_add_up(fake_time: FakeTime) -> None:
    clock = StageClock()
    for seconds in (1, 2):
        fake_time.pass_(10)  # between stages: nobody's
        with clock("read"):
            fake_time.pass_(seconds)
    assert clock.seconds == {"read": 3}


def test_an_inner_stage_takes_its_time_away_from_the_outer(fake_time: FakeTime) -> None:
    clock = StageClock()
    with clock("write"):
        fake_time.pass_(1)
        with clock("caption"):
            fake_time.pass_(5)
        fake_time.pass_(2)
    assert clock.seconds == {"write": 3, "caption": 5}


def test_time_of_an_error_counts(fake_time: FakeTime) -> None:
    clock = StageClock()
    with pytest.raises(ZeroDivisionError), clock("read"):
        fake_time.pass_(4)
        raise ZeroDivisionError
    fake_time.pass_(100)
    assert clock.seconds == {"read": 4}


def test_timed_counts_making_items_and_not_using_them(fake_time: FakeTime) -> None:
    def items() -> Iterator[int]:
        for item in range(3):
            fake_time.pass_(1)
            yield item
        fake_time.pass_(0.5)  # finding out that there is no more

    clock = StageClock()
    taken = []
    for item in clock.timed("read", items()):
        fake_time.pass_(20)
        taken.append(item)
    assert taken == [0, 1, 2]
    assert clock.seconds == {"read": 3.5}


def test_nested_generators_split_their_time(fake_time: FakeTime) -> None:
    clock = StageClock()

    def read() -> Iterator[int]:
        for item in range(2):
            fake_time.pass_(1)
            yield item

    def caption(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            fake_time.pass_(3)
            yield item

    assert list(clock.timed("caption", caption(clock.timed("read", read())))) == [0, 1]
    assert clock.seconds == {"read": 2, "caption": 6}
