"""Every backend that takes batches: in batches as a job fills them, against one image or crop at a time.

    python -m benchmarks.batching [--images 16] [--crops 32] [--runs 3] [--only NAME ...] [--threads 1]

The models are the minis, and the small random ones of the tests: what is measured is what a call costs, whatever is in
it, and not the arithmetic of models of a published size. Seconds are of CPU time, which other work on the machine
disturbs little. Both ways are compared, and must give the same boxes to a pixel and the same captions.

Needs all of the pipeline, pytest, and of the engines libreyolo, Ultralytics' and open_clip.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import Row, measure, report
from pipeline.caption.blip2 import Blip2, Blip2Config
from pipeline.caption.clip_rule import ClipRule, ClipRuleConfig
from pipeline.caption.vlm import Vlm, VlmConfig
from pipeline.propose.detr import Detr, DetrConfig
from pipeline.propose.fastsam import FastSam, FastSamConfig
from pipeline.propose.grounding import Grounding, GroundingConfig
from pipeline.propose.rpn import Rpn, RpnConfig
from pipeline.propose.yolov9 import Yolov9, Yolov9Config
from pipeline.sample import Caption, Crop, DecodedImage, Pixels, Proposals
from tests.builders import decoded_image
from tests.random_captioners import (
    random_blip,
    random_blip2_t5,
    random_florence2,
    random_llava,
    random_paligemma,
    random_qwen2_vl,
)
from tests.random_detectors import DETECTORS, random_detector
from tests.random_grounders import GROUNDERS, random_grounder
from tests.random_models import random_fastsam, random_libreyolo, random_rpn, random_yolov9

_CAPTIONS = ("a dog and a red ball", "two boats on a lake", "a green tree near a house", "a man rides a bicycle")
_FEW: dict[str, Any] = {"max_proposals": 20}
_SMALL: dict[str, Any] = {"image_side": 256, "min_score": 1e-6, **_FEW}
_SHORT: dict[str, Any] = {"dtype": "float32", "max_new_tokens": 12}


@dataclass(frozen=True, kw_only=True)
class _Backend:
    """A proposer or captioner, and what it is given."""

    answers: Callable[[Sequence[Any]], Sequence[Any]]
    batch_size: int
    items: Sequence[Any]

    def batched(self) -> list[Any]:
        """Return the answers about all, in batches."""
        parts = range(0, len(self.items), self.batch_size)
        return [answer for at in parts for answer in self.answers(self.items[at : at + self.batch_size])]

    def alone(self) -> list[Any]:
        """Return the answers about all, one at a time."""
        return [answer for item in self.items for answer in self.answers([item])]

    def check(self) -> None:
        """Raise SystemExit where the two ways differ, or an item has no answer."""
        for one, other in zip(self.batched(), self.alone(), strict=True):
            if isinstance(one, Caption):
                same = one.text == other.text
            else:
                assert isinstance(one, Proposals), one
                same = one.labels == other.labels and np.allclose(one.boxes, other.boxes, atol=1)
            if not same:
                raise SystemExit(f"alone it is {other}, in a batch {one}")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="of 640 x 480, a round")
    parser.add_argument("--crops", type=int, default=32, help="of 40 to 200 pixels a side, a round")
    parser.add_argument("--runs", type=int, default=3, help="rounds, after one that warms up")
    parser.add_argument("--only", nargs="+", default=[], help="names that the backends' begin with")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = [_image(number) for number in range(options.images)]
    crops = [_crop(number) for number in range(options.crops)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-") as folder:
        for number, (name, make) in enumerate(_backends(images, crops).items()):
            if options.only and not name.startswith(tuple(options.only)):
                continue
            backend = make(Path(folder) / str(number))
            backend.check()
            ways = {"batched": backend.batched, "alone": backend.alone}
            seconds = measure(ways, options.runs, clock=time.process_time)
            note = f"one by one {len(backend.items) / np.median(seconds['alone']):,.1f}/s"
            rows.append(
                Row(
                    name=f"{name}, {min(backend.batch_size, len(backend.items))} a batch",
                    seconds=seconds["batched"],
                    against=seconds["alone"],
                    items=len(backend.items),
                    note=note,
                )
            )
    report(f"batched against one by one, CPU seconds, torch on {options.threads} threads", rows, {})


def _backends(images: Sequence[DecodedImage], crops: Sequence[Crop]) -> dict[str, Callable[[Path], _Backend]]:
    """Return what makes each backend, given a path of its own, by name."""

    def proposer(make: Callable[[Path], Any], path: Path) -> _Backend:
        made = make(path)
        return _Backend(answers=made.propose, batch_size=made.batch_size, items=images)

    def captioner(make: Callable[[Path], Any], path: Path) -> _Backend:
        made = make(path)
        return _Backend(
            answers=lambda batch: made.caption(batch, [made.prompt] * len(batch)),
            batch_size=made.batch_size,
            items=crops,
        )

    proposers: dict[str, Callable[[Path], Any]] = {
        "yolov9, libreyolo": _libreyolo,
        "yolov9, ultralytics": _ultralytics,
        "fastsam": _fastsam,
        "rpn": _rpn,
        "detr, mini (D-FINE)": lambda path: Detr(DetrConfig(model="mini", min_score=0, **_FEW)),
        **{f"detr, {name}": functools.partial(_detr, name) for name in DETECTORS},
        **{f"grounding, {name}": functools.partial(_grounding, name) for name in GROUNDERS},
    }
    captioners: dict[str, Callable[[Path], Any]] = {
        "blip2, mini (OPT)": lambda path: Blip2(Blip2Config(model="mini", **_SHORT)),
        "blip2, T5": lambda path: Blip2(Blip2Config(model=_written(random_blip2_t5, path), **_SHORT)),
        **{f"vlm, {name}": functools.partial(_vlm, name) for name in _VLMS},
        "clip_rule, mini": lambda path: ClipRule(ClipRuleConfig(model="mini", concepts="scenes")),
    }
    return {name: functools.partial(proposer, make) for name, make in proposers.items()} | {
        name: functools.partial(captioner, make) for name, make in captioners.items()
    }


def _written(write: Callable[[Path], object], path: Path) -> str:
    write(path)
    return str(path)


def _libreyolo(path: Path) -> Yolov9:
    path = path.with_suffix(".safetensors")
    random_libreyolo(path)
    return Yolov9(Yolov9Config(model=str(path), engine="libreyolo", **_SMALL))


def _ultralytics(path: Path) -> Yolov9:
    path = path.with_suffix(".pt")
    return Yolov9(Yolov9Config(sha256=random_yolov9(path), model=str(path), **_SMALL))


def _fastsam(path: Path) -> FastSam:
    path = path.with_suffix(".pt")
    return FastSam(FastSamConfig(sha256=random_fastsam(path), model=str(path), **_SMALL))


def _rpn(path: Path) -> Rpn:
    path, model = path.with_suffix(".safetensors"), "fasterrcnn_mobilenet_v3_large_320_fpn"
    random_rpn(path, model)
    return Rpn(RpnConfig(model=model, weights=str(path), image_side=256, min_score=0, **_FEW))


def _detr(architecture: str, path: Path) -> Detr:
    random_detector(path, architecture)
    return Detr(DetrConfig(model=str(path), min_score=0, **_FEW))


def _grounding(architecture: str, path: Path) -> Grounding:
    random_grounder(path, architecture)
    return Grounding(GroundingConfig(model=str(path), min_score=0, **_FEW))


_VLMS: dict[str, tuple[Callable[[Path], None], str]] = {
    "Qwen2-VL": (random_qwen2_vl, VlmConfig.prompt or ""),
    "LLaVA": (random_llava, VlmConfig.prompt or ""),
    "BLIP": (random_blip, ""),
    "Florence-2": (random_florence2, "<CAPTION>"),
    "PaliGemma": (random_paligemma, "caption en"),
}
"""What writes the model, and how it is asked."""


def _vlm(name: str, path: Path) -> Vlm:
    write, prompt = _VLMS[name]
    return Vlm(VlmConfig(model=_written(write, path), prompt=prompt, **_SHORT))


def _image(number: int) -> DecodedImage:
    image = decoded_image(_smooth(number, 480, 640))
    return replace(image, item=replace(image.item, captions=(_CAPTIONS[number % len(_CAPTIONS)],)))


def _crop(number: int) -> Crop:
    height, width = (int(side) for side in np.random.default_rng(number).integers(40, 200, 2))
    return Crop(
        region_id=f"{number:016x}",
        pixels=_smooth(number, height, width),
        box=(0.0, 0.0, float(width), float(height)),
        image_width=width,
        image_height=height,
        label=None,
    )


def _smooth(number: int, height: int, width: int) -> Pixels:
    """Return `[height, width, 3]` of coloured squares of 16 pixels, others for each number."""
    cells = np.random.default_rng(number).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(cells.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])


if __name__ == "__main__":
    main()
