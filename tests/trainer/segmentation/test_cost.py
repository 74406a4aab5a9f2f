"""Cosines of patches and names, by hand."""

import torch

from trainer.segmentation.cost import cost_volume, likeliest


def test_a_cost_volume_is_the_cosine_of_each_patch_and_name():
    patches = torch.tensor([[[3.0, 0.0]], [[4.0, -2.0]]])[None]  # (3, 4) and (0, -2), side by side
    texts = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = cost_volume(patches, texts)
    assert found.shape == (1, 3, 1, 2)
    expected = torch.tensor([[0.6, 0.0], [0.8, -1.0], [1.4 / 2**0.5, -1 / 2**0.5]])
    torch.testing.assert_close(found[0, :, 0], expected)
    torch.testing.assert_close(cost_volume(patches, texts[None]), found)


def test_a_patch_of_zeros_is_like_nothing_and_no_nan():
    assert cost_volume(torch.zeros(1, 2, 1, 1), torch.eye(2)).tolist() == [[[[0.0]], [[0.0]]]]


def test_each_image_keeps_the_classes_of_its_best_patches_in_their_order():
    cost = torch.tensor([[[[0.1, 0.9]], [[0.5, 0.5]], [[0.2, 0.7]]], [[[0.0, 0.0]], [[0.3, 0.0]], [[0.0, 0.4]]]])
    assert likeliest(cost, 2).tolist() == [[0, 2], [1, 2]]
    assert likeliest(cost, 9).tolist() == [[0, 1, 2], [0, 1, 2]]
