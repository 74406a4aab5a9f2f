"""The boxes of a data set as a detector uses them: base ones to train on, base and novel ones to measure.

Any data that `fineclip evaluate` takes will do, if its boxes have class names; COCO's instances are OV-COCO by
`ov-coco`. To train, crowds and images without a base box are left out; to measure, images without a box of the split.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from schemas.boxes import Boxes
from trainer.data.decode import Pixels
from trainer.errors import TrainingError
from trainer.evaluate.class_split import ClassSplit
from trainer.evaluate.metrics import Ints
from trainer.evaluate.pixels import decode_upright, is_raw_frame, turn_boxes
from trainer.evaluate.read.source import Wanted, open_truth
from trainer.evaluate.settings import TruthSettings
from trainer.evaluate.truth import Images

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image, upright, with its boxes."""

    key: str
    pixels: Pixels
    boxes: Boxes
    """`[n, 4]` float32 xyxy, pixels of `pixels`."""
    labels: Ints
    """`[n]`: places in the classes."""
    is_crowd: Bools
    """`[n]`."""


@dataclass(frozen=True, kw_only=True)
class DetectionData:
    """I images with boxes of K classes."""

    where: str
    """Named in errors."""
    images: Images
    at: Ints
    """`[I]`: which of `images` they are."""
    start: Ints
    """`[I + 1]`: image i has the boxes `start[i]` up to `start[i + 1]`."""
    boxes: Boxes
    """`[R, 4]` float32 xyxy, pixels of the image of the stated size."""
    labels: Ints
    """`[R]`: places in `classes`."""
    is_crowd: Bools
    """`[R]`."""
    classes: tuple[str, ...]
    """`[K]`, in the data's order."""
    is_base: Bools
    """`[K]`."""
    left_out: Mapping[str, int]
    """How many images and boxes are not here, by why."""

    def __len__(self) -> int:
        """Return I."""
        return len(self.at)

    def read(self, image: int) -> AnnotatedImage:
        """Return an image, decoded. Raises UnusableSampleError."""
        number = int(self.at[image])
        stated = self.images.size(number)
        pixels, orientation = decode_upright(self.images.read(number))
        mine = slice(self.start[image], self.start[image + 1])
        boxes = self.boxes[mine]
        if is_raw_frame(stated, (pixels.shape[1], pixels.shape[0]), orientation) and stated is not None:
            boxes = turn_boxes(boxes, stated, orientation)
        return AnnotatedImage(
            key=self.key(image), pixels=pixels, boxes=boxes, labels=self.labels[mine], is_crowd=self.is_crowd[mine]
        )

    def key(self, image: int) -> str:
        """Return what an image is called."""
        return self.images.key(int(self.at[image]))

    def fingerprint(self) -> str:
        """Return the sha256 of classes, names of images, boxes and labels."""
        digest = sha256("\n".join((*self.classes, *(self.key(image) for image in range(len(self))))).encode())
        for array in (self.start, self.boxes, self.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def open_data(data: str, split: ClassSplit, *, to_train: bool, shards: str = "train") -> DetectionData:
    """Return the boxes of `data`'s classes that are in `split`: of base classes alone where they are `to_train` on.

    `shards` says which shards of a data set of ours. Raises TrainingError, naming data and what is wrong.
    """
    truth = open_truth(data, split=shards, settings=TruthSettings(crowds=not to_train), wanted=Wanted())
    categories = truth.classes or sorted({label for label in truth.labels if label is not None})
    classes = tuple(split.ordered(categories, f"--data {data}"))
    is_base = np.array([split.is_base(name) for name in classes])
    place = {name: number for number, name in enumerate(classes)}
    labels = np.array([-1 if label is None else place.get(label, -1) for label in truth.labels], dtype=np.int64)
    kept = labels >= 0
    if to_train:
        kept[kept] = is_base[labels[kept]]
    crowds = np.zeros(len(labels), dtype=bool) if truth.is_crowd is None else truth.is_crowd
    image_of = truth.region_image
    at = np.unique(image_of[kept & ~crowds])
    kept &= np.isin(image_of, at)
    wanted = "base class" if to_train else "class of the split"
    left_out = Counter(truth.left_out)
    left_out[f"image without a box of a {wanted}"] = len(truth.images) - len(at)
    left_out[f"box of no {wanted}"] = int((~kept).sum())
    if not len(at):
        total = len(labels) + truth.left_out.get("crowd", 0)
        num_crowds = truth.left_out.get("crowd", 0) + int(crowds.sum())
        raise TrainingError(
            f"--data {data}: {_why_none(total, num_crowds)} of {len(truth.images)} images: nothing is left to "
            f"{'train on' if to_train else 'measure'}"
        )
    return DetectionData(
        where=data,
        images=truth.images,
        at=at,
        start=np.concatenate([[0], np.cumsum(np.bincount(image_of[kept], minlength=len(truth.images))[at])]),
        boxes=truth.boxes[kept],
        labels=labels[kept],
        is_crowd=crowds[kept],
        classes=classes,
        is_base=is_base,
        left_out={why: count for why, count in left_out.items() if count},
    )


def _why_none(num_boxes: int, num_crowds: int) -> str:
    if not num_boxes:
        return "there is no box in any"
    if num_crowds == num_boxes:
        return f"all {num_boxes} boxes are crowds, which no object can be told from,"
    return f"none of {num_boxes} boxes is of a class that --split-classes wants"
