"""The records both sides share: what a sample's `.json` member says, and what a shard's marker says.

    ImageRecord   the `.json` member of a sample: the image and its regions
    ShardMarker   the `.json` beside a shard: counts that balance, hashes, where it came from
    OverlayMarker the `.json` beside an overlay's table: what it replaces, of which shard

Decoding is strict about what is known: a missing field, a wrong type or a broken rule raises `RecordError`, which names
the sample's key and the field. Fields that are not known are passed over: a later release of the same schema version
may have added them, and fields that an earlier one did not write have a default.
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


class ImageSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where an image came from."""

    uri: str
    """The file or member, relative to the INPUT that held it."""
    index: int
    """Position of the sample in its source unit, from 0."""
    url: str | None
    """The web address the source gives for the image, if any."""
    license: str | None
    """The licence the source gives for the image, if any."""


class Region(msgspec.Struct, frozen=True, kw_only=True):
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
    source_id: str | None = None
    """The region's id in the source, where the source gives the region and an id."""
    is_crowd: bool | None = None
    """Whether the box is of a group, not of one object, as COCO says of its regions; None where no one says."""
    mask_rle: str | None = None
    """The mask in the stored image's frame: the `counts` of COCO's compressed run lengths; `size` is height, width."""


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
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
    """The first of the source's captions that says something."""
    source: ImageSource
    num_regions: int
    regions: list[Region]
    image_captions: list[str] = []
    """All captions that the source gives for the image, `image_caption` first; empty where it gives none, and in data
    sets written before there was this field."""


class Counts(msgspec.Struct, kw_only=True):
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


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What a file must be."""

    sha256: str
    size: int
    """Bytes."""


class UnitSource(msgspec.Struct, frozen=True, kw_only=True):
    """A range of a source that went into a shard."""

    input: str
    """The INPUT's prefix within the data set ("" for a lone input)."""
    uri: str
    start: int
    """First sample of `uri`, from 0."""
    stop: int | None
    """One beyond the last sample, or None for all."""


class ShardMarker(msgspec.Struct, frozen=True, kw_only=True):
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
    num_noted: int = 0
    """Images that are ok, and whose row says what of them was mended or left out."""
    bytes_lost: int | msgspec.UnsetType = msgspec.UNSET
    """Of the sources: what could not be read and was no whole sample. Absent where nothing was lost."""
    written_by: str | None = None
    """The release that wrote the shard, such as `fineclip-regions 0.1.0`; None before there was this field."""


class OverlayMarker(msgspec.Struct, frozen=True, kw_only=True):
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
    regions: Counts | None = None
    """How the regions ended, where the overlay says so of each (`recaption` does); None where it does not."""
    parquet: FileDigest
    provenance: dict[str, Any]
    """Models, revisions, weights, library versions, licences, prompts."""
    written_by: str | None = None
    """The release that wrote the overlay; None for those before there was this field."""


class _Writer(msgspec.Struct):
    written_by: object = None


def name_writer(data: bytes) -> str:
    """Return which release wrote a marker, as messages say it."""
    try:
        release = msgspec.json.decode(data, type=_Writer).written_by
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        release = None
    return f"written by {release or 'a release that does not say so'}"


_Record = TypeVar("_Record", ImageRecord, ShardMarker, OverlayMarker)


def _decode(data: bytes, kind: type[_Record], where: str) -> _Record:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{where}: not a version 1 {kind.__name__}: {error} ({name_writer(data)})") from error


def decode_image_record(data: bytes, where: str) -> ImageRecord:
    """Decode and check the `.json` member of a sample.

    `where` names the file and key for the error. Raises RecordError for anything but a valid version "1" record: wrong
    JSON, missing fields, a key that breaks the pattern, boxes not finite, empty or outside the image,
    repeated region ids, a `num_regions` that is not the number of regions, an `image_caption` that is not the first of
    `image_captions`.
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
    if record.image_captions and record.image_captions[0] != record.image_caption:
        problems.append(("image_captions", "the first is not image_caption"))
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
