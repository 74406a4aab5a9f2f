"""A small COCO for detectors: pictures of coloured rectangles, two base classes, a novel one, one of no group."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"red": (210, 30, 30), "green": (40, 170, 60), "blue": (40, 60, 210), "grey": (90, 90, 90)}
IDS = {"red": 5, "blue": 3, "green": 9, "grey": 1}
SPLIT = {"base": ["red", "green"], "novel": ["blue"]}
WIDTH, HEIGHT = 96, 64


def write_pictures(folder: Path, num_images: int = 12) -> Path:
    """Write `images/`, `boxes.json` and `split.json`: two boxes an image, the second of another colour."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    names = list(COLOURS)
    for number in range(1, num_images + 1):
        pixels = rng.integers(150, 180, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for which in (0, 1):
            name = names[(number + which) % len(names)]
            x, y = int(rng.integers(0, 16)) + 48 * which, int(rng.integers(0, 24))
            width, height = (int(side) for side in rng.integers(20, 32, 2))
            pixels[y : y + height, x : x + width] = COLOURS[name]
            annotations.append(annotation(len(annotations) + 1, number, IDS[name], [x, y, width, height]))
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
    categories = [{"id": number, "name": name} for name, number in IDS.items()]
    write_json(folder / "boxes.json", {"images": images, "annotations": annotations, "categories": categories})
    write_json(folder / "split.json", SPLIT)
    return folder


def annotation(number: int, image: int, category: int, bbox: list[float], *, crowd: int = 0) -> dict[str, Any]:
    """Return an annotation as COCO has it."""
    area = bbox[2] * bbox[3]
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": area, "iscrowd": crowd
    }  # fmt: skip


def write_json(path: Path, content: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content), encoding="utf-8")


def data_of(folder: Path) -> str:
    """Return the pictures as `--data` takes them."""
    return f"coco:{folder}/boxes.json?images={folder}/images"
