"""Small data for segmenters: pictures of coloured rectangles, as label maps, as COCO's masks, as class lists."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("ground", "red", "green", "blue")
COLOURS = {"red": (210, 30, 30), "green": (40, 170, 60), "blue": (40, 60, 210)}
SPLIT = {"base": ["red", "green"], "novel": ["blue"]}
WIDTH, HEIGHT = 96, 64


def write_pictures(folder: Path, num_images: int = 8) -> Path:
    """Write `images/`, `maps/`, `classes.json`, `masks.json` and `split.json`: two rectangles an image."""
    for name in ("images", "maps"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, num_images + 1):
        pixels = rng.integers(150, 180, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for which in (0, 1):
            kind = 1 + (number + which) % 3
            x, y = int(rng.integers(0, 16)) + 48 * which, int(rng.integers(0, 24))
            width, height = (int(side) for side in rng.integers(20, 32, 2))
            pixels[y : y + height, x : x + width] = COLOURS[NAMES[kind]]
            labels[y : y + height, x : x + width] = kind
            annotations.append(_annotation(len(annotations) + 1, number, kind, (x, y, width, height)))
        labels[:2] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(labels).save(folder / "maps" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES) if number]
    write_json(folder / "masks.json", {"images": images, "annotations": annotations, "categories": categories})
    write_json(folder / "classes.json", NAMES)
    write_json(folder / "split.json", SPLIT)
    return folder


def _annotation(number: int, image: int, kind: int, bbox: tuple[int, int, int, int]) -> dict[str, Any]:
    x, y, width, height = bbox
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    shape = {"bbox": list(bbox), "area": width * height, "iscrowd": 0, "segmentation": [outline]}
    return {"id": number, "image_id": image, "category_id": kind, **shape}


def write_json(path: Path, content: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content), encoding="utf-8")


def maps_of(folder: Path) -> str:
    """Return the label maps as `--data` takes them."""
    return f"maps:{folder}/maps?images={folder}/images&classes={folder}/classes.json"


def masks_of(folder: Path) -> str:
    """Return the regions' masks as `--data` takes them."""
    return f"coco:{folder}/masks.json?images={folder}/images"
