import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.propose.select import SelectSettings, select, too_low_resolution
from pipeline.sample import Candidate, DecodedImage, GivenRegion, Proposals
from schemas import boxes as geometry
from schemas.hashes import region_id
from schemas.reasons import STATUS_OF, Reason, Stage, Status
from tests.builders import decoded_image

WIDTH, HEIGHT = 100, 80


def proposals(rows: list[tuple]) -> Proposals:
    """Rows of (box, score) or (box, score, label)."""
    return Proposals(
        boxes=geometry.as_boxes([row[0] for row in rows]),
        scores=np.array([row[1] for row in rows], dtype=np.float32),
        labels=tuple(row[2] if len(row) > 2 else None for row in rows),
    )


def run(rows: list[tuple], **options: object) -> list[Candidate]:
    return select(proposals(rows), SelectSettings(**options), key="k", width=WIDTH, height=HEIGHT, proposer="p")


def reasons(results: list[Candidate]) -> list[Reason | None]:
    return [result.drop.reason if result.drop else None for result in results]


def kept(results: list[Candidate]) -> list[Candidate]:
    return [result for result in results if result.drop is None]


def test_regions_come_best_first_clipped_and_quantised():
    first, second = run([((50, 10, 120, 40), 0.25, "dog"), ((1.03, -4, 30.99, 20), 0.123456)])
    assert (first.box, first.proposal_score, first.label, first.count) == ((50, 10, 100, 40), 0.25, "dog", 1)
    assert (second.box, second.proposal_score, second.label) == ((1.0, 0.0, 31.0, 20.0), 0.1235, None)
    assert first.region_id == region_id("k", geometry.as_boxes(first.box)[0], "p", 0)


def test_no_proposals_no_results():
    assert run([]) == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (((0, 0, math.nan, 20), 1.0), Reason.INVALID_BOX),
        (((0, 0, math.inf, 20), 1.0), Reason.INVALID_BOX),
        (((30, 0, 30, 20), 1.0), Reason.INVALID_BOX),
        (((0, 20, 30, 10), 1.0), Reason.INVALID_BOX),
        (((0, 0, 30, 20), math.nan), Reason.INVALID_BOX),
        (((0, 0, 30, 20), math.inf), Reason.INVALID_BOX),
        (((-30, 0, 0, 20), 1.0), Reason.OUTSIDE),
        (((100, 0, 130, 20), 1.0), Reason.OUTSIDE),
        (((0, 80, 30, 3e38), 1.0), Reason.OUTSIDE),
        (((0, 0, 7.9, 20), 1.0), Reason.SMALL),
        (((0, -30, 20, 7.9), 1.0), Reason.SMALL),
        (((0, 0, 8, 20), 0.4999), Reason.LOW_SCORE),
        (((0, 0, 8, 20), 0.5), None),
        (((-3e38, -3e38, 3e38, 3e38), 1.0), None),
    ],
)
def test_rules_of_one_proposal(row, reason):
    (result,) = run([row], min_score=0.5)
    assert reasons([result]) == [reason]
    if reason:
        assert result.drop.stage is Stage.SELECT
        assert (STATUS_OF[reason] is Status.DEAD) == (reason is Reason.INVALID_BOX)


def test_a_box_that_quantises_to_nothing_is_small_even_without_a_limit():
    assert reasons(run([((10.001, 0, 10.002, 20), 1.0)], min_side=0)) == [Reason.SMALL]


def test_invalid_and_outside_boxes_are_shown_as_proposed():
    outside, invalid = run([((9, 9, 3, 12.3), 0.9), ((-9.3, 0, -1, 20), 0.2)])
    assert outside.box == pytest.approx((-9.3, 0, -1, 20))
    assert invalid.box == pytest.approx((9, 9, 3, 12.3))
    assert (outside.proposal_score, invalid.proposal_score) == (0.2, 0.9)
    assert run([((0, 0, 30, 20), math.nan)])[0].proposal_score is None


def test_a_worse_box_that_overlaps_names_the_better_one():
    best, worse, apart = run([((0, 0, 40, 40), 0.5), ((0, 0, 42, 40), 0.9), ((50, 0, 90, 40), 0.1)])
    assert reasons([best, worse, apart]) == [None, Reason.OVERLAP, None]
    assert best.box == (0, 0, 42, 40)
    assert worse.drop.message == f"IoU 0.95 with region {best.region_id}, above --select.max-iou 0.7"


def test_labels_do_not_protect_from_overlap():
    assert reasons(run([((0, 0, 40, 40), 0.5, "cat"), ((0, 0, 40, 40), 0.4, "dog")])) == [None, Reason.OVERLAP]


def test_an_overlapping_box_does_not_suppress_others():
    """The middle box overlaps both, but being suppressed itself it takes nothing with it."""
    row = [((0, 0, 40, 40), 0.9), ((10, 0, 50, 40), 0.8), ((20, 0, 60, 40), 0.7)]
    assert reasons(run(row, max_iou=0.5)) == [None, Reason.OVERLAP, None]


def test_rejected_boxes_do_not_suppress_others():
    rows = [((-20, 0, 60, 20), math.nan), ((0, 0, 60, 19), 0.4)]
    assert set(reasons(run(rows))) == {None, Reason.INVALID_BOX}


def test_iou_at_the_limit_is_kept():
    assert reasons(run([((0, 0, 40, 40), 0.9), ((0, 0, 40, 20), 0.8)], max_iou=0.5)) == [None, None]


def test_regions_beyond_the_limit():
    rows = [((10 * n, 0, 10 * n + 10, 20), 1 - n / 10) for n in range(5)]
    results = run(rows, max_regions=3)
    assert reasons(results) == [None] * 3 + [Reason.OVER_LIMIT] * 2
    assert [result.count for result in results] == [1] * 5


def test_proposals_beyond_the_limit_are_one_counted_result():
    rows = [((10 * n, 0, 10 * n + 10, 20), 1 - n / 10) for n in range(5)]
    *looked_at, rest = run([*rows, ((0, 0, math.nan, 0), 1.0)], max_proposals=3)
    assert reasons(looked_at) == [None] * 3
    assert (rest.count, rest.box, rest.proposal_score, rest.label) == (3, None, None, None)
    assert rest.drop.reason is Reason.OVER_LIMIT
    assert "3 proposals" in rest.drop.message and "--select.max-proposals 3" in rest.drop.message


def test_equal_boxes_have_ids_of_their_own():
    results = run([((0, 0, 20, 20), 0.5)] * 3 + [((math.nan,) * 4, 0.5)] * 2 + [((-0.0, 0, 20, 20), 0.5)])
    ids = [result.region_id for result in results]
    box = geometry.as_boxes((0, 0, 20, 20))[0]
    assert ids[:4] == [region_id("k", box, "p", ordinal) for ordinal in range(4)]
    assert len(set(ids)) == 6


def test_minus_zero_and_odd_nans_are_the_same_box():
    odd_nan = np.array([0xFFC00001], dtype=np.uint32).view(np.float32)[0]
    for one, other in (((0.0, 20, 30, 10), (-0.0, 20, 30, 10)), ((0, 0, math.nan, 9), (0, 0, odd_nan, 9))):
        results = run([(one, 0.5), (other, 0.4)])
        box = geometry.as_boxes(one)[0]
        assert [result.region_id for result in results] == [region_id("k", box, "p", ordinal) for ordinal in (0, 1)]


def test_the_counted_result_has_an_id_of_its_own_beside_boxes_of_nan():
    results = run([((math.nan,) * 4, 0.5)] * 3, max_proposals=2)
    assert [result.count for result in results] == [1, 1, 1]
    assert len({result.region_id for result in results}) == 3


def test_ties_are_broken_by_geometry_then_label():
    rows = [((40, 0, 60, 20), 0.5), ((0, 30, 20, 50), 0.5), ((0, 0, 20, 20), 0.5, "b"), ((0, 0, 20, 20), 0.5, "a")]
    results = run([*rows, ((0, 0, 20, 20), 0.5), ((0, 0, 20, 20), 0.5, "")])
    assert [(result.box[:2], result.label) for result in results] == [
        ((0, 0), None),
        ((0, 0), ""),
        ((0, 0), "a"),
        ((0, 0), "b"),
        ((40, 0), None),
        ((0, 30), None),
    ]


# Coordinates on a coarse grid make ties, overlaps and boxes at the border likely; a few are far off or no numbers.
COORDINATE = st.one_of(
    st.integers(-3, 13).map(lambda n: 10.0 * n),
    st.floats(-20, 120, width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 3e38]),
)
SCORE = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]), st.floats(0, 1, width=32))
ROW = st.tuples(st.tuples(*[COORDINATE] * 4), SCORE, st.sampled_from([None, "cat", "dog"]))
ROWS = st.lists(ROW, max_size=25)
OPTIONS = st.fixed_dictionaries(
    {
        "min_side": st.sampled_from([0.0, 8.0, 20.0]),
        "min_score": st.sampled_from([0.0, 0.3]),
        "max_iou": st.sampled_from([0.0, 0.3, 0.7, 1.0]),
        "max_regions": st.integers(1, 20),
        "max_proposals": st.integers(1, 30),
    }
)


@given(rows=ROWS, options=OPTIONS)
def test_totals_balance_and_ids_are_unique(rows, options):
    results = run(rows, **options)
    assert sum(result.count for result in results) == len(rows)
    assert len({result.region_id for result in results}) == len(results)
    assert len(results) <= options["max_proposals"] + 1
    assert [result.box is None for result in results] == [False] * min(len(rows), options["max_proposals"]) + [True] * (
        len(rows) > options["max_proposals"]
    )


@given(rows=ROWS, options=OPTIONS)
def test_kept_boxes_keep_the_rules(rows, options):
    regions = kept(run(rows, **options))
    assert len(regions) <= options["max_regions"]
    boxes = geometry.as_boxes([region.box for region in regions])
    np.testing.assert_array_equal(boxes, geometry.quantise(geometry.clip(boxes, WIDTH, HEIGHT)))
    assert geometry.is_valid(boxes).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) >= options["min_side"]).all()
    overlaps = geometry.iou(boxes, boxes)[np.triu_indices(len(boxes), k=1)]
    assert (overlaps <= options["max_iou"]).all()
    scores = [region.proposal_score for region in regions]
    assert scores == sorted(scores, reverse=True) and all(score >= options["min_score"] for score in scores)


@given(rows=ROWS, options=OPTIONS, data=st.data())
def test_the_order_of_proposals_does_not_matter(rows, options, data):
    shuffled = data.draw(st.permutations(rows))
    assert str(run(shuffled, **options)) == str(run(rows, **options))  # as text: NaN is not equal to itself


@given(rows=ROWS, options=OPTIONS)
@settings(max_examples=50)
def test_selecting_again_changes_nothing(rows, options):
    regions = kept(run(rows, **options))
    again = run([(region.box, region.proposal_score, region.label) for region in regions], **options)
    assert again == regions


@given(rows=ROWS, options=OPTIONS, excluded=st.lists(ROW, min_size=1, max_size=5))
def test_the_others_come_out_as_if_nothing_were_excluded(rows, options, excluded):
    box = (0.0, 0.0, 1.0, 1.0)
    ids = [f"id-{number}" for number in range(len(excluded))]
    given = (GivenRegion(box=box),) * len(rows) + tuple(GivenRegion(box=box, id=name, excluded=True) for name in ids)
    both = dataclasses.replace(proposals([*rows, *excluded]), given=given)
    options = {**options, "max_proposals": 30}
    results = select(both, SelectSettings(**options), key="k", width=WIDTH, height=HEIGHT, proposer="p")
    others, gone = results[: len(rows)], results[len(rows) :]
    assert str([dataclasses.replace(other, given=None) for other in others]) == str(run(rows, **options))
    assert reasons(gone) == [Reason.EXCLUDED] * len(excluded)
    assert sorted(ids) == sorted(result.drop.message.split()[1] for result in gone)


def test_thousands_of_proposals():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (3000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 20, (3000, 2))], axis=1)
    results = run([(box, score) for box, score in zip(boxes, rng.random(3000), strict=True)], max_proposals=3000)
    assert len(results) == 3000 and len(kept(results)) == 20


def image(width: int, height: int) -> DecodedImage:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    return decoded_image(pixels)


@pytest.mark.parametrize("size", [(31, 500), (500, 31)])
def test_images_with_a_short_side_are_filtered(size):
    drop = too_low_resolution(image(*size), SelectSettings())
    assert (drop.reason, drop.stage) == (Reason.LOW_RESOLUTION, Stage.SELECT)
    assert "--select.min-image-side 32" in drop.message
    assert too_low_resolution(image(32, 32), SelectSettings()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_image_side", -1),
        ("min_side", -0.5),
        ("min_side", math.nan),
        ("min_score", 1.1),
        ("max_iou", -0.1),
        ("max_iou", math.nan),
        ("max_regions", 0),
        ("max_proposals", 0),
    ],
)
def test_settings_name_the_flag(name, value):
    with pytest.raises(ValueError, match=f"--select.{name.replace('_', '-')}"):
        SelectSettings(**{name: value})


def test_crowds_are_filtered_and_what_cannot_be_used_is_dead_whatever_the_box():
    box, nowhere = (0.0, 0.0, 30.0, 20.0), (math.nan,) * 4
    given = (
        GivenRegion(box=box, id="a"),
        GivenRegion(box=box, id="b", is_crowd=True),
        GivenRegion(box=nowhere, id="c", is_crowd=True),
        GivenRegion(box=box, id="d", problem="the category is not there"),
        GivenRegion(box=nowhere, id="e", problem="the box has no numbers"),
        GivenRegion(box=nowhere, id="f"),
    )
    rows = dataclasses.replace(proposals([(region.box, 1.0) for region in given]), given=given)
    found = select(rows, SelectSettings(), key="k", width=WIDTH, height=HEIGHT, proposer="p")
    assert {result.given.id: result.drop and result.drop.reason for result in found if result.given} == {
        "a": None, "b": Reason.CROWD, "c": Reason.CROWD, "d": Reason.BAD_RECORD, "e": Reason.BAD_RECORD,
        "f": Reason.INVALID_BOX,
    }  # fmt: skip
    assert [result.drop.message for result in found if result.given and result.given.id == "d" and result.drop] == [
        "the category is not there"
    ]
