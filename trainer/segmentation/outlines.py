"""Classes of pixels from masks: regions of a data set of ours or of COCO's, and Pascal Context.

pc59:FILE.json    Pascal Context's `trainval_merged.json`, phase val, 59 of its 459 classes; `images` and `classes` as
                  label maps have them
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.coco import Rle
from trainer.data.decode import Pixels, UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.masks import Mask, Masks, decode_rle
from trainer.evaluate.metrics import Ints
from trainer.evaluate.pixels import decode_upright, is_raw_frame, turn_mask
from trainer.evaluate.truth import Images, Truth
from trainer.segmentation.label_maps import ClassList, read_class_list
from trainer.segmentation.mask_loss import NO_CLASS

PC59_IDS = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158),
    *(159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366),
    *(368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)
"""Pascal Context's categories that are measured, ascending."""


@dataclass(frozen=True, kw_only=True)
class RegionLabels:
    """Images whose regions have a class and a mask each."""

    images: Images
    start: Ints
    """`[I + 1]`: image i has the regions `start[i]` up to `start[i + 1]`."""
    labels: Ints
    """`[R]`: places in the classes, NO_CLASS for others."""
    masks: Masks
    background: int
    """Place of what no region covers; NO_CLASS leaves it out."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.images)

    def key(self, image: int) -> str:
        """Return an image's key."""
        return self.images.key(image)

    def identity(self, image: int) -> str:
        """Return what a fingerprint takes of an image's labels: the classes of its regions."""
        return str(self.labels[self.start[image] : self.start[image + 1]].tolist())

    def read(self, image: int) -> tuple[Pixels, Ints]:
        """Return `[h, w, 3]` and `[h, w]`, small regions over large ones. Raises UnusableSampleError."""
        stated = self.images.size(image)
        pixels, orientation = decode_upright(self.images.read(image))
        size = (pixels.shape[1], pixels.shape[0])
        raw = is_raw_frame(stated, size, orientation)
        frame = size if stated is None else stated
        found: list[tuple[int, Mask]] = []
        for region in range(self.start[image], self.start[image + 1]):
            mask = self._mask(region, frame)
            found.append((int(self.labels[region]), turn_mask(mask, orientation) if raw else mask))
        painted = np.full(pixels.shape[:2], self.background, dtype=np.int64)
        for label, mask in sorted(found, key=lambda one: -int(one[1].sum())):
            painted[mask] = label
        return pixels, painted

    def _mask(self, region: int, size: tuple[int, int]) -> Mask:
        try:
            mask = self.masks.of(region, size)
        except (OSError, ValueError) as error:
            raise UnusableSampleError(f"a mask cannot be read: {error}") from error
        if mask is None or mask.shape != size[::-1]:
            has = "has no mask" if mask is None else f"has a mask of {mask.shape[1]} x {mask.shape[0]} pixels"
            raise UnusableSampleError(f"a region of an image of {size[0]} x {size[1]} pixels {has}")
        return mask


def region_labels(truth: Truth, names: Sequence[str], background: str | None, where: str) -> RegionLabels:
    """Return the regions of a truth as labels: `names` and then `background` are the classes.

    Raises TrainingError where they have no masks.
    """
    if truth.masks is None:
        raise TrainingError(f"{where}: its regions have no masks, which segmentation is about")
    place = {name: number for number, name in enumerate(names)}
    return RegionLabels(
        images=truth.images,
        start=truth.region_start,
        labels=np.array(
            [NO_CLASS if one is None else place.get(one, NO_CLASS) for one in truth.labels], dtype=np.int64
        ),
        masks=truth.masks,
        background=NO_CLASS if background is None else len(names),
    )


@dataclass(frozen=True, kw_only=True)
class ContextLabels:
    """Images of Pascal Context."""

    files: Sequence[Path]
    sizes: Sequence[tuple[int, int]]
    shapes: Sequence[Sequence[tuple[int, Rle]]]
    """Of each image: class and mask."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.files)

    def key(self, image: int) -> str:
        """Return an image's file name."""
        return self.files[image].name

    def identity(self, image: int) -> str:
        """Return what a fingerprint takes of an image's labels: the classes of its masks."""
        return str([label for label, _ in self.shapes[image]])

    def read(self, image: int) -> tuple[Pixels, Ints]:
        """Return `[h, w, 3]` and `[h, w]`. Raises UnusableSampleError."""
        try:
            pixels, _ = decode_upright(self.files[image].read_bytes())
        except OSError as error:
            raise UnusableSampleError(f"cannot be read: {error}") from error
        rows, columns = pixels.shape[:2]
        painted = np.full((rows, columns), NO_CLASS, dtype=np.int64)
        for label, shape in self.shapes[image]:
            if (shape.height, shape.width) != (rows, columns):
                raise UnusableSampleError(
                    f"a mask is of {shape.width} x {shape.height} pixels, the image of {columns} x {rows}"
                )
            try:
                painted[decode_rle(shape)] = label
            except ValueError as error:
                raise UnusableSampleError(f"a mask cannot be read: {error}") from error
        return pixels, painted


def open_context(file: str, options: Mapping[str, str], where: str) -> tuple[ContextLabels, ClassList]:
    """Read Pascal Context's JSON, and the class list. Raises TrainingError."""
    classes = read_class_list(options.get("classes"), where)
    if len(classes.names) != len(PC59_IDS):
        raise TrainingError(f"{where}: {classes.where} has {len(classes.names)} names, and pc59 has 59 classes")
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8-sig"))
        images = [entry for entry in content["images"] if entry["phase"] == "val"]
        shapes: dict[int, list[tuple[int, Rle]]] = {int(entry["image_id"]): [] for entry in images}
        for entry in content["annos_segmentation"]:
            if int(entry["image_id"]) in shapes and int(entry["category_id"]) in PC59_IDS:
                height, width = entry["segmentation"]["size"]
                rle = Rle(counts=entry["segmentation"]["counts"], height=height, width=width)
                shapes[int(entry["image_id"])].append((PC59_IDS.index(int(entry["category_id"])), rle))
        names = [str(entry["file_name"]) for entry in images]
        sizes = [(int(entry["width"]), int(entry["height"])) for entry in images]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"{where}: {file}: {type(error).__name__}: {error}; trainval_merged.json of Pascal Context is wanted"
        ) from error
    folder = Path(options.get("images", str(Path(file).parent / "JPEGImages")))
    files = [folder / name for name in names]
    if not files or not files[0].is_file():
        first = files[0] if files else "none of phase val"
        raise TrainingError(f"{where}: no image is there: {first}; say where they are by images=FOLDER")
    return ContextLabels(files=files, sizes=sizes, shapes=[shapes[int(entry["image_id"])] for entry in images]), classes
