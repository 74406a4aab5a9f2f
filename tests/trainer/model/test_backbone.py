"""The shared trunk against two whole passes of open_clip's own code, the dense one with its last block patched."""

import copy
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

from tests.trainer.towers import EVA, VIT, random_weights
from trainer.model.backbone import Backbone, check_size, normalise, pool_regions
from trainer.model.towers import UnsupportedTowerError, tower_of

SIZES = [(224, 224), (320, 320), (224, 320), (448, 448), (96, 96)]


def model_of(name: str, size: tuple[int, int] = (224, 224)) -> Any:
    """Return the tiny model, rebuilt by open_clip itself for another input size."""
    native = open_clip.create_model(name)
    random_weights(native)
    if size == (224, 224):
        return native
    if name == EVA:
        trunk = native.visual.trunk
        positions = trunk.pos_embed.detach()
        native.visual.set_input_size(size)
        trunk.pos_embed.data = resampled(positions, trunk.patch_embed.grid_size)
        return native
    resized = open_clip.create_model(name, force_image_size=size)
    state = native.state_dict()
    resize_pos_embed(state, resized, antialias=False)
    resized.load_state_dict(state)
    return resized


def resampled(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return `[1, 1 + h w, C]` position embeddings for another grid, as the original EVA-CLIP code has it."""
    old = positions[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    new = nn.functional.interpolate(old, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], new.flatten(2).transpose(1, 2)], dim=1)


def dense_of(visual: Any, name: str, images: Tensor) -> Tensor:
    """Return `[B, h w, D]` by a pass of its own: the last block's attention, patched, gives tokens their own values."""
    if name == EVA:
        attention = visual.trunk.blocks[-1].attn
        attention.forward = lambda x, **_: attention.proj(attention.norm(attention.v_proj(x)))
        return visual.trunk.head(visual.trunk.forward_features(images))[:, 1:]
    block = visual.transformer.resblocks[-1]

    def values_only(q_x: Tensor, **_: Any) -> Tensor:
        width = q_x.shape[-1]
        weight, bias = block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
        return block.attn.out_proj(nn.functional.linear(q_x, weight, bias))

    block.attention = values_only
    visual.output_tokens = True
    return visual(images)[1] @ visual.proj


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", [EVA, VIT])
def test_one_pass_equals_two(name, size):
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    reference = model_of(name, size).eval()
    backbone = Backbone(model_of(name).visual).eval()
    with torch.no_grad():
        embeddings = backbone(images, dense=True)
        image_features, dense = reference.encode_image(images), dense_of(copy.deepcopy(reference.visual), name, images)
    assert image_features.abs().max() > 0.1
    assert torch.allclose(embeddings.image_features, image_features, atol=1e-5)
    assert embeddings.dense_features.shape == (2, 8, size[0] // 16, size[1] // 16)
    assert torch.allclose(embeddings.dense_features.flatten(2).transpose(1, 2), dense, atol=1e-5)


@pytest.mark.parametrize("name", [EVA, VIT])
def test_gradients_of_one_pass_equal_those_of_two(name):
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    reference, ours = model_of(name), model_of(name)
    embeddings = Backbone(ours.visual)(images, dense=True)
    (embeddings.image_features.square().sum() + embeddings.dense_features.square().sum()).backward()
    reference.encode_image(images).square().sum().backward()
    visual = copy.deepcopy(reference.visual)
    dense_loss = dense_of(visual, name, images).square().sum()
    gradients = torch.autograd.grad(dense_loss, list(visual.parameters()), allow_unused=True)
    for (parameter_name, expected), dense in zip(reference.visual.named_parameters(), gradients, strict=True):
        total = expected.grad if dense is None else expected.grad + dense
        found = dict(ours.visual.named_parameters())[parameter_name].grad
        assert torch.allclose(found, total, rtol=1e-3, atol=1e-3 * float(total.abs().max())), parameter_name


@pytest.mark.parametrize("name", [EVA, VIT])
def test_gradient_checkpointing_covers_both_paths_and_changes_nothing(name):
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    gradients, saved = [], []
    for checkpointing in (False, True):
        backbone = Backbone(model_of(name).visual, gradient_checkpointing=checkpointing)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: _seen(t, sizes), lambda t: t):
            embeddings = backbone(images, dense=True)
        (embeddings.image_features.sum() + embeddings.dense_features.square().sum()).backward()
        gradients.append([p.grad for p in backbone.parameters()])
        saved.append(sum(sizes))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert saved[1] < 0.4 * saved[0]


def _seen(tensor: Tensor, sizes: list[int]) -> Tensor:
    sizes.append(tensor.numel())
    return tensor


@pytest.mark.parametrize("name", [EVA, VIT])
def test_no_images_still_reach_every_parameter(name):
    backbone = Backbone(model_of(name).visual)
    embeddings = backbone(torch.zeros(0, 3, 64, 64), dense=True)
    assert embeddings.image_features.shape == (0, 8)
    assert embeddings.dense_features.shape == (0, 8, 4, 4)
    (embeddings.image_features.sum() + embeddings.dense_features.sum()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in backbone.parameters())


def test_a_copy_has_weights_of_its_own():
    backbone = Backbone(model_of(VIT).visual)
    images = torch.ones(1, 3, 64, 64)
    copied = copy.deepcopy(backbone)
    before = copied(images).image_features
    assert torch.equal(before, backbone(images).image_features)
    for parameter in backbone.parameters():
        parameter.data.zero_()
    assert torch.equal(before, copied(images).image_features)


def test_a_region_is_the_mean_of_what_it_covers():
    maps = torch.randn(2, 8, 4, 6, generator=torch.Generator().manual_seed(1))
    # The right half of the second image: columns 3 to 5, all rows.
    boxes = torch.tensor([[0.5, 0.0, 1.0, 1.0]])
    found = pool_regions(maps, boxes, torch.tensor([1]))
    expected = normalise(normalise(maps)[1:, :, :, 3:].mean(dim=(2, 3)))
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_region_within_a_patch_is_that_patch():
    maps = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    found = pool_regions(maps, torch.tensor([[0.25, 0.5, 0.5, 0.75]]), torch.tensor([0]))
    # Aligned: the one sample is the centre of row 2, column 1.
    assert torch.allclose(found, normalise(maps)[:, :, 2, 1], atol=1e-6)


def test_no_regions():
    maps = torch.randn(1, 8, 4, 4, requires_grad=True)
    found = pool_regions(maps, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert found.shape == (0, 8)
    found.sum().backward()
    assert maps.grad is not None


def test_sizes_that_cut_patches_are_refused_with_the_nearest():
    check_size((224, 320), (16, 16))
    with pytest.raises(ValueError, match="take 322 x 322"):
        check_size((320, 320), (14, 14))


def test_other_towers_are_refused():
    with pytest.raises(UnsupportedTowerError, match="pooling other than the class token"):
        visual = model_of(VIT).visual
        visual.pool_type = "avg"
        tower_of(visual)
    with pytest.raises(UnsupportedTowerError, match="Linear"):
        tower_of(nn.Linear(2, 2))
