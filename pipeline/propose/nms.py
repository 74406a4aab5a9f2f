"""Class-agnostic non-maximum suppression of a whole batch: on a GPU by one call, and with one copy back."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.sample import Proposals

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

_MOST_CANDIDATES = 30_000
"""Best boxes of an image that are compared; more would be noise."""


def suppressed(
    boxes: "Tensor",
    scores: "Tensor",
    names: "dict[int, str]",
    *,
    min_score: float,
    max_iou: float,
    max_kept: int,
    at_once: bool | None = None,
) -> list[Proposals]:
    """Return what is left of each image's boxes, best first: of each box its best class.

    `boxes` are `[P, N, 4]` xyxy, `scores` `[P, N, C]` of the classes in `names`, 0 to 1. What is not finite is left
    out. Boxes with a score above `min_score` are candidates; one that overlaps (IoU) a better one by more than
    `max_iou` goes, whatever their classes. `at_once` compares the boxes of all images in one call, apart from each
    other by more than their size and in float64, so that an image's result does not depend on its batch; it is the
    quick way on a GPU, the default there, and a slow one on a CPU.
    """
    import torch

    if at_once is None:
        at_once = boxes.is_cuda
    best, classes = scores.float().max(dim=2)
    finite = boxes.isfinite().all(dim=2) & best.isfinite()
    is_candidate = (best > min_score) & finite
    if best.shape[1] > _MOST_CANDIDATES:
        order = best.where(is_candidate, -torch.inf).argsort(dim=1, descending=True, stable=True)
        is_candidate.scatter_(1, order[:, _MOST_CANDIDATES:], False)
    image, candidate = is_candidate.nonzero(as_tuple=True)
    rows = torch.cat(
        [boxes.float()[image, candidate], best[image, candidate][:, None], classes[image, candidate][:, None].float()],
        dim=1,
    )
    keep = _kept_at_once(rows, image, max_iou) if at_once else _kept_in_turn(rows, image, len(boxes), max_iou)
    found = torch.cat([image[keep][:, None].float(), rows[keep]], dim=1).cpu().numpy()
    return [_proposals(found[found[:, 0] == index][:max_kept, 1:], names) for index in range(len(boxes))]


def _kept_in_turn(rows: "Tensor", image: "Tensor", num_images: int, max_iou: float) -> "Tensor":
    import torch
    from torchvision.ops import nms

    kept = []
    for index in range(num_images):
        own = (image == index).nonzero()[:, 0]
        kept.append(own[nms(rows[own, :4].double(), rows[own, 4].double(), max_iou)])
    return torch.cat(kept)


def _kept_at_once(rows: "Tensor", image: "Tensor", max_iou: float) -> "Tensor":
    from torchvision.ops import nms

    if not len(rows):
        return image
    corners = rows[:, :4].double()
    apart = image.double()[:, None] * (corners.max() - corners.min() + 1)
    kept: Tensor = nms(corners + apart, rows[:, 4].double(), max_iou)
    return kept


def _proposals(found: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", names: "dict[int, str]") -> Proposals:
    labels = tuple(names[int(index)] for index in found[:, 5])
    return Proposals(boxes=np.ascontiguousarray(found[:, :4]), scores=np.ascontiguousarray(found[:, 4]), labels=labels)
