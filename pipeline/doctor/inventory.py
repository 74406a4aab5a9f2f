"""What lies in a data set's folder: markers, `dataset.json`, the plan, and what a job left behind."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from pipeline.doctor.findings import Findings
from pipeline.plan.plan import Generation, decision_name
from pipeline.settings import splits_of
from schemas.folder import DatasetError, Folder
from schemas.hashes import fingerprint
from schemas.names import (
    ATTEMPTS_DIR,
    COMMIT_DIR,
    DATASET_JSON,
    PLAN_DIR,
    PROPOSALS_DIR,
    ShardName,
    repair_of,
    shard_of_marker,
)
from schemas.records import Counts, RecordError, ShardMarker, decode_shard_marker
from schemas.shards import being_repaired, check_version
from schemas.text import counted

_GO_ON = "run the same `fineclip annotate` again: it goes on where it stood"
_RETRY = "wait until `fineclip retry` has ended; if none is at work, run it again, or the same `fineclip annotate`"
_FINALISE = f"remove {DATASET_JSON} and run the same `fineclip annotate` again: it writes the file anew"


class _DatasetJson(msgspec.Struct, frozen=True, kw_only=True):
    """What is checked of `dataset.json`; only the first two are always there."""

    schema_version: str
    shards: list[str]
    complete: bool = True
    images: Counts | None = None
    regions: Counts | None = None
    shards_sha256: str | None = None
    num_repeated_keys: int = 0


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The shards of a data set."""

    markers: dict[ShardName, ShardMarker]
    """Those whose marker is sound, sorted by split and number; tar and table are yet to be looked at."""
    all_sound: bool
    """Whether these are all the shards there are."""
    num_repeated_keys: int
    """Over all shards, as `dataset.json` counted them when it was written."""


def take_inventory(folder: Folder, findings: Findings) -> Inventory:
    """Find the shards, and report what is missing or left over.

    Raises DatasetError where there is no data set at all: no folder, or no shard in it.
    """
    sizes = folder.sizes()
    index = _read_index(folder, findings)
    named = {shard for stem in (index.shards if index else ()) if (shard := ShardName.parse(stem))}
    listed = {shard for name in sizes or () if (shard := shard_of_marker(name))}
    if not named | listed:
        why = "files cannot be listed there" if sizes is None else "no train-NNNNNN.json"
        raise DatasetError(f"{folder.url}: no shard here ({why}); give the OUTPUT of `fineclip annotate`")
    shards = sorted(named | listed)
    contents = folder.read([shard.marker for shard in shards])
    read = (
        (shard, _read_marker(folder, shard, content, findings)) for shard, content in zip(shards, contents, strict=True)
    )
    markers = {shard: marker for shard, marker in read if marker is not None}
    decisions = _sizes_in(folder, COMMIT_DIR)
    if index is not None:
        was_repaired = any(map(repair_of, decisions))
        _check_index(index, markers, findings, unnamed=sorted(listed - named), was_repaired=was_repaired)
    decided = {shard for name in decisions if (shard := shard_of_marker(name))}
    unpublished = decided - named - listed
    for shard in sorted(unpublished):
        message = f"the shard was decided ({COMMIT_DIR}/{shard}.json), but is not published"
        findings.warning("unpublished", message, remedy=_GO_ON, shard=shard)
    _report_unplanned(folder, named | listed | unpublished, findings)
    _report_leftovers(folder, sizes or {}, named | listed | unpublished, findings)
    return Inventory(
        markers=markers,
        all_sound=len(markers) == len(named | listed),
        num_repeated_keys=index.num_repeated_keys if index else 0,
    )


def _read_index(folder: Folder, findings: Findings) -> _DatasetJson | None:
    (content,) = folder.read([DATASET_JSON])
    if content is None:
        findings.note("index", f"there is no {DATASET_JSON} yet; shards are found by their markers", remedy=_GO_ON)
        return None
    try:
        check_version(content, DATASET_JSON)
        return msgspec.json.decode(content, type=_DatasetJson)
    except DatasetError as error:
        findings.error("schema-version", str(error), remedy="read it with the release of fineclip that wrote it")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        findings.error("index", f"{DATASET_JSON} is damaged: {error}", remedy=_FINALISE)
    return None


def _read_marker(folder: Folder, shard: ShardName, content: bytes | None, findings: Findings) -> ShardMarker | None:
    if content is None and (now := being_repaired(folder, shard)) is not None:
        findings.error("being-repaired", now, remedy=_RETRY, shard=shard)
        return None
    if content is None:
        message = f"{shard.marker} is not there, but {DATASET_JSON} names the shard"
        findings.error("missing-file", message, shard=shard)
        return None
    try:
        check_version(content, shard.marker)
        marker = decode_shard_marker(content, shard.marker)
    except RecordError as error:
        findings.error("marker", str(error), shard=shard)
        return None
    except DatasetError as error:
        read_with = "read it with the release of fineclip that wrote it, or annotate again with this one"
        findings.error("schema-version", str(error), remedy=read_with, shard=shard)
        return None
    if marker.shard != str(shard):
        message = f"{shard.marker} is the marker of {marker.shard}"
        findings.error("marker", message, remedy="files were renamed: give them their names back", shard=shard)
        return None
    return marker


def _check_index(
    index: _DatasetJson,
    markers: Mapping[ShardName, ShardMarker],
    findings: Findings,
    *,
    unnamed: list[ShardName],
    was_repaired: bool,
) -> None:
    if not index.complete:
        findings.warning("unfinished", f"{DATASET_JSON} says that the data set is not complete", remedy=_GO_ON)
    for shard in unnamed:
        findings.warning("index", f"{DATASET_JSON} does not name the shard", remedy=_FINALISE, shard=shard)
    if unnamed or len(markers) != len(index.shards):
        return  # reported already; totals of other shards cannot agree
    digests = [[str(shard), marker.tar.sha256, marker.parquet.sha256] for shard, marker in markers.items()]
    if was_repaired and index.shards_sha256 not in (None, fingerprint(digests)):
        message = f"{DATASET_JSON} is of the shards before one of them was repaired"
        findings.error("being-repaired", message, remedy=_RETRY)
        return
    if index.shards_sha256 not in (None, fingerprint(digests)):
        findings.error("index", f"{DATASET_JSON} was made from other shards than these", remedy=_FINALISE)
    for name, stated in (("images", index.images), ("regions", index.regions)):
        total = Counts()
        for marker in markers.values():
            total.add(getattr(marker, name))
        if stated is not None and stated != total:
            said, found = (f"{counted(each.inputs, 'input')} and {each.ok:,} ok" for each in (stated, total))
            message = f"{name}: {DATASET_JSON} has {said}, its shards have {found}"
            findings.error("counts", message, remedy=_FINALISE)


def _sizes_in(folder: Folder, name: str) -> dict[str, int]:
    """Return size by file name in a folder of the data set; empty where it is not there or cannot be listed."""
    try:
        return Folder(folder.where(name)).sizes() or {}
    except DatasetError:
        return {}


def _report_unplanned(folder: Folder, found: Collection[ShardName], findings: Findings) -> None:
    """Report shards that the plan has and the folder has not."""
    generations: list[Generation] = []
    while (content := folder.read([f"{PLAN_DIR}/{decision_name(len(generations))}.json"])[0]) is not None:
        try:
            generations.append(msgspec.json.decode(content, type=Generation))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            name = f"{PLAN_DIR}/{decision_name(len(generations))}.json"
            findings.warning("plan", f"{name} is damaged: {error}", remedy="restore it from a copy, to annotate more")
            return
    if not generations:
        return
    num_units = generations[-1].first_unit + generations[-1].num_units
    splits = splits_of(generations[0].configuration.get("val_fraction", 0))
    planned = [ShardName(split, unit) for split in splits for unit in range(num_units)]
    missing = [shard for shard in planned if shard not in found]
    if missing:
        of_all = f"{len(missing):,} of {counted(len(planned), 'planned shard')}"
        are = "is" if len(planned) == 1 else "are"
        message = f"{of_all} {are} not there, {missing[0]} is the first"
        findings.warning("unfinished", message, remedy=_GO_ON, shard=missing[0])


def _report_leftovers(
    folder: Folder, sizes: Mapping[str, int], found: Collection[ShardName], findings: Findings
) -> None:
    for directory in (ATTEMPTS_DIR, PROPOSALS_DIR):
        left = _sizes_in(folder, directory)
        if left:
            held = f"{counted(len(left), 'file')}, {sum(left.values()) / 1e6:,.1f} MB"
            message = f"{directory}/ holds {held}: a job is at work, or was killed"
            remedy = f"{_GO_ON}, and sweeps; or remove {directory}/ when no job is at work"
            findings.warning("leftovers", message, remedy=remedy)
    for name in sorted(sizes):
        stem, _, suffix = name.partition(".")
        shard = ShardName.parse(stem)
        if shard is not None and shard not in found and suffix in ("tar", "parquet"):
            message = f"{name} has no marker ({shard}.json), so no reader looks at it"
            findings.warning("stray-file", message, remedy=f"fetch {shard}.json, or remove {name}", shard=shard)
