"""Boxes that may hold something: torchvision's proposal network, with F-ViT's matching, losses and anchors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from trainer.detection.anchors import RATIOS, Anchors
from trainer.detection.boxes import BACKGROUND, BothSidesCoder, match
from trainer.detection.settings import DetectorSettings

_POSITIVE, _NEGATIVE, _FLOOR = 0.7, 0.3, 0.3
_NMS = 0.7


class _FloatHead(RPNHead):
    """torchvision's head, whose outputs are float32 whatever it computes in: boxes are decoded from them."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, codes = super().forward(x)
        return [one.float() for one in objectness], [one.float() for one in codes]


class ProposalNetwork(RegionProposalNetwork):
    """Class-agnostic proposals of all levels.

    What differs from torchvision's: anchors at fractional strides; a true box takes anchors of less than 0.7 only from
    0.3 on; L1 in place of smooth L1; sizes are limited on both sides.
    """

    def __init__(self, strides: Sequence[float], settings: DetectorSettings) -> None:
        """Take the strides of the levels in pixels."""
        super().__init__(
            Anchors(strides, settings.anchor_scale),
            _FloatHead(settings.channels, len(RATIOS), conv_depth=settings.proposal_convs),
            fg_iou_thresh=_POSITIVE,
            bg_iou_thresh=_NEGATIVE,
            batch_size_per_image=settings.sampled_anchors,
            positive_fraction=0.5,
            pre_nms_top_n=dict.fromkeys(("training", "testing"), settings.level_proposals),
            post_nms_top_n=dict.fromkeys(("training", "testing"), settings.proposals),
            nms_thresh=_NMS,
        )
        self.box_coder = BothSidesCoder(weights=(1.0, 1.0, 1.0, 1.0))

    def propose(
        self, levels: Sequence[Tensor], input_size: tuple[int, int], sizes: Tensor, truth: Sequence[Tensor] | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return `[P, 4]` proposals of each image (xyxy, pixels of the input), best first, and in training the losses.

        `sizes` `[B, 2]` are (height, width) of the images within the input, which proposals are clipped to; `truth` has
        the true boxes `[G, 4]` of each.
        """
        images = ImageList(levels[0].new_zeros(len(sizes), 3, *input_size), [(h, w) for h, w in sizes.tolist()])
        targets = None if truth is None else [{"boxes": boxes} for boxes in truth]
        found: tuple[list[Tensor], dict[str, Tensor]] = self(images, dict(enumerate(levels)), targets)
        return found

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return for each image `[A]` labels (1 object, 0 none, -1 not learned from) and `[A, 4]` their true boxes."""
        labels, boxes = [], []
        for mine, target in zip(anchors, targets, strict=True):
            truth = target["boxes"]
            matched = match(truth, mine, positive=_POSITIVE, negative=_NEGATIVE, low_quality_floor=_FLOOR)
            labels.append(torch.where(matched >= 0, 1.0, torch.where(matched == BACKGROUND, 0.0, -1.0)))
            boxes.append(truth[matched.clamp(min=0)] if len(truth) else mine)
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness and boxes: sums over the sampled anchors of all images, by their number."""
        positives, negatives = (torch.where(torch.cat(masks))[0] for masks in self.fg_bg_sampler(labels))
        sampled = torch.cat([positives, negatives])
        wrong = binary_cross_entropy_with_logits(objectness.flatten()[sampled], torch.cat(labels)[sampled])
        away = (pred_bbox_deltas[positives] - torch.cat(regression_targets)[positives]).abs().sum()
        return wrong, away / max(len(sampled), 1)


def losses_of(found: dict[str, Any]) -> dict[str, Tensor]:
    """Return torchvision's losses under our names."""
    return {"proposal_loss": found["loss_objectness"], "proposal_box_loss": found["loss_rpn_box_reg"]}
