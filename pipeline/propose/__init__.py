"""Proposers: images in, boxes out. A backend is one file here and one line in `PROPOSERS`; or another package's.

base               the protocol
letterbox          an image into a model's square input, boxes and masks back
squares            what proposers share whose model takes such squares
nms                non-maximum suppression of a whole batch
order              proposals by score, then geometry
masks              tight boxes and run lengths of masks
manual             the regions the source gives
yolov9             YOLOv9 by Ultralytics or libreyolo
ultralytics        Ultralytics' side of it, and of FastSAM
libreyolo          libreyolo's
fastsam            FastSAM's masks and their boxes
rpn                the region proposal network of torchvision's Faster R-CNN
detr               detectors of transformers: RF-DETR, D-FINE, RT-DETR and others
grounding          detectors of transformers that are asked by text: Grounding DINO, OWLv2, OmDet-Turbo
phrases            what such detectors are asked for: noun phrases by a rule, files of phrases
spans              texts for those that find phrases in a text, and which phrases they found
pretrained         what proposers share whose model is one of transformers'
sam                Segment Anything's automatic masks and their boxes, SAM 2's and EdgeTAM's too
segment_anything   Segment Anything by the package of its authors
sam3               Segment Anything 3: phrases in, boxes and masks out
selective_search   OpenCV's selective search with a score of our own; no weights
"""

from typing import Any

from pipeline.registry import Registry

PROPOSERS: dict[str, str] = {
    "manual": "pipeline.propose.manual:Manual",
    "yolov9": "pipeline.propose.yolov9:Yolov9",
    "fastsam": "pipeline.propose.fastsam:FastSam",
    "rpn": "pipeline.propose.rpn:Rpn",
    "detr": "pipeline.propose.detr:Detr",
    "grounding": "pipeline.propose.grounding:Grounding",
    "sam": "pipeline.propose.sam:Sam",
    "sam3": "pipeline.propose.sam3:Sam3",
    "selective_search": "pipeline.propose.selective_search:SelectiveSearch",
}
"""Name of each proposer of ours and where its class is, "module:Class"."""

proposers = Registry(kind="proposer", own=PROPOSERS, group="fineclip.proposers", method="propose")
"""All that are installed."""


def proposer_class(name: str) -> type[Any]:
    """Import and return the proposer class called `name`: it is built as `cls(config, device=device)`.

    Raises ValueError, listing the known names, for any other name; and as `Registry.load` does.
    """
    return proposers.load(name)
