"""FastSAM as Ultralytics has it (AGPL-3.0, an extra of its own): all masks of an image, and the boxes around them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.backends import require
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import ULTRALYTICS, Licensed, model_license
from pipeline.models.weights import ModelFiles, check_pickled, find_file
from pipeline.propose.letterbox import Letterboxed, check_side
from pipeline.propose.order import best_first
from pipeline.propose.ultralytics import INSTALL, import_ultralytics, predict, ultralytics_package
from pipeline.sample import DecodedImage, Proposals
from schemas.boxes import as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

    from pipeline.propose.squares import Squares

_FLAG = "--propose.model"


@dataclass(frozen=True, kw_only=True)
class FastSamConfig:
    """Settings of `fastsam`; size and thresholds have the values that FastSAM's authors recommend."""

    model: str = "FastSAM-s.pt"
    """Weights: a local FastSAM-s.pt or FastSAM-x.pt."""
    sha256: str | None = None
    """Sha256 that the weights must have: unpickling a .pt runs code, so name the file that you trust."""
    image_side: int = 1024
    """Side of the model's square input, in pixels: a multiple of 32."""
    min_score: float = 0.4
    """Lowest confidence, 0 to 1, of a mask."""
    max_iou: float = 0.9
    """Overlap (IoU, 0 to 1) above which the model's own NMS drops the lesser mask, by the boxes it predicts."""
    max_proposals: int = 100
    """Most masks an image."""
    masks: bool = False
    """Keep the masks too, in the table's column `mask_rle`; the boxes are the same either way."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 8
    """Images a model call; short batches are padded to a power-of-two share of it."""

    def __post_init__(self) -> None:
        check_side(self.image_side)


class _Engine(Protocol):
    """Runs a model on `[P, S, S, 3]` uint8 squares; returns for each its masks `[R, S, S]` uint8, and scores `[R]`."""

    def detect(self, squares: "Tensor") -> list[tuple["Tensor", list[float]]]: ...


class FastSam:
    """Proposes the box of each mask, tight around its part in the image. The model's own boxes are not used."""

    name: ClassVar[str] = "fastsam"
    version: ClassVar[int] = 1
    """Raised when the same input would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[FastSamConfig]] = FastSamConfig

    def __init__(self, config: FastSamConfig, *, device: Device = CPU) -> None:
        """Load the weights. Raises WeightsNotFoundError, and ImportError where a library is missing."""
        self.config = config
        self.batch_size = config.batch_size
        self._files = _find(config)
        self._device = device.resolve()
        self._engine: _Engine = _Ultralytics(self._files.path, config, self._device)

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the boxes, and the masks if asked for, of each image in its own frame, best first."""
        return self.detect(self.prepare(images))

    def prepare(self, images: Sequence[DecodedImage]) -> "Squares":
        """Return the images as squares, padded to one of few batch sizes."""
        from pipeline.propose.squares import as_squares

        return as_squares(images, self.config.image_side, batch_size=self.batch_size, device=self._device)

    def detect(self, prepared: "Squares") -> list[Proposals]:
        """Return what `propose` does for the images of `prepare`."""
        found = self._engine.detect(prepared.pixels)
        return [
            best_first(self._proposals(one, masks, np.asarray(scores, dtype=np.float32)))
            for one, (masks, scores) in zip(prepared.fitted, found, strict=False)  # padding is left out
        ]

    def _proposals(self, one: Letterboxed, masks: "Tensor", scores: npt.NDArray[np.float32]) -> Proposals:
        """Return an image's proposals from the masks `[R, S, S]` of its square; masks of padding alone are none."""
        from pipeline.propose.masks import as_rle, mask_boxes

        inner = masks[:, one.top : one.top + one.inner_height, one.left : one.left + one.inner_width]
        boxes_inner = mask_boxes(inner)
        is_box = (boxes_inner[:, 2] > boxes_inner[:, 0]).cpu()
        offset = np.array([one.left, one.top, one.left, one.top], dtype=np.float32)
        rles = None
        if self.config.masks:
            rles = tuple(as_rle(one.mask_to_image(mask)) for mask in inner.cpu()[is_box].numpy())
        return Proposals(
            boxes=one.to_image(as_boxes(boxes_inner.cpu()[is_box].numpy()) + offset),
            scores=scores[is_box.numpy()],
            labels=(None,) * int(is_box.sum()),
            masks=rles,
        )

    @staticmethod
    def weights(config: FastSamConfig) -> dict[str, Any]:
        """Return the model by its hash (which the trusted hash repeats).

        Raises ImportError, at start, where a library is missing.
        """
        require("ultralytics", what="the proposer fastsam", install=INSTALL)
        if config.masks:
            require("pycocotools", what="--propose.masks", install="pip install pycocotools")
        return {"model": _find(config).fingerprint(), "sha256": None, "license": None}

    @staticmethod
    def licenses(config: FastSamConfig) -> tuple[Licensed, ...]:
        """Return the terms of Ultralytics and of the weights."""
        return (ULTRALYTICS, model_license(config.model, origin="path", stated=config.license))

    def provenance(self) -> dict[str, Any]:
        """Return name, version, weights, settings and library versions."""
        return {
            "name": self.name,
            "version": self.version,
            "weights": self._files.identity(),
            "settings": dataclasses.asdict(self.config) | {"model": self._files.name},
            "libraries": {name: version(name) for name in (ultralytics_package(), "torch")},
        }


def _find(config: FastSamConfig) -> ModelFiles:
    files = find_file(config.model, flag=_FLAG, what="FastSAM-s.pt or FastSAM-x.pt")
    check_pickled(files, config.sha256, flag=_FLAG, hash_flag="--propose.sha256")
    return files


class _Ultralytics:
    def __init__(self, path: Path, config: FastSamConfig, device: str) -> None:
        self._model: Any = import_ultralytics().FastSAM(str(path))
        self._config, self._device = config, device

    def detect(self, squares: "Tensor") -> list[tuple["Tensor", list[float]]]:
        # at the size of what it is given, which is the square: the same masks as without it, in less memory
        results = predict(self._model, squares, config=self._config, device=self._device, retina_masks=True)
        return [
            (squares.new_zeros((0, *squares.shape[1:3])), [])
            if result.masks is None
            else (result.masks.data, result.boxes.conf.tolist())
            for result in results
        ]
