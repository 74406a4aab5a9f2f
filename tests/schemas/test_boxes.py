import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import boxes as geometry

numbers = st.floats(-4096, 4096, width=32)
any_boxes = st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=6).map(geometry.as_boxes)
sides = st.integers(1, 8 * 16)
valid_box = st.tuples(st.integers(0, 4096 * 16), st.integers(0, 4096 * 16), sides, sides).map(
    lambda box: (box[0] / 16, box[1] / 16, (box[0] + box[2]) / 16, (box[1] + box[3]) / 16)
)
valid_boxes = st.lists(valid_box, max_size=5).map(geometry.as_boxes)


@given(any_boxes)
def test_quantising_twice_changes_nothing_more(boxes):
    once = geometry.quantise(boxes)
    assert once.dtype == np.float32
    assert np.array_equal(geometry.quantise(once), once)
    assert np.abs(once - boxes).max(initial=0) <= geometry.QUANTUM / 2
    assert np.array_equal(once * 16, np.round(once * 16))


def test_quantised_zeros_are_not_negative():
    assert not np.signbit(geometry.quantise(geometry.as_boxes([[-0.01, -0.0, 0.0, 1.0]]))).any()


def test_quantise_rounds_half_to_even():
    quantised = geometry.quantise(geometry.as_boxes([[1 / 32, 3 / 32, 5 / 32, 1.03]]))
    assert quantised.tolist() == [[0, 2 / 16, 2 / 16, 1]]


@given(st.lists(valid_box, max_size=5).map(geometry.as_boxes))
def test_xywh_and_back_is_the_same(boxes):
    boxes_xywh = geometry.xyxy_to_xywh(boxes)
    assert np.array_equal(geometry.xywh_to_xyxy(boxes_xywh), boxes)


def test_conversions_leave_their_argument_alone():
    boxes = geometry.as_boxes([[1, 2, 4, 8]])
    assert geometry.xyxy_to_xywh(boxes).tolist() == [[1, 2, 3, 6]]
    assert geometry.xywh_to_xyxy(boxes).tolist() == [[1, 2, 5, 10]]
    assert boxes.tolist() == [[1, 2, 4, 8]]


@given(valid_boxes, valid_boxes)
def test_iou_is_symmetric_and_bounded(boxes_a, boxes_b):
    iou = geometry.iou(boxes_a, boxes_b)
    assert iou.shape == (len(boxes_a), len(boxes_b))
    assert np.array_equal(iou, geometry.iou(boxes_b, boxes_a).T)
    assert ((iou >= 0) & (iou <= 1 + 1e-6)).all()


@given(valid_boxes)
def test_a_box_covers_itself(boxes):
    assert np.allclose(np.diag(geometry.iou(boxes, boxes)), 1)


def test_iou_by_hand():
    iou = geometry.iou(geometry.as_boxes([[0, 0, 2, 2], [3, 3, 3, 3]]), geometry.as_boxes([[1, 0, 3, 2], [5, 5, 6, 6]]))
    assert iou == pytest.approx(np.array([[2 / 6, 0], [0, 0]]))


@given(any_boxes, st.integers(1, 5000), st.integers(1, 5000))
def test_clipped_boxes_lie_in_the_image(boxes, width, height):
    clipped = geometry.clip(boxes, width, height)
    assert ((clipped >= 0) & (clipped <= [width, height, width, height])).all()
    inside = (boxes >= 0).all(axis=1) & (boxes <= [width, height, width, height]).all(axis=1)
    assert np.array_equal(clipped[inside], boxes[inside])


def test_validity():
    nan, inf = float("nan"), float("inf")
    boxes = geometry.as_boxes([[0, 0, 1, 1], [1, 0, 1, 1], [0, 1, 1, 0], [nan, 0, 1, 1], [0, 0, inf, 1]])
    assert geometry.is_valid(boxes).tolist() == [True, False, False, False, False]
    assert geometry.area(boxes[:3]).tolist() == [1, 0, 0]


def test_scale_moves_each_axis():
    assert geometry.scale(geometry.as_boxes([[1, 2, 3, 4]]), 2, 0.5).tolist() == [[2, 1, 6, 2]]


def test_no_boxes_keep_their_shape():
    assert geometry.as_boxes([]).shape == (0, 4)
    assert geometry.iou(geometry.as_boxes([]), geometry.as_boxes([[0, 0, 1, 1]])).shape == (0, 1)


def objects(rng, count, width, height):
    sides = rng.uniform(10, 200, (count, 2))
    starts = rng.uniform(0, 1, (count, 2)) * (np.array([width, height]) - sides)
    return geometry.as_boxes(np.concatenate([starts, starts + sides], axis=1))


@pytest.mark.parametrize("seed", range(20))
def test_boxes_read_wrongly_are_seen_whether_clipped_or_not(seed):
    width, height = np.full(60, 640.0), np.full(60, 480.0)
    right = objects(np.random.default_rng(seed), 60, 640, 480)
    assert geometry.misread(right, width, height) is None
    wrong = geometry.xywh_to_xyxy(right)
    assert "reach beyond" in (geometry.misread(wrong, width, height) or "")
    clipped = geometry.quantise(geometry.clip(wrong, 640, 480))
    assert "end at the right or lower edge" in (geometry.misread(clipped, width, height) or "")
    shares = geometry.scale(right, 1 / 640, 1 / 480)
    assert "60 of 60 given boxes lie within 0..1" in (geometry.misread(shares, width, height) or "")


def test_sensible_boxes_at_edges_and_few_boxes_are_nothing_to_tell_of():
    size = np.full(12, 100.0)
    whole = geometry.as_boxes([[0, 0, 100, 100]] * 12)
    portraits = geometry.as_boxes([[30, 20, 70, 100]] * 12)
    nearly_whole = geometry.as_boxes([[2, 3, 100, 100]] * 12)
    for boxes in (whole, nearly_whole, portraits):
        assert geometry.misread(boxes, size, size) is None
    assert geometry.misread(whole[:9] * np.float32(5), size[:9], size[:9]) is None
    nothing = geometry.as_boxes([[np.nan] * 4] * 12)
    assert geometry.misread(nothing, size, size) is None and geometry.misread(whole[:0], size[:0], size[:0]) is None


def test_the_box_around_a_turned_one_holds_its_corners():
    box = (10.0, 20.0, 40.0, 60.0)
    for degrees in (-30, 17, 45, 90, 135, 270):
        angle = np.radians(degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = (np.array([(10, 20), (40, 20), (40, 60), (10, 60)]) - (25, 40)) @ turn.T + (25, 40)
        around = (*corners.min(axis=0), *corners.max(axis=0))
        assert geometry.around_turned(box, degrees) == pytest.approx(around)
    assert geometry.around_turned(box, 180) == geometry.around_turned(box, 0) == box
