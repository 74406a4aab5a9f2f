"""Proposers: images in, boxes out. A backend is one file here and one line in `PROPOSERS`.

base               the protocol
manual             the regions the source gives
yolov9             YOLOv9 by Ultralytics or libreyolo, on letterboxed squares
selective_search   OpenCV's selective search with a score of our own; no weights
"""

from typing import Any

from pipeline.backends import load_backend

PROPOSERS: dict[str, str] = {
    "manual": "pipeline.propose.manual:Manual",
    "yolov9": "pipeline.propose.yolov9:Yolov9",
    "selective_search": "pipeline.propose.selective_search:SelectiveSearch",
}
"""Name of each proposer and where its class is, "module:Class"."""


def proposer_class(name: str) -> type[Any]:
    """Import and return the proposer class called `name`: it is built as `cls(config, device=device)`.

    Raises ValueError, listing the known names, for any other name.
    """
    return load_backend(PROPOSERS, "proposer", name)
