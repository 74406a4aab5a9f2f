"""Captions and labels corrected by a person: saved at once as the sparse overlay `edits` of a local data set.

A shard's edits are written whole at each change, as commits numbered on and on; a commit that was cut off is finished
when the data set is opened again, or edited by another viewer.
"""

import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.caption.normalise import normalised
from pipeline.overlay.plan import EDITS, BaseShard, claim
from pipeline.overlay.write import commit_overlay, file_names
from pipeline.store.commit import Decision, roll_forward
from pipeline.store.storage import LocalStorage
from pipeline.viewer.marks import locked
from schemas.folder import DatasetError
from schemas.hashes import fingerprint, text_hash, text_sha256
from schemas.names import COMMIT_DIR, ShardName
from schemas.overlays import CAPTION_COLUMNS, JOIN_COLUMNS
from schemas.records import ShardMarker
from schemas.tables import REGION_SCHEMA
from schemas.text import says_something

_MAX_TEXT = 2000
_CONFIGURATION = {"by": "fineclip view"}
COLUMNS = (*JOIN_COLUMNS, "label", *CAPTION_COLUMNS)
"""Of the overlay's tables, and of a row that `Edits.put` wants."""
_SCHEMA = pa.schema([REGION_SCHEMA.field(name) for name in COLUMNS])

RegionId = tuple[str, str]
"""Key and region id."""


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """A region's caption and label as a person left them."""

    key: str
    region_id: str
    caption: str
    label: str | None


class Edits:
    """The edits of one data set. Its methods may be called from many threads."""

    def __init__(self, storage: LocalStorage, markers: Mapping[ShardName, ShardMarker]) -> None:
        """Read what is there. Raises DatasetError for a damaged table, PlanError for an overlay of another's making."""
        self._storage, self._folder = storage, Path(storage.url)
        self._bases = {str(shard): BaseShard.of(shard, marker) for shard, marker in markers.items()}
        self._lock = threading.Lock()
        self._rows: dict[str, dict[RegionId, dict[str, Any]]] = {}
        there = set(storage.names("")) | {f"{name.split('.')[0]}.{EDITS}.json" for name in self._decisions()}
        for shard, base in self._bases.items():
            if file_names(base, EDITS)[1] in there:
                with locked(self._folder):
                    self._rows[shard] = self._read(base)

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def of(self, ids: Iterable[tuple[str, str]]) -> list[Edit]:
        """Return the edits in the images `ids` (shard and key)."""
        found = []
        for shard, key in sorted(set(ids)):
            rows = self._rows.get(shard, {}).values()
            found += [_edit(row) for row in rows if row["key"] == key]
        return found

    def put(
        self, shard: str, seen: Mapping[str, Any], *, caption: str | None = None, label: str | None = None
    ) -> Edit | None:
        """Save a region's caption and label; a caption of None, or both as `seen`, takes its edit back.

        `seen` is the region's row of `COLUMNS` without edits. Raises DatasetError for a caption that says nothing or
        is too long, and OSError when it cannot be written.
        """
        base, region = self._bases[shard], (seen["key"], seen["region_id"])
        row = None if caption is None else _row(seen, caption, label)
        with self._lock, locked(self._folder):
            claim(self._storage, EDITS, tool=EDITS, configuration=_CONFIGURATION, sparse=True)
            rows = self._read(base)
            rows.pop(region, None)
            if row is not None and row != dict(seen):
                rows[region] = row
            self._write(base, rows)
            self._rows[shard] = rows
        return _edit(rows[region]) if region in rows else None

    def follow(self, shard: ShardName, regions: Collection[RegionId]) -> None:
        """Save what there is of a shard's edits for these regions, as edits of its table as it is now."""
        base = self._bases[str(shard)]
        with self._lock, locked(self._folder):
            rows = {region: row for region, row in self._read(base).items() if region in regions}
            self._write(base, rows)
            self._rows[str(shard)] = rows

    def _read(self, base: BaseShard) -> dict[RegionId, dict[str, Any]]:
        """Return a shard's edits, after a commit that was cut off is finished."""
        table_name, marker_name = file_names(base, EDITS)
        last = max((name for name in self._decisions() if name.startswith(f"{base.shard}.")), default=None)
        if last is not None:
            name = f"{EDITS}/{last}"
            decision = msgspec.json.decode(self._storage.read(f"{COMMIT_DIR}/{name}.json"), type=Decision)
            if self._content(marker_name) != (decision.marker or "").encode():
                self._storage.remove(marker_name)  # of the state before: with it there, nothing would be published
                roll_forward(self._storage, name)
        if self._content(marker_name) is None:
            return {}
        try:
            content = self._storage.read(table_name)
            rows = pq.read_table(pa.BufferReader(content), columns=list(COLUMNS)).to_pylist()
        except (FileNotFoundError, pa.ArrowException) as error:
            raise DatasetError(f"{self._storage.url}/{table_name}: cannot be read ({error}); restore it") from error
        return {(row["key"], row["region_id"]): row for row in rows}

    def _content(self, name: str) -> bytes | None:
        try:
            return self._storage.read(name)
        except FileNotFoundError:
            return None

    def _decisions(self) -> list[str]:
        """Return the names of commits, such as `train-000000.000003`; a shard's last one is how it is."""
        return [name.removesuffix(".json") for name in self._storage.names(f"{COMMIT_DIR}/{EDITS}")]

    def _write(self, base: BaseShard, rows: Mapping[RegionId, dict[str, Any]]) -> None:
        before = [name for name in self._decisions() if name.startswith(f"{base.shard}.")]
        number = 1 + max((int(name.rpartition(".")[2]) for name in before), default=0)
        ordered = [rows[region] for region in sorted(rows)]
        commit_overlay(
            self._storage,
            base,
            EDITS,
            pa.Table.from_pylist(ordered, schema=_SCHEMA),
            fingerprint=fingerprint(_CONFIGURATION),
            provenance={EDITS: _CONFIGURATION},
            partial=True,
            decision=f"{EDITS}/{base.shard}.{number:06d}",
        )
        self._storage.remove(*(f"{COMMIT_DIR}/{EDITS}/{name}.json" for name in before))


def _row(seen: Mapping[str, Any], caption: str, label: str | None) -> dict[str, Any]:
    """Return a region's row with another caption, whose `captioner` is `edits`, and label. Raises DatasetError."""
    caption, label = normalised(caption), " ".join((label or "").split()) or None
    if not says_something(caption):
        raise DatasetError("the caption says nothing; mark the region as bad to leave it out")
    for what, text in (("caption", caption), ("label", label or "")):
        if len(text) > _MAX_TEXT:
            raise DatasetError(f"the {what} has {len(text)} characters; {_MAX_TEXT} are allowed")
    row = {**seen, "label": label}
    if caption != seen["caption"]:
        row |= {"captioner": EDITS, "caption": caption, "caption_score": None}
        row |= {"text_hash": text_hash(caption), "text_sha256": text_sha256(caption)}
    return row


def _edit(row: Mapping[str, Any]) -> Edit:
    return Edit(key=row["key"], region_id=row["region_id"], caption=row["caption"], label=row["label"])
