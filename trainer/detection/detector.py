"""F-ViT: pyramid, proposals and head on a frozen vision tower, classes by the texts' features.

losses = detector.losses(canvases, sizes, boxes, labels)
found = detector.detect(canvases, sizes, scores)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax
from torchvision.ops import batched_nms, clip_boxes_to_image

from trainer.detection.boxes import sample_regions
from trainer.detection.canvas import normalised
from trainer.detection.fusion import clip_probabilities, fuse
from trainer.detection.proposals import ProposalNetwork, losses_of
from trainer.detection.pyramid import Pyramid, norm_of
from trainer.detection.regions import CODER, RegionHead, pool, region_losses
from trainer.detection.settings import TAPS_OF_DEPTH, DetectorSettings, ScoreSettings
from trainer.errors import TrainingError
from trainer.hyperparameters import Precision
from trainer.model.backbone import check_size
from trainer.model.taps import FrozenTower

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Detections:
    """What was found in an image, best first."""

    boxes: Tensor
    """`[n, 4]` float32 xyxy, pixels of the canvas."""
    scores: Tensor
    """`[n]` float32."""
    labels: Tensor
    """`[n]` int64: places in the classes."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a detector."""

    texts: Tensor
    """`[K + 1, D]` float32, normalised; the last is that of `background`."""
    is_base: Tensor
    """`[K]` bool."""


class Detector(nn.Module):
    """The trained part of F-ViT; the frozen tower is used, and is no part of its state."""

    texts: Tensor
    is_base: Tensor
    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        visual: nn.Module,
        classes: Classes,
        *,
        settings: DetectorSettings,
        image_size: int,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        precision: Precision = "fp32",
    ) -> None:
        """Build on `visual`, the vision tower of a model of open_clip's. Draws weights from torch's random numbers.

        Raises TrainingError where its blocks or `image_size` do not fit.
        """
        super().__init__()
        self.tower = FrozenTower(visual, taps_of(visual, settings))
        try:
            check_size((image_size, image_size), self.tower.patch_size)
        except ValueError as error:
            raise TrainingError(f"--image-size {image_size}: {error}") from error
        width, dim = self.tower.widths()
        norm = norm_of(settings.norm)
        patch = float(self.tower.patch_size[0])
        self.strides = [patch / scale for scale in settings.tap_scales]
        extra = [2 * self.strides[-1]] if settings.extra_level else []
        self.settings, self.image_size, self.precision = settings, image_size, precision
        self.pyramid = Pyramid(
            width, settings.tap_scales, channels=settings.channels, norm=norm, extra_level=settings.extra_level
        )
        self.proposer = ProposalNetwork([*self.strides, *extra], settings)
        self.head = RegionHead(settings, dim=dim, norm=norm)
        self.register_buffer("_mean", torch.tensor(mean).reshape(3, 1, 1) * 255, persistent=False)
        self.register_buffer("_std", torch.tensor(std).reshape(3, 1, 1) * 255, persistent=False)
        self.register_buffer("texts", classes.texts, persistent=False)
        self.register_buffer("is_base", classes.is_base, persistent=False)

    def losses(
        self, canvases: Tensor, sizes: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return the losses of a batch as `CanvasBatch` has it: proposal, proposal_box, class, box, and their sum.

        Boxes are sampled by torch's random numbers.
        """
        with self._autocast(canvases):
            levels, _ = self._see(canvases, sizes)
            proposals, losses = self.proposer.propose(levels, (canvases.shape[2], canvases.shape[3]), sizes, boxes)
        background = len(self.is_base)
        sampled = [
            sample_regions(*three, most=self.settings.sampled_regions, background=background)
            for three in zip(proposals, boxes, labels, strict=True)
        ]
        logits, codes = self._classify(levels, [one.boxes for one in sampled])
        is_trained = torch.cat([self.is_base, self.is_base.new_ones(1)])
        found = losses_of(losses) | region_losses(
            logits, codes, sampled, is_trained=is_trained, background_weight=self.settings.background_weight
        )
        return found | {"loss": torch.stack(list(found.values())).sum()}

    @torch.no_grad()
    def detect(self, canvases: Tensor, sizes: Tensor, scores: ScoreSettings) -> list[Detections]:
        """Return what is found in each image of a batch; the module must be in eval mode."""
        with self._autocast(canvases):
            levels, dense = self._see(canvases, sizes)
            proposals, _ = self.proposer.propose(levels, (canvases.shape[2], canvases.shape[3]), sizes, None)
        logits, codes = self._classify(levels, proposals)
        fused = fuse(
            softmax(logits, dim=1),
            clip_probabilities(dense, proposals, self.texts, side=self.image_size, clip_scale=scores.clip_scale),
            self.is_base,
            alpha=scores.alpha,
            beta=scores.beta,
        )
        counts = [len(one) for one in proposals]
        parts = zip(proposals, fused.split(counts), codes.split(counts), sizes.tolist(), strict=True)
        return [
            best(clip_boxes_to_image(CODER.decode_single(code, boxes), (height, width)), score, scores)
            for boxes, score, code, (height, width) in parts
        ]

    def _see(self, canvases: Tensor, sizes: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the pyramid's levels and the dense map of canvases."""
        seen = self.tower(normalised(canvases, sizes, self._mean, self._std))
        return self.pyramid(seen.maps), seen.dense_features

    def _classify(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return `[N, K + 1]` logits and `[N, 4]` codes, float32, of the boxes of all images."""
        pooled = pool(levels[: len(self.strides)], self.strides, boxes, finest_px=self.settings.finest_px)
        with self._autocast(pooled):
            features, codes = self.head(pooled)
        return self.head.logits(features, self.texts), codes

    def _autocast(self, tensor: Tensor) -> torch.autocast:
        return torch.autocast(tensor.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32")


def best(boxes: Tensor, scores: Tensor, settings: ScoreSettings) -> Detections:
    """Return the best of an image's boxes `[P, 4]` by their scores `[P, K]`: each box may be of several classes."""
    at, labels = torch.where(scores > settings.score_threshold)
    chosen, kept = boxes[at], scores[at, labels]
    keep = batched_nms(chosen, kept, labels, settings.nms)[: settings.max_detections]
    return Detections(boxes=chosen[keep], scores=kept[keep], labels=labels[keep])


def taps_of(visual: nn.Module, settings: DetectorSettings) -> tuple[int, ...]:
    """Return the blocks to take patches from: those given, or F-ViT's. Raises TrainingError where it has none."""
    depth = FrozenTower(visual, ()).num_blocks
    taps = settings.taps or TAPS_OF_DEPTH.get(depth)
    if taps is None or len(taps) != len(settings.tap_scales):
        raise TrainingError(
            f"--taps: F-ViT's are known for towers of 12 and 24 blocks, and this one has {depth}; name "
            f"{len(settings.tap_scales)} of them, from 0 to {depth - 1}"
        )
    if list(taps) != sorted(set(taps)) or taps[0] < 0 or taps[-1] != depth - 1:
        raise TrainingError(f"--taps {list(taps)}: name blocks from 0 to {depth - 1}, ascending, the last one last")
    return taps
