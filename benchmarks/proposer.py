"""Proposals of YOLOv9 in batches, as the job makes them, against an image at a time; and JPEG decoding, on N threads.

    python -m benchmarks.proposer --random-weights [--variant c] [--engine ultralytics|libreyolo] [--side 640]
                                  [--device cpu|cuda] [--images 64] [--decode-threads N] [--runs 5]

Random weights would send all boxes or none into NMS, so the best `--candidates` of each image get scores above the
threshold, and no others: what follows the network costs the same for every image, whatever the weights. All ways use
`pipeline.propose.yolov9`; the batched ones prepare a batch while the model has the one before it. Utilisation is the
share of the wall time in the model's calls (NMS included), and on a GPU also the driver's own figure.

Needs torch, torchvision, NumPy, Pillow, msgspec, OpenCV and the engine's package; neither Beam nor Arrow nor rich.
"""

import argparse
import functools
import hashlib
import importlib
import io
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.report import Row, gpu_busy, measure, peak_gib, report
from pipeline.models.batches import Batcher
from pipeline.models.device import Device, leaves_cpu_free
from pipeline.propose.ultralytics import import_ultralytics
from pipeline.propose.yolov9 import Yolov9, Yolov9Config
from pipeline.read.decode import DecodeSettings, decode
from pipeline.sample import DecodedImage, Proposals, SourceItem
from schemas.reasons import Stage

_H200_IMAGES_PER_S = 1000.0
_GOAL_IS_FOR = ("c", 640)
_AHEAD = 4
"""Images decoded ahead, per thread: as `pipeline.read.read` does it."""
_WIDTH, _HEIGHT = 640, 480


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--random-weights", action="store_true", help="of --variant; nothing to download")
    weights.add_argument("--weights", type=Path, help="a checkpoint of the engine's that you trust")
    parser.add_argument("--engine", choices=["ultralytics", "libreyolo"], default="ultralytics")
    parser.add_argument("--variant", choices=["t", "s", "m", "c"], default="c", help="of random weights")
    parser.add_argument("--side", type=int, default=640, help="pixels of a side of the model's input")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--candidates", type=int, default=300, help="boxes per image that go into NMS")
    parser.add_argument("--images", type=int, default=64, help=f"per round; JPEGs of {_WIDTH} x {_HEIGHT}")
    parser.add_argument("--batch-size", type=int, default=16, help="images per batch")
    parser.add_argument("--decode-threads", type=int, default=os.cpu_count(), help="by default as many as cores")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--runs", type=int, default=5, help="rounds, after one that warms up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-") as folder:
        proposer = _proposer(options, Path(folder))
    items = [SourceItem(key=f"{n}", index=n, uri=f"{n}.jpg", data=_jpeg(n)) for n in range(options.images)]
    _compare(_Ways(proposer=proposer, items=items, decode_threads=options.decode_threads), options)


def _proposer(options: argparse.Namespace, folder: Path) -> Yolov9:
    """Return the job's own proposer, around a checkpoint or around weights that are drawn and written just now."""
    path = options.weights or _write_random(options.engine, options.variant, folder)
    _fix_candidates(options.engine, options.candidates)
    config = Yolov9Config(
        model=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        engine=options.engine,
        image_side=options.side,
        batch_size=options.batch_size,
    )
    return Yolov9(config, device=Device(name=options.device, torch_threads=options.threads))


def _write_random(engine: str, variant: str, folder: Path) -> Path:
    """Write a checkpoint of the engine's with random weights."""
    torch.manual_seed(0)
    if engine == "ultralytics":
        path = folder / "random.pt"
        import_ultralytics().YOLO(f"yolov9{variant}.yaml", task="detect").save(path)
        return path
    from libreyolo.models.yolo9.nn import LibreYOLO9Model
    from safetensors.torch import save_file

    path = folder / "random.safetensors"
    save_file(LibreYOLO9Model(config=variant, reg_max=16, nb_classes=80).state_dict(), path)
    return path


def _fix_candidates(engine: str, count: int) -> None:
    """Have the engine's networks send `count` boxes of each image into NMS."""
    if engine == "ultralytics":
        network: Any = importlib.import_module("ultralytics.nn.modules.head").Detect
    else:
        network = importlib.import_module("libreyolo.models.yolo9.nn").LibreYOLO9Model
    forward = network.forward

    def with_candidates(self: Any, *arguments: Any, **named: Any) -> Any:
        found = forward(self, *arguments, **named)
        if isinstance(found, tuple):  # Ultralytics' head: predictions, and what training wants
            return (_with_candidates(found[0], count), *found[1:])
        if "predictions" in found:
            return found | {"predictions": _with_candidates(found["predictions"], count)}
        return found  # of a network in training mode, as it is while it is built

    network.forward = with_candidates


def _with_candidates(predictions: torch.Tensor, count: int) -> torch.Tensor:
    """Return `[B, 4 + classes, A]` predictions in which the `count` best anchors score 0.3 to 0.9, all others 0."""
    boxes, scores = predictions[:, :4], predictions[:, 4:]
    best = scores.amax(dim=1).topk(min(count, scores.shape[-1]), dim=1).indices
    falling = torch.linspace(0.9, 0.3, best.shape[1], device=best.device, dtype=scores.dtype).expand(len(best), -1)
    top = torch.zeros_like(scores)
    top[:, 0].scatter_(1, best, falling)
    return torch.cat([boxes, top], dim=1)


def _jpeg(seed: int) -> bytes:
    """Return a JPEG (quality 90) with the blur and the grain of a photograph: about 120 KB."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (_HEIGHT // 16, _WIDTH // 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = generator.normal(0, 6, (_HEIGHT, _WIDTH, 1))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@dataclass
class _Ways:
    """The ways to propose the boxes of the images in `items`, and to decode them."""

    proposer: Yolov9
    items: list[SourceItem]
    decode_threads: int
    model_s: dict[str, float] = field(default_factory=dict)
    """Seconds in the model's calls, by way, since it was emptied."""

    @functools.cached_property
    def images(self) -> list[DecodedImage]:
        """All images, decoded."""
        return list(self.decoded())

    def decoded(self) -> Iterator[DecodedImage]:
        """Yield the images, decoded in order by threads that work a little ahead."""
        waiting: deque[Future[DecodedImage]] = deque()
        with ThreadPoolExecutor(self.decode_threads, thread_name_prefix="decode") as pool:
            for item in self.items:
                waiting.append(pool.submit(_decode, item))
                if len(waiting) > self.decode_threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def decode(self) -> int:
        """Decode all images and nothing else."""
        return sum(1 for _ in self.decoded())

    def one_by_one(self) -> list[Proposals]:
        """Propose for each decoded image alone."""
        return [found for image in self.images for found in self.proposer.propose([image])]

    def batched(self) -> list[Proposals]:
        """Propose for the decoded images in batches."""
        return self._batched("batched", iter(self.images))

    def decoded_and_batched(self) -> list[Proposals]:
        """Propose in batches, while threads decode what comes next."""
        return self._batched("with decoding", self.decoded())

    def _batched(self, way: str, images: Iterator[DecodedImage]) -> list[Proposals]:
        ahead = leaves_cpu_free(torch.get_num_threads())
        batcher: Batcher[DecodedImage, Proposals] = Batcher(
            self.proposer.detect if ahead else self.proposer.propose,
            name=self.proposer.name,
            stage=Stage.PROPOSE,
            batch_size=self.proposer.batch_size,
            prepare=self.proposer.prepare if ahead else None,
        )
        found = [_proposals(outcome) for _, outcome in batcher.run(images)]
        self.model_s[way] = self.model_s.get(way, 0.0) + batcher.report.model_s
        return found


def _decode(item: SourceItem) -> DecodedImage:
    image = decode(item, DecodeSettings())
    assert isinstance(image, DecodedImage), image
    return image


def _proposals(outcome: object) -> Proposals:
    if not isinstance(outcome, Proposals):
        raise SystemExit(f"an image has no proposals: {outcome}")
    return outcome


def _compare(ways: _Ways, options: argparse.Namespace) -> None:
    boxes = sum(len(found.boxes) for found in ways.batched()) / len(ways.items)
    ways.one_by_one()  # both shapes are warm now
    ways.model_s.clear()
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    threads = f"{options.decode_threads} threads"
    seconds = measure(
        {
            "one by one": ways.one_by_one,
            "batched": ways.batched,
            "with decoding": ways.decoded_and_batched,
            "decoding": ways.decode,
        },
        options.runs,
    )
    on_gpu, count = options.device == "cuda", len(ways.items)
    model = options.weights.name if options.weights else f"YOLOv9-{options.variant}, random weights"
    goal = _H200_IMAGES_PER_S if on_gpu and (options.variant, options.side) == _GOAL_IS_FOR else None
    alone = seconds["one by one"]
    rows = [
        Row(name="one by one, decoded before", seconds=alone, items=count),
        Row(name="batched, decoded before", seconds=seconds["batched"], against=alone, items=count),
        Row(name=f"batched, decoding on {threads} ahead", seconds=seconds["with decoding"], against=alone, items=count,
            rate_goal=goal),
        Row(name=f"decoding alone, {threads}", seconds=seconds["decoding"], items=count),
    ]  # fmt: skip
    busy = {way: round(spent / sum(seconds[way]), 3) for way, spent in ways.model_s.items()}
    extra = {
        "utilisation (share of the wall time in the model's calls)": busy,
        "GPU busy, with decoding (nvidia-smi)": gpu_busy(ways.decoded_and_batched) if on_gpu else None,
        "peak memory GiB": peak_gib(options.device),
        "boxes per image, after NMS of candidates": [round(boxes, 1), options.candidates],
        "engine, batch size, torch threads": [options.engine, options.batch_size, options.threads],
    }
    report(f"proposals of {model}, at {options.side} pixels on {options.device}", rows, extra)


if __name__ == "__main__":
    main()
