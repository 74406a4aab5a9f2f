"""The region proposal network of torchvision's Faster R-CNN: boxes around anything, with the network's own objectness.

torchvision's own transform pads an image to the largest of its batch, so neighbours would change the features at its
edges. Here every image lies in the corner of a square of one size, and the network clips its boxes to the image's part.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from pipeline.backends import require
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import TORCHVISION, Licensed, Origin, model_license
from pipeline.models.state_dict import fit_strictly
from pipeline.models.weights import ModelFiles, find_file, find_published
from pipeline.propose.letterbox import Letterboxed, check_side, letterbox
from pipeline.propose.squares import SquaredProposer, Squares, as_input
from pipeline.sample import Pixels, Proposals
from schemas.boxes import Boxes, as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

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
    """Most boxes per image."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 8
    """Images per model call; short batches are padded to a power-of-two share of it."""

    def __post_init__(self) -> None:
        check_side(self.image_side)


class _Engine(Protocol):
    """Runs a model on `[P, S, S, 3]` uint8 squares whose images have `sizes` (height, width) in their corners.

    Returns for each square boxes `[R, 4]` xyxy of its pixels, clipped to its image, and scores `[R]`.
    """

    def detect(self, squares: "Tensor", sizes: list[tuple[int, int]]) -> list[tuple[Boxes, list[float]]]: ...


class Rpn(SquaredProposer):
    """Proposes what the network takes for objects, of no class."""

    name: ClassVar[str] = "rpn"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[RpnConfig]] = RpnConfig
    gives_labels: ClassVar[bool] = False
    files_setting: ClassVar[str] = "weights"

    def __init__(self, config: RpnConfig, *, device: Device = CPU) -> None:
        """Load the weights. Raises WeightsNotFoundError, and WeightsError where they do not fit the model."""
        files = _find(config)
        libraries = {name: name for name in ("torch", "torchvision")}
        super().__init__(config, files=files, libraries=libraries, device=device)
        self._engine: _Engine = _Torchvision(files.path, config, self._device)

    def fit(self, pixels: Pixels, side: int) -> Letterboxed:
        """Lay the image into the corner of its square."""
        return letterbox(pixels, side, centred=False, fill=_FILL)

    def look(self, prepared: Squares) -> Iterator[Proposals]:
        """Yield the boxes in each square, clipped to its image."""
        sizes = [(one.inner_height, one.inner_width) for one in prepared.fitted]
        sizes += [(self.config.image_side, self.config.image_side)] * (len(prepared.pixels) - len(sizes))
        for boxes, scores in self._engine.detect(prepared.pixels, sizes):
            yield Proposals(boxes=boxes, scores=np.asarray(scores, dtype=np.float32), labels=(None,) * len(boxes))

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


def _find(config: RpnConfig) -> ModelFiles:
    if config.weights is None:
        from torchvision.models import get_model_weights

        return find_published(get_model_weights(config.model).DEFAULT.url, flag=_FLAG)
    return find_file(config.weights, flag=_FLAG, what=f"a .pth or .safetensors of {config.model}")


class _Torchvision:
    def __init__(self, path: Path, config: RpnConfig, device: str) -> None:
        import torch
        import torchvision
        from safetensors.torch import load_file

        model = torchvision.models.get_model(
            config.model,
            weights=None,
            weights_backbone=None,
            rpn_post_nms_top_n_test=config.max_proposals,
            rpn_nms_thresh=config.max_iou,
            rpn_score_thresh=config.min_score,
        )
        model.roi_heads = torch.nn.Identity()  # they classify: proposals do not need them
        is_safe = path.suffix == ".safetensors"
        state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
        fit_strictly(model, {key: value for key, value in state.items() if not key.startswith("roi_heads.")}, path)
        self._model: Any = model.eval().to(device)
        self._device = device
        self._mean = torch.tensor(_MEAN, device=device).reshape(3, 1, 1)
        self._std = torch.tensor(_STD, device=device).reshape(3, 1, 1)

    def detect(self, squares: "Tensor", sizes: list[tuple[int, int]]) -> list[tuple[Boxes, list[float]]]:
        """The steps of torchvision's own `forward`, which keeps the scores back."""
        import torch
        from torchvision.models.detection.image_list import ImageList
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        rpn = self._model.rpn
        with torch.inference_mode():
            images = (as_input(squares, self._device) - self._mean) / self._std
            features = list(self._model.backbone(images).values())
            objectness, deltas = rpn.head(features)
            anchors = rpn.anchor_generator(ImageList(images, sizes), features)
            counts = [level[0].numel() for level in objectness]
            objectness, deltas = concat_box_prediction_layers(objectness, deltas)
            decoded = rpn.box_coder.decode(deltas, anchors).view(len(images), -1, 4)
            boxes, scores = rpn.filter_proposals(decoded, objectness, sizes, counts)
        return [(as_boxes(one.cpu().numpy()), score.tolist()) for one, score in zip(boxes, scores, strict=True)]
