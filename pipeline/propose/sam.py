"""Segment Anything as transformers has it (Apache-2.0): the masks of a grid of points, and the boxes around them.

    image -> encoder -> for each batch of points: three masks per point -> good and stable ones -> NMS -> boxes, masks

transformers' image processor resizes, and moves masks back. Its helpers for whole-image masks are not used: their boxes
end a pixel early (right and bottom inclusive), and they hold every mask of a batch of points in the image's full size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from pipeline.backends import BackendBase, check_ranges, require
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import TRANSFORMERS, Licensed, model_license
from pipeline.models.weights import ModelFiles, find_model
from pipeline.propose.order import best_first
from pipeline.sample import DecodedImage, Proposals
from schemas.boxes import as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

_FLAG = "--propose.model"
_MASK_PIXELS = 1 << 25
"""Pixels of masks, in float32, that are brought to the image's size at a time: 128 MiB."""
_STABLE_WITHIN = 1.0
"""How far the threshold of a mask's logits is moved, each way, to see how much the mask changes."""


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """Settings of `sam`; grid and thresholds have the values of its authors' automatic masks."""

    model: str = "facebook/sam-vit-base"
    """A hub id (facebook/sam-vit-base, -large or -huge), or a local folder in the hub's layout."""
    revision: str | None = None
    """The hub's branch, tag or commit; its newest when not given."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """What the weights are held and run in."""
    points_per_side: int = 32
    """Points along each side of the grid; each gives up to three masks."""
    points_per_batch: int = 64
    """Points per call of the mask decoder."""
    min_score: float = 0.88
    """Lowest IoU, 0 to 1, that the model predicts of its mask: the proposal's score."""
    min_stability: float = 0.95
    """Lowest share, 0 to 1, of a mask that is left of it when its threshold moves."""
    max_iou: float = 0.7
    """Overlap (IoU of boxes, 0 to 1) above which the lesser mask is dropped."""
    max_proposals: int = 100
    """Most masks per image."""
    masks: bool = False
    """Keep the masks too, in the table's column `mask_rle`; the boxes are the same either way."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 4
    """Images that are prepared together; the model sees one at a time, with `points_per_batch` points."""

    def __post_init__(self) -> None:
        check_ranges(self, flag="--propose", least={"points_per_side": 1, "points_per_batch": 1})


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """One image as the model takes it."""

    pixels: "Tensor"
    """`[1, 3, S, S]` float32, normalised, the image in the top left corner; pinned if it goes to a GPU."""
    size: tuple[int, int]
    """Of the image: height, width."""
    inner_size: tuple[int, int]
    """Of the image within the input: height, width."""


@dataclass(frozen=True, kw_only=True)
class _Masks:
    """Masks of one image; all have `N` rows, on the model's device."""

    logits: "Tensor"
    """`[N, 1, h, w]` float32: the model's, of its whole input at a quarter of its side."""
    boxes: "Tensor"
    """`[N, 4]` float32 xyxy pixels of the image."""
    scores: "Tensor"
    """`[N]` float32."""

    def at(self, rows: "Tensor") -> "_Masks":
        return _Masks(logits=self.logits[rows], boxes=self.boxes[rows], scores=self.scores[rows])


class Sam(BackendBase):
    """Proposes the box of each mask. Scores are the IoU that the model predicts of the mask, cut to 0..1."""

    name: ClassVar[str] = "sam"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[SamConfig]] = SamConfig
    gives_labels: ClassVar[bool] = False

    def __init__(self, config: SamConfig, *, device: Device = CPU) -> None:
        """Load weights and processor. Raises WeightsNotFoundError, and ImportError where transformers is missing."""
        import torch
        from transformers import SamImageProcessor, SamModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # a worker's; the job has one of its own
        files = _find(config)
        super().__init__(
            config, files=files, libraries={name: name for name in ("torch", "torchvision", "transformers")}
        )
        self._device = device.resolve()
        self._processor: Any = SamImageProcessor.from_pretrained(files.path, local_files_only=True)
        model: Any = SamModel.from_pretrained(files.path, dtype=getattr(torch, config.dtype), local_files_only=True)
        self._model = model.to(self._device).eval()

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the boxes, and the masks if asked for, of each image in its own frame, best first."""
        return self.detect(self.prepare(images))

    def prepare(self, images: Sequence[DecodedImage]) -> list[_Prepared]:
        """Return each image resized, normalised and padded to the model's square."""
        on_gpu = self._device.startswith("cuda")
        prepared = []
        for image in images:
            picture = Image.fromarray(np.ascontiguousarray(image.pixels))
            inputs = self._processor(images=picture, return_tensors="pt")
            pixels, (height, width) = inputs["pixel_values"], inputs["reshaped_input_sizes"][0].tolist()
            prepared.append(
                _Prepared(
                    pixels=pixels.pin_memory() if on_gpu else pixels,
                    size=(image.pixels.shape[0], image.pixels.shape[1]),
                    inner_size=(height, width),
                )
            )
        return prepared

    def detect(self, prepared: Sequence[_Prepared]) -> list[Proposals]:
        """Return what `propose` does for the images of `prepare`.

        One by one: the points of a single image make batches enough, and no neighbour can change a result.
        """
        import torch
        from torchvision.ops import nms

        from pipeline.propose.masks import as_rle

        proposals = []
        with torch.inference_mode():
            for image in prepared:
                parts = list(self._good_masks(image))
                found = _Masks(
                    logits=torch.cat([part.logits for part in parts]),
                    boxes=torch.cat([part.boxes for part in parts]),
                    scores=torch.cat([part.scores for part in parts]),
                )
                kept = found.at(nms(found.boxes, found.scores, self.config.max_iou)[: self.config.max_proposals])
                rles = None
                if self.config.masks:
                    full_size = self._full_size(kept.logits, image)
                    rles = tuple(as_rle(mask) for full in full_size for mask in (full > 0).byte().cpu().numpy())
                boxes = as_boxes(kept.boxes.cpu().numpy())
                scores = kept.scores.clamp(0, 1).cpu().numpy()
                found_here = Proposals(boxes=boxes, scores=scores, labels=(None,) * len(boxes), masks=rles)
                proposals.append(best_first(found_here))
        return proposals

    def _good_masks(self, image: _Prepared) -> Iterator[_Masks]:
        """Yield the masks good and stable enough, by batches of points: so only they are held."""
        import torch

        embeddings = self._model.get_image_embeddings(
            image.pixels.to(self._device, self._model.dtype, non_blocking=True)
        )
        for points, count in self._point_batches(image.inner_size):
            given = points.to(self._device)[None, :, None]
            labels = torch.ones(given.shape[:-1], dtype=torch.int64, device=self._device)
            output = self._model(image_embeddings=embeddings, input_points=given, input_labels=labels)
            scores = output.iou_scores[0, :count].float().flatten()
            good = scores >= self.config.min_score
            yield self._stable(output.pred_masks[0, :count].float().flatten(0, 1)[good], scores[good], image)

    def _point_batches(self, inner_size: tuple[int, int]) -> Iterator[tuple["Tensor", int]]:
        """Yield points of the grid, row by row: `[P, 2]` float32 x, y in input pixels, and how many of them count.

        P is the same for all batches; what fills the last one does not count.
        """
        import torch

        num_points = self.config.points_per_side**2
        size = min(self.config.points_per_batch, num_points)
        steps = (torch.arange(self.config.points_per_side, dtype=torch.float32) + 0.5) / self.config.points_per_side
        y, x = torch.meshgrid(steps * inner_size[0], steps * inner_size[1], indexing="ij")
        grid = torch.stack([x.flatten(), y.flatten()], dim=1)
        grid = torch.cat([grid, grid[-1:].expand(size, 2)])
        for start in range(0, num_points, size):
            yield grid[start : start + size], min(size, num_points - start)

    def _stable(self, logits: "Tensor", scores: "Tensor", image: _Prepared) -> _Masks:
        """Return the masks, of `[N, h, w]`, that hardly change with their threshold, and their boxes; no empty ones."""
        import torch

        from pipeline.propose.masks import mask_boxes

        boxes, stable = [torch.zeros((0, 4), device=logits.device)], [scores.new_zeros(0, dtype=torch.bool)]
        for full in self._full_size(logits[:, None], image):
            inner = (full > _STABLE_WITHIN).sum(dim=(1, 2))
            outer = (full > -_STABLE_WITHIN).sum(dim=(1, 2))
            boxes.append(mask_boxes(full > 0))
            stable.append((inner / outer >= self.config.min_stability) & (boxes[-1][:, 2] > boxes[-1][:, 0]))
        return _Masks(logits=logits[:, None], boxes=torch.cat(boxes), scores=scores).at(torch.cat(stable))

    def _full_size(self, logits: "Tensor", image: _Prepared) -> Iterator["Tensor"]:
        """Yield the logits `[N, 1, h, w]` in the image's size, `[n, H, W]`: a few at a time, whatever the image's."""
        most = max(image.size[0] * image.size[1], image.pixels.shape[2] * image.pixels.shape[3])
        for part in logits.split(max(1, _MASK_PIXELS // most)):
            if len(part):
                (full,) = self._processor.post_process_masks(
                    [part], [image.size], reshaped_input_sizes=[image.inner_size], binarize=False
                )
                yield full[:, 0]

    @staticmethod
    def weights(config: SamConfig) -> dict[str, Any]:
        """Return the model by its commit or hash. Raises ImportError, at start, where a library is missing."""
        require("transformers", what="the proposer sam", install="pip install 'fineclip-regions[pipeline]'")
        if config.masks:
            require("pycocotools", what="--propose.masks", install="pip install pycocotools")
        return {"model": _find(config).fingerprint(), "revision": None, "license": None}

    @staticmethod
    def licenses(config: SamConfig) -> tuple[Licensed, ...]:
        """Return the terms of transformers and of the weights."""
        return (TRANSFORMERS, model_license(config.model, stated=config.license))


def _find(config: SamConfig) -> ModelFiles:
    return find_model(config.model, mini=None, flag=_FLAG, revision=config.revision)
