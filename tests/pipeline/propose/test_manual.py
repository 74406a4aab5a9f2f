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


def test_what_the_source_says_of_a_region_goes_along(make_image):
    box = (0, 0, 6, 4)
    given = (
        GivenRegion(box=box, id="a", mask_rle="08"),
        GivenRegion(box=box, id="b", excluded=True),
        GivenRegion(box=box, is_crowd=True),
        GivenRegion(box=box, problem="no"),
    )
    proposals = propose(make_image(PIXELS, given))
    assert (proposals.given, proposals.masks) == (given, ("08", None, None, None))
    assert propose(make_image(PIXELS, given[1:])).masks is None


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


@pytest.mark.parametrize("score", [-0.1, 1.5, 87.5, math.nan, math.inf])
def test_a_score_outside_0_to_1_is_a_problem_of_its_region_alone(make_image, score):
    given = (GivenRegion(box=(0, 0, 1, 1), score=score), GivenRegion(box=(0, 0, 2, 2), score=0.5))
    proposals = propose(make_image(PIXELS, given))
    bad, good = proposals.given or ()
    assert f"{score:g} is not in [0, 1]" in str(bad.problem)
    assert good == given[1]
    assert math.isnan(proposals.scores[0]) and proposals.scores[1] == 0.5
