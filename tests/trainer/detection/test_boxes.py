"""Anchors, matching, sampling and coding of boxes, on cases worked out by hand."""

import math

import pytest
import torch

from trainer.detection.anchors import level_anchors
from trainer.detection.boxes import BACKGROUND, BETWEEN, BothSidesCoder, match, sample_regions


def test_anchors_at_a_stride_of_three_and_a_half():
    anchors = level_anchors((3, 4), 3.5, 8 * 3.5)
    assert anchors.shape == (3 * 4 * 3, 4)
    corner = (1 * 4 + 2) * 3  # the cell of row 1, column 2 begins at x 7, y 3.5
    wide, square, high = anchors[corner : corner + 3].tolist()
    assert square == pytest.approx([7 - 14, 3.5 - 14, 7 + 14, 3.5 + 14])
    half = 14 * math.sqrt(2)
    assert wide == pytest.approx([7 - half, 3.5 - half / 2, 7 + half, 3.5 + half / 2], rel=1e-6)
    assert high == pytest.approx([7 - half / 2, 3.5 - half, 7 + half / 2, 3.5 + half], rel=1e-6)


TRUTH = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])


def test_a_box_is_an_object_background_or_neither_by_its_overlap():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2], [50, 50, 60, 60]])
    found = match(TRUTH, boxes, positive=0.7, negative=0.3)
    assert found.tolist() == [0, BETWEEN, BACKGROUND, BACKGROUND]  # IoU 1, .5, .2, 0


def test_a_true_box_takes_its_best_boxes_from_the_floor_on_all_of_them_where_they_tie():
    boxes = torch.tensor([[0.0, 0, 10, 4], [0, 6, 10, 10], [20, 20, 30, 22]])  # .4 and .4 of the one, .2 of the other
    assert match(TRUTH, boxes, positive=0.7, negative=0.3, low_quality_floor=0.3).tolist() == [0, 0, BACKGROUND]
    assert match(TRUTH, boxes, positive=0.7, negative=0.3, low_quality_floor=0.1).tolist() == [0, 0, 1]


def test_the_best_of_a_true_box_is_its_own_though_another_overlaps_it_more():
    truth = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6]])
    boxes = torch.tensor([[0.0, 0, 10, 8]])  # .8 of the first, .75 of the second
    assert match(truth, boxes, positive=0.7, negative=0.3).tolist() == [0]
    assert match(truth, boxes, positive=0.7, negative=0.3, low_quality_floor=0.3).tolist() == [1]


def test_without_true_boxes_all_is_background():
    assert match(TRUTH[:0], TRUTH, positive=0.5, negative=0.5).tolist() == [BACKGROUND] * 2


def test_codes_are_offsets_and_logarithms_in_their_deviations():
    coder = BothSidesCoder(weights=(10.0, 10.0, 5.0, 5.0))
    box, truth = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[2.0, 5, 22, 15]])
    codes = coder.encode_single(truth, box)
    # centre (5, 10) to (12, 10); sides 10 x 20 to 20 x 10
    assert codes[0].tolist() == pytest.approx([0.7 / 0.1, 0, math.log(2) / 0.2, math.log(0.5) / 0.2])
    torch.testing.assert_close(coder.decode_single(codes, box), truth)


@pytest.mark.parametrize("sign", [1, -1])
def test_sizes_change_by_a_factor_of_sixty_two_and_a_half_at_most(sign):
    coder = BothSidesCoder(weights=(10.0, 10.0, 5.0, 5.0))
    box = torch.tensor([[-50.0, -50, 50, 50]])
    (x0, y0, x1, y1), *_ = coder.decode_single(torch.tensor([[0.0, 0, sign * 900, sign * 900]]), box).tolist()
    expected = 100 * (1000 / 16) ** sign
    assert (x1 - x0, y1 - y0) == pytest.approx((expected, expected), rel=1e-4)


def test_a_quarter_of_the_sampled_are_objects_at_most_and_true_boxes_are_among_them():
    torch.manual_seed(0)
    near = TRUTH[:1].repeat(20, 1)
    far = torch.tensor([[40.0, 40, 50, 50]]).repeat(30, 1)
    sampled = sample_regions(torch.cat([near, far]), TRUTH, torch.tensor([3, 1]), most=16, background=7)
    assert len(sampled.boxes) == 16
    assert (sampled.labels != 7).sum() == 4
    objects = sampled.labels != 7
    assert torch.equal(sampled.truth[objects], TRUTH[(sampled.labels[objects] == 1).long()])
    few = sample_regions(far, TRUTH, torch.tensor([3, 1]), most=16, background=7)
    assert sorted(few.labels.tolist()) == [1, 3] + [7] * 14, "the true boxes themselves are the objects"


def test_an_image_without_true_boxes_gives_background_alone():
    sampled = sample_regions(TRUTH, TRUTH[:0], torch.zeros(0, dtype=torch.int64), most=8, background=7)
    assert sampled.labels.tolist() == [7, 7]
