"""Writing one shard: a tar of samples and a table of every image and region, both deterministic.

The tar's sha256 is computed by a thread beside the writing, which costs next to no time on two cores.
"""

import hashlib
import os
import queue
import threading
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.commit import FinishedFile
from schemas.names import ShardName
from schemas.reasons import Reason
from schemas.records import Counts, FileDigest, ImageRecord, encode
from schemas.store_errors import full_disk
from schemas.tables import REGION_SCHEMA, RegionRow
from schemas.tar import END, padding, tar_member_header

_ROW_GROUP = 16_384
"""Rows kept in memory before they go to the file."""
_BLOCK_BYTES = 1 << 20
_BLOCK_PIECES = 512
"""A block goes to the file when it has this many bytes or pieces (writev takes at most 1024 pieces)."""


class HashingFile:
    """A local file written in order, without copies, whose sha256 is computed beside the writing."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.size = 0
        self._file = path.open("xb", buffering=0)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._sha256 = hashlib.sha256()
        self._blocks: queue.Queue[list[bytes] | None] = queue.Queue(maxsize=8)
        self._hasher = threading.Thread(target=self._hash, daemon=True)
        self._hasher.start()

    @property
    def closed(self) -> bool:
        """Whether the file is closed (Arrow asks its sinks)."""
        return self._file.closed

    def _hash(self) -> None:
        while (block := self._blocks.get()) is not None:
            for data in block:
                self._sha256.update(data)

    def write(self, data: bytes) -> int:
        """Append `data`, which must not change afterwards; returns its length."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self.size += len(data)
        if self._waiting_bytes >= _BLOCK_BYTES or len(self._waiting) >= _BLOCK_PIECES:
            self.flush()
        return len(data)

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self.size

    def flush(self) -> None:
        """Hand what waits to the operating system and to the hasher."""
        block, self._waiting = self._waiting, []
        total, self._waiting_bytes = self._waiting_bytes, 0
        self._blocks.put(block)
        with full_disk(self.path):
            written = os.writev(self._file.fileno(), block) if block else 0
            if written < total:
                rest = memoryview(b"".join(block))[written:]
                while rest:
                    rest = rest[os.write(self._file.fileno(), rest) :]

    def finish(self) -> FinishedFile:
        """Write what waits, close, and return the file with its digest (not synced yet: `commit` does that)."""
        try:
            self.flush()
        finally:
            self.close()
        return FinishedFile(path=self.path, digest=FileDigest(sha256=self._sha256.hexdigest(), size=self.size))

    def close(self) -> None:
        """Stop the hasher and close the file; harmless to repeat."""
        if self._hasher.is_alive():
            self._blocks.put(None)
            self._hasher.join()
        self._file.close()


class ShardWriter:
    """Collects a shard's samples and rows in local files; `finish` gives them up for commit."""

    def __init__(self, shard: ShardName, scratch: Path, token: str) -> None:
        """Open the attempt's files in `scratch`; `token` makes their names unique among attempts."""
        self.shard = shard
        self.images = Counts()
        self.regions = Counts()
        self.bytes_lost = 0
        """Of the sources, by the samples that the shard has rows of."""
        self.num_noted = 0
        self._tar = HashingFile(scratch / f"{shard.tar}.{token}")
        self._parquet = HashingFile(scratch / f"{shard.parquet}.{token}")
        self._table = pq.ParquetWriter(
            pa.PythonFile(self._parquet, mode="w"), REGION_SCHEMA, compression="zstd", store_schema=False
        )
        self._rows: list[RegionRow] = []

    def add_sample(self, record: ImageRecord, image: bytes, suffix: str) -> tuple[int, int]:
        """Append a sample's members to the tar; returns where the image's bytes begin, and how many there are."""
        members = [(suffix, image)]
        if record.image_caption is not None:
            members.append(("txt", record.image_caption.encode("utf-8")))
        members.append(("json", encode(record)))
        offset = self._tar.size + 512
        for extension, data in members:
            self._tar.write(tar_member_header(f"{record.key}.{extension}", len(data)))
            self._tar.write(data)
            self._tar.write(bytes(padding(len(data))))
        return offset, len(image)

    def add_row(self, row: RegionRow) -> None:
        """Append a row to the table, and count how its image or region ended (whoever reads them counts the inputs)."""
        counts = self.images if row.region_id is None else self.regions
        if row.reason is None:
            counts.ok += row.count
            self.num_noted += row.message is not None
        else:
            counts.drop(Reason(row.reason), row.count)
        self._rows.append(row)
        if len(self._rows) >= _ROW_GROUP:
            self._flush_rows()

    def _flush_rows(self) -> None:
        values = zip(*map(msgspec.structs.astuple, self._rows), strict=True)
        columns = [pa.array(column, type=field.type) for column, field in zip(values, REGION_SCHEMA, strict=True)]
        self._table.write_table(pa.Table.from_arrays(columns, schema=REGION_SCHEMA))
        self._rows.clear()

    def finish(self) -> dict[str, FinishedFile]:
        """Close both files and return them by final name: the tar, then the table."""
        self._tar.write(END)
        if self._rows:
            self._flush_rows()
        self._table.close()
        return {self.shard.tar: self._tar.finish(), self.shard.parquet: self._parquet.finish()}

    def abandon(self) -> None:
        """Close and remove both files; harmless after `finish`."""
        for file in (self._tar, self._parquet):
            file.close()
            file.path.unlink(missing_ok=True)
