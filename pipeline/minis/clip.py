"""A small CLIP in open_clip's own form, trained on scenes with their captions and on crops with theirs.

Crops are just more pictures: each is stretched to the input like a whole scene, and no loss ties a region of a scene
to its caption. So region matching works on crops, as a teacher's does; on dense features it is left to later studies.
While training, `heads` on the vision tower teach it shapes from the crops; they are dropped at the end.

The folder opens with `open_clip.create_model_and_transforms("local-dir:FOLDER")`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.caption.clip import images_to_input
from pipeline.minis.batches import Example, crops_of_step, scenes_of_step
from pipeline.minis.heads import TeachingHeads, position_waves
from pipeline.minis.loop import Losses, MiniRecipe, Run, save_half, start
from pipeline.minis.tokens import BOUND, BOUND_ID, PAD_ID, train_tokenizer
from pipeline.scenes.draw import draw_scene
from pipeline.scenes.words import CHOICES, every_region_caption, region_caption

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
INPUT_PX = 96
PATCH_PX = 8
CONTEXT_LENGTH = 32
_LN_100 = 4.6052
_PREPROCESS: dict[str, Any] = {
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


@dataclass(frozen=True, kw_only=True)
class ClipRecipe(MiniRecipe):
    """How the shipped CLIP was trained."""

    steps: int = 2400
    batch_size: int = 48
    """Crops per step."""
    scenes_per_step: int = 12
    lr: float = 1e-3
    warmup_steps: int = 300
    weight_decay: float = 0.05
    heads_weight: float = 1.0
    """Of the attribute heads' loss beside the contrastive ones."""
    mask_weight: float = 2.0
    """Of the mask head's loss beside the contrastive ones."""


SHIPPED = ClipRecipe()


def train(recipe: ClipRecipe, folder: Path) -> None:
    """Train a CLIP in `folder` (continuing a stopped run there) and save it to `folder/checkpoint`."""
    start(recipe)
    checkpoint = folder / "checkpoint"
    prepare(checkpoint)
    trainee = _Trainee(checkpoint, recipe)
    # On CPUs the backward pass of torch's fused attention is slower than plain attention, if that keeps to bfloat16:
    # the setting counts there too, whatever its name says.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    with sdpa_kernel(SDPBackend.MATH):
        Run(trainee.module, recipe, folder).train(trainee.losses_at)
    save_half(trainee.model.state_dict(), checkpoint / WEIGHTS)


def prepare(checkpoint: Path) -> None:
    """Write the configuration and the tokenizer, all that open_clip needs to build the model with random weights."""
    captions = every_region_caption() + [draw_scene(0, "train", i).caption for i in range(2000)]
    tokenizer = train_tokenizer(captions, template=f"$A {BOUND}", max_length=CONTEXT_LENGTH)
    tokenizer.save_pretrained(checkpoint)
    config = {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": INPUT_PX, "patch_size": PATCH_PX, "width": 128, "head_width": 32, "layers": 4},
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": len(tokenizer),
                "hf_tokenizer_name": "scenes",
                "width": 96,
                "heads": 3,
                "layers": 3,
                "pool_type": "eos",
                "pad_id": PAD_ID,
                "eos_id": BOUND_ID,
            },
        },
        "preprocess_cfg": _PREPROCESS,
    }
    (checkpoint / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


class _Trainee:
    def __init__(self, checkpoint: Path, recipe: ClipRecipe) -> None:
        self._recipe = recipe
        location = f"local-dir:{checkpoint}"
        self.model: Any  # torch says a module's attributes may be tensors, and open_clip is not typed
        self.model, _, self._preprocess = open_clip.create_model_and_transforms(location, load_weights=False)
        self._tokenizer = open_clip.get_tokenizer(location)
        positions = self.model.visual.positional_embedding
        positions.data[1:] = position_waves(INPUT_PX // PATCH_PX, positions.shape[-1])
        self._heads = TeachingHeads(positions.shape[-1], PATCH_PX)
        self.module = nn.ModuleDict({"model": self.model, "heads": self._heads.module})

    def losses_at(self, step: int) -> Losses:
        recipe = self._recipe
        # Scenes and crops come from different seeds, so that no crop is one of a scene in the batch.
        scenes = scenes_of_step(recipe.seed, step, recipe.scenes_per_step)
        crops = crops_of_step(recipe.seed + 1, step, recipe.batch_size)
        image_captions, region_captions = [s.caption for s in scenes], [crop.caption for crop in crops]
        images = [scene.pixels for scene in scenes] + [crop.pixels for crop in crops]
        inputs = images_to_input(self._preprocess, images)
        outputs = self.model.visual.forward_intermediates(inputs, indices=1, output_fmt="NLC")
        image_features = nn.functional.normalize(outputs["image_features"], dim=-1)
        patches = outputs["image_intermediates"][-1]
        texts = image_captions + _with_near_misses(crops, np.random.default_rng((recipe.seed, step)))
        text_features = self.model.encode_text(self._tokenizer(texts), normalize=True)
        scale = self.model.logit_scale.clamp(max=_LN_100).exp()
        logits = (scale * image_features @ text_features.T).float()
        num_scenes = len(scenes)
        heads, right = self._heads.attributes_loss(patches[num_scenes:], [crop.attributes for crop in crops])
        mask = self._heads.mask_loss(patches[num_scenes:], _masks(crops))
        whole = _matching_loss(logits[:num_scenes, :num_scenes], image_captions, image_captions)
        region = _matching_loss(logits[num_scenes:, num_scenes:], region_captions, texts[num_scenes:])
        parts = {"global_loss": whole, "region_loss": region, "heads_loss": heads, "mask_loss": mask, "scale": scale}
        loss = whole + region + self._recipe.heads_weight * heads + self._recipe.mask_weight * mask
        return {"loss": loss} | {name: part.detach() for name, part in parts.items()} | right


def _with_near_misses(crops: Sequence[Example], rng: np.random.Generator) -> list[str]:
    """Return the distinct captions of `crops`, then two near misses of each: another shape, another of the rest.

    Without them a crop's caption can be told from the batch's others by colour, size and texture alone, and the text
    tower never learns to tell shapes apart. None is of a held-out pair.
    """
    captions = [crop.caption for crop in crops]
    for crop in crops:
        for names in (("shape",), ("size", "colour", "texture")):
            name = names[rng.integers(len(names))]
            own = getattr(crop.attributes, name)
            others = [replace(crop.attributes, **{name: word}) for word in CHOICES[name] if word != own]
            allowed = [other for other in others if not other.held_out]
            captions.append(region_caption(allowed[rng.integers(len(allowed))]))
    return list(dict.fromkeys(captions))


def _masks(crops: Sequence[Example]) -> Tensor:
    """Return `[B, 1, 96, 96]` of 0 and 1: the objects' masks, stretched as their crops are."""
    stretched = [
        cv2.resize(crop.mask.astype(np.uint8), (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_NEAREST) for crop in crops
    ]
    return torch.from_numpy(np.stack(stretched)).unsqueeze(1)


def _matching_loss(logits: Tensor, rows: Sequence[str], columns: Sequence[str]) -> Tensor:
    """Return the symmetric cross-entropy of `[A, B]` logits, where equal captions of rows and columns match.

    Columns that match no row, the negatives, count in the rows' direction only.
    """
    match = torch.tensor([[row == column for column in columns] for row in rows], dtype=torch.float32)
    by_row = nn.functional.cross_entropy(logits, match / match.sum(dim=1, keepdim=True))
    matched = match.sum(dim=0) > 0
    by_column = nn.functional.cross_entropy(
        logits.T[matched], match.T[matched] / match.T[matched].sum(dim=1, keepdim=True)
    )
    return (by_row + by_column) / 2
