"""A YOLOv9-t of one class, `object`, trained on scenes with libreyolo's model and loss in the project's own loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from libreyolo import LibreYOLO9
from libreyolo.models.yolo9.loss import YOLO9Loss
from libreyolo.models.yolo9.nn import LibreYOLO9Model
from PIL import Image
from torch import Tensor, nn

from pipeline.minis.batches import scenes_of_step
from pipeline.minis.loop import Losses, MiniRecipe, Run, save_half, start
from pipeline.sample import Pixels
from pipeline.scenes.draw import Scene
from pipeline.scenes.layout import SIDE_PX
from schemas.boxes import Boxes, as_boxes

WEIGHTS = "model.safetensors"
_STRIDES = [8, 16, 32]
_REG_MAX = 16
_MAX_OBJECTS = 8


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe(MiniRecipe):
    """How the shipped detector was trained."""

    steps: int = 1600
    batch_size: int = 16
    lr: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float | None = 0.995


SHIPPED = DetectorRecipe()


def train(recipe: DetectorRecipe, folder: Path) -> None:
    """Train a detector in `folder` (continuing a stopped run there) and save it to `folder/checkpoint`."""
    start(recipe)
    trainee = _Trainee(recipe)
    Run(trainee.model, recipe, folder).train(trainee.losses_at)
    save_half(trainee.model.state_dict(), folder / "checkpoint" / WEIGHTS)


def build_model() -> LibreYOLO9Model:
    """Return YOLOv9-t for one class with random weights."""
    return LibreYOLO9Model(config="t", reg_max=_REG_MAX, nb_classes=1)


class _Trainee:
    def __init__(self, recipe: DetectorRecipe) -> None:
        self._recipe = recipe
        # Convolutions on CPUs run a third faster in this layout.
        self.model: nn.Module = build_model().to(memory_format=torch.channels_last)
        self._loss = YOLO9Loss(
            num_classes=1, reg_max=_REG_MAX, strides=_STRIDES, image_size=[SIDE_PX, SIDE_PX], device="cpu"
        )

    def losses_at(self, step: int) -> Losses:
        scenes = scenes_of_step(self._recipe.seed, step, self._recipe.batch_size)
        maps = self.model(_images(scenes))
        with torch.autocast("cpu", enabled=False):
            losses = self._loss([level.float() for level in maps], _targets(scenes))
        return {"loss": losses["total_loss"]} | {f"{part}_loss": losses[part] for part in ("box", "cls", "dfl")}


def _images(scenes: Sequence[Scene]) -> Tensor:
    """Return `[B, 3, 256, 256]` float32 in 0..1, channels last."""
    pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
    return (pixels.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def _targets(scenes: Sequence[Scene]) -> Tensor:
    """Return `[B, 8, 5]` float32: class 0 and xyxy in 0..1 of each object; then rows of zeros, which match nothing."""
    targets = torch.zeros(len(scenes), _MAX_OBJECTS, 5)
    for row, scene in zip(targets, scenes, strict=True):
        row[: len(scene.boxes), 1:] = torch.from_numpy(scene.boxes) / SIDE_PX
    return targets


def detect(
    predictor: LibreYOLO9, images: Sequence[Pixels], *, conf: float = 0.25, iou: float = 0.5, batch_size: int = 16
) -> list[Boxes]:
    """Return the boxes found in each image (`[256, 256, 3]` uint8 RGB): `[R, 4]` xyxy pixels, best first."""
    pictures = [Image.fromarray(image) for image in images]
    found: list[Boxes] = []
    for first in range(0, len(pictures), batch_size):
        batch = pictures[first : first + batch_size]
        results = predictor.predict(batch, imgsz=SIDE_PX, conf=conf, iou=iou, batch=len(batch))
        found.extend(as_boxes(result.boxes.xyxy.tolist()) for result in results)
    return found
