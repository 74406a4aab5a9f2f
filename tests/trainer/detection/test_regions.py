"""Pooling, levels, losses of the head, and the fusion of scores, on cases worked out by hand."""

import math

import pytest
import torch

from trainer.detection.boxes import SampledBoxes
from trainer.detection.fusion import clip_probabilities, fuse
from trainer.detection.pyramid import norm_of
from trainer.detection.regions import CODER, RegionHead, levels_of, pool, region_losses
from trainer.detection.settings import DetectorSettings


def test_a_boxs_level_is_that_of_the_root_of_its_area():
    sides = torch.tensor([10.0, 56, 111.9, 112, 223.9, 224, 448, 3000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides * 2, sides / 2], dim=1)
    assert levels_of(boxes, finest_px=56, num_levels=4).tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    assert levels_of(boxes, finest_px=56, num_levels=2).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("stride", [4.0, 3.5])
def test_pooling_counts_from_the_middles_of_cells(stride):
    ramp = torch.arange(40.0).expand(1, 1, 40, 40)  # a cell's value is its column
    box = torch.tensor([[8 * stride, 4 * stride, 22 * stride, 18 * stride]])  # 14 cells: 7 bins of 2
    pooled = pool([ramp], [stride], [box], finest_px=1000)
    assert pooled.shape == (1, 1, 7, 7)
    # the first bin's middle is 9 cells from the edge, which lies half a cell before the middle of column 9
    torch.testing.assert_close(pooled[0, 0, 3], torch.arange(8.5, 22, 2))


def test_boxes_are_pooled_from_their_images_and_levels():
    fine = torch.stack([torch.full((2, 16, 16), 1.0), torch.full((2, 16, 16), 2.0)])
    coarse = fine[:, :, ::2, ::2] + 10
    small, large = torch.tensor([[4.0, 4, 20, 20]]), torch.tensor([[0.0, 0, 40, 40]])
    pooled = pool([fine, coarse], [4, 8], [small, torch.cat([large, small])], finest_px=16)
    assert pooled.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1, 12, 2])


def test_novel_classes_take_no_part_in_the_softmax_and_background_counts_less():
    logits = torch.tensor([[1.0, 50.0, 0.0, 2.0], [0.0, 50.0, 1.0, 3.0]], requires_grad=True)
    box = torch.tensor([[0.0, 0, 10, 10]])
    sampled = [SampledBoxes(box, torch.tensor([2]), box + 1), SampledBoxes(box, torch.tensor([3]), box)]
    codes = torch.zeros(2, 4)
    is_trained = torch.tensor([True, False, True, True])
    losses = region_losses(logits, codes, sampled, is_trained=is_trained, background_weight=0.6)
    object_ = math.log(math.e**1 + 1 + math.e**2) - 0
    nothing = math.log(1 + math.e + math.e**3) - 3
    assert losses["class_loss"].item() == pytest.approx((object_ + 0.6 * nothing) / 2)
    # a tenth of the side right and down, in deviations of a tenth: 1 + 1, by two sampled boxes
    assert losses["box_loss"].item() == pytest.approx(2 / 2)
    losses["class_loss"].backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[:, 1] == 0).all()
    assert CODER.weights == (10.0, 10.0, 5.0, 5.0)


def test_a_feature_that_relu_left_nothing_of_stays_a_number():
    settings = DetectorSettings(channels=4, head_convs=0)
    head = RegionHead(settings, dim=6, norm=norm_of("group"))
    torch.nn.init.constant_(head.classes[0].bias, -1e6)
    features, codes = head(torch.rand(3, 4, 7, 7))
    assert (features == 0).all() and torch.isfinite(codes).all()
    texts = torch.nn.functional.normalize(torch.rand(5, 6))
    logits = head.logits(features, texts)
    logits.sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in head.classes.parameters())
    assert head.scale.item() == 50


def test_scores_of_base_classes_are_the_detectors_and_of_novel_ones_clips():
    detector = torch.tensor([[0.5, 0.2, 0.3]])
    clip = torch.tensor([[0.1, 0.7, 0.2]])
    fused = fuse(detector, clip, torch.tensor([True, False]), alpha=0.1, beta=0.8)
    assert fused.shape == (1, 2), "background is left out"
    assert fused[0].tolist() == pytest.approx([0.5**0.9 * 0.1**0.1, 0.2**0.2 * 0.7**0.8])


def test_clips_probabilities_are_a_softmax_over_texts_of_the_pooled_patches():
    dense = torch.zeros(2, 2, 4, 4)
    dense[0, 0], dense[1, 1] = 3.0, 0.5  # the first image says class 0 everywhere, the second class 1
    texts = torch.tensor([[1.0, 0], [0, 1], [0, 0]])
    boxes = [torch.tensor([[0.0, 0, 32, 32]]), torch.tensor([[8.0, 8, 24, 24], [0, 0, 8, 8]])]
    found = clip_probabilities(dense, boxes, texts, side=32, clip_scale=2.0)
    right = math.exp(2) / (math.exp(2) + 2)
    assert found[[0, 1, 2], [0, 1, 1]].tolist() == pytest.approx([right] * 3)
