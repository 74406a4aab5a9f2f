"""Tiny CLIP models with the two kinds of vision tower, built by open_clip itself from configurations of their own."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from timm.models import register_model
from timm.models.eva import Eva
from torch import nn

EVA, VIT = "tiny-eva", "tiny-vit"
IMAGE_SIZE = 224
_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
_VISION: dict[str, dict[str, Any]] = {
    EVA: {"timm_model_name": "eva02_tests_patch16_clip_224", "timm_pool": "token", "timm_proj": None},
    VIT: {"patch_size": 16, "width": 32, "head_width": 16, "layers": 3},
}


@register_model
def eva02_tests_patch16_clip_224(**kwargs: Any) -> Eva:
    """EVA02-CLIP's options at a tenth of a thousandth of its size."""
    mine = {name: kwargs[name] for name in ("num_classes", "global_pool") if name in kwargs}
    return Eva(
        img_size=IMAGE_SIZE,
        patch_size=16,
        embed_dim=32,
        depth=3,
        num_heads=2,
        qkv_fused=False,
        mlp_ratio=8 / 3,
        swiglu_mlp=True,
        scale_mlp=True,
        scale_attn_inner=True,
        use_rot_pos_emb=True,
        ref_feat_shape=(16, 16),
        **mine,
    )


def add_tiny_models(folder: Path) -> None:
    """Let open_clip know the tiny models."""
    for name, vision in _VISION.items():
        config = {"embed_dim": 8, "vision_cfg": {"image_size": IMAGE_SIZE, **vision}, "text_cfg": _TEXT}
        if name == EVA:
            config["custom_text"] = True
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder)


def random_weights(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter a weight that shows: fresh heads and biases are close to 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
