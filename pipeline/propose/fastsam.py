"""FastSAM as Ultralytics has it (AGPL-3.0, an extra of its own): all masks of an image, and the boxes around them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from pipeline.backends import require
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import ULTRALYTICS, Licensed, model_license
from pipeline.models.weights import ModelFiles, check_pickled, find_file
from pipeline.propose.letterbox import check_side
from pipeline.propose.squares import SquaredProposer, Squares
from pipeline.propose.ultralytics import INSTALL, import_ultralytics, predict, ultralytics_package
from pipeline.sample import Proposals
from schemas.boxes import as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

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
    """Most masks per image."""
    masks: bool = False
    """Keep the masks too, in the table's column `mask_rle`; the boxes are the same either way."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 8
    """Images per model call; short batches are padded to a power-of-two share of it."""

    def __post_init__(self) -> None:
        check_side(self.image_side)


class _Engine(Protocol):
    """Runs a model on `[P, S, S, 3]` uint8 squares; returns for each its masks `[R, S, S]` uint8, and scores `[R]`."""

    def detect(self, squares: "Tensor") -> list[tuple["Tensor", list[float]]]: ...


class FastSam(SquaredProposer):
    """Proposes the box of each mask, tight around its part in the image. The model's own boxes are not used."""

    name: ClassVar[str] = "fastsam"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[FastSamConfig]] = FastSamConfig
    gives_labels: ClassVar[bool] = False

    def __init__(self, config: FastSamConfig, *, device: Device = CPU) -> None:
        """Load the weights. Raises WeightsNotFoundError, and ImportError where a library is missing."""
        files = _find(config)
        libraries = {name: name for name in (ultralytics_package(), "torch")}
        super().__init__(config, files=files, libraries=libraries, device=device)
        self._engine: _Engine = _Ultralytics(files.path, config, self._device)

    def look(self, prepared: Squares) -> Iterator[Proposals]:
        """Yield the boxes of the masks in each image's part of its square, and the masks if asked for."""
        from pipeline.propose.masks import as_rle, mask_boxes

        found = self._engine.detect(prepared.pixels)
        for one, (masks, scores) in zip(prepared.fitted, found, strict=False):
            inner = masks[:, one.top : one.top + one.inner_height, one.left : one.left + one.inner_width]
            boxes_inner = mask_boxes(inner)
            is_box = (boxes_inner[:, 2] > boxes_inner[:, 0]).cpu()  # masks of padding alone are none
            rles = None
            if self.config.masks:
                rles = tuple(as_rle(one.mask_to_image(mask)) for mask in inner.cpu()[is_box].numpy())
            yield Proposals(
                boxes=as_boxes(boxes_inner.cpu()[is_box].numpy()) + np.array([one.left, one.top] * 2, dtype=np.float32),
                scores=np.asarray(scores, dtype=np.float32)[is_box.numpy()],
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
