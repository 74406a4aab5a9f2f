"""The overlays and filter lists that a reader would name: whether they fit, and the data set as they leave it."""

from collections.abc import Mapping, Sequence

from pipeline.doctor.findings import Findings, Level
from schemas.dataset import Dataset
from schemas.filters import FilterList, load_filter
from schemas.folder import DatasetError, Folder
from schemas.hashes import sha256
from schemas.names import ShardName
from schemas.overlays import Overlay, open_overlay
from schemas.records import ShardMarker

_NEW_FILTER = "correct the list, or make it again from this data set"


def open_as_seen(
    folder: Folder,
    markers: Mapping[ShardName, ShardMarker],
    *,
    overlays: Sequence[str],
    filters: Sequence[str],
    examined: Sequence[ShardName],
    all_sound: bool,
    findings: Findings,
) -> Dataset:
    """Return the data set of `markers` with those overlays and filter lists that can be read.

    The overlays' tables of the `examined` shards are compared with their markers. Without `all_sound`, filter lists are
    not matched: they may name rows of the tables that cannot be read.
    """
    sizes = folder.sizes()
    intact: list[Overlay] = []
    for name in overlays if markers else ():
        try:
            overlay = open_overlay(folder, name, shards=markers, sizes=sizes)
        except DatasetError as error:
            findings.error("overlay", str(error), remedy=f"make the overlay {name!r} again for all shards")
            continue
        for shard in sorted(overlay.changed):
            made = f"overlay {name!r} was made from another table of this shard"
            message = f"{made}; regions that are new in it are as the shard has them"
            remedy = f"run what made the overlay {name!r} again: it does these shards alone"
            findings.warning("overlay", message, remedy=remedy, shard=shard)
        if _is_intact(folder, overlay, examined, findings):
            intact.append(overlay)
    loaded: list[FilterList] = []
    for path in filters:
        try:
            loaded.append(load_filter(path))
        except DatasetError as error:
            findings.error("filter", str(error), remedy=_NEW_FILTER)
    if loaded and not all_sound:
        message = "filter lists were not matched with the data set, since a table of it cannot be read"
        findings.note("filter", message, remedy="bring the shards back, then run this again")
        loaded = []
    try:
        return Dataset(folder, markers=markers, overlays=intact, filters=loaded)
    except DatasetError as error:
        findings.error("filter", str(error), remedy=_NEW_FILTER)
    return Dataset(folder, markers=markers, overlays=intact)


def _is_intact(folder: Folder, overlay: Overlay, shards: Sequence[ShardName], findings: Findings) -> bool:
    before = findings.num(Level.ERROR)
    for shard in (shard for shard in shards if shard in overlay.markers):
        name = f"{shard}.{overlay.name}.parquet"
        (content,) = folder.read([name])
        if content is None or sha256(content) != overlay.markers[shard].parquet.sha256:
            message = f"{name} is not the file that its marker describes"
            remedy = f"fetch or make the overlay {overlay.name!r} again"
            findings.error("file-hash", message, remedy=remedy, shard=shard)
    return findings.num(Level.ERROR) == before
