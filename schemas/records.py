"""The records both sides share: what a sample's `.json` member says, and what a shard's marker says.

    ImageRecord   the `.json` member of a sample: the image and its regions
    ShardMarker   the `.json` beside a shard: counts that balance, hashes, where it came from
    OverlayMarker the `.json` beside an overlay's table: what it replaces, of which shard

Decoding is strict: an unknown or missing field, a wrong type or a broken rule raises `RecordError`, which names the
sample's key and the field.
"""

import math
import re
from typing import Any, Literal, TypeVar

import msgspec

from schemas.hashes import canonical_json
from schemas.names import KEY_PATTERN
from schemas.reasons import STATUS_OF, Reason, Status

_KEY = re.compile(KEY_PATTERN)


class RecordError(ValueError):
    """A record breaks the schema; the message names the file or key, the field, and what was expected."""

    exit_code = 2


class ImageSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an image came from."""

    uri: str
    """The file or member, relative to the INPUT that held it."""
    index: int
    """Position of the sample in its source unit, from 0."""
    url: str | None
    """The web address the source gives for the image, if any."""
    license: str | None
    """The licence the source gives for the image, if any."""


class Region(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A box of an image with its caption, and where both came from."""

    id: str
    """16 hex digits: hash of key, box, proposer and ordinal among equals (`hashes.region_id`)."""
    box: tuple[float, float, float, float]
    """xyxy in pixels of the stored image, right and bottom exclusive, multiples of 1/16."""
    label: str | None
    """The proposer's class name for the region, if it has classes."""
    proposer: str
    proposal_score: float
    """In [0, 1], rounded to 1e-4; 1 for given boxes without a score."""
    caption: str
    captioner: str
    caption_score: float | None
    """Rounded to 1e-4; its meaning and range are the captioner's. None where the captioner gives none."""
    text_hash: str
    """16 hex digits shared by captions equal after normalisation (`hashes.text_hash`)."""


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `.json` member of a sample.

    Boxes are in the frame of the stored image, which is the sample's image member.
    """

    schema_version: Literal["1"]
    key: str
    width: int
    height: int
    image_sha256: str
    """Of the stored bytes."""
    reencoded: bool
    """True where the stored bytes are not the source's: it was EXIF-rotated or not 8-bit RGB JPEG, PNG or WebP."""
    image_caption: str | None
    source: ImageSource
    num_regions: int
    regions: list[Region]


class Counts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How many images, or regions, went in and how each ended."""

    inputs: int = 0
    ok: int = 0
    filtered: dict[str, int] = {}
    """Number by reason."""
    dead: dict[str, int] = {}
    """Number by reason."""

    @property
    def num_filtered(self) -> int:
        """The number filtered for any reason."""
        return sum(self.filtered.values())

    @property
    def num_dead(self) -> int:
        """The number dead for any reason."""
        return sum(self.dead.values())

    @property
    def balanced(self) -> bool:
        """True when inputs = ok + filtered + dead."""
        return self.inputs == self.ok + self.num_filtered + self.num_dead

    def drop(self, reason: Reason, count: int = 1) -> None:
        """Count `count` items as not ok for `reason`."""
        side = self.filtered if STATUS_OF[reason] is Status.FILTERED else self.dead
        side[reason.value] = side.get(reason.value, 0) + count

    def add(self, other: "Counts") -> None:
        """Add `other` to these counts."""
        self.inputs += other.inputs
        self.ok += other.ok
        for mine, theirs in ((self.filtered, other.filtered), (self.dead, other.dead)):
            for reason, count in theirs.items():
                mine[reason] = mine.get(reason, 0) + count


class FileDigest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file must be."""

    sha256: str
    size: int
    """Bytes."""


class UnitSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A range of a source that went into a shard."""

    input: str
    """The INPUT's prefix within the data set ("" for a lone input)."""
    uri: str
    start: int
    """First sample of `uri`, from 0."""
    stop: int | None
    """One beyond the last sample, or None for all."""


class ShardMarker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The `.json` beside a shard: the shard exists when this does."""

    schema_version: Literal["1"]
    shard: str
    fingerprint: str
    """Of the configuration that made the shard."""
    images: Counts
    regions: Counts
    tar: FileDigest
    parquet: FileDigest
    sources: list[UnitSource]
    provenance: dict[str, Any]
    """Models, revisions, weights, library versions, licences, prompts, thresholds."""
    bytes_lost: int = 0
    """Of the sources: what could not be read and was no whole sample. Absent where it is 0."""


class OverlayMarker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `.json` beside an overlay's table: the overlay of that shard exists when this does."""

    schema_version: Literal["1"]
    shard: str
    overlay: str
    """The overlay's name."""
    fingerprint: str
    """Of the configuration that made the overlay."""
    base_sha256: str
    """Of the shard's table as it was when the overlay was made: another one has other regions."""
    columns: list[str]
    """What the table holds beside `key` and `region_id`."""
    partial: bool = False
    """Whether ok regions may be missing: they keep the shard's values. If False, every one must be there."""
    num_rows: int
    parquet: FileDigest
    provenance: dict[str, Any]
    """Models, revisions, weights, library versions, licences, prompts."""


_Record = TypeVar("_Record", ImageRecord, ShardMarker, OverlayMarker)


def _decode(data: bytes, kind: type[_Record], where: str) -> _Record:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{where}: not a version 1 {kind.__name__}: {error}") from error


def decode_image_record(data: bytes, where: str) -> ImageRecord:
    """Decode and check the `.json` member of a sample.

    `where` names the file and key for the error. Raises RecordError for anything but a valid version "1" record: wrong
    JSON, unknown or missing fields, a key that breaks the pattern, boxes not finite, empty or outside the image,
    repeated region ids, a `num_regions` that is not the number of regions.
    """
    record = _decode(data, ImageRecord, where)
    for field, problem in _problems(record):
        raise RecordError(f"{where}: key {record.key!r}: {field}: {problem}")
    return record


def _problems(record: ImageRecord) -> list[tuple[str, str]]:
    """Return (field, what is wrong) of the first broken rules of a decoded record."""
    problems = []
    if not _KEY.fullmatch(record.key):
        problems.append(("key", f"does not match {KEY_PATTERN}"))
    if record.width < 1 or record.height < 1:
        problems.append(("width, height", f"{record.width} x {record.height} is not an image size"))
    if record.num_regions != len(record.regions):
        problems.append(("num_regions", f"says {record.num_regions}, but there are {len(record.regions)} regions"))
    for position, region in enumerate(record.regions):
        x0, y0, x1, y1 = region.box
        inside = 0 <= x0 < x1 <= record.width and 0 <= y0 < y1 <= record.height
        if not inside or not all(map(math.isfinite, region.box)):
            size = f"{record.width} x {record.height}"
            problems.append((f"regions[{position}].box", f"{list(region.box)} is not a box inside {size}"))
    if len({region.id for region in record.regions}) != len(record.regions):
        problems.append(("regions[].id", "two regions have the same id"))
    return problems


def decode_shard_marker(data: bytes, where: str) -> ShardMarker:
    """Decode a shard's marker. Raises RecordError, naming `where`, for anything but a valid version "1" marker."""
    return _decode(data, ShardMarker, where)


def decode_overlay_marker(data: bytes, where: str) -> OverlayMarker:
    """Decode an overlay's marker. Raises RecordError, naming `where`, for anything but a valid version "1" marker."""
    return _decode(data, OverlayMarker, where)


def encode(record: ImageRecord | ShardMarker | OverlayMarker) -> bytes:
    """Return the record as compact UTF-8 JSON, fields in class order, dictionaries sorted: equal records, equal bytes.

    Raises ValueError where a number is NaN or infinite, which JSON cannot say.
    """
    # msgspec would write null for such a number, and not say so.
    if isinstance(record, ImageRecord):
        _check_finite(record)
    else:
        canonical_json(msgspec.to_builtins(record.provenance))
    return msgspec.json.encode(record, order="deterministic")


def _check_finite(record: ImageRecord) -> None:
    for position, region in enumerate(record.regions):
        numbers = (*region.box, region.proposal_score, region.caption_score or 0.0)
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"key {record.key!r}: regions[{position}]: a box or score is not finite: {numbers}")
