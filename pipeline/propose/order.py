"""The order in which a model's proposals leave: by score, and among equals by geometry, never as the model had them."""

from dataclasses import replace

import numpy as np

from pipeline.sample import Proposals


def best_first(proposals: Proposals) -> Proposals:
    """Return the same proposals by falling score, equal ones by top, left, bottom, right."""
    x0, y0, x1, y1 = proposals.boxes.T
    order = np.lexsort((x1, y1, x0, y0, -proposals.scores))  # the last key is the first in importance
    return replace(
        proposals,
        boxes=proposals.boxes[order],
        scores=proposals.scores[order],
        labels=tuple(proposals.labels[row] for row in order),
        masks=None if proposals.masks is None else tuple(proposals.masks[row] for row in order),
    )
