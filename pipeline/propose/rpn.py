"""The region proposal network of torchvision's Faster R-CNN: boxes around anything, with the network's own objectness.

torchvision's own transform pads an image to the largest of its batch, so neighbours would change the features at its
edges. Here every image lies in the corner of a square of one size, and the network clips its boxes to the image's part.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from pipeline.backends import require
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import TORCHVISION, Licensed, Origin, model_license
from pipeline.models.weights import ModelFiles, find_file, find_published
from pipeline.propose.letterbox import check_side, letterbox
from pipeline.propose.order import best_first
from pipeline.sample import DecodedImage, Proposals
from schemas.boxes import Boxes, as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

    from pipeline.propose.squares import Squares

_FLAG = "--propose.weights"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB in 0..1: what the models were trained with."""
_FILL = (124, 116, 104)
"""The mean as a colour: what torchvision pads with is 0 after normalising."""


@dataclass(frozen=True, kw_only=True)
class RpnConfig:
    """Settings of `rpn`; thresholds have torchvision's defaults, but for how many boxes leave."""

    model: Literal[
        "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"
    ] = "fasterrcnn_resnet50_fpn_v2"
    """torchvision's builder of the Faster R-CNN."""
    weights: str | None = None
    """A local .pth or .safetensors of the model's state; torchvision's own, trained on COCO, when not given."""
    image_side: int = 1088
    """Side of the model's square input, in pixels, a multiple of 32: about 1088 for what the models were trained on,
    448 for the 320 one."""
    min_score: float = 0.05
    """Lowest objectness, 0 to 1, of a box."""
    max_iou: float = 0.7
    """Overlap (IoU, 0 to 1) above which the network's own NMS drops a box, within each level of its pyramid."""
    max_proposals: int = 100
    """Most boxes an image."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 8
    """Images a model call; short batches are padded to a power-of-two share of it."""

    def __post_init__(self) -> None:
        check_side(self.image_side)


class _Engine(Protocol):
    """Runs a model on `[P, S, S, 3]` uint8 squares whose images have `sizes` (height, width) in their corners.

    Returns for each square boxes `[R, 4]` xyxy of its pixels, clipped to its image, and scores `[R]`.
    """

    def detect(self, squares: "Tensor", sizes: list[tuple[int, int]]) -> list[tuple[Boxes, list[float]]]: ...


class Rpn:
    """Proposes what the network takes for objects, of no class."""

    name: ClassVar[str] = "rpn"
    version: ClassVar[int] = 1
    """Raised when the same input would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[RpnConfig]] = RpnConfig

    def __init__(self, config: RpnConfig, *, device: Device = CPU) -> None:
        """Load the weights. Raises WeightsNotFoundError, and WeightsError where they do not fit the model."""
        self.config = config
        self.batch_size = config.batch_size
        self._files = _find(config)
        self._device = device.resolve()
        self._engine: _Engine = _Torchvision(self._files.path, config, self._device)

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the boxes of each image in its own frame, best first."""
        return self.detect(self.prepare(images))

    def prepare(self, images: Sequence[DecodedImage]) -> "Squares":
        """Return the images in the corners of squares, padded to one of few batch sizes."""
        from pipeline.propose.squares import as_squares

        in_corner = functools.partial(letterbox, centred=False, fill=_FILL)
        return as_squares(
            images, self.config.image_side, batch_size=self.batch_size, device=self._device, fit=in_corner
        )

    def detect(self, prepared: "Squares") -> list[Proposals]:
        """Return the boxes of each image of `prepare` in its own frame, best first."""
        sizes = [(one.inner_height, one.inner_width) for one in prepared.fitted]
        sizes += [(self.config.image_side, self.config.image_side)] * (len(prepared.pixels) - len(sizes))
        found = self._engine.detect(prepared.pixels, sizes)
        return [
            best_first(
                Proposals(
                    boxes=one.to_image(boxes), scores=np.asarray(scores, dtype=np.float32), labels=(None,) * len(boxes)
                )
            )
            for one, (boxes, scores) in zip(prepared.fitted, found, strict=False)  # padding is left out
        ]

    @staticmethod
    def weights(config: RpnConfig) -> dict[str, Any]:
        """Return the weights by their hash. Raises ImportError, at start, where torchvision is missing."""
        require("torchvision", what="the proposer rpn", install="pip install 'fineclip-regions[pipeline]'")
        return {"weights": _find(config).fingerprint(), "license": None}

    @staticmethod
    def licenses(config: RpnConfig) -> tuple[Licensed, ...]:
        """Return the terms of torchvision and of the weights."""
        origin: Origin = "published" if config.weights is None else "path"
        return (TORCHVISION, model_license(config.weights or config.model, origin=origin, stated=config.license))

    def provenance(self) -> dict[str, Any]:
        """Return name, version, weights, settings and library versions."""
        return {
            "name": self.name,
            "version": self.version,
            "weights": self._files.identity(),
            "settings": dataclasses.asdict(self.config) | {"weights": self._files.name},
            "libraries": {name: version(name) for name in ("torch", "torchvision")},
        }


def _find(config: RpnConfig) -> ModelFiles:
    if config.weights is None:
        from torchvision.models import get_model_weights

        return find_published(get_model_weights(config.model).DEFAULT.url, flag=_FLAG)
    return find_file(config.weights, flag=_FLAG, what=f"a .pth or .safetensors of {config.model}")


class _Torchvision:
    def __init__(self, path: Path, config: RpnConfig, device: str) -> None:
        import torch

        self._model: Any = _load(path, config).eval().to(device)
        self._device = device
        self._mean = torch.tensor(_MEAN, device=device).reshape(3, 1, 1)
        self._std = torch.tensor(_STD, device=device).reshape(3, 1, 1)

    def detect(self, squares: "Tensor", sizes: list[tuple[int, int]]) -> list[tuple[Boxes, list[float]]]:
        import torch

        from pipeline.propose.squares import as_input

        with torch.inference_mode():
            boxes, scores = self._forward((as_input(squares, self._device) - self._mean) / self._std, sizes)
        return [(as_boxes(one.cpu().numpy()), score.tolist()) for one, score in zip(boxes, scores, strict=True)]

    def _forward(self, images: "Tensor", sizes: list[tuple[int, int]]) -> tuple[list["Tensor"], list["Tensor"]]:
        """Return boxes and scores an image: the steps of torchvision's own `forward`, which keeps the scores back."""
        from torchvision.models.detection.image_list import ImageList
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        rpn = self._model.rpn
        features = list(self._model.backbone(images).values())
        objectness, deltas = rpn.head(features)
        anchors = rpn.anchor_generator(ImageList(images, sizes), features)
        counts = [level[0].numel() for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        boxes = rpn.box_coder.decode(deltas, anchors).view(len(images), -1, 4)
        found: tuple[list[Tensor], list[Tensor]] = rpn.filter_proposals(boxes, objectness, sizes, counts)
        return found


def _load(path: Path, config: RpnConfig) -> Any:
    """Return the model with its weights, without the heads that classify: the proposals do not need them."""
    import torch
    import torchvision
    from safetensors.torch import load_file
    from torch import nn

    from pipeline.models.state_dict import fit_strictly

    model = torchvision.models.get_model(
        config.model,
        weights=None,
        weights_backbone=None,
        rpn_post_nms_top_n_test=config.max_proposals,
        rpn_nms_thresh=config.max_iou,
        rpn_score_thresh=config.min_score,
    )
    model.roi_heads = nn.Identity()
    is_safe = path.suffix == ".safetensors"
    state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    fit_strictly(model, {key: value for key, value in state.items() if not key.startswith("roi_heads.")}, path)
    return model
