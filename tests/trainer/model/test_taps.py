"""Tokens of several blocks in one pass, against the towers' own blocks and our dense map."""

import open_clip
import pytest
import torch

from tests.trainer.towers import EVA, VIT, random_weights
from trainer.errors import TrainingError
from trainer.model.backbone import Backbone
from trainer.model.taps import FrozenTower, tapped
from trainer.model.towers import tower_of

IMAGES = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[EVA, VIT])
def visual(request):
    model = open_clip.create_model(request.param).eval()
    random_weights(model)
    return model.visual


def blocks_of(visual):
    return visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks


@torch.no_grad()
def test_taps_are_the_raw_patch_tokens_and_the_dense_map_is_ours(visual):
    seen = {}
    for number in (0, 1):
        blocks_of(visual)[number].register_forward_hook(lambda *given, n=number: seen.__setitem__(n, given[-1]))
    found = tapped(tower_of(visual), IMAGES, (0, 1, 2))
    for number in (0, 1):
        assert torch.equal(found.maps[number].flatten(2).transpose(1, 2), seen[number][:, 1:])
    expected = Backbone(visual)(IMAGES, dense=True).dense_features
    assert found.dense_features.shape == (2, 8, 3, 4)
    torch.testing.assert_close(found.dense_features, expected)
    last = found.maps[2].flatten(2).transpose(1, 2)
    embedded = tower_of(visual).embed(last).transpose(1, 2).unflatten(2, (3, 4))
    assert torch.equal(embedded, found.dense_features)


@torch.no_grad()
def test_the_class_token_is_the_residual_where_it_is_asked_for(visual):
    tower = tower_of(visual)
    tokens, _ = tower.tokens(IMAGES, lambda block, *arguments: block(*arguments))
    same = tokens[:, :1].expand(-1, tokens.shape[1] - 1, -1)
    found = tapped(tower, IMAGES, (2,), residual="cls").maps[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, tower.value_tokens(tokens, same))
    assert not torch.allclose(found, tower.value_tokens(tokens))


def test_a_frozen_tower_stays_in_eval_without_gradient_or_state(visual):
    tower = FrozenTower(visual, (0, 2))
    tower.train()
    assert not any(module.training for module in visual.modules())
    assert not tower.state_dict() and not list(tower.parameters())
    assert tower.widths() == (32, 8) and tower.num_blocks == 3
    assert not any(part.requires_grad for part in (*tower(IMAGES).maps, tower(IMAGES).dense_features))


def test_a_block_that_is_not_there_is_named(visual):
    with pytest.raises(TrainingError, match=r"no block 3 .* the vision tower has 3"):
        tapped(tower_of(visual), IMAGES, (1, 3))
