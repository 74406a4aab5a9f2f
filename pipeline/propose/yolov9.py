"""YOLOv9 by either of two engines, which read different checkpoints: `ultralytics` (AGPL-3.0, an extra of its own) and
`libreyolo` (MIT by its own metadata). Both get letterboxed squares, so their own resizing has nothing left to do.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from PIL import Image

from pipeline.backends import require
from pipeline.batches import padded_size
from pipeline.device import CPU, Device
from pipeline.images import DecodedImage, Pixels
from pipeline.propose.base import Proposals
from pipeline.propose.letterbox import letterbox
from pipeline.weights import ModelFiles, WeightsNotFoundError, find_model
from schemas.boxes import Boxes, as_boxes

_FLAG = "--propose.model"
_LICENSES = {"ultralytics": "AGPL-3.0", "libreyolo": "MIT (by its own metadata)"}
_INSTALL = {
    "ultralytics": "pip install 'fineclip-regions[ultralytics]' (AGPL-3.0: see the README's licence table)",
    "libreyolo": "pip install --no-deps libreyolo (its own dependencies would bring a second OpenCV)",
}


@dataclass(frozen=True, kw_only=True)
class Yolov9Config:
    """Settings of `yolov9`.

    What the paper leaves open (variant, size, thresholds) has Ultralytics' defaults.
    """

    model: str = "yolov9c.pt"
    """Weights: a local file of the engine's, or `mini` (libreyolo, one class, synthetic scenes only)."""
    engine: Literal["ultralytics", "libreyolo"] = "ultralytics"
    """The library that runs the model; their checkpoints are not interchangeable."""
    sha256: str | None = None
    """Sha256 that a pickled .pt must have: unpickling runs code, so name the file that you trust."""
    image_side: int = 640
    """Side of the model's square input, in pixels."""
    min_score: float = 0.25
    """Lowest confidence, 0 to 1, of a box."""
    max_iou: float = 0.7
    """Overlap (IoU, 0 to 1) above which the model's own class-agnostic NMS drops a box."""
    max_proposals: int = 100
    """Most boxes an image."""
    batch_size: int = 16
    """Images a model call; short batches are padded to a power-of-two share of it."""


class _Engine(Protocol):
    """Runs a model on squares. Returns for each (boxes `[R, 4]` xyxy of the square's pixels, scores `[R]`, labels)."""

    def detect(self, squares: Sequence[Pixels]) -> list[tuple[Boxes, list[float], list[str]]]: ...


class Yolov9:
    """Proposes the boxes of a YOLOv9, of whatever classes it has."""

    name: ClassVar[str] = "yolov9"
    version: ClassVar[int] = 1
    """Raised when the same input would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[Yolov9Config]] = Yolov9Config

    def __init__(self, config: Yolov9Config, *, device: Device = CPU) -> None:
        """Load the weights. Raises WeightsNotFoundError, and ImportError where the engine's library is missing."""
        self.config = config
        self.batch_size = config.batch_size
        self._files = _find(config)
        engine = _Ultralytics if config.engine == "ultralytics" else _LibreYolo
        self._engine: _Engine = engine(self._files.path, config, device.resolve())

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the boxes of each image in its own frame, best first."""
        fitted = [letterbox(image.pixels, self.config.image_side) for image in images]
        squares = [one.pixels for one in fitted]
        padding = [np.zeros_like(squares[0])] * (padded_size(len(squares), self.batch_size) - len(squares))
        found = self._engine.detect([*squares, *padding])[: len(squares)]
        return [
            Proposals(boxes=one.to_image(boxes), scores=np.asarray(scores, dtype=np.float32), labels=tuple(labels))
            for one, (boxes, scores, labels) in zip(fitted, found, strict=True)
        ]

    @staticmethod
    def weights(config: Yolov9Config) -> dict[str, Any]:
        """Return the model by its hash (which the trusted hash repeats).

        Raises ImportError, at start, where the engine's library is missing.
        """
        require(config.engine, what=f"--propose.engine {config.engine}", install=_INSTALL[config.engine])
        return {"model": _find(config).fingerprint(), "sha256": None}

    def provenance(self) -> dict[str, Any]:
        """Return name, version, weights, settings, the engine's version and licence."""
        library = "libreyolo" if self.config.engine == "libreyolo" else _ultralytics_package()
        return {
            "name": self.name,
            "version": self.version,
            "weights": self._files.identity(),
            "license": _LICENSES[self.config.engine],
            "settings": dataclasses.asdict(self.config) | {"model": self._files.name},
            "libraries": {library: version(library), "torch": version("torch")},
        }


def _find(config: Yolov9Config) -> ModelFiles:
    files = find_model(config.model, mini="detector", flag=_FLAG)
    if config.engine == "libreyolo" and config.model != "mini":
        raise WeightsNotFoundError(
            f"{_FLAG} {config.model}: libreyolo runs `mini` only; give --propose.engine ultralytics"
        )
    if config.model != "mini" and not files.path.is_file():
        raise WeightsNotFoundError(f"{_FLAG} {config.model}: is not a file; give the path of a YOLOv9 checkpoint (.pt)")
    if config.model != "mini" and files.sha256 != config.sha256:
        raise WeightsNotFoundError(
            f"{_FLAG} {config.model}: a pickled checkpoint can run code when it is loaded. Its sha256 is "
            f"{files.sha256}; if that is the file you trust, give it as --propose.sha256"
        )
    return files


def _ultralytics_package() -> str:
    from importlib.metadata import packages_distributions

    return packages_distributions()["ultralytics"][0]


def import_ultralytics() -> Any:
    """Import Ultralytics (AGPL-3.0: by name, and only where it was asked for) and return its module.

    It replaces `PIL.Image.open` with one that, for bytes that are no image, imports a package nobody has installed; the
    rest of the process gets Pillow's own back.
    """
    own = Image.open
    try:
        return importlib.import_module("ultralytics")
    finally:
        Image.open = own


class _Ultralytics:
    def __init__(self, path: Path, config: Yolov9Config, device: str) -> None:
        self._model: Any = import_ultralytics().YOLO(str(path), task="detect")
        self._arguments = {
            "imgsz": config.image_side,
            "conf": config.min_score,
            "iou": config.max_iou,
            "max_det": config.max_proposals,
            "agnostic_nms": True,
            "rect": False,
            "verbose": False,
            "device": device,
        }

    def detect(self, squares: Sequence[Pixels]) -> list[tuple[Boxes, list[float], list[str]]]:
        bgr = [np.ascontiguousarray(square[..., ::-1]) for square in squares]
        results = self._model.predict(bgr, batch=len(bgr), **self._arguments)
        return [_found(result.boxes, result.names) for result in results]


class _LibreYolo:
    def __init__(self, path: Path, config: Yolov9Config, device: str) -> None:
        from pipeline.minis.detector import load

        self._model = load(path, device=device)
        self._arguments = {"imgsz": config.image_side, "conf": config.min_score, "iou": config.max_iou}
        self._max_proposals = config.max_proposals

    def detect(self, squares: Sequence[Pixels]) -> list[tuple[Boxes, list[float], list[str]]]:
        pictures = [Image.fromarray(square) for square in squares]
        results = self._model.predict(pictures, batch=len(pictures), max_det=self._max_proposals, **self._arguments)
        return [_found(result.boxes, result.names) for result in results]


def _found(boxes: Any, names: dict[int, str]) -> tuple[Boxes, list[float], list[str]]:
    """Return the boxes, scores and class names of either engine's result."""
    return as_boxes(boxes.xyxy.tolist()), boxes.conf.tolist(), [names[int(index)] for index in boxes.cls.tolist()]
