"""Perceptual hashes: 64 bits an image, of which copies that were scaled or compressed again share nearly all.

They are those of OpenCV's `img_hash` (pHash: signs of the low frequencies), which is installed with the pipeline. A
flat image, whose bits are noise, has none.
"""

import io
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.read import open_source
from pipeline.read.base import read_on
from schemas.dataset import Dataset
from schemas.names import ShardName

_SIDE = 32
"""Pixels of the square that is hashed."""
_DRAFT = 128
_LEAST_CONTRAST = 2.0
"""Standard deviation of the gray values, 0 to 255, below which an image is flat."""
_PART = 1000

Hashes = npt.NDArray[np.uint64]


def image_hash(data: bytes) -> int | None:
    """Return the 64 bits of an image file; None for one that is flat or cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("L", (_DRAFT, _DRAFT))
            gray = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if gray.std() < _LEAST_CONTRAST:
        return None
    return int.from_bytes(cv2.img_hash.pHash(gray).tobytes())


def shard_hashes(dataset: Dataset, shard: ShardName) -> Iterator[tuple[str, int | None]]:
    """Yield key and hash of each image that is seen in a shard. Raises DatasetError."""
    for sample in dataset.samples(shard):
        yield sample.key, image_hash(sample.image)


def input_hashes(spec: str) -> Iterator[tuple[str, int | None]]:
    """Yield key and hash of each picture of an INPUT, as `annotate` takes it. Raises SourceError."""
    source = open_source(spec)
    for parts in source.parts(_PART, False):
        for part in parts:
            for item in read_on(spec, source.read(part)):
                if item.data is not None:
                    yield item.key, image_hash(item.data)


def as_array(hashes: Iterable[int | None]) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    """Return hashes as `[N]` uint64, 0 where there is none, and which there are."""
    given = list(hashes)
    return (
        np.array([each or 0 for each in given], dtype=np.uint64),
        np.array([each is not None for each in given], dtype=np.bool_),
    )
