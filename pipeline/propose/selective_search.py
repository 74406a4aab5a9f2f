"""Selective search (Uijlings et al. 2013) as OpenCV's contrib modules have it, with a score of our own. No weights.

    image -> reduced to `working_side` -> OpenCV's set of boxes -> objectness -> spread -> boxes in the image's frame

OpenCV returns its boxes in an order that draws on the C library's `rand()`, so the order differs from call to call
while the set does not (with any number of threads): the set is all that is used here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.backends import BackendBase, check_ranges
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OPENCV, OURS, Licensed
from pipeline.propose.objectness import IntBoxes, area, objectness
from pipeline.sample import DecodedImage, Pixels, Proposals
from schemas.boxes import Boxes, as_boxes

_MIN_SIDE = 4
"""An image whose shorter side has fewer working pixels holds nothing that could be told apart: no proposals."""
_PART_WEIGHT = 0.3
"""How much a box loses for lying wholly inside a better one, of which it may be a part worth keeping."""


class MissingContribError(ImportError):
    """The installed OpenCV lacks its contrib modules; the message says how to get them."""


@dataclass(frozen=True)
class SelectiveSearchConfig:
    """Settings of `selective_search`."""

    working_side: int = 320
    """Pixels of the longer side at which boxes are searched; larger images are reduced, smaller ones left."""
    max_proposals: int = 100
    """Proposals per image, at most."""
    batch_size: ClassVar[int] = 8

    def __post_init__(self) -> None:
        check_ranges(self, flag="--propose", least={"working_side": 16, "max_proposals": 1})


class SelectiveSearch(BackendBase):
    """Proposes what differs from its surroundings, best first. About 0.3 s per image: for previews, not for scale."""

    name: ClassVar[str] = "selective_search"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[SelectiveSearchConfig]] = SelectiveSearchConfig
    gives_labels: ClassVar[bool] = False

    def __init__(self, config: SelectiveSearchConfig, *, device: Device = CPU) -> None:
        if not hasattr(getattr(cv2, "ximgproc", None), "segmentation"):
            raise MissingContribError(
                "selective_search needs OpenCV's contrib modules, and the cv2 found here has no cv2.ximgproc: another "
                "OpenCV wheel was installed over it (both own the folder cv2/). Remedy: pip uninstall "
                "opencv-python-headless opencv-python && pip install --force-reinstall opencv-contrib-python-headless"
            )
        super().__init__(config)

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        """Return at most `max_proposals` proposals of each image by falling score, without labels.

        An image of a single colour, or with a side of a few pixels at working size, has none.
        """
        proposals = []
        for image in images:
            working = _reduce(image.pixels, self.config.working_side)
            boxes, scores = _ranked(working, self.config.max_proposals)
            in_image = _to_frame_of(image.pixels, boxes, working)
            labels = (None,) * len(boxes)
            proposals.append(Proposals(boxes=in_image, scores=scores.astype(np.float32), labels=labels))
        return proposals

    @staticmethod
    def licenses(config: SelectiveSearchConfig) -> tuple[Licensed, ...]:
        """Return the terms of our own code and OpenCV: there are no weights."""
        return (OURS, OPENCV)

    def provenance(self) -> dict[str, Any]:
        """Return a backend's provenance, with OpenCV's version."""
        return super().provenance() | {"libraries": {"opencv": cv2.__version__}}


def _reduce(pixels: Pixels, working_side: int) -> Pixels:
    """Return `pixels` `[H, W, 3]` with a longer side of at most `working_side`, no side below 1."""
    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer <= working_side:
        return pixels
    size = tuple(max(1, round(side * working_side / longer)) for side in (width, height))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _to_frame_of(pixels: Pixels, boxes: IntBoxes, working: Pixels) -> Boxes:
    """Move `[R, 4]` boxes from the frame of `working` to that of `pixels`: edges of one are edges of the other."""
    (height, width), (working_height, working_width) = pixels.shape[:2], working.shape[:2]
    numerator, denominator = np.array([width, height] * 2), np.array([working_width, working_height] * 2)
    return as_boxes(boxes * numerator / denominator)


def _ranked(working: Pixels, max_proposals: int) -> tuple[IntBoxes, npt.NDArray[np.float64]]:
    """Return boxes `[R, 4]` in the frame of `working` and their scores `[R]`, by falling score, then by geometry."""
    boxes = _search(working)
    if not len(boxes):
        return boxes, np.zeros(0)
    chosen, scores = _spread(boxes, objectness(working, boxes), max_proposals)
    order = np.lexsort((chosen, -scores))  # indices into `boxes`, which are sorted by geometry
    return boxes[chosen[order]], scores[order]


def _search(working: Pixels) -> IntBoxes:
    """Return OpenCV's boxes `[R, 4]`, each once, sorted by geometry, without the one that is the whole image."""
    height, width = working.shape[:2]
    if min(height, width) < _MIN_SIDE:
        return np.zeros((0, 4), dtype=np.int64)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(working, cv2.COLOR_RGB2BGR))
    search.switchToSelectiveSearchFast()
    boxes: IntBoxes = np.asarray(search.process(), dtype=np.int64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    is_part = (boxes != np.array([0, 0, width, height])).any(axis=1)
    distinct: IntBoxes = np.unique(boxes[is_part], axis=0)
    return distinct


def _spread(
    boxes: IntBoxes, scores: npt.NDArray[np.float64], limit: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Choose up to `limit` boxes greedily, best first; each choice lowers the scores of the boxes that overlap it.

    So the first few are different things instead of one thing many times (a soft non-maximum suppression). Returns
    their indices and scores as lowered when chosen, rounded to 1e-4. Equal scores go by index.
    """
    areas = area(boxes)
    left = scores.copy()
    chosen, chosen_scores = [], []
    for _ in range(min(limit, len(boxes))):
        best = int(np.argmax(left))
        chosen.append(best)
        chosen_scores.append(left[best])
        sides = np.minimum(boxes[:, 2:], boxes[best, 2:]) - np.maximum(boxes[:, :2], boxes[best, :2])
        shared = np.maximum(sides, 0).prod(axis=1)
        overlap = np.maximum(shared / (areas + areas[best] - shared), _PART_WEIGHT * shared / areas)
        left *= 1 - overlap
        left[best] = -1  # below every score: chosen once; later products only move it towards 0 from below
    return np.array(chosen, dtype=np.intp), np.round(np.array(chosen_scores), 4)
