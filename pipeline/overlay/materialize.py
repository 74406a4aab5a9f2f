"""Materializing one shard: data and overlays as a shard of their own, with the same keys and the images' very bytes.

Records and tables say what readers of the data set with its overlays see. Rows of what did not make it stay.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.commit import commit
from pipeline.store.scratch import scratch_token
from pipeline.store.storage import Storage
from pipeline.write.shard_writer import HashingFile, ShardWriter
from pipeline.write.shards import BalanceError, release
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.names import ShardName
from schemas.overlays import Overlay
from schemas.records import ShardMarker, encode
from schemas.tables import RegionRow


def check_columns(overlays: Sequence[Overlay]) -> None:
    """Raise DatasetError where an overlay has columns that a shard's table has no place for."""
    for overlay in overlays:
        if overlay.added:
            raise DatasetError(
                f"overlay {overlay.name!r} adds {', '.join(overlay.added)}, which no shard's table has a column for; "
                "leave it an overlay: readers take it by name"
            )


def materialize_shard(
    seen: Dataset,
    shard: ShardName,
    storage: Storage,
    *,
    whole: Dataset,
    dropped: Collection[str],
    fingerprint: str,
    provenance: dict[str, Any],
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Commit the shard as `seen`, a data set with its overlays, shows it.

    `seen` lacks the images with the keys `dropped`, which `whole`, the same data set, has.
    Raises DatasetError for a damaged shard, BalanceError where rows were lost, OSError on storage trouble.
    """
    base, token = seen.markers[shard], scratch_token()
    with ExitStack() as stack:
        writer = ShardWriter(shard, storage.scratch, token)
        stack.callback(writer.abandon)
        ranges: dict[str, tuple[int, int]] = {}
        for sample in seen.samples(shard, verify=True):
            ranges[sample.key] = writer.add_sample(sample.record, sample.image, sample.suffix)
            advance()
        for values in seen.regions(shards=[shard]).to_pylist():
            row = RegionRow(**values)
            if row.tar_offset is not None:  # records may have become longer
                row.tar_offset, row.tar_size = ranges[row.key]
            writer.add_row(row)
        gone = _dropped(whole.regions(["key", "region_id", "count"], [shard]), dropped)
        writer.images.inputs = base.images.inputs - gone[0]
        writer.regions.inputs = base.regions.inputs - gone[1]
        if not (writer.images.balanced and writer.regions.balanced):
            raise BalanceError(f"{shard}: {writer.images}, {writer.regions}: another number than the shard's inputs")
        files = writer.finish()
        marker = msgspec.structs.replace(
            base,
            fingerprint=fingerprint,
            images=writer.images,
            regions=writer.regions,
            tar=files[shard.tar].digest,
            parquet=files[shard.parquet].digest,
            provenance=provenance,
            num_noted=writer.num_noted,
            written_by=release(),
        )
        files[shard.marker] = _written(marker, storage, token, stack)
        for file in files.values():
            stack.callback(file.path.unlink, missing_ok=True)
        commit(storage, str(shard), files)


def _dropped(rows: pa.Table, dropped: Collection[str]) -> tuple[int, int]:
    """Return how many images and how many regions the rows of these keys stand for."""
    rows = rows.filter(pc.is_in(rows["key"], value_set=pa.array(sorted(dropped), pa.string())))
    is_image = pc.is_null(rows["region_id"])
    counts = (pc.sum(rows.filter(of)["count"]).as_py() or 0 for of in (is_image, pc.invert(is_image)))
    num_images, num_regions = counts
    return num_images, num_regions


def _written(marker: ShardMarker, storage: Storage, token: str, stack: ExitStack) -> Any:
    file = HashingFile(storage.scratch / f"{marker.shard}.json.{token}")
    stack.callback(file.path.unlink, missing_ok=True)
    stack.callback(file.close)
    file.write(encode(marker))
    return file.finish()


def provenance_of(base: ShardMarker, overlays: Sequence[Overlay], shard: ShardName) -> dict[str, Any]:
    """Return the provenance of a materialized shard: the base's, each overlay's part in place, and all of them whole.

    What an overlay replaced by a model of its own (`captioner`) stands where the base's stood.
    """
    parts = [(overlay.name, overlay.markers[shard]) for overlay in overlays if shard in overlay.markers]
    replaced = {kind: made for _, marker in parts for kind, made in marker.provenance.items()}
    whole = {"base": base.provenance, **{name: marker.provenance for name, marker in parts}}
    return base.provenance | replaced | {"materialized": whole}
