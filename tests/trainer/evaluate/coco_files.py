"""A small COCO that the tests make themselves: instances, panoptic with PNGs, captions, LVIS; and FG-OVD's formats.

Four pictures: 60 x 40, 40 x 60, a JPEG stored lying whose EXIF says to turn it (annotated as it lies), and one without
an annotation. Each thing is a rectangle of one colour on a ground of another, so masks and boxes are known.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

CATEGORIES = [
    {"id": 7, "name": "cat", "isthing": 1},
    {"id": 2, "name": "traffic light", "isthing": 1},
    {"id": 90, "name": "grass-merged", "isthing": 0},
]
SIZES = {1: (60, 40), 2: (40, 60), 3: (48, 32), 4: (50, 50)}
"""(width, height) that the JSON states, by id."""
THINGS = [
    # image, category, x, y, width, height, crowd
    (1, 7, 4, 6, 20, 10, 0),
    (1, 2, 30, 20, 12, 16, 0),
    (1, 2, 0, 0, 60, 5, 1),
    (2, 7, 5, 30, 30, 25, 0),
    (3, 2, 8, 4, 16, 24, 0),
    (3, 7, 30, 10, 0, 5, 0),  # no width
]
CAPTIONS = {1: ["a cat and a light", "a light by a cat"], 2: ["a cat", "one cat", "a sleeping cat"], 3: ["a light"]}
TURNED = 3
_EXIF_TURN, _ORIENTATION = 0x0112, 6  # shown turned by a quarter, clockwise


def picture(image: int) -> np.ndarray:
    """Return the pixels as they lie in the file."""
    width, height = SIZES[image]
    pixels = np.full((height, width, 3), (30, 160, 40), dtype=np.uint8)
    for owner, category, x, y, w, h, crowd in THINGS:
        if owner == image and not crowd:
            pixels[y : y + h, x : x + w] = (200, 20, 20) if category == 7 else (240, 220, 30)
    return pixels


def write_coco(folder: Path) -> None:
    """Write pictures, `instances.json`, `captions.json`, `panoptic.json` with its PNGs, and `lvis.json`."""
    (folder / "val2017").mkdir()
    for image in SIZES:
        exif = Image.Exif()
        if image == TURNED:
            exif[_EXIF_TURN] = _ORIENTATION
        Image.fromarray(picture(image)).save(folder / "val2017" / f"{image:012}.jpg", quality=95, exif=exif)
    images = [
        {"id": image, "file_name": f"{image:012}.jpg", "width": width, "height": height}
        for image, (width, height) in SIZES.items()
    ]
    plain = [{name: value for name, value in category.items() if name != "isthing"} for category in CATEGORIES]
    things = [_instance(number, thing) for number, thing in enumerate(THINGS, 1)]
    _write(folder / "instances.json", {"images": images, "annotations": things, "categories": plain})
    captions = [(image, caption) for image, several in CAPTIONS.items() for caption in several]
    said = [{"id": n, "image_id": image, "caption": caption} for n, (image, caption) in enumerate(captions)]
    _write(folder / "captions.json", {"images": images, "annotations": said})
    addresses = [
        {"id": entry["id"], "width": entry["width"], "height": entry["height"],
         "coco_url": f"http://images.cocodataset.org/val2017/{entry['file_name']}"}
        for entry in images
    ]  # fmt: skip
    without = [{n: v for n, v in thing.items() if n != "iscrowd"} for thing in things if not thing["iscrowd"]]
    _write(folder / "lvis.json", {"images": addresses, "annotations": without, "categories": plain})
    _write_panoptic(folder, images)


def _instance(number: int, thing: tuple[int, ...]) -> dict[str, Any]:
    image, category, x, y, w, h, crowd = thing
    outline: Any = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    if crowd:
        width, height = SIZES[image]
        mask = np.zeros((height, width), dtype=np.uint8, order="F")
        mask[y : y + h, x : x + w] = 1
        outline = {"size": [height, width], "counts": coco_mask.encode(mask)["counts"].decode()}
    box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd}
    return {"id": number, "image_id": image, "category_id": category, "segmentation": outline, **box}


def _write_panoptic(folder: Path, images: list[dict[str, Any]]) -> None:
    (folder / "panoptic").mkdir()
    annotations = []
    for image, (width, height) in SIZES.items():
        ids = np.full((height, width), 70_000 + image)
        segments = []
        for number, (owner, category, x, y, w, h, crowd) in enumerate(THINGS, 1):
            if owner == image and w and not crowd:
                ids[y : y + h, x : x + w] = 1000 * number
                segments.append(_segment(1000 * number, category, [x, y, w, h]))
        if image != 4:
            segments.append(_segment(70_000 + image, 90, [0, 0, width, height]))
        pixels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "panoptic" / f"{image:012}.png")
        annotations.append({"image_id": image, "file_name": f"{image:012}.png", "segments_info": segments})
    _write(folder / "panoptic.json", {"images": images, "annotations": annotations, "categories": CATEGORIES})


def _segment(number: int, category: int, bbox: list[int]) -> dict[str, Any]:
    return {"id": number, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}


def write_fgovd(folder: Path) -> None:
    """Write FG-OVD's own format and FG-CLIP's: two questions about the first picture, one about the second."""
    captions = ["a red cat", "a blue cat", "a green cat", "a yellow light", "a pink light"]
    questions = [(1, [4, 6, 20, 10], 0, [1, 2]), (1, [30, 20, 12, 16], 3, [4]), (2, [5, 30, 30, 25], 0, [1, 2])]
    categories = [{"id": 10 + number, "name": caption} for number, caption in enumerate(captions)]
    images = [
        {"id": image, "file_name": f"{image:012}.jpg", "width": w, "height": h} for image, (w, h) in SIZES.items()
    ]
    annotations = [
        {
            "id": n,
            "image_id": image,
            "bbox": bbox,
            "category_id": 10 + right,
            "neg_category_ids": [10 + w for w in wrong],
        }
        for n, (image, bbox, right, wrong) in enumerate(questions)
    ]
    _write(folder / "hard.json", {"images": images, "annotations": annotations, "categories": categories})
    lines = [
        {"img_path": f"/val2017/{image:012}.jpg", "bbox": bbox, "pos_expression": [captions[right]],
         "neg_expression": [captions[w] for w in wrong]}
        for image, bbox, right, wrong in questions
    ]  # fmt: skip
    (folder / "hard.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_lists(folder: Path) -> None:
    """Write the captions in Karpathy's format, as the official code's list, and as Flickr30k's tokens."""
    entries = [
        {"filepath": "val2017", "filename": f"{image:012}.jpg", "split": "test" if image != 3 else "train",
         "sentences": [{"raw": caption} for caption in captions]}
        for image, captions in CAPTIONS.items()
    ]  # fmt: skip
    _write(folder / "dataset_coco.json", {"images": entries})
    _write(folder / "list.json", [{"image": f"{image:012}.jpg", "caption": c} for image, c in CAPTIONS.items()])
    lines = [f"{image:012}.jpg#{n}\t{c}" for image, several in CAPTIONS.items() for n, c in enumerate(several)]
    (folder / "results.token").write_text("\n".join(lines) + "\n")


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
