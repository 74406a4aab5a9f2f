"""Our own data sets as truth: their regions, labels, masks and all captions."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from schemas.boxes import area
from schemas.coco import Rle
from schemas.dataset import Dataset, DatasetError
from schemas.reasons import Status
from trainer.data.decode import UnusableSampleError
from trainer.data.index import SampleIndex, build_index
from trainer.evaluate.masks import Outlines
from trainer.evaluate.read.wrong import wrong_captions
from trainer.evaluate.settings import TruthSettings
from trainer.evaluate.truth import Truth


@dataclass(frozen=True, kw_only=True)
class ShardImages:
    """Images in shards."""

    dataset: Dataset
    index: SampleIndex

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.index)

    def key(self, image: int) -> str:
        """Return an image's key."""
        return self.index.key(image)

    def read(self, image: int) -> bytes:
        """Return an image's stored bytes. Raises UnusableSampleError."""
        index = self.index
        place = {"tar_offset": int(index.tar_offset[image]), "tar_size": int(index.tar_size[image])}
        try:
            return self.dataset.read_image(index.shards[index.shard[image]], **place)
        except DatasetError as error:
            raise UnusableSampleError(str(error)) from error

    def size(self, image: int) -> tuple[int, int] | None:
        """Return the (width, height) of the stored image."""
        width, height = self.index.sizes[image].tolist()
        return width, height


def read(dataset: Dataset, split: str, settings: TruthSettings, *, masks: bool = False, wrong: bool = False) -> Truth:
    """Return the truth of a split; masks, and `wrong` captions, where they are asked for. Raises as `build_index`."""
    index = build_index(dataset, split)
    largest = np.inf if settings.max_area_px is None else settings.max_area_px
    size = area(index.boxes)
    kept = (size >= settings.min_area_px) & (size <= largest)
    owner = np.repeat(np.arange(len(index)), np.diff(index.region_start))[kept]
    captions, labels = (
        [value for value, keep in zip(column.to_pylist(), kept, strict=True) if keep]
        for column in (index.region_captions, index.labels)
    )
    counts = np.bincount(owner, minlength=len(index))
    outside = int((~kept).sum())
    return Truth(
        images=ShardImages(dataset=dataset, index=index),
        caption_start=index.caption_start,
        captions=index.image_captions.to_pylist(),
        caption_text_ids=index.image_text_ids,
        region_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=index.boxes[kept],
        region_captions=captions,
        region_text_ids=index.region_text_ids[kept],
        labels=labels,
        masks=_masks(dataset, index, kept) if masks else None,
        alternatives=wrong_captions(captions, labels, most=settings.wrong_captions) if wrong else None,
        left_out={"outside --min-area-px and --max-area-px": outside} if outside else {},
    )


def _masks(dataset: Dataset, index: SampleIndex, kept: np.ndarray) -> Outlines | None:
    rows = dataset.regions(("status", "region_id", "mask_rle", "width", "height"), index.shards)
    rows = rows.filter(pc.and_(pc.equal(rows["status"], Status.OK.value), pc.is_valid(rows["region_id"])))
    if rows["mask_rle"].null_count == len(rows):
        return None
    columns = (rows[name].to_pylist() for name in ("mask_rle", "width", "height"))
    shapes = [
        None if counts is None else Rle(counts=counts, width=width, height=height)
        for counts, width, height in zip(*columns, strict=True)
    ]
    return Outlines(shapes=[shape for shape, keep in zip(shapes, kept, strict=True) if keep])
