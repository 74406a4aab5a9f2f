"""Which shards a data set folder holds: found by their markers, checked against what lies there.

A shard exists when its marker does, so a data set that is still growing opens as the shards finished so far. Where
files cannot be listed (web servers), `dataset.json` names the shards.

While a shard is repaired (`fineclip retry`), its marker is not there, and is another one afterwards. Readers are told
so: they look at the marker again after they have opened a tar or a table, so that they never take those of two repairs.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from schemas.folder import DatasetError, Folder
from schemas.names import DATASET_JSON, SCHEMA_VERSION, ShardName, first_repair, shard_of_marker
from schemas.records import RecordError, ShardMarker, decode_shard_marker, name_writer


class DatasetIndex(msgspec.Struct, frozen=True, kw_only=True):
    """What readers need of `dataset.json`; it may say more."""

    schema_version: Literal["1"]
    shards: list[str]
    """Stems, such as `train-000012`."""


class _Version(msgspec.Struct):
    schema_version: str


def find_shards(folder: Folder, sizes: Mapping[str, int] | None) -> dict[ShardName, ShardMarker]:
    """Return the markers of the folder's shards, sorted by split and number.

    `sizes` is the folder's listing (`Folder.sizes`). Raises DatasetError when there are no shards, when `dataset.json`
    names one that is not there, when a marker is not a valid one of this schema version, and when a shard's tar or
    table is missing or has another size than its marker says (the two latter only where there is a listing).
    """
    indexed = _indexed_shards(folder, sizes)
    if sizes is None and indexed is None:
        raise DatasetError(f"{folder.url}: files cannot be listed there, and there is no {DATASET_JSON} to name shards")
    listed = {shard_of_marker(name) for name in sizes or ()} - {None}
    shards = sorted(set(indexed or ()) | {shard for shard in listed if shard})
    if not shards:
        raise DatasetError(
            f"{folder.url}: no shard here (no train-NNNNNN.json); give the OUTPUT of `fineclip annotate`, "
            "after its first shard is finished"
        )
    markers = _read_markers(folder, shards)
    if sizes is not None:
        _check_files(folder, markers, sizes)
    return markers


def _indexed_shards(folder: Folder, sizes: Mapping[str, int] | None) -> list[ShardName] | None:
    """Return the shards that `dataset.json` names, or None where it is not there."""
    (content,) = folder.read([DATASET_JSON]) if sizes is None or DATASET_JSON in sizes else (None,)
    if content is None:
        return None
    where = folder.where(DATASET_JSON)
    check_version(content, where)
    try:
        index = msgspec.json.decode(content, type=DatasetIndex)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{where}: {error}; remove it, or finish the data set again") from error
    shards = [ShardName.parse(stem) for stem in index.shards]
    if None in shards:
        raise DatasetError(f"{where}: {index.shards[shards.index(None)]!r} is not the name of a shard")
    return [shard for shard in shards if shard]


def check_version(content: bytes, where: str) -> None:
    """Raise DatasetError where `content` is JSON of another schema version (anything else is for the decoder)."""
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if version != SCHEMA_VERSION:
        raise DatasetError(
            f"{where}: schema version {version!r}, where this release reads {SCHEMA_VERSION!r}; "
            f"{name_writer(content)}: read it with the release that wrote it, or annotate again"
        )


def decode_marker(content: bytes, shard: ShardName, where: str) -> ShardMarker:
    """Return the marker of `shard`. Raises DatasetError, naming `where`, for a wrong version, damage or another's."""
    check_version(content, where)
    try:
        marker = decode_shard_marker(content, where)
    except RecordError as error:
        raise DatasetError(f"{error}; write the shard again") from error
    if marker.shard != str(shard):
        raise DatasetError(f"{where}: is the marker of {marker.shard}; files were renamed, restore their names")
    return marker


def _read_markers(folder: Folder, shards: Collection[ShardName]) -> dict[ShardName, ShardMarker]:
    markers = {}
    contents = folder.read([shard.marker for shard in shards])
    for shard, content in zip(shards, contents, strict=True):
        where = folder.where(shard.marker)
        if content is None:
            lost = f"{where}: not there, but {DATASET_JSON} names it; fetch it, or remove {DATASET_JSON}"
            raise DatasetError(lost if (now := being_repaired(folder, shard)) is None else now)
        markers[shard] = decode_marker(content, shard, where)
    return markers


def _check_files(folder: Folder, markers: Mapping[ShardName, ShardMarker], sizes: Mapping[str, int]) -> None:
    for shard, marker in markers.items():
        for name, digest in ((shard.tar, marker.tar), (shard.parquet, marker.parquet)):
            try:
                check_file(folder, name, expected_size=digest.size, sizes=sizes)
            except DatasetError:
                check_not_repaired(folder, shard, marker)
                raise


def being_repaired(folder: Folder, shard: ShardName) -> str | None:
    """Return a sentence where a shard without a marker is being repaired; None where it is not, or nobody can tell."""
    (decision,) = folder.read([first_repair(shard)])
    if decision is None:
        return None
    return (
        f"{folder.where(str(shard))}: the shard is being repaired; wait until `fineclip retry` has ended there, "
        "or run it again if it was cut off, then open the data set again"
    )


def check_not_repaired(folder: Folder, shard: ShardName, marker: ShardMarker) -> None:
    """Raise DatasetError where the shard has another marker now than `marker`, or none: it is or was repaired."""
    (content,) = folder.read([shard.marker])
    if content is None:
        now = being_repaired(folder, shard)
    else:
        current = decode_marker(content, shard, folder.where(shard.marker))
        is_same = (current.tar, current.parquet) == (marker.tar, marker.parquet)
        now = f"{folder.where(str(shard))}: the shard was repaired since the data set was opened; open it again"
        now = None if is_same else now
    if now is not None:
        raise DatasetError(now)


def check_file(folder: Folder, name: str, *, expected_size: int, sizes: Mapping[str, int]) -> None:
    """Raise DatasetError unless the file is there, with as many bytes as its marker says."""
    # The listing may be older than a marker that was written while it was made: ask again before complaining.
    size = sizes[name] if sizes.get(name) == expected_size else folder.size(name)
    if size is None:
        raise DatasetError(f"{folder.where(name)}: not there, but its marker is; fetch it, or write the shard again")
    if size != expected_size:
        raise DatasetError(
            f"{folder.where(name)}: {size} bytes where its marker says {expected_size}; fetch or write the shard again"
        )
