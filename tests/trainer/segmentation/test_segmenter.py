"""Shapes, classes that there is no room for, what of the CLIP is trained, and towers and sizes that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainer.towers import EVA, VIT, random_weights
from trainer.errors import TrainingError
from trainer.hyperparameters import ModelSettings
from trainer.model.open import LoadedModel, load_model
from trainer.segmentation.mask_loss import mask_loss
from trainer.segmentation.run import build
from trainer.segmentation.segmenter import Segmenter, sentence
from trainer.segmentation.settings import SegmentRecipe, ViewSettings, scenes
from trainer.segmentation.train import optimizer_of
from trainer.segmentation.tuning import forget_keys, restore_keys

CPU = torch.device("cpu")


@pytest.fixture(params=[EVA, VIT])
def clip(request) -> LoadedModel:
    return loaded(request.param)


def loaded(name: str) -> LoadedModel:
    model = load_model(ModelSettings(model=name))
    random_weights(model.clip)
    return model


def recipe_of(*, text: str = "tuned", **head) -> SegmentRecipe:
    """Return the small recipe for a tower of three blocks with 4 x 4 patches."""
    base = scenes()
    return SegmentRecipe(
        head=replace(base.head, **{"window": 2, "most_classes": 4, **head}),
        inputs=replace(base.inputs, image_size=64, crop_px=64, text=text),
        optim=replace(base.optim, weight_decay=0.5, clip_lr_scale=0.1),
    )


def built(clip: LoadedModel, recipe: SegmentRecipe, *, tune: bool = True) -> Segmenter:
    torch.manual_seed(0)
    return build(clip, recipe, device=CPU, tune=tune)


def test_two_levels_quadruple_the_patches(clip):
    two = {"guides": (0, 1), "guide_channels": (8, 4), "guide_kept": (8, 8), "decoder_channels": (32, 16)}
    segmenter = built(clip, recipe_of(**two)).eval()
    seen = {}
    segmenter.embed.register_forward_hook(lambda _, given, __: seen.update(cost=given[0].shape))
    texts = segmenter.texts(segmenter.sentences(["cat", "dog", "a mat"]))
    assert segmenter(torch.zeros(2, 3, 64, 64), texts).shape == (2, 3, 16, 16)
    assert seen["cost"] == (6, 1, 4, 4), "a map of 4 x 4 patches for each image and name"
    assert segmenter(torch.zeros(1, 3, 96, 96), texts).shape == (1, 3, 16, 16), "larger crops are resized"
    found = segmenter.probabilities(np.zeros((50, 70, 3), np.uint8), texts, ViewSettings(canvas_px=96, stride_px=32))
    assert found.shape == (3, 50, 70) and found.min() >= 0 and found.max() <= 1


@torch.no_grad()
def test_of_too_many_classes_a_view_keeps_the_likeliest(clip):
    segmenter = built(clip, recipe_of(), tune=False).eval()
    names = ["cat", "dog", "mat", "hat", "bat", "rat"]
    images, texts = torch.rand(2, 3, 64, 64) * 255, segmenter.texts(segmenter.sentences(names))
    logits = segmenter(images, texts)
    kept = (logits > -100).flatten(2).all(dim=2)
    assert kept.sum(dim=1).tolist() == [4, 4]
    for image in (0, 1):
        alone = segmenter(images[image : image + 1], texts[kept[image]])
        torch.testing.assert_close(logits[image][kept[image]], alone[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_residual_changes_the_cost_volume(clip):
    found = []
    for residual in ("own", "cls"):
        segmenter = built(clip, recipe_of(residual=residual), tune=False).eval()
        found.append(segmenter(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.eye(8)[:3]))
    assert not torch.allclose(*found)


@pytest.mark.parametrize("text", ["tuned", "frozen"])
@pytest.mark.parametrize("name", [EVA, VIT])
def test_of_the_clip_queries_and_values_are_trained_and_nothing_else(name, text):
    clip = loaded(name)
    before = {key: value.clone() for key, value in clip.clip.state_dict().items()}
    segmenter = built(clip, recipe_of(text=text)).train()
    optimizer = optimizer_of(segmenter, recipe_of().optim)
    tokens = segmenter.sentences(["cat", "dog"])
    loss = mask_loss(segmenter(torch.rand(1, 3, 64, 64) * 255, segmenter.texts(tokens)), torch.zeros(1, 64, 64).long(),
                     ignored="negative")  # fmt: skip
    loss.backward()
    forget_keys(segmenter.tuned)
    optimizer.step()
    restore_keys(segmenter.tuned)
    changed = {key: before[key] != value for key, value in clip.clip.state_dict().items()}
    moved = {key for key, where in changed.items() if where.any()}
    vision = (
        [f"visual.trunk.blocks.{block}.attn.{part}.weight" for block in (0, 1) for part in ("q_proj", "v_proj")]
        + ["visual.trunk.blocks.2.attn.v_proj.weight"]
        if name == EVA
        else [f"visual.transformer.resblocks.{block}.attn.in_proj_weight" for block in (0, 1, 2)]
    )
    prefix = "text." if name == EVA else ""
    spoken = [f"{prefix}transformer.resblocks.0.attn.in_proj_weight"] if text == "tuned" else []
    assert moved == {*vision, *spoken}
    for key in (*spoken, *(key for key in vision if "in_proj" in key)):
        queries, keys, values = changed[key].chunk(3)
        assert not keys.any() and values.any(), key
        assert queries.any() == ("resblocks.2" not in key), "the last block's queries are not used"


def test_what_was_trained_is_loaded_again_and_the_rest_is_the_clips(clip):
    segmenter = built(clip, recipe_of())
    state = {name: tensor + 1 for name, tensor in segmenter.trained_state().items()}
    again = built(loaded(EVA if "trunk" in str(state.keys()) else VIT), recipe_of(), tune=False)
    again.load_trained(state)
    found = again.state_dict() | {f"clip.{name}": tensor for name, tensor in again.clip.clip.state_dict().items()}
    assert any(name.startswith("clip.visual") for name in state)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_the_clip_stays_in_eval_mode(clip):
    segmenter = built(clip, recipe_of()).train()
    assert not any(module.training for module in clip.clip.modules())
    assert not any(name.startswith("clip") for name in segmenter.state_dict())


def test_activations_computed_twice_give_the_same_gradients(clip):
    found = []
    for checkpointing in (False, True):
        recipe = recipe_of(layers=2)
        torch.manual_seed(0)
        segmenter = build(clip, recipe, device=CPU, tune=True, gradient_checkpointing=checkpointing).train()
        texts = segmenter.texts(segmenter.sentences(["cat", "dog", "mat"]))
        segmenter(torch.linspace(0, 255, 3 * 64 * 64).reshape(1, 3, 64, 64), texts).square().sum().backward()
        parameters = [*segmenter.parameters(), *(one.parameter for one in segmenter.tuned)]
        found.append([parameter.grad.clone() for parameter in parameters])
        clip.clip.zero_grad()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_norms_have_no_weight_decay(clip):
    segmenter = built(clip, recipe_of())
    others, norms, tuned = optimizer_of(segmenter, recipe_of().optim).param_groups
    assert (others["weight_decay"], norms["weight_decay"], tuned["scale"]) == (0.5, 0.0, 0.1)
    assert all(parameter.ndim == 1 for parameter in norms["params"]) and norms["params"]
    assert len(others["params"]) + len(norms["params"]) == len(list(segmenter.parameters()))


def test_names_go_into_the_sentence_as_they_are_and_the_first_of_several():
    assert sentence("A photo of a {} in the scene", "bed ") == "A photo of a bed  in the scene"
    assert sentence("A photo of a {} in the scene", "building, edifice") == "A photo of a building in the scene"
    assert sentence("{article} {}", "orange ring") == "an orange ring"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"guides": (2,)}, r"--guides \[2\]: name blocks from 0 to 1: this tower has 3"),
        ({"guides": None}, "CAT-Seg's are known for towers of 12 and 24 blocks, and this one has 3"),
        ({"window": 3}, "4 patches a side are not whole windows and pools; take 96"),
    ],
)
def test_what_does_not_fit_is_told(change, said):
    with pytest.raises(TrainingError, match=said):
        built(loaded(VIT), recipe_of(**change))


def test_half_a_patch_is_told():
    recipe = recipe_of()
    with pytest.raises(TrainingError, match="--image-size 60"):
        built(loaded(VIT), replace(recipe, inputs=replace(recipe.inputs, image_size=60)))


def test_probabilities_that_are_no_numbers_are_an_error(clip):
    segmenter = built(clip, recipe_of(), tune=False).eval()
    texts = segmenter.texts(segmenter.sentences(["cat", "dog"]))
    with torch.no_grad():
        next(segmenter.parameters()).fill_(torch.nan)
        with pytest.raises(TrainingError, match="probabilities are no numbers"):
            segmenter.probabilities(np.zeros((50, 70, 3), np.uint8), texts, ViewSettings(canvas_px=0))
