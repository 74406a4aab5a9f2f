"""Shard writing: our `ShardWriter` against webdataset's, the same samples, both synced to disk.

    python -m benchmarks.write [--gigabytes 1] [--runs 7] [--folder .]

A sample is an image of 100 KB (random bytes: nothing decodes them), a caption, and a JSON record with 4 regions; a
shard holds 1000. Ours computes the sha256 of every image and tar, makes records and rows with their text hashes, and
writes the Parquet table too; webdataset's is handed the finished record, and writes neither hash nor index.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import webdataset  # type: ignore[import-untyped]  # it ships stubs, but no py.typed

from benchmarks.report import Row, measure, report
from pipeline.sample import Candidate, DecodedImage, RegionCaption, Sample, SourceItem
from pipeline.store.storage import LocalStorage
from pipeline.write.rows import image_record, table_rows
from pipeline.write.shard_writer import ShardWriter
from schemas.hashes import sha256
from schemas.names import ShardName

_GOAL = 1.3
_IMAGE_BYTES = 100_000
_PER_SHARD = 1000
_NUM_REGIONS = 4
_NAMES = {"proposer": "manual", "captioner": "rule"}


@dataclass(frozen=True, kw_only=True)
class _Ways:
    """The two ways to write `num_shards` shards to `folder`, each with the images in `images`."""

    folder: Path
    num_shards: int
    images: list[bytes]
    records: list[dict[str, Any]]
    """What webdataset writes as JSON: the record of each image of the first shard."""

    def ours(self) -> None:
        """Write, hash, index and sync."""
        storage = LocalStorage(str(self.folder))
        for number in range(self.num_shards):
            writer = ShardWriter(ShardName("train", number), storage.scratch, "bench")
            for index, image in enumerate(self.images):
                sample = _sample(f"{number:04d}{index:04d}", image)
                tar_range = writer.add_sample(image_record(sample, **_NAMES), image, "jpg")
                for row in table_rows(sample, writer.shard, tar_range=tar_range, **_NAMES):
                    writer.add_row(row)
            for name, file in writer.finish().items():
                storage.settle(file.path, name)
        storage.sync("")

    def webdataset(self) -> None:
        """Write and sync."""
        pattern = str(self.folder / "train-%06d.tar")
        with webdataset.ShardWriter(pattern, maxcount=_PER_SHARD, verbose=0, post=_sync) as writer:
            for number in range(self.num_shards):
                for index, (image, record) in enumerate(zip(self.images, self.records, strict=True)):
                    key = f"{number:04d}{index:04d}"
                    writer.write({"__key__": key, "jpg": image, "txt": record["image_caption"], "json": record})
        _sync(str(self.folder))

    def clear(self) -> None:
        """Empty the folder, and let the disk finish what it was given before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        os.sync()


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sample(key: str, image: bytes) -> Sample:
    """Return a sample as it comes from the captioner; its image is hashed here, as decoding does."""
    caption = f"A photograph called {key}, of this and that."
    item = SourceItem(key=key, index=0, uri=f"00000.tar/{key}.jpg", data=None, captions=(caption,))
    decoded = DecodedImage(
        item=item,
        width=640,
        height=480,
        pixels=np.zeros((0, 0, 3), np.uint8),
        stored=image,
        suffix="jpg",
        reencoded=False,
        sha256=sha256(image),
        given=(),
    )
    selected = list(_selected(key))
    captions = {region.region_id: RegionCaption(text=f"Region {region.region_id} of it.") for region in selected}
    return Sample(item=item, image=decoded, selected=selected, captions=captions)


def _selected(key: str) -> Iterator[Candidate]:
    for number in range(_NUM_REGIONS):
        yield Candidate(
            region_id=f"{number:x}".rjust(8, "0") + key,
            box=(10.0 * number, 20.0, 200.5 + number, 300.0625),
            proposal_score=0.5,
            label="thing",
            count=1,
            drop=None,
        )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of images, 10^9 bytes each")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write: its disk is measured")
    arguments = parser.parse_args()
    num_shards = max(1, round(arguments.gigabytes * 1e9 / (_IMAGE_BYTES * _PER_SHARD)))
    rng = np.random.default_rng(0)
    images = [rng.bytes(_IMAGE_BYTES) for _ in range(_PER_SHARD)]
    records = [
        msgspec.to_builtins(image_record(_sample(f"0000{index:04d}", image), **_NAMES))
        for index, image in enumerate(images)
    ]
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-", dir=arguments.folder) as folder:
        ways = _Ways(folder=Path(folder) / "out", num_shards=num_shards, images=images, records=records)
        seconds = measure({"webdataset": ways.webdataset, "ours": ways.ours}, arguments.runs, before=ways.clear)
    rows = [
        Row(name="webdataset.ShardWriter, synced", seconds=seconds["webdataset"]),
        Row(
            name="ShardWriter: sha256, Parquet, synced",
            seconds=seconds["ours"],
            against=seconds["webdataset"],
            goal=_GOAL,
        ),
    ]
    gigabytes = num_shards * _PER_SHARD * _IMAGE_BYTES / 1e9
    report(f"Shard writing: {gigabytes:g} GB of images in {num_shards} shards", rows, {"shards": num_shards})


if __name__ == "__main__":
    main()
