"""`fgovd:FILE?images=DIR`: boxes with one right caption among wrong ones.

FG-OVD's own JSON is COCO's, each annotation with `category_id` (its caption) and `neg_category_ids` (the wrong ones).
FG-CLIP's JSON lines have `img_path`, `bbox`, `pos_expression` and `neg_expression`. A file is a level of difficulty.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trainer.errors import TrainingError
from trainer.evaluate.read.collect import Collector, FoundRegion
from trainer.evaluate.settings import TruthSettings
from trainer.evaluate.truth import Truth

OPTIONS = ("images",)


class _Question(NamedTuple):
    file: str
    size: tuple[int, int] | None
    bbox_xywh: list[float]
    right: str
    wrong: tuple[str, ...]


def read(path: str, options: Mapping[str, str], settings: TruthSettings, *, masks: bool) -> Truth:
    """Return the truth of a file of FG-OVD; masks there are none. Raises TrainingError."""
    found = Collector(where=path, settings=settings)
    numbers: dict[str, int] = {}
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        for question in _lines(text) if path.endswith(".jsonl") else _annotations(json.loads(text)):
            if question.file not in numbers:
                numbers[question.file] = found.image(question.file, question.size)
            x, y, width, height = map(float, question.bbox_xywh)
            if not question.wrong or question.right in question.wrong:
                found.unusable(
                    f"box {question.bbox_xywh} of {question.file}: no wrong captions, or the right one among them"
                )
                continue
            found.region(
                FoundRegion(
                    image=numbers[question.file],
                    box=(x, y, x + width, y + height),
                    caption=question.right,
                    wrong=question.wrong,
                )
            )
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}: not FG-OVD's JSON (annotations with 'bbox', 'category_id', 'neg_category_ids') nor FG-CLIP's "
            f"lines ('img_path', 'bbox', 'pos_expression', 'neg_expression'): {error!r}"
        ) from error
    return found.truth(Path(options.get("images", str(Path(path).parent))))


def _annotations(content: Any) -> Iterator[_Question]:
    captions = {category["id"]: str(category["name"]) for category in content["categories"]}
    images = {image["id"]: image for image in content["images"]}
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        right = captions[annotation["category_id"]]
        wrong = tuple(captions[number] for number in annotation["neg_category_ids"])
        size = (int(image["width"]), int(image["height"])) if image.get("width") and image.get("height") else None
        yield _Question(image["file_name"].strip(), size, annotation["bbox"], right, wrong)


def _lines(text: str) -> Iterator[_Question]:
    for line in text.split("\n"):
        if line.strip():
            entry = json.loads(line)
            (right,) = _listed(entry["pos_expression"])
            wrong = tuple(_listed(entry["neg_expression"]))
            yield _Question(entry["img_path"].lstrip("/"), None, entry["bbox"], right, wrong)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [text.strip() for text in value]
