"""Segment Anything in its authors' layout, SAM 2 and EdgeTAM, with small random weights."""

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.propose import segment_anything

WIDTH = 32
_HF_NAMES = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.blocks\.", ".layers."),
    (r"\.norm(\w+)\.", r".layer_norm\1."),
    (r"norm_final_attn", "layer_norm_final_attn"),
    (r"layer_layer_norm", "layer_norm"),
    (r"\.layers\.0\.(weight|bias)$", r".proj_in.\1"),
    (r"\.layers\.1\.(weight|bias)$", r".layers.0.\1"),
    (r"\.layers\.2\.(weight|bias)$", r".proj_out.\1"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"point_embeddings", "point_embed"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
)
"""From the authors' names of weights to transformers'."""


def build_tiny(checkpoint: None = None, *, side: int = 128) -> Any:
    """A model of the package, as large as that of `random_sam`."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    patches = side // 16
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=side,
            patch_size=16,
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            out_chans=WIDTH,
            norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=4,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=WIDTH, image_embedding_size=(patches, patches), input_image_size=(side, side), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=WIDTH,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=2, mlp_dim=WIDTH),
            iou_head_hidden_dim=WIDTH,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )


def register_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `build_tiny` known to the package, and to us, beside ViT-B, L and H."""
    import segment_anything as package

    monkeypatch.setitem(package.sam_model_registry, "tiny", build_tiny)
    monkeypatch.setitem(segment_anything._VARIANTS, WIDTH, "tiny")


def write_in_authors_layout(folder: Path, path: Path) -> str:
    """Write the weights of a `random_sam` as the authors would have; returns their sha256."""
    from transformers import SamModel

    weights = SamModel.from_pretrained(folder).state_dict()
    state = {}
    for name in build_tiny().state_dict():
        theirs = name
        for ours, instead in _HF_NAMES:
            theirs = re.sub(ours, instead, theirs)
        state[name] = weights[theirs]
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


_PROMPTS = {"prompt_encoder_config": {"hidden_size": WIDTH, "image_size": 128, "patch_size": 16}}
_DECODER = {
    "mask_decoder_config": {"hidden_size": WIDTH, "mlp_dim": WIDTH, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
}
_SIZES = [[32, 32], [16, 16], [8, 8]]


def random_sam2(folder: Path) -> None:
    """Write a small SAM 2 of 128 pixels in the hub's layout."""
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model

    channels = [64, 32, 16, 8]
    config = Sam2Config(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [128, 128],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": channels[::-1],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "window_size_per_stage": [4, 4, 4, 4],
                "window_positional_embedding_background_size": [4, 4],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": channels,
            "backbone_feature_sizes": _SIZES,
            "fpn_hidden_size": WIDTH,
        },
        **_PROMPTS,
        **_DECODER,
    )
    _save(Sam2Model, config, Sam2ImageProcessor, folder)


def random_edgetam(folder: Path) -> None:
    """Write an EdgeTAM of 128 pixels in the hub's layout: its backbone is a whole RepViT-M1, the rest is small."""
    from transformers import EdgeTamConfig, EdgeTamModel, Sam2ImageProcessor, __version__

    if tuple(map(int, __version__.split(".")[:2])) < (5, 20):
        pytest.skip("NOT TESTED: EdgeTAM; before 5.20, transformers asks the hub for its backbone's settings")
    backbone = {
        "model_type": "timm_wrapper",
        "architecture": "repvit_m1",
        "num_classes": 2,
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    }
    vision = {"backbone_config": backbone, "backbone_feature_sizes": _SIZES, "fpn_hidden_size": WIDTH}
    config = EdgeTamConfig(vision_config=vision, **_PROMPTS, **_DECODER)
    _save(EdgeTamModel, config, Sam2ImageProcessor, folder)


def _save(kind: Any, config: Any, processor: Any, folder: Path) -> None:
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1 and "backbone" not in name:
                weights.normal_(std=0.2)
        model.mask_decoder.iou_prediction_head.proj_out.weight /= 300
        model.mask_decoder.iou_prediction_head.proj_out.bias += 0.94
    model.save_pretrained(folder)
    processor(size={"height": 128, "width": 128}).save_pretrained(folder)
