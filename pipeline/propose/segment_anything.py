"""Segment Anything by the package of its authors, `segment-anything` (Apache-2.0), with their own `.pth`.

    image -> SamAutomaticMaskGenerator -> masks as run lengths -> their tight boxes

The package unpickles a checkpoint, which can run code. So it is asked for a model without one, and the file, which the
user names by its hash, is read as weights alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.models.state_dict import WeightsError, fit_strictly
from pipeline.propose.order import best_first
from pipeline.sample import Pixels, Proposals
from schemas.boxes import as_boxes
from schemas.coco import compress_runs

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

DISTRIBUTION = "segment-anything"
_WIDTH_OF = "image_encoder.patch_embed.proj.weight"
_VARIANTS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
"""By the width of the image encoder."""


class SegmentAnything:
    """Finds masks by the authors' own generator, which has `settings` under its own names."""

    def __init__(self, path: Path, device: str, settings: Mapping[str, Any]) -> None:
        """Load the weights in `path`. Raises WeightsError where they are not a model's of the package."""
        from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

        state = _state(path)
        width = state[_WIDTH_OF].shape[0] if _WIDTH_OF in state else None
        if width not in _VARIANTS:
            raise WeightsError(
                f"{path}: no checkpoint of segment-anything's, such as sam_vit_b_*.pth (or ViT-L, ViT-H)"
            )
        model = sam_model_registry[_VARIANTS[width]](checkpoint=None)
        fit_strictly(model, state, path)
        self._generator = SamAutomaticMaskGenerator(model.to(device).eval(), **settings, output_mode="uncompressed_rle")

    def propose(self, pixels: Pixels, *, max_proposals: int, masks: bool) -> Proposals:
        """Return the tight boxes in an image (`[H, W, 3]` uint8 RGB), and the masks if asked for, best first.

        The generator's own boxes are not used: they end a pixel early. Scores are cut to 0..1.
        """
        found = self._generator.generate(pixels)
        found = sorted(found, key=lambda one: -one["predicted_iou"])[:max_proposals]
        boxes = [_bounds(one["segmentation"]["counts"], height=pixels.shape[0]) for one in found]
        kept = [number for number, box in enumerate(boxes) if box is not None]
        scores = np.asarray([found[number]["predicted_iou"] for number in kept], np.float32).clip(0, 1)
        rles = tuple(compress_runs(found[number]["segmentation"]["counts"]) for number in kept) if masks else None
        return best_first(
            Proposals(
                boxes=as_boxes([boxes[number] for number in kept]),
                scores=scores,
                labels=(None,) * len(kept),
                masks=rles,
            )
        )


def _state(path: Path) -> "dict[str, Tensor]":
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: holds {type(state).__name__}, not the weights of a model by name")
    return state


def _bounds(runs: list[int], *, height: int) -> tuple[int, int, int, int] | None:
    """Return the box (xyxy) of run lengths that go down the columns, outside first; None where nothing is inside."""
    ends = np.cumsum(runs)
    starts, stops = ends[:-1:2], ends[1::2]
    starts, stops = starts[stops > starts], stops[stops > starts] - 1
    if not len(starts):
        return None
    left, right = starts[0] // height, stops[-1] // height
    wraps = (starts // height != stops // height).any()  # over the end of a column, to the top of the next
    top, bottom = (0, height - 1) if wraps else ((starts % height).min(), (stops % height).max())
    return int(left), int(top), int(right) + 1, int(bottom) + 1
