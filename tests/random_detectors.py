"""Detectors of the real architectures in transformers, small and with random weights, in the hub's layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

NAMES = {0: "person", 1: "bicycle", 2: "N/A", 3: "LABEL_3"}
"""Classes of all of them; the last two are what stands for no name."""
NUM_QUERIES = 20
_SQUARE = {"height": 128, "width": 128}
_EDGES = {"shortest_edge": 96, "longest_edge": 160}
_BOTH = {"encoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_ffn_dim": 32, "decoder_attention_heads": 2}
_SMALL = {"d_model": 32, "num_queries": NUM_QUERIES, "decoder_layers": 2, "id2label": NAMES}
_LW = {"decoder_ffn_dim": 32, "decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2, "group_detr": 1}
_RT = {"encoder_hidden_dim": 32, "encoder_in_channels": [16, 16, 32], "decoder_in_channels": [32] * 3}
_STAGES = {"out_features": ["stage2", "stage3", "stage4"]}
_RESNET: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 16, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}

_Made = tuple[Any, Any]
"""A model and its image processor."""


def _rf_detr() -> _Made:
    backbone = transformers.RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=112,
        num_windows=2,
        out_features=["stage1", "stage2"],
    )
    config = transformers.RfDetrConfig(backbone_config=backbone, **_SMALL, **_LW)
    processor = transformers.RfDetrImageProcessor(size={"height": 112, "width": 112})
    return transformers.RfDetrForObjectDetection(config), processor


def _d_fine() -> _Made:
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 16, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[16, 16, 16, 32],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[16, 16, 16, 32],
        **_STAGES,
    )
    config = transformers.DFineConfig(backbone_config=backbone, decoder_n_points=2, **_SMALL, **_BOTH, **_RT)
    return transformers.DFineForObjectDetection(config), transformers.RTDetrImageProcessor(size=_SQUARE)


def _rt_detr_v2() -> _Made:
    backbone = transformers.RTDetrResNetConfig(**_RESNET, **_STAGES)
    config = transformers.RTDetrV2Config(backbone_config=backbone, **_SMALL, **_BOTH, **_RT)
    return transformers.RTDetrV2ForObjectDetection(config), transformers.RTDetrImageProcessor(size=_SQUARE)


def _lw_detr() -> _Made:
    backbone = transformers.LwDetrViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        window_block_indices=[1],
        num_windows=4,
        image_size=128,
        pretrain_image_size=32,
        out_features=["stage1", "stage2"],
    )
    config = transformers.LwDetrConfig(
        backbone_config=backbone, projector_scale_factors=[1.0], num_feature_levels=1, **_SMALL, **_LW
    )
    return transformers.LwDetrForObjectDetection(config), transformers.DeformableDetrImageProcessor(size=_SQUARE)


def _deformable_detr() -> _Made:
    config = transformers.DeformableDetrConfig(
        backbone_config=transformers.ResNetConfig(**_RESNET, **_STAGES), encoder_layers=1, **_SMALL, **_BOTH
    )
    return transformers.DeformableDetrForObjectDetection(config), transformers.DeformableDetrImageProcessor(size=_EDGES)


def _yolos() -> _Made:
    config = transformers.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[96, 160],
        num_detection_tokens=NUM_QUERIES,
        initializer_range=0.2,
        id2label=NAMES,
    )
    return transformers.YolosForObjectDetection(config), transformers.YolosImageProcessor(size=_EDGES)


DETECTORS: dict[str, Callable[[], _Made]] = {
    "rf_detr": _rf_detr,
    "d_fine": _d_fine,
    "rt_detr_v2": _rt_detr_v2,
    "lw_detr": _lw_detr,
    "deformable_detr": _deformable_detr,
    "yolos": _yolos,
}
"""By transformers' name of the architecture."""


def random_detector(folder: Path, architecture: str) -> None:
    """Write a detector and its processor: their boxes and scores differ from image to image."""
    write_random(folder, DETECTORS[architecture])


def write_random(folder: Path, make: Callable[[], _Made]) -> None:
    """Write a model and its processor, the same at each call."""
    torch.manual_seed(0)
    model, processor = make()
    spread_weights(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def spread_weights(model: torch.nn.Module) -> None:
    """Make matrices larger: as they are initialised, all queries and all images look alike."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight.std() < 0.2:
            torch.nn.init.normal_(module.weight, std=0.2)
