"""Profiles: a proposer, a captioner and the settings that go with them, under one name."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What `--profile NAME` stands for; flags and a config file override each part."""

    proposer: str
    captioner: str
    summary: str
    defaults: dict[str, Any] = field(default_factory=dict)
    """Other settings by flag name, such as `select.max_regions`."""


PAPER = "paper"
PROFILES = {
    PAPER: Profile(
        proposer="yolov9",
        captioner="blip2",
        summary="the paper's models, YOLOv9-c and BLIP-2-OPT-6.7b: wants a GPU and 35 GB of downloads",
    ),
    "permissive": Profile(
        proposer="detr",
        captioner="vlm",
        summary="D-FINE-M and Qwen2-VL-2B, both Apache-2.0 by their cards: wants a GPU and 5 GB of downloads",
        defaults={
            "propose.model": "ustc-community/dfine-medium-obj2coco",
            "caption.model": "Qwen/Qwen2-VL-2B-Instruct",
        },
    ),
    "mini": Profile(
        proposer="detr",
        captioner="blip2",
        summary="a D-FINE and a BLIP-2 of 4 MB that ship: for synthetic scenes only",
        defaults={
            "propose.model": "mini",
            "propose.min_score": 0.3,
            "caption.model": "mini",
            "caption.dtype": "float32",
            "caption.max_new_tokens": 12,
            "caption.batch_size": 64,
        },
    ),
    "weightless": Profile(
        proposer="selective_search",
        captioner="rule",
        summary="selective search and a rule: nothing to download",
        defaults={"select.max_regions": 6, "select.max_iou": 0.5},
    ),
}
DEFAULT_PROFILE = PAPER

_INSTEAD = (
    "Give --profile weightless (nothing to download) or --profile mini (synthetic scenes only); "
    "--device cpu to run it all the same; --device cuda where the workers of another engine have GPUs"
)
WITHOUT_A_GPU = {
    PAPER: (
        "the paper's models want a GPU, and none was found. By their arithmetic, 1.1 TFLOP per region and 4.2 regions "
        "per image, a CPU of 100 GFLOP/s takes 47 s per image, 13 hours for 1,000, and 31 GB of memory.\n" + _INSTEAD
    ),
    "permissive": (
        "the profile's captioner wants a GPU, and none was found. By its arithmetic, 2 TFLOP per region of 448 x 448 "
        "pixels and 4.2 regions per image, a CPU of 100 GFLOP/s takes 84 s per image, 23 hours for 1,000; its weights "
        "alone are 5 GB of memory.\n" + _INSTEAD
    ),
}
"""What a profile says on a machine without one."""
