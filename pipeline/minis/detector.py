"""A small D-FINE of one class, `object`, trained on scenes: transformers' model and loss in the project's own loop.

The checkpoint has the layout of the hub's models, so that the proposer `detr` loads it as it loads those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DFineConfig, DFineForObjectDetection, RTDetrImageProcessor

from pipeline.minis.batches import scenes_of_step
from pipeline.minis.loop import Losses, MiniRecipe, Run, start
from pipeline.scenes.draw import Scene
from pipeline.scenes.layout import SIDE_PX

_WIDTH = 64
_STAGE_CHANNELS = [32, 64, 128, 192]
_LOGGED = ("loss_vfl", "loss_bbox", "loss_giou")
"""Of the loss's parts, those of the last layer, which are the detections."""


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe(MiniRecipe):
    """How the shipped detector was trained."""

    steps: int = 800
    batch_size: int = 16
    lr: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float | None = 0.995
    bf16: bool = False
    """Boxes are refined in 0..1, where bfloat16 is as coarse as a pixel; and at this width it is no faster."""
    save_every: int = 100


SHIPPED = DetectorRecipe()


def train(recipe: DetectorRecipe, folder: Path) -> None:
    """Train a detector in `folder` (continuing a stopped run there) and save it to `folder/checkpoint`."""
    start(recipe)
    trainee = _Trainee(recipe)
    Run(trainee.model, recipe, folder).train(trainee.losses_at)
    save(trainee.model, folder / "checkpoint")


def build_model() -> DFineForObjectDetection:
    """Return a D-FINE with random weights: a small HGNetV2, maps of strides 16 and 32, three decoder layers.

    Batch norms are learnt, since no backbone was trained before.
    """
    backbone = {
        "model_type": "hgnet_v2",
        "embedding_size": 16,
        "stem_channels": [3, 16, 16],
        "depths": [1, 1, 1, 1],
        "hidden_sizes": _STAGE_CHANNELS,
        "stage_in_channels": [16, *_STAGE_CHANNELS[:3]],
        "stage_mid_channels": [16, 24, 32, 48],
        "stage_out_channels": _STAGE_CHANNELS,
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [2, 2, 3, 3],
        "out_indices": [3, 4],
    }
    config = DFineConfig(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        feat_strides=[16, 32],
        encoder_in_channels=_STAGE_CHANNELS[2:],
        encode_proj_layers=[1],
        encoder_hidden_dim=_WIDTH,
        encoder_ffn_dim=2 * _WIDTH,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        depth_mult=0.34,
        d_model=_WIDTH,
        decoder_in_channels=[_WIDTH, _WIDTH],
        num_feature_levels=2,
        decoder_n_points=[4, 4],
        decoder_layers=3,
        decoder_ffn_dim=2 * _WIDTH,
        decoder_attention_heads=4,
        num_queries=30,
        num_denoising=30,
        max_num_bins=16,
        id2label={0: "object"},
        label2id={"object": 0},
    )
    return DFineForObjectDetection(config)


def build_processor() -> RTDetrImageProcessor:
    """Return the image processor: squares of 256 px, values 0 to 1."""
    return RTDetrImageProcessor(size={"height": SIDE_PX, "width": SIDE_PX}, do_normalize=False)


class _Trainee:
    def __init__(self, recipe: DetectorRecipe) -> None:
        self._recipe = recipe
        model: Any = build_model()
        # Convolutions on CPUs run a third faster in this layout.
        self.model = model.to(memory_format=torch.channels_last)

    def losses_at(self, step: int) -> Losses:
        scenes = scenes_of_step(self._recipe.seed, step, self._recipe.batch_size)
        output = self.model(pixel_values=_images(scenes), labels=[_labels(scene) for scene in scenes])
        return {"loss": output.loss} | {name: output.loss_dict[name].detach() for name in _LOGGED}


def _images(scenes: Sequence[Scene]) -> Tensor:
    """Return `[B, 3, 256, 256]` float32 in 0..1, channels last."""
    pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
    return (pixels.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def _labels(scene: Scene) -> dict[str, Tensor]:
    """Return what transformers' detectors learn from: `class_labels` `[R]`, and `boxes` `[R, 4]` cxcywh in 0..1."""
    xyxy = torch.from_numpy(scene.boxes) / SIDE_PX
    boxes = torch.cat([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], dim=1)
    return {"class_labels": torch.zeros(len(boxes), dtype=torch.int64), "boxes": boxes}


def save(model: DFineForObjectDetection, folder: Path) -> None:
    """Write model (fp16 safetensors) and image processor in the hub's layout."""
    model.half().save_pretrained(folder)
    model.float()
    build_processor().save_pretrained(folder)
