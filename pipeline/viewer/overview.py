"""The data set as a whole: totals, shards, provenance, licences, repeated captions, and what its plots need."""

from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec

from pipeline.viewer import gallery
from pipeline.viewer.selection import Selection
from pipeline.viewer.source import OpenedData
from pipeline.viewer.table import RegionTable
from schemas.folder import ONE_SAMPLE, DatasetError
from schemas.names import ShardName
from schemas.reasons import MEANING_OF
from schemas.records import Counts, ImageRecord, decode_image_record
from schemas.tar import BLOCK, read_samples

_NUM_SHARDS = 500
_NUM_LABELS = 30
_NUM_REPEATED = 20
_NUM_LICENSES_LOOKED_AT = 24
_MOST_REGIONS = 20
"""The plot of regions an image ends here; its last bar holds the images with more."""


def overview(table: RegionTable) -> dict[str, Any]:
    """Return everything the data set page shows, as JSON values."""
    source = table.source
    ends = gallery.bounds(table)
    return {
        "title": source.title,
        "url": source.folder.url,
        "overlays": source.overlays,
        "filters": source.filters,
        "problems": source.problems,
        "totals": [_totals(source, name) for name in ("images", "regions")],
        "meanings": {reason.value: meaning for reason, meaning in MEANING_OF.items()},
        "shards": _shards(source),
        "num_shards": len(source.dataset.shards),
        "provenance": _provenance(source),
        "licenses": _licenses(table),
        "labels": table.query(
            f"SELECT label, count(*) AS number FROM {table.name} WHERE region_id IS NOT NULL AND status = 'ok' "
            f"GROUP BY label ORDER BY number DESC, label LIMIT {_NUM_LABELS}"
        ),
        "repeated": _repeated(table),
        "bounds": ends,
        "histograms": gallery.summary(table, Selection(), ends)["histograms"],
        "regions_an_image": _regions_an_image(table),
    }


def read_record(table: RegionTable, shard: str, key: str) -> ImageRecord:
    """Return an image's record from the tar, as it was written. Raises DatasetError where it cannot be read."""
    offset, _ = table.place(shard, key)
    name, folder = f"{shard}.tar", table.source.folder
    where = folder.where(name)
    with folder.stream(name, offset=offset - BLOCK, fetch_size=ONE_SAMPLE) as file:
        raw = next(read_samples(file, where=where, offset=offset - BLOCK), None)
    if raw is None or raw.key != key:
        raise DatasetError(f"{where}: key {key!r} is not at byte {offset}, where the table says; write it again")
    try:
        return decode_image_record(raw.json, where)
    except ValueError as error:
        raise DatasetError(f"{error}; write the shard again") from error


def _totals(source: OpenedData, name: str) -> dict[str, Any]:
    counts = Counts()
    for marker in source.dataset.markers.values():
        counts.add(getattr(marker, name))
    return {"name": name, **msgspec.to_builtins(counts, order="deterministic"), "balanced": counts.balanced}


def _shards(source: OpenedData) -> list[dict[str, Any]]:
    markers = list(source.dataset.markers.items())[:_NUM_SHARDS]
    return [
        {
            "shard": str(shard),
            "images": marker.images.ok,
            "regions": marker.regions.ok,
            "dead": marker.images.num_dead + marker.regions.num_dead,
            "filtered": marker.images.num_filtered + marker.regions.num_filtered,
            "balanced": marker.images.balanced and marker.regions.balanced,
            "tar_bytes": marker.tar.size,
            "parquet_bytes": marker.parquet.size,
            "sources": [" ".join(filter(None, (unit.input, unit.uri))) for unit in marker.sources],
        }
        for shard, marker in markers
    ]


def _provenance(source: OpenedData) -> list[dict[str, Any]]:
    """Return the different provenances, each with the number of shards made with it."""
    found: dict[bytes, dict[str, Any]] = {}
    for marker in source.dataset.markers.values():
        name = msgspec.json.encode([marker.fingerprint, marker.provenance], order="deterministic")
        entry = {"num_shards": 0, "fingerprint": marker.fingerprint, "provenance": marker.provenance}
        found.setdefault(name, entry)["num_shards"] += 1
    return [found[name] for name in sorted(found)]


def _licenses(table: RegionTable) -> dict[str, Any]:
    """Return the licences that a few images' records state: only the tars hold them."""
    shards: tuple[ShardName, ...] = table.source.dataset.shards
    step = max(1, len(shards) // _NUM_LICENSES_LOOKED_AT)
    chosen = [str(shard) for shard in shards[::step][:_NUM_LICENSES_LOOKED_AT]]
    images = table.query(
        f"SELECT shard, key, row_number() OVER (PARTITION BY shard ORDER BY row) AS place "
        f"FROM {table.relation(chosen)} WHERE region_id IS NULL AND tar_offset IS NOT NULL "
        "QUALIFY place <= ? ORDER BY shard, place LIMIT ?",
        [-(-_NUM_LICENSES_LOOKED_AT // max(1, len(chosen))), _NUM_LICENSES_LOOKED_AT],
    )
    found: Counter[str] = Counter()
    for shard, key, _ in images:
        with suppress(DatasetError, OSError):  # the gallery shows what is wrong with it
            found[read_record(table, shard, key).source.license or "not stated"] += 1
    licenses = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return {"looked_at": found.total(), "licenses": licenses}


def _repeated(table: RegionTable) -> dict[str, Any]:
    """Return how many captions occur more than once (after normalisation), and the most frequent ones."""
    found = table.query(
        f"SELECT text_hash, min(caption), count(*) AS number, sum(count(*)) OVER ()::BIGINT, count(*) OVER () "
        f"FROM {table.name} WHERE status = 'ok' AND text_hash IS NOT NULL "
        f"GROUP BY text_hash HAVING number > 1 ORDER BY number DESC, text_hash LIMIT {_NUM_REPEATED}"
    )
    captions = [{"text_hash": name, "caption": caption, "number": number} for name, caption, number, _, _ in found]
    return {
        "captions": captions,
        "num_regions": found[0][3] if found else 0,
        "num_captions": found[0][4] if found else 0,
    }


def _regions_an_image(table: RegionTable) -> list[int]:
    """Return the number of ok images with 0, 1, ... ok regions."""
    found = table.query(
        "SELECT least(num, ?) AS bin, count(*) FROM (SELECT count(region_id) AS num, "
        f"count_if(region_id IS NULL) AS images FROM {table.name} WHERE status = 'ok' GROUP BY shard, key) "
        "WHERE images > 0 GROUP BY bin",
        [_MOST_REGIONS],
    )
    bins = [0] * (_MOST_REGIONS + 1)
    for position, number in found:
        bins[position] = number
    return bins
