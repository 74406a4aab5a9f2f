"""Who sees whom: patches of a window, classes of a patch; and attention against its definition."""

import torch
from torch.nn.functional import elu

from trainer.segmentation.aggregate import AggregateLayer, ClassBlock, WindowBlock


def seen_from(block: WindowBlock, y: int, x: int) -> set[tuple[int, int]]:
    """Return the patches that the output at (y, x) of a 4 x 4 map depends on."""
    maps = torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    guide = torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(1))
    block(maps, guide)[0, y, x].sum().backward()
    return {(int(row), int(column)) for row, column in maps.grad[0].abs().sum(dim=2).nonzero()}


def test_a_patch_sees_its_window():
    block = WindowBlock(8, 8, heads=2, window=2, shift=0)
    assert seen_from(block, 0, 0) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert seen_from(block, 3, 2) == {(2, 2), (2, 3), (3, 2), (3, 3)}


def test_a_shifted_window_does_not_reach_around_the_edge():
    block = WindowBlock(8, 8, heads=2, window=2, shift=1)
    assert seen_from(block, 1, 1) == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert seen_from(block, 0, 0) == {(0, 0)}
    assert seen_from(block, 0, 1) == {(0, 1), (0, 2)}
    assert seen_from(block, 3, 3) == {(3, 3)}


@torch.no_grad()
def test_windows_go_back_where_they_came_from():
    block = WindowBlock(8, 8, heads=2, window=2, shift=1)
    maps = torch.randn(3, 4, 6, 8)
    assert torch.equal(block._join(block._cut(maps), (4, 6)), maps)
    lonely = WindowBlock(8, 8, heads=2, window=2, shift=0)
    one = lonely(maps[:, :2, :2], maps[:, :2, :2])
    torch.testing.assert_close(lonely(maps, maps)[:, :2, :2], one)


@torch.no_grad()
def test_linear_attention_is_what_its_definition_says():
    block = ClassBlock(4, 4, heads=2, most=3)
    query, key, value = torch.randn(3, 1, 1, 3, 4).unbind(0)
    found = block._attend(query, key, value)[0, 0]
    for head in (0, 1):
        part = slice(2 * head, 2 * head + 2)
        weights = (elu(query[0, 0, :, part]) + 1) @ (elu(key[0, 0, :, part]) + 1).T
        expected = (weights / weights.sum(dim=1, keepdim=True)) @ value[0, 0, :, part]
        torch.testing.assert_close(found[:, part], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_classes_of_a_patch_see_each_other_in_any_order_and_fewer_are_filled_up():
    block = ClassBlock(8, 8, heads=2, most=6)
    x, guide = torch.randn(2, 5, 4, 8), torch.randn(2, 4, 8)
    order = torch.tensor([2, 0, 3, 1])
    found = block(x, guide)
    assert found.shape == x.shape
    torch.testing.assert_close(block(x[:, :, order], guide[:, order]), found[:, :, order])
    block._most = 4
    assert not torch.allclose(block(x, guide), found), "the learned class is one of those that are seen"
    torch.testing.assert_close(block(x[:, :2], guide), block(x, guide)[:, :2])


@torch.no_grad()
def test_a_layer_pools_in_training_alone():
    layer = AggregateLayer(8, heads=2, window=2, most=4, train_pool=2)
    x, image, text = torch.randn(2, 8, 3, 4, 4), torch.randn(2, 8, 4, 4), torch.randn(2, 3, 8)
    trained, used = layer.train()(x, image, text), layer.eval()(x, image, text)
    assert trained.shape == used.shape == x.shape
    assert not torch.allclose(trained, used)
    single = AggregateLayer(8, heads=2, window=2, most=4, train_pool=1)
    single.load_state_dict(layer.state_dict())
    torch.testing.assert_close(single.train()(x, image, text), used)
    torch.testing.assert_close(layer(x[1:], image[1:], text[1:]), used[1:])
