"""Tiny CLIP models with the two kinds of vision tower, built by open_clip itself from configurations of their own."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
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


def add_plain_model(folder: Path) -> str:
    """Let open_clip know a tiny model as SigLIP's are, pooled by attention, and return its name."""
    vision = {
        "image_size": 32,
        "timm_model_name": "vit_tiny_patch16_siglip_tests",
        "timm_pool": "",
        "timm_proj": "none",
    }
    config = {"embed_dim": 16, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1, "no_causal_mask": True}
    (folder / "tiny-plain.json").write_text(json.dumps({**config, "text_cfg": text}), encoding="utf-8")
    open_clip.add_model_config(folder)
    return "tiny-plain"


@register_model
def vit_tiny_patch16_siglip_tests(**kwargs: Any) -> VisionTransformer:
    """SigLIP's options at a thousandth of its size."""
    mine = {name: kwargs[name] for name in ("num_classes", "img_size") if name in kwargs}
    return VisionTransformer(
        patch_size=16,
        embed_dim=16,
        depth=1,
        num_heads=2,
        class_token=False,
        global_pool="map",
        **{"img_size": 32, **mine},
    )
