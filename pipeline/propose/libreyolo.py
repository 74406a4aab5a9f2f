"""libreyolo's YOLOv9 (MIT by its own metadata): checkpoints loaded strictly, without running code, and boxes found.

`yolov9` imports this module where that engine was asked for; `mini` is a checkpoint like any other.
"""

from pathlib import Path
from typing import Any, Protocol

import torch
from libreyolo import LibreYOLO9
from libreyolo.postprocess.yolo9 import postprocess
from safetensors.torch import load_file
from torch import Tensor
from torchvision.ops import nms

from pipeline.models.state_dict import WeightsError, fit_strictly
from pipeline.propose.squares import as_input
from schemas.boxes import Boxes, as_boxes

_MINI_FILE = "model.safetensors"
"""Of a mini's folder."""
_MOST_BEFORE_NMS = 300
"""Boxes of all classes together that libreyolo's NMS may return, before ours."""


def load(path: Path, *, device: str = "cpu") -> LibreYOLO9:
    """Return libreyolo's predictor with the weights at `path`, in eval mode: a mini's folder, or a checkpoint's file.

    Size and number of classes are read from the weights; a .pt is read without running code. Raises WeightsError
    unless they are those of a YOLOv9 and all fit.
    """
    file = path / _MINI_FILE if path.is_dir() else path
    if file.suffix == ".safetensors":
        checkpoint: dict[str, Any] = {"model": load_file(file)}
    else:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    tensors = checkpoint.get("model", checkpoint)
    # Published checkpoints hold the branches that training alone uses too.
    state = {key: value for key, value in tensors.items() if not key.startswith(("aux.", "aux_head."))}
    size, num_classes = LibreYOLO9.detect_size(state), LibreYOLO9.detect_nb_classes(state)
    if size is None or num_classes is None:
        raise WeightsError(f"{file} is not a YOLOv9 of libreyolo's, which has the variants t, s, m and c")
    predictor = LibreYOLO9(None, size=size, nb_classes=num_classes, device=device)
    fit_strictly(predictor.model, state, file)
    names = {int(index): str(name) for index, name in checkpoint.get("names", {}).items()}
    predictor.names = names or ({0: "object"} if num_classes == 1 else predictor.names)
    # A fresh model is in train mode, and gives raw maps.
    predictor.model.eval()
    return predictor


class Thresholds(Protocol):
    """What of the proposer's config decides which boxes are found."""

    @property
    def image_side(self) -> int:
        """Side of the square, in pixels."""

    @property
    def min_score(self) -> float:
        """Lowest score of a box, 0 to 1."""

    @property
    def max_iou(self) -> float:
        """Highest overlap that NMS leaves, 0 to 1."""

    @property
    def max_proposals(self) -> int:
        """Most boxes of an image."""


class LibreYolo:
    """Runs a YOLOv9 on squares."""

    def __init__(self, path: Path, config: Thresholds, device: str) -> None:
        """Load the weights at `path`, as `load` does."""
        self._predictor: Any = load(path, device=device)
        self._device = device
        self._config = config

    def detect(self, squares: Tensor) -> list[tuple[Boxes, list[float], list[str]]]:
        """Return what is in each of `[P, S, S, 3]` uint8 squares: boxes `[R, 4]` of its pixels, scores, class names.

        libreyolo's NMS is by class; ours goes over all of them.
        """
        config, squares_found = self._config, []
        with torch.inference_mode():
            predictions = self._predictor.model(as_input(squares, self._device))["predictions"]
            for row in range(len(squares)):
                found = postprocess(
                    {"predictions": predictions[row : row + 1]},
                    conf_thres=config.min_score,
                    iou_thres=config.max_iou,
                    input_size=config.image_side,
                    original_size=(config.image_side, config.image_side),
                    max_det=max(_MOST_BEFORE_NMS, config.max_proposals),
                )
                boxes, scores = torch.tensor(found["boxes"]).reshape(-1, 4), torch.tensor(found["scores"])
                keep = nms(boxes, scores, config.max_iou)[: config.max_proposals]
                names = [self._predictor.names[int(found["classes"][index])] for index in keep.tolist()]
                squares_found.append((as_boxes(boxes[keep].numpy()), scores[keep].tolist(), names))
        return squares_found
