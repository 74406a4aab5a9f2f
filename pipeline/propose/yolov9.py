"""YOLOv9 by either of two engines, which read different checkpoints: `ultralytics` (AGPL-3.0, an extra of its own) and
`libreyolo` (MIT by its own metadata). Both get letterboxed squares, so their own resizing has nothing left to do.

    ultralytics   t, s, m, c, e: a pickled .pt, whose hash the user must name
    libreyolo     t, s, m, c: .safetensors, or a .pt that is read without running code; `mini` is a t of one class
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from pipeline.backends import require
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import LIBREYOLO, ULTRALYTICS, Licensed, model_license
from pipeline.models.weights import ModelFiles, WeightsNotFoundError, check_pickled, find_file, find_model
from pipeline.propose.letterbox import check_side
from pipeline.propose.squares import SquaredProposer, Squares
from pipeline.propose.ultralytics import INSTALL, import_ultralytics, predict, ultralytics_package
from pipeline.sample import Proposals
from schemas.boxes import Boxes, as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

_FLAG = "--propose.model"
_INSTALL = {
    "ultralytics": INSTALL,
    "libreyolo": "pip install --no-deps libreyolo (its own dependencies would bring a second OpenCV)",
}
_CHECKPOINTS = {
    "ultralytics": "a .pt of Ultralytics' (variants t, s, m, c, e; libreyolo's need --propose.engine libreyolo)",
    "libreyolo": "a .safetensors or .pt of libreyolo's (variants t, s, m, c; e needs --propose.engine ultralytics)",
}
_Found = tuple[Boxes, list[float], list[str]]
"""What is in a square: boxes `[R, 4]` xyxy of its pixels, scores `[R]`, class names."""


@dataclass(frozen=True, kw_only=True)
class Yolov9Config:
    """Settings of `yolov9`.

    What the paper leaves open (variant, size, thresholds) has Ultralytics' defaults.
    """

    model: str = "yolov9c.pt"
    """Weights: a local file of the engine's (ultralytics: variants t to e, libreyolo: t to c), or `mini` (libreyolo,
    one class, synthetic scenes only)."""
    engine: Literal["ultralytics", "libreyolo"] = "ultralytics"
    """The library that runs the model; their checkpoints are not interchangeable."""
    sha256: str | None = None
    """Sha256 that the weights must have. Ultralytics' .pt need it: unpickling runs code, so name the file you trust."""
    image_side: int = 640
    """Side of the model's square input, in pixels: a multiple of 32."""
    min_score: float = 0.25
    """Lowest confidence, 0 to 1, of a box."""
    max_iou: float = 0.7
    """Overlap (IoU, 0 to 1) above which the model's own class-agnostic NMS drops a box."""
    max_proposals: int = 100
    """Most boxes per image."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 16
    """Images per model call; short batches are padded to a power-of-two share of it."""

    def __post_init__(self) -> None:
        check_side(self.image_side)


class _Engine(Protocol):
    """Runs a model on `[P, S, S, 3]` uint8 squares; returns what is in each."""

    def detect(self, squares: "Tensor") -> list[_Found]: ...


class Yolov9(SquaredProposer):
    """Proposes the boxes of a YOLOv9, of whatever classes it has."""

    name: ClassVar[str] = "yolov9"
    version: ClassVar[int] = 2
    config_class: ClassVar[type[Yolov9Config]] = Yolov9Config

    def __init__(self, config: Yolov9Config, *, device: Device = CPU) -> None:
        """Load the weights. Raises WeightsNotFoundError, and ImportError where the engine's library is missing."""
        files = _find(config)
        library = "libreyolo" if config.engine == "libreyolo" else ultralytics_package()
        super().__init__(config, files=files, libraries={name: name for name in (library, "torch")}, device=device)
        self._engine: _Engine
        if config.engine == "ultralytics":
            self._engine = _Ultralytics(files.path, config, self._device)
        else:
            from pipeline.propose.libreyolo import LibreYolo

            self._engine = LibreYolo(files.path, config, self._device)

    def look(self, prepared: Squares) -> Iterator[Proposals]:
        """Yield the boxes in each square, with their classes' names."""
        for boxes, scores, labels in self._engine.detect(prepared.pixels):
            yield Proposals(boxes=boxes, scores=np.asarray(scores, dtype=np.float32), labels=tuple(labels))

    @staticmethod
    def weights(config: Yolov9Config) -> dict[str, Any]:
        """Return the model by its hash (which the trusted hash repeats).

        Raises ImportError, at start, where the engine's library is missing.
        """
        require(config.engine, what=f"--propose.engine {config.engine}", install=_INSTALL[config.engine])
        return {"model": _find(config).fingerprint(), "sha256": None, "license": None}

    @staticmethod
    def licenses(config: Yolov9Config) -> tuple[Licensed, ...]:
        """Return the terms of the engine and of the weights."""
        is_mini = config.model == "mini" and config.engine == "libreyolo"
        code = ULTRALYTICS if config.engine == "ultralytics" else LIBREYOLO
        return (code, model_license(config.model, origin="mini" if is_mini else "path", stated=config.license))


def _find(config: Yolov9Config) -> ModelFiles:
    if config.model == "mini":
        if config.engine != "libreyolo":
            raise WeightsNotFoundError(f"{_FLAG} mini is libreyolo's; give --propose.engine libreyolo")
        files = find_model("mini", mini="detector", flag=_FLAG)
    else:
        files = find_file(config.model, flag=_FLAG, what=_CHECKPOINTS[config.engine])
    if config.engine == "ultralytics" or config.sha256 is not None:
        check_pickled(files, config.sha256, flag=_FLAG, hash_flag="--propose.sha256")
    return files


class _Ultralytics:
    def __init__(self, path: Path, config: Yolov9Config, device: str) -> None:
        self._model: Any = import_ultralytics().YOLO(str(path), task="detect")
        self._config, self._device = config, device

    def detect(self, squares: "Tensor") -> list[_Found]:
        results = predict(self._model, squares, config=self._config, device=self._device, agnostic_nms=True)
        return [
            (
                as_boxes(result.boxes.xyxy.tolist()),
                result.boxes.conf.tolist(),
                [result.names[int(index)] for index in result.boxes.cls.tolist()],
            )
            for result in results
        ]
