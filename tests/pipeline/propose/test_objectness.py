import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.propose.objectness import area, objectness


def scores_of(pixels, *boxes):
    return objectness(pixels, np.array(boxes, dtype=np.int64))


@st.composite
def images_and_boxes(draw):
    height, width, seed = draw(st.integers(4, 40)), draw(st.integers(4, 40)), draw(st.integers(0, 99))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    box = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1)).flatmap(
        lambda corner: st.tuples(
            st.just(corner[0]),
            st.just(corner[1]),
            st.integers(corner[0] + 1, width),
            st.integers(corner[1] + 1, height),
        )
    )
    return pixels, np.array(draw(st.lists(box, min_size=1, max_size=8)), dtype=np.int64)


@settings(max_examples=40)
@given(images_and_boxes())
def test_scores_lie_in_0_to_1_and_do_not_depend_on_other_boxes(case):
    pixels, boxes = case
    scores = objectness(pixels, boxes)
    assert scores.shape == (len(boxes),)
    assert ((scores >= 0) & (scores <= 1)).all()
    alone = [objectness(pixels, boxes[index : index + 1])[0] for index in range(len(boxes))]
    assert scores.tolist() == alone


def test_the_object_beats_boxes_around_inside_and_beside_it(rectangle):
    pixels = rectangle(120, 90, (40, 30, 80, 60))
    exact, around, inside, beside = scores_of(
        pixels, (40, 30, 80, 60), (25, 15, 95, 75), (48, 36, 72, 54), (4, 4, 30, 26)
    )
    assert exact > 0.8
    assert exact > around > beside
    assert exact > inside
    assert beside == pytest.approx(0, abs=0.05)


def test_the_whole_image_is_no_object(rectangle):
    assert scores_of(rectangle(60, 60, (20, 20, 40, 40)), (0, 0, 60, 60)).tolist() == [0]


def test_area_counts_pixels():
    assert area(np.array([[1, 2, 4, 7], [0, 0, 1, 1]])).tolist() == [15, 1]
