"""The regions of one shard as a CLIP sees them: features of crops and of captions, in the order of the shard's table.

shard's images -> crops of its ok regions ---+
captions, as overlays show them -------------+-> Encoded
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.caption.crop import cut
from pipeline.errors import WorkError
from pipeline.overlay.encoder import Encoder, Features
from pipeline.read.decode import DecodeSettings
from pipeline.read.exclusions import ReadSettings
from pipeline.read.read import decoded_ahead
from pipeline.sample import Pixels, Sample, SourceItem
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.hashes import text_hash
from schemas.names import ShardName
from schemas.reasons import Status

_ANY_SIZE = ReadSettings(**vars(DecodeSettings(max_pixels=2**62, max_bytes=2**62)))
"""Stored images were within the limits that the data set was made with."""
_DECODE_THREADS = 2
_BOX = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a CLIP makes of a shard's regions. `R` regions, `T` different captions."""

    ids: pa.Table
    """`key` and `region_id` of the shard's ok regions, in the table's order."""
    seen: npt.NDArray[np.bool_]
    """`[R]`: whether overlays leave the region ok."""
    regions: Features
    """`[seen, D]`, of the seen regions' crops."""
    texts: Features
    """`[T, D]`."""
    text_of: npt.NDArray[np.int64]
    """`[seen]`: which text is the region's caption; -1 for a region without one."""
    text_hashes: npt.NDArray[np.str_]
    """`[T]`: equal for texts that say the same (`hashes.text_hash`)."""
    image_of: npt.NDArray[np.int64]
    """`[seen]`: equal for regions of one image."""
    num_cut: int
    """Texts that the model does not read to their end."""


def encode_shard(
    encoder: Encoder,
    *,
    plain: Dataset,
    seen: Dataset,
    shard: ShardName,
    where: str,
    advance: Callable[[], None] = lambda: None,
) -> Encoded:
    """Encode the ok regions of a shard of `plain`, captioned as `seen`, the same data with overlays, shows them.

    `where` names the data in errors, `advance` is called after each image. Raises DatasetError where a region's image
    cannot be read, and WorkError where the model gives no numbers.
    """
    own = _ok_regions(plain, shard, ["key", *_BOX])
    shown = _ok_regions(seen, shard, ["key", "caption"])
    captions = dict(zip(_pairs(shown), shown["caption"].to_pylist(), strict=True))
    kept = [pair in captions for pair in _pairs(own)]
    regions = own.filter(pa.array(kept, pa.bool_()))
    texts = sorted({caption for caption in captions.values() if caption is not None})
    place = {text: number for number, text in enumerate(texts)}
    region_features = encoder.images(_crops(plain, shard, regions, f"{where}/{shard.tar}", advance))
    text_features = encoder.texts(texts)
    for what, features in (("crops", region_features), ("captions", text_features)):
        if not np.isfinite(features).all():
            raise WorkError(f"{shard}: the model gives features of {what} that are no numbers; it is broken")
    _, image_of = np.unique(np.asarray(regions["key"].to_pylist(), dtype=np.str_), return_inverse=True)
    return Encoded(
        ids=own.select(["key", "region_id"]),
        seen=np.array(kept, dtype=np.bool_),
        regions=region_features,
        texts=text_features,
        text_of=np.array([place.get(captions[pair], -1) for pair in _pairs(regions)], dtype=np.int64),
        text_hashes=np.array([text_hash(text) for text in texts], dtype=np.str_),
        image_of=image_of.astype(np.int64),
        num_cut=encoder.num_cut(texts),
    )


def _ok_regions(dataset: Dataset, shard: ShardName, columns: list[str]) -> pa.Table:
    rows = dataset.regions(["status", "region_id", *columns], [shard])
    return rows.filter(pc.and_(pc.equal(rows["status"], Status.OK.value), pc.is_valid(rows["region_id"])))


def _pairs(rows: pa.Table) -> list[tuple[str, str]]:
    return list(zip(rows["key"].to_pylist(), rows["region_id"].to_pylist(), strict=True))


def _crops(
    plain: Dataset, shard: ShardName, regions: pa.Table, where: str, advance: Callable[[], None]
) -> Iterator[Pixels]:
    """Yield the crops of `regions`, in their order, which is that of the images in the shard."""
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    edges = zip(*(regions[name].to_pylist() for name in _BOX), strict=True)
    for key, box in zip(regions["key"].to_pylist(), edges, strict=True):
        boxes.setdefault(key, []).append(box)
    wanted = list(boxes)
    stored = (
        Sample(item=SourceItem(key=one.key, index=one.record.source.index, uri=one.record.source.uri, data=one.image))
        for one in plain.samples(shard, verify=True)
        if one.key in boxes
    )
    for sample in decoded_ahead(stored, _ANY_SIZE, num_threads=_DECODE_THREADS):
        if sample.image is None:
            message = "" if sample.drop is None else sample.drop.message
            raise DatasetError(f"{where}: key {sample.item.key!r}: {message}; write the shard again")
        if not wanted or sample.item.key != wanted.pop(0):
            raise DatasetError(f"{where}: the images are not in the order of the table; write the shard again")
        yield from (cut(sample.image.pixels, box) for box in boxes[sample.item.key])
        advance()
    if wanted:
        raise DatasetError(f"{where}: has no image {wanted[0]!r}, which the table has regions of; fetch the tar again")
