"""libreyolo's YOLOv9 (MIT by its own metadata): checkpoints loaded strictly, without running code, and boxes found.

`yolov9` imports this module where that engine was asked for.
"""

from pathlib import Path
from typing import Any

import torch
from libreyolo import LibreYOLO9
from safetensors.torch import load_file
from torch import Tensor

from pipeline.models.state_dict import WeightsError, fit_strictly


def load(path: Path, *, device: str = "cpu") -> LibreYOLO9:
    """Return libreyolo's predictor with the weights at `path`, in eval mode.

    Size and number of classes are read from the weights; a .pt is read without running code. Raises WeightsError
    unless they are those of a YOLOv9 and all fit.
    """
    if path.suffix == ".safetensors":
        checkpoint: dict[str, Any] = {"model": load_file(path)}
    else:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    tensors = checkpoint.get("model", checkpoint)
    # Published checkpoints hold the branches that training alone uses too.
    state = {key: value for key, value in tensors.items() if not key.startswith(("aux.", "aux_head."))}
    size, num_classes = LibreYOLO9.detect_size(state), LibreYOLO9.detect_nb_classes(state)
    if size is None or num_classes is None:
        raise WeightsError(f"{path} is not a YOLOv9 of libreyolo's, which has the variants t, s, m and c")
    predictor = LibreYOLO9(None, size=size, nb_classes=num_classes, device=device)
    fit_strictly(predictor.model, state, path)
    names = {int(index): str(name) for index, name in checkpoint.get("names", {}).items()}
    predictor.names = names or ({0: "object"} if num_classes == 1 else predictor.names)
    # A fresh model is in train mode, and gives raw maps.
    predictor.model.eval()
    return predictor


class LibreYolo:
    """Runs a YOLOv9 on squares."""

    def __init__(self, path: Path, dtype: str, device: str) -> None:
        """Load the weights at `path`, as `load` does, and hold them in `dtype`, torch's name for it."""
        predictor = load(path, device=device)
        self.names: dict[int, str] = predictor.names
        self._network = predictor.model.to(getattr(torch, dtype))

    def boxes_and_scores(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return all boxes `[P, N, 4]` xyxy in pixels and the classes' scores `[P, N, C]` of `[P, 3, S, S]` in 0..1."""
        boxes_and_scores = self._network(pictures)["predictions"].transpose(1, 2)
        return boxes_and_scores[:, :, :4], boxes_and_scores[:, :, 4:]
