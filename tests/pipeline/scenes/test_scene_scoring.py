import math

import pytest

from pipeline.scenes.scoring import match, score_boxes, score_captions
from pipeline.scenes.words import Attributes
from schemas.boxes import as_boxes

RED_STAR = Attributes("small", "red", "striped", "star")


def test_each_box_is_matched_once_best_first():
    truth = as_boxes([[0, 0, 10, 10], [2, 0, 12, 10]])
    found = as_boxes([[2, 0, 12, 10], [50, 50, 60, 60]])
    assert match(truth, found) == [(1, 0)]


def test_box_figures():
    truth = [as_boxes([[0, 0, 10, 10], [20, 20, 30, 30]]), as_boxes([[0, 0, 10, 10]]), as_boxes([])]
    found = [as_boxes([[0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 4, 4]]), as_boxes([[0, 0, 10, 4]]), as_boxes([])]
    figures = score_boxes(truth, found)
    assert (figures.num_objects, figures.num_boxes, figures.num_recalled) == (3, 4, 1)
    assert figures.recall == pytest.approx(1 / 3)
    assert figures.boxes_per_object == pytest.approx(4 / 3)


def test_nothing_to_find():
    figures = score_boxes([as_boxes([])], [as_boxes([[0, 0, 1, 1]])])
    assert (figures.recall, figures.boxes_per_object) == (1.0, math.inf)


def test_caption_shares():
    captions = ["a small red striped star", "a small red solid star", "a large red striped star", "a star"]
    assert score_captions(captions, [RED_STAR] * 4) == {
        "size": 0.5,
        "colour": 0.75,
        "texture": 0.5,
        "shape": 0.75,
        "shape_colour_size": 0.5,
        "all": 0.25,
    }


def test_no_captions_have_no_score():
    with pytest.raises(ValueError, match="no captions"):
        score_captions([], [])
