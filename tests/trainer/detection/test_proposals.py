"""The proposal network: what its anchors learn, its losses, and its proposals."""

import math

import pytest
import torch

from trainer.detection.boxes import BothSidesCoder
from trainer.detection.proposals import ProposalNetwork
from trainer.detection.settings import DetectorSettings

SETTINGS = DetectorSettings(channels=4, sampled_anchors=4, level_proposals=10, proposals=6, anchor_scale=4)


def network() -> ProposalNetwork:
    torch.manual_seed(0)
    return ProposalNetwork([8, 16], SETTINGS)


def test_losses_are_sums_over_the_sampled_anchors_by_their_number():
    objectness = torch.tensor([[0.0], [1.0], [2.0], [50.0]])
    codes = torch.zeros(4, 4)
    labels = [torch.tensor([1.0, 0.0, 0.0, -1.0])]
    targets = [torch.tensor([[1.0, -2.0, 0.5, 0.0]]).repeat(4, 1)]
    wrong, away = network().compute_loss(objectness, codes, labels, targets)
    # -1 is not sampled; of the three, one is an object
    expected = (math.log(2) + math.log(1 + math.e) + math.log(1 + math.e**2)) / 3
    assert wrong.item() == pytest.approx(expected)
    assert away.item() == pytest.approx(3.5 / 3), "L1, of the object alone"


def test_half_of_the_sampled_are_objects_at_most():
    labels = [torch.tensor([1.0] * 10 + [0.0] * 10)]
    positives, negatives = network().fg_bg_sampler(labels)
    assert (positives[0].sum(), negatives[0].sum()) == (2, 2)
    few = network().fg_bg_sampler([torch.tensor([1.0] + [0.0] * 10)])
    assert (few[0][0].sum(), few[1][0].sum()) == (1, 3)


def test_anchors_learn_their_true_box_from_a_third_of_overlap_on():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 2.5], [50, 50, 60, 60]])
    truth = torch.tensor([[0.0, 0, 10, 4], [50, 50, 60, 52]])  # .4 and .625 of the one, .2 of the other
    (labels,), (boxes,) = network().assign_targets_to_anchors([anchors], [{"boxes": truth}])
    assert labels.tolist() == [-1, 1, 0]
    assert torch.equal(boxes[1], truth[0])
    (none,), _ = network().assign_targets_to_anchors([anchors], [{"boxes": truth[:0]}])
    assert none.tolist() == [0, 0, 0]


def test_proposals_are_few_lie_in_their_image_and_are_thinned():
    levels = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)]
    found, losses = network().eval().propose(levels, (64, 64), torch.tensor([[64, 64], [32, 48]]), None)
    assert losses == {}
    assert all(0 < len(boxes) <= 6 for boxes in found)
    assert found[1][:, 2].max() <= 48 and found[1][:, 3].max() <= 32 and found[1].min() >= 0
    assert isinstance(network().box_coder, BothSidesCoder)
