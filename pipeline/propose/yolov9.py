"""YOLOv9 by either of two engines, which read different checkpoints: `ultralytics` (AGPL-3.0, an extra of its own) and
`libreyolo` (MIT by its own metadata). Both get letterboxed squares, so their own resizing has nothing left to do.

    ultralytics   t, s, m, c, e: a pickled .pt, whose hash the user must name
    libreyolo     t, s, m, c: .safetensors, or a .pt that is read without running code
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pipeline.backends import require
from pipeline.models.device import CPU, Device, same_threads
from pipeline.models.licenses import LIBREYOLO, ULTRALYTICS, Licensed, model_license
from pipeline.models.weights import ModelFiles, check_pickled, find_file
from pipeline.propose.letterbox import check_side
from pipeline.propose.nms import suppressed
from pipeline.propose.squares import SquaredProposer, Squares, as_input
from pipeline.propose.ultralytics import INSTALL, import_ultralytics, ultralytics_package
from pipeline.sample import Proposals

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
Dtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Yolov9Config:
    """Settings of `yolov9`.

    What the paper leaves open (variant, size, thresholds) has Ultralytics' defaults.
    """

    model: str = "yolov9c.pt"
    """Weights: a local file of the engine's (ultralytics: variants t to e, libreyolo: t to c)."""
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
    dtype: Dtype = "float32"
    """What the weights are held and run in; boxes are compared in float64 whatever it is."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 16
    """Images per model call; short batches are padded to a power-of-two share of it."""

    def __post_init__(self) -> None:
        check_side(self.image_side)


class _Engine(Protocol):
    """A model with its classes' names."""

    names: dict[int, str]

    def boxes_and_scores(self, pictures: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return all boxes `[P, N, 4]` xyxy in pixels and the classes' scores `[P, N, C]` of `[P, 3, S, S]` in 0..1."""


class Yolov9(SquaredProposer):
    """Proposes the boxes of a YOLOv9, of whatever classes it has."""

    name: ClassVar[str] = "yolov9"
    version: ClassVar[int] = 3
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

            self._engine = LibreYolo(files.path, config.dtype, self._device)

    def look(self, prepared: Squares) -> list[Proposals]:
        """Return the boxes in each square, with their classes' names."""
        import torch

        config = self.config
        with torch.inference_mode(), same_threads():
            pictures = as_input(prepared.pixels, self._device).to(getattr(torch, config.dtype))
            boxes, scores = self._engine.boxes_and_scores(pictures)
            limits = {"min_score": config.min_score, "max_iou": config.max_iou, "max_kept": config.max_proposals}
            return suppressed(boxes, scores, self._engine.names, **limits)

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
        code = ULTRALYTICS if config.engine == "ultralytics" else LIBREYOLO
        return (code, model_license(config.model, origin="path", stated=config.license))


def _find(config: Yolov9Config) -> ModelFiles:
    files = find_file(config.model, flag=_FLAG, what=_CHECKPOINTS[config.engine])
    if config.engine == "ultralytics" or config.sha256 is not None:
        check_pickled(files, config.sha256, flag=_FLAG, hash_flag="--propose.sha256")
    return files


class _Ultralytics:
    """The network of a checkpoint of Ultralytics', without its predictor, which goes image by image."""

    def __init__(self, path: Path, config: Yolov9Config, device: str) -> None:
        import torch

        network: Any = import_ultralytics().YOLO(str(path), task="detect").model
        self.names = {int(index): str(name) for index, name in network.names.items()}
        self._network = network.to(device).eval().fuse(verbose=False).to(getattr(torch, config.dtype))

    def boxes_and_scores(self, pictures: "Tensor") -> "tuple[Tensor, Tensor]":
        from torchvision.ops import box_convert

        predictions, _ = self._network(pictures)
        centred, scores = predictions.transpose(1, 2).split([4, len(self.names)], dim=2)
        return box_convert(centred.float(), "cxcywh", "xyxy"), scores
