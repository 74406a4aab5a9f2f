import math

import numpy as np
import pytest

from pipeline.propose.manual import Manual, ManualConfig
from pipeline.sample import GivenRegion

PIXELS = np.zeros((4, 6, 3), dtype=np.uint8)


def propose(image):
    return Manual(ManualConfig()).propose([image])[0]


def test_given_regions_come_back_in_the_source_order(make_image):
    given = (
        GivenRegion(box=(1, 1, 2, 2), score=0.25),
        GivenRegion(box=(0, 0, 6, 4), label="dog", caption="A dog."),
    )
    proposals = propose(make_image(PIXELS, given))
    assert proposals.boxes.dtype == np.float32
    assert proposals.boxes.tolist() == [[1, 1, 2, 2], [0, 0, 6, 4]]
    assert proposals.scores.tolist() == [0.25, 1.0]
    assert proposals.labels == (None, "dog")


def test_excluded_regions_are_proposed_with_the_ids_they_are_excluded_by(make_image):
    box = (0, 0, 6, 4)
    given = (GivenRegion(box=box, id="a"), GivenRegion(box=box, id="b", excluded=True), GivenRegion(box=box))
    proposals = propose(make_image(PIXELS, given))
    assert (len(proposals.boxes), proposals.excluded) == (3, (None, "b", None))
    assert propose(make_image(PIXELS, given[:1])).excluded is None


def test_boxes_are_not_judged(make_image):
    boxes = [(math.nan, 0, 1, 1), (-5, -5, 900, 900), (3, 3, 1, 1), (0, 0, math.inf, 1)]
    given = tuple(GivenRegion(box=box) for box in boxes)
    np.testing.assert_array_equal(propose(make_image(PIXELS, given)).boxes, np.array(boxes, dtype=np.float32))


def test_a_coordinate_beyond_float32_becomes_infinite(make_image):
    assert propose(make_image(PIXELS, (GivenRegion(box=(0, 0, 1e300, 1)),))).boxes[0, 2] == math.inf


def test_an_image_without_given_regions_has_no_proposals(make_image):
    proposals = propose(make_image(PIXELS))
    assert proposals.boxes.shape == (0, 4)
    assert proposals.scores.shape == (0,)
    assert proposals.labels == ()


@pytest.mark.parametrize("score", [-0.1, 1.5, math.nan])
def test_a_score_outside_0_to_1_is_an_error_that_names_the_key(make_image, score):
    image = make_image(PIXELS, (GivenRegion(box=(0, 0, 1, 1), score=score),), key="cat-7")
    with pytest.raises(ValueError, match=r"'cat-7'.*not one in \[0, 1\]"):
        propose(image)
