"""Ultralytics (AGPL-3.0, an extra of its own), imported only where it was asked for: for `yolov9` and `fastsam`."""

import functools
import importlib
import math
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.models.device import same_threads
from pipeline.propose.squares import as_input

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

INSTALL = "pip install 'fineclip-regions[ultralytics]' (AGPL-3.0: see README.md)"


def ultralytics_package() -> str:
    """Return the name of the installed distribution that holds Ultralytics: there are several."""
    return packages_distributions()["ultralytics"][0]


def import_ultralytics() -> Any:
    """Import Ultralytics (by name: mypy and planning must not follow) and return its module.

    It replaces `PIL.Image.open` with one that, for bytes that are no image, imports a package nobody has installed; the
    rest of the process gets Pillow's own back. And its NMS gives up on the images of a batch that it has not come to
    after some seconds, so a slow machine, or a batch mate with many boxes, would leave them without any: it gets all
    the time it needs.
    """
    own = Image.open
    try:
        ultralytics = importlib.import_module("ultralytics")
        nms = importlib.import_module("ultralytics.utils.nms")
    finally:
        Image.open = own
    if not isinstance(nms.non_max_suppression, functools.partial):
        vars(nms)["non_max_suppression"] = functools.partial(nms.non_max_suppression, max_time_img=math.inf)
    return ultralytics


def predict(model: Any, squares: "Tensor", *, config: Any, device: str, **arguments: Any) -> list[Any]:
    """Return a model's results, one per square of `[P, S, S, 3]` uint8, by the thresholds that the configs share."""
    with same_threads():
        found: list[Any] = model.predict(
            as_input(squares, device),
            imgsz=config.image_side,
            conf=config.min_score,
            iou=config.max_iou,
            max_det=config.max_proposals,
            rect=False,
            verbose=False,
            device=device,
            **arguments,
        )
    return found
