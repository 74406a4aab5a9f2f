"""Loading: shards against the official layout, both to the same tensors: images and crops of 224 pixels, normalised.

    python -m benchmarks.loader [--images 128] [--regions 8] [--workers 2] [--runs 5] [--folder .]

The official arrangement: image files with one JSON of boxes and one of captions; workers open each image, cut each
box's crop 1.5 times enlarged, squash it by Pillow, normalise in float32, and pad to 20 crops an image. Ours reads
shards by byte ranges and hands over uint8 images; cutting, squashing and normalising happen on the device, which is the
second row (here on the CPU, beside the workers: on a GPU it costs the workers nothing).
"""

import argparse
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.report import Row, measure, report
from schemas.boxes import as_boxes, quantise, xyxy_to_xywh
from schemas.dataset import Dataset
from schemas.hashes import region_id, sha256, text_hash
from schemas.records import Region
from tests.shards import TinySample, tiny_sample, write_shard
from trainer.data.batches import Batches, load_batches
from trainer.data.index import build_index
from trainer.data.pixels import Preparation
from trainer.hyperparameters import OrderSettings, SampleSettings

_GOAL = 1 / 3
_WIDTH, _HEIGHT, _SIDE, _MAX_BOXES, _BATCH = 640, 480, 224, 20, 32
_MEAN, _STD = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)
_PREPARATION = Preparation(mean=_MEAN, std=_STD, image_size=(_SIDE, _SIDE), crop_size=_SIDE)


def _picture(generator: np.random.Generator) -> bytes:
    """Return a JPEG of about a photograph's size: smooth noise."""
    small = generator.integers(0, 256, (_HEIGHT // 8, _WIDTH // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def loader_sample(number: int, num_regions: int) -> TinySample:
    generator = np.random.default_rng(number)
    key, image = f"{number:08d}", _picture(generator)
    corners = generator.random((num_regions, 2)) * [_WIDTH / 2, _HEIGHT / 2]
    sides = 32 + generator.random((num_regions, 2)) * [_WIDTH / 3, _HEIGHT / 3]
    boxes = quantise(as_boxes(np.concatenate([corners, corners + sides], axis=1)))
    regions = [
        Region(
            id=region_id(key, box, "manual", i),
            box=tuple(box.tolist()),
            label=None,
            proposer="manual",
            proposal_score=1.0,
            caption=f"thing {i} of {key}",
            captioner="rule",
            caption_score=None,
            text_hash=text_hash(f"thing {i} of {key}"),
        )
        for i, box in enumerate(boxes)
    ]
    changes: dict[str, Any] = {"width": _WIDTH, "height": _HEIGHT, "image_sha256": sha256(image)}
    base = tiny_sample(key, num_regions=0).record
    record = msgspec.structs.replace(base, **changes, num_regions=num_regions, regions=regions)
    return TinySample(record=record, image=image, suffix="jpg")


def _write_official(folder: Path, samples: list[TinySample]) -> None:
    """Write image files, COCO-style boxes and the flat dictionary of captions that the official code reads."""
    (folder / "images").mkdir()
    images, annotations, captions = [], [], {}
    for number, sample in enumerate(samples):
        name = f"{sample.record.key}.jpg"
        (folder / "images" / name).write_bytes(sample.image)
        images.append({"id": number, "file_name": name})
        for region in sample.record.regions:
            bbox = xyxy_to_xywh([region.box])[0].tolist()
            annotations.append({"id": len(annotations), "image_id": number, "bbox": bbox})
            captions["_".join([name, *(str(int(value)) for value in bbox)]) + ".jpg"] = region.caption
    (folder / "proposals.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (folder / "captions.json").write_text(json.dumps(captions))


class _Official(TorchDataset[tuple[Tensor, Tensor, Tensor, list[str]]]):
    """The official arrangement, in words of our own."""

    def __init__(self, folder: Path) -> None:
        proposals = json.loads((folder / "proposals.json").read_text())
        self._captions = json.loads((folder / "captions.json").read_text())
        self._images = proposals["images"]
        self._boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in self._images}
        for annotation in proposals["annotations"]:
            self._boxes[annotation["image_id"]].append(annotation["bbox"])
        self._folder = folder / "images"

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        entry = self._images[number]
        picture = Image.open(self._folder / entry["file_name"]).convert("RGB")
        boxes, crops = torch.zeros(_MAX_BOXES, 5), torch.zeros(_MAX_BOXES, 3, _SIDE, _SIDE)
        texts = []
        for at, (x, y, w, h) in enumerate(self._boxes[entry["id"]][:_MAX_BOXES]):
            key = "_".join([entry["file_name"], *(str(int(value)) for value in (x, y, w, h))]) + ".jpg"
            texts.append(self._captions[key])
            left, top = max(x - w / 4, 0), max(y - h / 4, 0)
            window = (left, top, min(x + 1.25 * w, _WIDTH), min(y + 1.25 * h, _HEIGHT))
            crops[at] = self._transform(picture.crop(tuple(map(round, window))))
            boxes[at] = torch.tensor([x / _WIDTH, y / _HEIGHT, (x + w) / _WIDTH, (y + h) / _HEIGHT, 1.0])
        return self._transform(picture), boxes, crops, texts

    @staticmethod
    def _transform(picture: Image.Image) -> Tensor:
        resized = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
        pixels = torch.from_numpy(resized.copy()).permute(2, 0, 1).float() / 255
        return (pixels - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]


def _stack(rows: list[tuple[Tensor, Tensor, Tensor, list[str]]]) -> tuple[Tensor, Tensor, Tensor, list[list[str]]]:
    images, boxes, crops, texts = zip(*rows, strict=True)
    return torch.stack(images), torch.stack(boxes), torch.stack(crops), list(texts)


def _ways(folder: Path, num_workers: int) -> dict[str, Callable[[], int]]:
    dataset = Dataset.open(folder / "shards")
    index = build_index(dataset, "train")
    order = OrderSettings(global_batch_size=_BATCH)
    batches = Batches(dataset, index, order=order, samples=SampleSettings(max_regions=_MAX_BOXES))
    official = _Official(folder)

    def shards(prepare: bool) -> int:
        seen = 0
        loaded = load_batches(batches, first_step=0, last_step=batches.first_step(1), num_workers=num_workers)
        for batch in loaded:
            seen += len(batch.region_index)
            if prepare:
                _PREPARATION.images(batch), _PREPARATION.crops(batch)
        return seen

    def files() -> int:
        loader = DataLoader(official, _BATCH, shuffle=True, num_workers=num_workers, collate_fn=_stack)
        return sum(int((boxes[..., 4] > 0.5).sum()) for _, boxes, _, _ in loader)

    return {
        "official layout": files,
        "shards, to the device": lambda: shards(False),
        "shards, prepared on the CPU": lambda: shards(True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--regions", type=int, default=8, help="regions per image")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to make a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the cores are the workers'
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        samples = [loader_sample(number, options.regions) for number in range(options.images)]
        (folder / "shards").mkdir()
        write_shard(str(folder / "shards"), samples)
        _write_official(folder, samples)
        ways = _ways(folder, options.workers)
        assert len({way() for way in ways.values()}) == 1  # they load the same regions
        seconds = measure(ways, options.runs)
    finally:
        shutil.rmtree(folder)
    against = seconds["official layout"]
    rows = [
        Row(name=name, seconds=times, against=None if times is against else against, goal=_goal(name))
        for name, times in seconds.items()
    ]
    rates = {name: round(options.images / min(times), 1) for name, times in seconds.items()}
    report(f"loading {options.images} images of {options.regions} regions", rows, {"images/s": rates})


def _goal(name: str) -> float | None:
    return _GOAL if name == "shards, to the device" else None


if __name__ == "__main__":
    main()
