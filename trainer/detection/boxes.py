"""Which box is which true object, which of them are learned from, and how boxes become numbers."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import box_iou

BACKGROUND, BETWEEN = Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS
"""-1: no object; -2: neither an object nor none, which nothing is learned from."""


class BothSidesCoder(BoxCoder):
    """torchvision's coder, with the logarithm of sizes limited below too: no box shrinks to less than 1/62."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Return `[N, 4]` boxes from `[N, 4]` codes relative to `boxes`."""
        lowest = rel_codes.new_tensor([-torch.inf, -torch.inf, -self.bbox_xform_clip, -self.bbox_xform_clip])
        limited = torch.maximum(rel_codes, lowest * rel_codes.new_tensor(self.weights))
        return cast(Tensor, super().decode_single(limited, boxes))


def match(
    truth: Tensor, boxes: Tensor, *, positive: float, negative: float, low_quality_floor: float | None = None
) -> Tensor:
    """Return `[N]` int64: which of the true boxes `[G, 4]` each of `boxes` `[N, 4]` is, or BACKGROUND, or BETWEEN.

    An IoU of `positive` and more is a match, one below `negative` is background. With a floor, each true box also takes
    the boxes that overlap it most, if by so much at least; of two such true boxes, the later.
    """
    if not len(truth):
        return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    overlap = box_iou(truth, boxes)
    found: Tensor = Matcher(positive, negative, allow_low_quality_matches=False)(overlap)
    if low_quality_floor is not None and len(boxes):
        for number, (row, most) in enumerate(zip(overlap, overlap.amax(dim=1).tolist(), strict=True)):
            if most >= low_quality_floor:
                found[row == most] = number
    return found


@dataclass(frozen=True)
class SampledBoxes:
    """Boxes of an image that a head learns from."""

    boxes: Tensor
    """`[n, 4]` xyxy, pixels of the input."""
    labels: Tensor
    """`[n]` int64; the background's label for those that are none."""
    truth: Tensor
    """`[n, 4]`: the true box of each; itself for background."""


def sample_regions(
    proposals: Tensor, truth: Tensor, labels: Tensor, *, most: int, background: int, positive_share: float = 0.25
) -> SampledBoxes:
    """Return `most` of the proposals `[P, 4]` and true boxes `[G, 4]` or fewer, a `positive_share` of objects at most.

    Drawn from torch's random numbers. `labels` `[G]` are the true boxes' classes.
    """
    boxes = torch.cat([truth, proposals])
    matched = match(truth, boxes, positive=0.5, negative=0.5)
    is_object = (matched >= 0).to(torch.int64)
    (positives,), (negatives,) = BalancedPositiveNegativeSampler(most, positive_share)([is_object])
    chosen = torch.cat([torch.where(positives)[0], torch.where(negatives)[0]])
    boxes, matched = boxes[chosen], matched[chosen]
    if not len(truth):
        return SampledBoxes(boxes, torch.full_like(matched, background), boxes)
    at = matched.clamp(min=0)
    found = matched >= 0
    return SampledBoxes(
        boxes,
        torch.where(found, labels[at], background),
        torch.where(found[:, None], truth[at], boxes),
    )
