"""One sample: its record by the schema, its image by decoding it, and what the shard's table says of both."""

from typing import Any

import msgspec
import numpy as np

from pipeline.doctor.findings import Findings
from pipeline.doctor.members import StoredSample
from pipeline.doctor.rows import ShardRows
from pipeline.read.decode import DecodeSettings, decode
from pipeline.sample import Drop, SourceItem
from schemas.boxes import QUANTUM
from schemas.folder import DatasetError
from schemas.hashes import sha256, text_hash, text_sha256
from schemas.names import ShardName
from schemas.records import ImageRecord, RecordError, Region, decode_image_record
from schemas.shards import check_version
from schemas.text import counted

_DIFFERS = "table-differs"
_DECODE = DecodeSettings()


class SampleCheck:
    """Checks the samples of one shard."""

    def __init__(self, shard: ShardName, rows: ShardRows | None, findings: Findings, *, decode_images: bool) -> None:
        """`rows` are None where the table cannot be read."""
        self._shard = shard
        self._rows = rows
        self._findings = findings
        self._decode_images = decode_images

    def check(self, sample: StoredSample) -> None:
        """Report what is wrong with the sample."""
        record = self._record(sample)
        if record is not None:
            self._check_record(sample, record)
        if self._decode_images:
            self._check_image(sample, record)
        if self._rows is not None:
            self._compare(sample, record, self._rows.of(sample.key))

    def _error(self, check: str, key: str, message: str) -> None:
        self._findings.error(check, message, shard=self._shard, key=key)

    def _record(self, sample: StoredSample) -> ImageRecord | None:
        name = f"{sample.key}.json"
        try:
            check_version(sample.json, name)
            return decode_image_record(sample.json, name)
        except RecordError as error:
            self._error("record", sample.key, str(error))
        except DatasetError as error:
            self._error("schema-version", sample.key, str(error))
        return None

    def _check_record(self, sample: StoredSample, record: ImageRecord) -> None:
        if record.key != sample.key:
            self._error("record", sample.key, f"{sample.key}.json is the record of {record.key!r}")
        caption = None if record.image_caption is None else record.image_caption.encode("utf-8", "surrogatepass")
        if sample.text != caption:
            self._error("record", sample.key, f"{sample.key}.txt is not the record's image_caption")
        if sha256(sample.image.data) != record.image_sha256:
            message = f"the sha256 of {sample.key}.{sample.image.suffix} is not the one in its record"
            self._error("image-hash", sample.key, message)
        for region in record.regions:
            if any(corner % QUANTUM for corner in region.box):
                message = f"region {region.id}: {list(region.box)} in the record is not in multiples of 1/16 pixel"
                self._error("box", sample.key, message)
            if region.text_hash != text_hash(region.caption):
                self._error("text-hash", sample.key, f"region {region.id}: text_hash is not that of its caption")

    def _check_image(self, sample: StoredSample, record: ImageRecord | None) -> None:
        name = f"{sample.key}.{sample.image.suffix}"
        # The job's own decoder: what it stored, it can read, and would leave as it is.
        item = SourceItem(key=sample.key, index=0, uri=name, data=sample.image.data)
        num_pixels = record.width * record.height if record is not None else 0
        # `--read.max-pixels` may have let through an image as large as its record says.
        image = decode(item, DecodeSettings(max_pixels=max(num_pixels, _DECODE.max_pixels)))
        if isinstance(image, Drop):
            self._error("image-decode", sample.key, f"{name} cannot be decoded: {image.message}")
            return
        if image.reencoded or image.suffix != sample.image.suffix:
            message = f"{name} is not what its suffix says: an upright 8-bit RGB JPEG, PNG or WebP"
            self._error("image-format", sample.key, message)
        if record is not None and (image.width, image.height) != (record.width, record.height):
            sizes = f"{image.width} x {image.height} pixels, its record says {record.width} x {record.height}"
            self._error("image-size", sample.key, f"{name} has {sizes}")

    def _compare(self, sample: StoredSample, record: ImageRecord | None, rows: list[dict[str, Any]] | None) -> None:
        if not rows:
            self._error(_DIFFERS, sample.key, "the sample is in the tar, but the table has no ok row of it")
            return
        images, regions = ([row for row in rows if (row["region_id"] is None) == own] for own in (True, False))
        for image in images:  # one, or "table-order" says so
            offset, size = sample.image.offset, len(sample.image.data)
            if (image["tar_offset"], image["tar_size"]) != (offset, size):
                told = f"{image['tar_size']} bytes at byte {image['tar_offset']}; it has {size} at byte {offset}"
                self._error("tar-offset", sample.key, f"the table says that the image has {told}")
            if record is not None:
                stated = {name: getattr(record, name) for name in ("width", "height", "image_caption")}
                stated["image_captions"] = record.image_captions or None
                self._compare_values(sample.key, "the image", image, stated)
        if record is not None:
            by_id = {row["region_id"]: row for row in regions}
            for region in record.regions:
                if region.id in by_id:
                    self._compare_values(sample.key, f"region {region.id}", by_id[region.id], _row_values(region))
            self._compare_ids(sample.key, [row["region_id"] for row in regions], [one.id for one in record.regions])

    def _compare_ids(self, key: str, in_table: list[str], in_record: list[str]) -> None:
        lacking = [region_id for region_id in in_record if region_id not in in_table]
        extra = [region_id for region_id in in_table if region_id not in in_record]
        repeated = len(in_table) - len(set(in_table))
        for ids, where in (
            (lacking, "in the record, but without an ok row"),
            (extra, "ok in the table, but not in the record"),
        ):
            if ids:
                are = "is" if len(ids) == 1 else "are"
                self._error(_DIFFERS, key, f"{counted(len(ids), 'region')} {are} {where}: {', '.join(ids[:3])}")
        if repeated:
            self._error(_DIFFERS, key, f"{counted(repeated, 'row')} of the image's regions too many: ids come again")

    def _compare_values(self, key: str, what: str, row: dict[str, Any], stated: dict[str, Any]) -> None:
        for column, value in stated.items():
            if row[column] != value:
                message = f"{what}: {column} is {row[column]!r} in the table, {value!r} in the record"
                self._error(_DIFFERS, key, message)


def _row_values(region: Region) -> dict[str, Any]:
    """Return what the region's row must hold; scores and boxes are float32 there."""
    values = msgspec.structs.asdict(region)
    del values["id"], values["mask_rle"]
    box = dict(zip(("x0", "y0", "x1", "y1"), values.pop("box"), strict=True))
    numbers = {name: values[name] for name in ("proposal_score", "caption_score")}
    rounded = {name: None if value is None else float(np.float32(value)) for name, value in {**box, **numbers}.items()}
    return {**values, **rounded, "text_sha256": text_sha256(region.caption)}
