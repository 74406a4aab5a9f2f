"""Binary cross-entropy with pixels of no class, by hand."""

from math import log

import pytest
import torch

from trainer.segmentation.mask_loss import mask_loss

LOGITS = torch.tensor([[[[0.0, 2.0]], [[-1.0, 3.0]]]])  # two classes, two pixels


def softplus(x: float) -> float:
    return log(1 + 2.718281828459045**x)


def test_it_is_the_mean_over_pixels_and_classes():
    labels = torch.tensor([[[0, 1]]])
    expected = (softplus(0) + softplus(-1) + softplus(2) + softplus(-3)) / 4
    for ignored in ("negative", "left_out"):
        assert mask_loss(LOGITS, labels, ignored=ignored).item() == pytest.approx(expected, rel=1e-5)


def test_a_pixel_of_no_class_is_negative_for_all_or_left_out():
    labels = torch.tensor([[[0, -1]]])
    known = softplus(0) + softplus(-1)
    assert mask_loss(LOGITS, labels, ignored="left_out").item() == pytest.approx(known / 2, rel=1e-5)
    negative = mask_loss(LOGITS, labels, ignored="negative").item()
    assert negative == pytest.approx((known + softplus(2) + softplus(3)) / 4, rel=1e-5)


def test_where_nothing_is_left_it_is_zero_and_has_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    loss = mask_loss(logits, torch.tensor([[[-1, -1]]]), ignored="left_out")
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_logits_are_resized_to_the_labels():
    labels = torch.zeros(1, 6, 12, dtype=torch.int64)
    flat = torch.full((1, 2, 2, 4), -1.0)
    assert mask_loss(flat, labels, ignored="negative").item() == pytest.approx(
        (softplus(1) + softplus(-1)) / 2, rel=1e-5
    )
