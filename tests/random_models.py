"""Checkpoints of the real architectures with random weights: they prove plumbing, and their output means nothing."""

import hashlib
from pathlib import Path

import torch

from pipeline.propose.yolov9 import import_ultralytics


def random_yolov9(path: Path, variant: str = "t") -> str:
    """Write a YOLOv9 as Ultralytics publishes them (a pickled .pt) and return its sha256."""
    torch.manual_seed(0)
    import_ultralytics().YOLO(f"yolov9{variant}.yaml", task="detect").save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def random_blip2(folder: Path) -> None:
    """Write a small BLIP-2 with an OPT head in the hub's layout."""
    from pipeline.minis.captioner import build_model, build_processor, save

    torch.manual_seed(0)
    processor = build_processor()
    save(build_model(processor.tokenizer), processor, folder)
