"""Intervals over images, against known answers."""

import dataclasses

import numpy as np
import pytest

from trainer.errors import TrainingError
from trainer.study.statistics import Hits, difference, images_wanted, interval, seeds_wanted


def hits(*rows: list[float], asked: list[float] | None = None) -> Hits:
    values = np.array(rows, dtype=np.float64)
    return Hits(hits=values, asked=np.ones(values.shape[1]) if asked is None else np.array(asked, dtype=np.float64))


def test_the_interval_is_the_binomial_s_where_images_have_a_region_each():
    right = np.random.default_rng(0).random(2000) < 0.3
    found = interval(hits(right.tolist()))
    error = 1.96 * np.sqrt(found.value * (1 - found.value) / 2000)
    assert found.value == right.mean()
    assert found.high - found.low == pytest.approx(2 * error, rel=0.1)


def test_regions_of_an_image_count_together():
    alone = interval(hits([1.0, 0.0] * 200))
    together = interval(hits([5.0, 0.0] * 40, asked=[5.0] * 80))
    assert together.value == alone.value == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_pairing_takes_away_what_is_hard_for_both():
    rng = np.random.default_rng(0)
    hard = rng.random(1000) < 0.5
    better = np.where(hard, 0.0, 1.0)
    worse = np.where(rng.random(1000) < 0.04, 0.0, better)
    found = difference(hits(better.tolist()), hits(worse.tolist()))
    assert found.value == pytest.approx((better - worse).mean())
    assert found.excludes_zero
    each = interval(hits(better.tolist()))
    assert found.high - found.low < (each.high - each.low) / 2


def test_equal_rows_do_not_differ_and_other_regions_are_refused():
    same = hits([1.0, 0.0, 1.0])
    found = difference(same, same)
    assert (found.value, found.low, found.high) == (0, 0, 0) and not found.excludes_zero
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(same, hits([1.0, 0.0, 1.0], asked=[1.0, 2.0, 1.0]))


def test_how_much_more_a_difference_wants():
    rng = np.random.default_rng(1)
    one, two = (rng.random(400) < share for share in (0.32, 0.30))
    found = difference(hits(one.tolist()), hits(two.tolist()))
    half_width = found.value - found.low
    assert images_wanted(found, 400) == pytest.approx(2.04 * 400 * (half_width / found.value) ** 2, rel=0.01)
    assert not found.excludes_zero and images_wanted(found, 400) > 400
    assert seeds_wanted(np.array([0.3]), np.array([0.2, 0.2])) is None
    # Differences of 0.1 with a variance of 0.02 in all: 4 * 0.02 / 0.01 = 8 seeds.
    assert seeds_wanted(np.array([0.3, 0.5]), np.array([0.3, 0.3])) == 8


def test_rows_on_other_images_are_not_paired_though_they_were_asked_as_much():
    one, other = (dataclasses.replace(hits([1.0, 0.0, 1.0]), images=images) for images in ("a", "b"))
    with pytest.raises(TrainingError, match="take away the older cells"):
        difference(one, other)
