"""What was found in the images of a folder: a PNG of each image, and COCO's JSON of all, which `annotate` takes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.data.decode import Pixels, UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.pixels import decode_upright


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """How a prediction ended."""

    num_images: int
    num_found: int
    skipped: tuple[tuple[str, str], ...]
    """(file, why)."""


class Predictions:
    """What is found as it is found, an image after the other."""

    def __init__(self, out: Path, names: Sequence[str]) -> None:
        """Make the folder `out`; `names` are what is looked for."""
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._names = out, names
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._skipped: list[tuple[str, str]] = []

    def read(self, files: Mapping[str, Path], watch: Callable[[int, int], None]) -> Iterator[tuple[str, Pixels]]:
        """Yield name and pixels of each image that can be read, upright; note the others."""
        for done, (name, file) in enumerate(files.items()):
            watch(done, len(files))
            try:
                pixels, _ = decode_upright(file.read_bytes())
            except (OSError, UnusableSampleError) as error:
                self._skipped.append((name, str(error)))
                continue
            yield name, pixels
        watch(len(files), len(files))

    def add_image(self, name: str, picture: Image.Image, *, width: int, height: int) -> None:
        """Write an image with what was found in it as `NAME.png`. What is found next is of it."""
        path = self._out / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, "PNG")
        self._images.append({"id": len(self._images) + 1, "file_name": name, "width": width, "height": height})

    def add(self, label: int, score: float, **shape: Any) -> None:
        """Add what was found in the latest image: the place of its name, and COCO's fields of its box or mask."""
        one = {"id": len(self._annotations) + 1, "image_id": len(self._images), "category_id": label + 1}
        self._annotations.append({**one, **shape, "iscrowd": 0, "score": score})

    def write(self, file: str) -> Predicted:
        """Write the JSON. Raises TrainingError where no image could be read."""
        if not self._images:
            key, why = self._skipped[0]
            raise TrainingError(f"none of {len(self._skipped)} images can be used; the first, {key}: {why}")
        categories = [{"id": number, "name": name} for number, name in enumerate(self._names, 1)]
        written = {"images": self._images, "annotations": self._annotations, "categories": categories}
        (self._out / file).write_text(json.dumps(written) + "\n", encoding="utf-8")
        return Predicted(num_images=len(self._images), num_found=len(self._annotations), skipped=tuple(self._skipped))
