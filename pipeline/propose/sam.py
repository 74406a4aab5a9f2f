"""Segment Anything, SAM 2 and EdgeTAM by transformers: the masks of a grid of points, and the boxes around them.

    image -> encoder -> for each batch of points: three masks per point -> good and stable ones -> NMS -> boxes, masks

transformers' image processor resizes, and moves masks back. Its helpers for whole-image masks are not used: their boxes
end a pixel early (right and bottom inclusive), and they hold every mask of a batch of points in the image's full size.

The package of Segment Anything's authors is the other engine (`segment_anything.py`): same weights, same boxes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

import numpy as np
from PIL import Image

from pipeline.backends import BackendBase, check_ranges, require
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import SEGMENT_ANYTHING, TRANSFORMERS, Licensed, model_license
from pipeline.models.pretrained import from_pretrained
from pipeline.models.weights import ModelFiles, check_pickled, find_file, find_model
from pipeline.propose.order import best_first
from pipeline.propose.segment_anything import SegmentAnything
from pipeline.sample import DecodedImage, Pixels, Proposals
from schemas.boxes import as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

_FLAG = "--propose.model"
_META = "segment-anything"
_KINDS = ("sam", "sam2", "sam2_video", "edgetam", "edgetam_video")
"""Types of models, as transformers calls them, that are asked about points in the same way."""
_MASK_PIXELS = 1 << 25
"""Pixels of masks, in float32, that are brought to the image's size at a time: 128 MiB."""


_Engine = Literal["transformers", "segment-anything"]
_OF_META = ("sha256", "crop_layers", "crop_max_iou", "crop_overlap", "crop_points_divisor", "min_mask_area")
_OF_TRANSFORMERS = ("revision", "dtype")
"""Settings that one engine alone has."""


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """Settings of `sam`; grid and thresholds have the values of its authors' automatic masks."""

    model: str = "facebook/sam-vit-base"
    """A hub id (facebook/sam-vit-base, -large or -huge, one of SAM 2 or EdgeTAM), or a local folder in the hub's
    layout; for the engine segment-anything the authors' own sam_vit_b_*.pth, sam_vit_l_*.pth or sam_vit_h_*.pth."""
    engine: _Engine = "transformers"
    """The library that runs the model; their checkpoints are not interchangeable."""
    sha256: str | None = None
    """Sha256 that a .pth must have: name the file you trust."""
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
    stability_offset: float = 1.0
    """How far the threshold of a mask's logits is moved, each way, to see how much the mask changes."""
    max_iou: float = 0.7
    """Overlap (IoU of boxes, 0 to 1) above which the lesser mask is dropped."""
    crop_layers: int = 0
    """Of segment-anything: layers of ever smaller parts of the image (4, 16, ...) that are looked at too."""
    crop_max_iou: float = 0.7
    """Of segment-anything: overlap above which one of the masks of two parts is dropped."""
    crop_overlap: float = 512 / 1500
    """Of segment-anything: how much parts overlap, as a share of the image's shorter side, in the first layer."""
    crop_points_divisor: int = 1
    """Of segment-anything: each layer has so many times fewer points along a side than the one before."""
    min_mask_area: int = 0
    """Of segment-anything: pixels; smaller holes in masks are filled, and smaller islands taken away."""
    max_proposals: int = 100
    """Most masks per image."""
    masks: bool = False
    """Keep the masks too, in the table's column `mask_rle`; the boxes are the same either way."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 4
    """Images that are prepared together; the model sees one at a time, with `points_per_batch` points."""

    def __post_init__(self) -> None:
        least = {"points_per_side": 1, "points_per_batch": 1, "stability_offset": 0, "crop_layers": 0}
        least |= {"crop_points_divisor": 1, "min_mask_area": 0}
        shares = ("min_score", "min_stability", "max_iou", "crop_max_iou", "crop_overlap")
        check_ranges(self, flag="--propose", least=least, shares=shares)
        for name in _OF_META if self.engine == "transformers" else _OF_TRANSFORMERS:
            if getattr(self, name) != getattr(SamConfig, name):
                other = next(engine for engine in get_args(_Engine) if engine != self.engine)
                raise ValueError(
                    f"--propose.{name.replace('_', '-')} is a setting of --propose.engine {other}, not of {self.engine}"
                )

    def of_generator(self) -> dict[str, Any]:
        """Return the settings of SamAutomaticMaskGenerator, under its own names."""
        return {
            "points_per_side": self.points_per_side,
            "points_per_batch": self.points_per_batch,
            "pred_iou_thresh": self.min_score,
            "stability_score_thresh": self.min_stability,
            "stability_score_offset": self.stability_offset,
            "box_nms_thresh": self.max_iou,
            "crop_n_layers": self.crop_layers,
            "crop_nms_thresh": self.crop_max_iou,
            "crop_overlap_ratio": self.crop_overlap,
            "crop_n_points_downscale_factor": self.crop_points_divisor,
            "min_mask_region_area": self.min_mask_area,
        }


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
        """Load weights and processor.

        Raises WeightsNotFoundError, ImportError where the engine's library is missing, ValueError for a model of
        another kind, and WeightsError for a .pth that is no checkpoint of segment-anything.
        """
        files = _find(config)
        super().__init__(
            config, files=files, libraries={name: name for name in ("torch", "torchvision", config.engine)}
        )
        self._device = device.resolve()
        self._generator: SegmentAnything | None = None
        if config.engine == _META:
            self._generator = SegmentAnything(files.path, self._device, config.of_generator())
        else:
            self._processor, self._model = _load(files, config, self._device)

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return the boxes, and the masks if asked for, of each image in its own frame, best first."""
        return self.detect(self.prepare(images))

    def prepare(self, images: Sequence[DecodedImage]) -> "list[_Prepared] | list[Pixels]":
        """Return each image as the engine takes it: segment-anything as it is, transformers resized."""
        if self._generator is not None:
            return [np.ascontiguousarray(image.pixels) for image in images]
        on_gpu = self._device.startswith("cuda")
        prepared = []
        for image in images:
            picture = Image.fromarray(np.ascontiguousarray(image.pixels))
            inputs = self._processor(images=picture, return_tensors="pt")
            pixels = inputs["pixel_values"]
            sizes = inputs.get("reshaped_input_sizes")  # SAM's own; the others stretch an image to a square
            height, width = pixels.shape[2:] if sizes is None else sizes[0].tolist()
            prepared.append(
                _Prepared(
                    pixels=pixels.pin_memory() if on_gpu else pixels,
                    size=(image.pixels.shape[0], image.pixels.shape[1]),
                    inner_size=(height, width),
                )
            )
        return prepared

    def detect(self, prepared: "Sequence[_Prepared] | Sequence[Pixels]") -> list[Proposals]:
        """Return what `propose` does for the images of `prepare`.

        One by one: the points of a single image make batches enough, and no neighbour can change a result.
        """
        if self._generator is not None:
            asked = {"max_proposals": self.config.max_proposals, "masks": self.config.masks}
            return [self._generator.propose(cast(Pixels, pixels), **asked) for pixels in prepared]
        import torch
        from torchvision.ops import nms

        from pipeline.propose.masks import as_rle

        proposals = []
        with torch.inference_mode():
            for image in cast(Sequence[_Prepared], prepared):
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
            inner = (full > self.config.stability_offset).sum(dim=(1, 2))
            outer = (full > -self.config.stability_offset).sum(dim=(1, 2))
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
        extra, module = ("pipeline", "transformers") if config.engine == "transformers" else (_META, "segment_anything")
        require(module, what=f"--propose.engine {config.engine}", install=f"pip install 'fineclip-regions[{extra}]'")
        if config.masks and config.engine == "transformers":
            require("pycocotools", what="--propose.masks", install="pip install pycocotools")
        return {"model": _find(config).fingerprint(), "revision": None, "sha256": None, "license": None}

    @staticmethod
    def licenses(config: SamConfig) -> tuple[Licensed, ...]:
        """Return the terms of the engine and of the weights."""
        if config.engine == _META:
            return (SEGMENT_ANYTHING, model_license(config.model, origin="path", stated=config.license))
        return (TRANSFORMERS, model_license(config.model, stated=config.license))


def _find(config: SamConfig) -> ModelFiles:
    if config.engine == "transformers":
        return find_model(config.model, mini=None, flag=_FLAG, revision=config.revision)
    files = find_file(config.model, flag=_FLAG, what="segment-anything's sam_vit_b_*.pth, or of ViT-L or ViT-H")
    check_pickled(files, config.sha256, flag=_FLAG, hash_flag="--propose.sha256")
    return files


def _load(files: ModelFiles, config: SamConfig, device: str) -> tuple[Any, Any]:
    """Return transformers' image processor and model. Raises ValueError for a model of another kind, and WeightsError
    where its weights are not all there.
    """
    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForMaskGeneration, SamImageProcessor

    kind = AutoConfig.from_pretrained(files.path, local_files_only=True).model_type
    if kind not in _KINDS:
        raise ValueError(f"{_FLAG} {config.model}: it is a {kind!r}; sam takes {', '.join(_KINDS)}")
    processors: Any = SamImageProcessor if kind == "sam" else AutoImageProcessor
    model = from_pretrained(AutoModelForMaskGeneration, files, flag=_FLAG, dtype=getattr(torch, config.dtype))
    return processors.from_pretrained(files.path, local_files_only=True), model.to(device).eval()
