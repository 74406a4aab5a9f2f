"""Crops a second and core, from JPEGs to a captioner's input or to a server's: ours, Pillow's, torchvision's.

    python -m benchmarks.preparation [--images 40] [--regions 4] [--runs 5]

One thread. JPEGs of 640 x 480, crops of 64 to 400 pixels a side, scaled to 224 x 224 and normalised, float32; decoding
is part of each way, once an image. Pillow: its crop and bicubic resize, and NumPy. torchvision: its decoder and its
transforms on tensors. For a server, crops are encoded as JPEG in base64 at their own size, ours and Pillow's way.

Needs what the captioner blip2 needs.
"""

import argparse
import base64
import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from benchmarks.captioner import processor_of
from benchmarks.report import Row, measure, report
from pipeline.caption.openai import data_url
from pipeline.caption.pixels import to_device
from pipeline.read.decode import DecodeSettings, decode
from pipeline.sample import DecodedImage, SourceItem

_SIDE = 224
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_GOAL_PER_S, _CORES_OF_GOAL = 1000.0, 16
_BATCH = 64
_Box = tuple[int, int, int, int]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--regions", type=int, default=4, help="crops an image")
    parser.add_argument("--runs", type=int, default=5, help="rounds, after one that warms up")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = _Work(options.images, options.regions)
    inputs: dict[str, Callable[[], object]] = {
        "ours, for BLIP-2": work.ours,
        "Pillow": work.pillow,
        "torchvision": work.torchvision,
    }
    requests: dict[str, Callable[[], object]] = {
        "ours, for a server": work.our_requests,
        "Pillow, encoded": work.pillow_requests,
    }
    for ways in (inputs, requests):
        measure(ways, 1)
        seconds = measure(ways, options.runs)
        first = next(iter(ways))
        rows = [
            Row(
                name=name,
                seconds=seconds[name],
                against=None if name == first else seconds[first],
                items=options.images * options.regions,
                rate_goal=_GOAL_PER_S / _CORES_OF_GOAL if name == first else None,
            )
            for name in ways
        ]
        report(f"crops a second on one core, {options.regions} an image", rows, {})


class _Work:
    """The images and boxes, and the ways to prepare them."""

    def __init__(self, num_images: int, num_regions: int) -> None:
        generator = np.random.default_rng(0)
        self._processor = processor_of("blip2-opt-2.7b")
        self._work = [(_jpeg(generator), [_box(generator) for _ in range(num_regions)]) for _ in range(num_images)]

    def ours(self) -> None:
        crops: list[np.ndarray] = []
        for data, boxes in self._work:
            pixels = self._decoded(data).pixels
            crops += [pixels[y0:y1, x0:x1].copy() for x0, y0, x1, y1 in boxes]
        for first in range(0, len(crops), _BATCH):
            pictures = to_device(crops[first : first + _BATCH], "cpu")
            kinds = {"input_data_format": "channels_first", "device": "cpu"}
            self._processor(images=pictures, return_tensors="pt", images_kwargs=kinds)

    def pillow(self) -> None:
        mean, std = np.array(_MEAN, np.float32), np.array(_STD, np.float32)
        for data, boxes in self._work:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            for box in boxes:
                small = image.crop(box).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
                torch.from_numpy(((np.asarray(small, np.float32) / 255 - mean) / std).transpose(2, 0, 1).copy())

    def torchvision(self) -> None:
        bicubic = InterpolationMode.BICUBIC
        for data, boxes in self._work:
            image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
            for x0, y0, x1, y1 in boxes:
                small = transform.resize(image[:, y0:y1, x0:x1], [_SIDE, _SIDE], bicubic, antialias=True)
                transform.normalize(transform.to_dtype(small, torch.float32, scale=True), _MEAN, _STD)

    def our_requests(self) -> None:
        for data, boxes in self._work:
            pixels = self._decoded(data).pixels
            for x0, y0, x1, y1 in boxes:
                data_url(pixels[y0:y1, x0:x1].copy(), "jpeg", quality=95)

    def pillow_requests(self) -> None:
        for data, boxes in self._work:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            for box in boxes:
                encoded = io.BytesIO()
                image.crop(box).save(encoded, "JPEG", quality=95, subsampling=0)
                base64.b64encode(encoded.getvalue()).decode()

    def _decoded(self, data: bytes) -> DecodedImage:
        image = decode(SourceItem(key="0", index=0, uri="0.jpg", data=data), DecodeSettings())
        assert isinstance(image, DecodedImage)
        return image


def _jpeg(generator: np.random.Generator) -> bytes:
    coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = np.clip(smooth + generator.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noisy).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def _box(generator: np.random.Generator) -> _Box:
    width, height = (int(side) for side in generator.integers(64, 401, 2))
    x0, y0 = int(generator.integers(0, 640 - width + 1)), int(generator.integers(0, 480 - height + 1))
    return x0, y0, x0 + width, y0 + height


if __name__ == "__main__":
    main()
