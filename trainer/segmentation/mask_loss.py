"""What a segmenter's training lowers: binary cross-entropy of every pixel and class."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, one_hot

NO_CLASS = -1
"""Label of pixels without one."""


def mask_loss(logits: Tensor, labels: Tensor, *, ignored: Literal["negative", "left_out"]) -> Tensor:
    """Return the mean over pixels and classes, float32; logits `[B, T, h, w]` are resized to labels `[B, H, W]` int64.

    A pixel of NO_CLASS is `negative` for every class, or `left_out` of the mean, which is 0 where nothing is left.
    """
    resized = interpolate(logits.float(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    truth = one_hot(labels - NO_CLASS, resized.shape[1] + 1)[..., 1:].permute(0, 3, 1, 2).to(resized.dtype)
    if ignored == "negative":
        return binary_cross_entropy_with_logits(resized, truth)
    known = (labels != NO_CLASS)[:, None].to(resized.dtype)
    losses = binary_cross_entropy_with_logits(resized, truth, reduction="none") * known
    return losses.sum() / (known.sum() * resized.shape[1]).clamp(min=1)
