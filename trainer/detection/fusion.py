"""The probabilities of the detector and of CLIP, as one score: the detector knows base classes, CLIP the novel ones."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softmax

from trainer.model.backbone import pool_regions


def fuse(detector: Tensor, clip: Tensor, is_base: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return `[N, K]` scores of `[N, K + 1]` probabilities, background last, which is left out after.

    Base classes (`is_base`, `[K]` bool) have detector^(1 - alpha) clip^alpha, the others beta in place of alpha. The
    scores are not made to add up to 1.
    """
    share = torch.where(is_base, alpha, beta).to(detector.dtype)
    return detector[:, :-1] ** (1 - share) * clip[:, :-1] ** share


def clip_probabilities(
    dense_features: Tensor, boxes: Sequence[Tensor], texts: Tensor, *, side: int, clip_scale: float
) -> Tensor:
    """Return `[N, K + 1]` float32: softmax over `texts` `[K + 1, D]` for the boxes of all images.

    `boxes` `[n, 4]` of each are xyxy in pixels of a canvas of `side`; their features are pooled from `dense_features`
    `[B, D, h, w]` by RoIAlign to one cell. Similarities are multiplied by `clip_scale` first.
    """
    owners = torch.cat([torch.full((len(one),), image) for image, one in enumerate(boxes)]).to(dense_features.device)
    features = pool_regions(dense_features, torch.cat(list(boxes)) / side, owners)
    return softmax(clip_scale * features @ texts.T, dim=1)
