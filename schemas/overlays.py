"""Overlays: columns kept beside the shards that replace or add to what the shards' tables say of their regions.

    OUTPUT/train-000000.NAME.parquet    key, region_id and the columns
    OUTPUT/train-000000.NAME.json       its marker: the overlay of the shard exists when this does

Rows are joined on (key, region_id), and nothing is made up: an overlay holds exactly the shard's ok regions, in any
order, unless its marker says `partial`. Then regions it lacks keep the shard's values, and null in added columns. Rows
of images and of regions that are not ok always do. An overlay may set `status` and `reason`, to take regions away.

The marker has the hash of the table that the overlay was made from. Where the shard has another one now, the overlay is
`partial` there, whatever its marker says: regions that are still ok under their id, which is a hash of key, box and
proposer, keep its values, and rows of others are passed over. Who opens it is told which shards these are.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.folder import DatasetError, Folder
from schemas.names import OVERLAYS_DIR, ShardName, overlay_of_file
from schemas.records import OverlayMarker, RecordError, ShardMarker, decode_overlay_marker
from schemas.shards import check_file, check_version
from schemas.tables import REGION_SCHEMA, name_rows, row_ids

JOIN_COLUMNS = ("key", "region_id")

CAPTION_COLUMNS = ("captioner", "caption", "caption_score", "text_hash", "text_sha256")
"""Whoever replaces the caption replaces all of these: a text with another one's hash would mislead in silence."""

HARD_NEGATIVES = "hard_negatives"
"""A column that an overlay may add: a list of wrong captions of each region."""

SCORES = ("clip_score", "margin_in_image", "margin_in_sample")
"""Columns that an overlay may add: how well a CLIP finds that the region's caption fits it, a cosine (-1 to 1), and by
how much better than the best rival among the image's other captions, and among a sample of the data's (-2 to 2)."""

FEATURES = ("region_features", "text_features")
"""Columns that an overlay may add: normalised features of a CLIP, of the region's crop and of its caption."""

OUTCOME_COLUMNS = ("status", "reason", "stage", "message", "traceback_hash")
REPLACEABLE = frozenset((*CAPTION_COLUMNS, *OUTCOME_COLUMNS, "label", "proposal_score", "mask_rle"))
"""Columns of a shard that an overlay may hold; the others say which region it is, and where."""


class OverlayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What `_overlays/NAME/plan.json` says of an overlay as a whole."""

    schema_version: str
    overlay: str
    tool: str
    """What made it: `recaption`, `edits`."""
    fingerprint: str
    """Of the configuration."""
    configuration: dict[str, Any]
    sparse: bool = False
    """Whether shards may have no part of it: they are as they were."""


def plan_name(overlay: str) -> str:
    """Return where the plan of an overlay is."""
    return f"{OVERLAYS_DIR}/{overlay}/plan.json"


def is_overlay_name(name: str) -> bool:
    """Return whether files of an overlay can be called so: small letters, digits, _ and -."""
    found = overlay_of_file(f"train-000000.{name}.json")
    return found is not None and found[1] == name


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """An overlay of the shards of a data set."""

    name: str
    markers: dict[ShardName, OverlayMarker]
    fields: dict[str, pa.DataType]
    """Type by column, without `key` and `region_id`."""
    changed: frozenset[ShardName] = frozenset()
    """Shards whose tables are others than when the overlay was made: it holds there for what has not changed."""

    @property
    def changes(self) -> str | None:
        """Return which shards have changed since the overlay was made, in a sentence, or None."""
        if not self.changed:
            return None
        named = ", ".join(map(str, sorted(self.changed)[:3]))
        more = f" and {len(self.changed) - 3} more" if len(self.changed) > 3 else ""
        return (
            f"overlay {self.name!r} was made from other tables of {named}{more} than are there now; "
            "regions that are new there are as the shard has them"
        )

    @property
    def added(self) -> tuple[str, ...]:
        """The columns that the shards' own tables do not have."""
        return tuple(name for name in self.fields if name not in REGION_SCHEMA.names)

    def apply(
        self, folder: Folder, shard: ShardName, *, base: pa.Table, ok: npt.NDArray[np.bool_], columns: Sequence[str]
    ) -> pa.Table:
        """Return `base`, rows in its order, with `columns` (a part of the overlay's) replaced or added.

        `base` holds `key`, `region_id` and those of `columns` that the shard has; `ok` `[rows]` marks its ok regions.
        Raises DatasetError where the overlay's rows are not the shard's ok regions, and names the first.
        """
        if shard not in self.markers:
            for column in (column for column in columns if column not in base.column_names):
                base = base.append_column(column, pa.nulls(len(base), self.fields[column]))
            return base
        name = f"{shard}.{self.name}.parquet"
        overlay = folder.table(name, columns=[*JOIN_COLUMNS, *columns], check=self._check_schema)
        has_changed = shard in self.changed
        if has_changed:
            overlay = overlay.filter(pc.is_in(row_ids(overlay), value_set=row_ids(base).filter(pa.array(ok))))
        partial = has_changed or self.markers[shard].partial
        source = _match(base, overlay, ok=ok, partial=partial, where=folder.where(name))
        covered = pa.array(source >= 0)
        take = pa.array(source, mask=source < 0)
        for column in columns:
            values = overlay[column].take(take)
            if column in base.column_names:
                values = pc.if_else(covered, values, base[column])
                base = base.set_column(base.column_names.index(column), column, values)
            else:
                base = base.append_column(column, values)
        return base

    def _check_schema(self, schema: pa.Schema, where: str) -> None:
        join_fields = {name: REGION_SCHEMA.field(name).type for name in JOIN_COLUMNS}
        found = {field.name: field.type for field in schema}
        for name, wanted in (join_fields | self.fields).items():
            if found.get(name) != wanted:
                raise DatasetError(f"{where}: column {name} is {found.get(name, 'not there')}, where {wanted} belongs")


def _match(
    base: pa.Table, overlay: pa.Table, *, ok: npt.NDArray[np.bool_], partial: bool, where: str
) -> npt.NDArray[np.int64]:
    """Return `[base rows]` int64: which row of the overlay holds the region, -1 for none."""
    base_ids, overlay_ids = row_ids(base), row_ids(overlay)
    if overlay_ids.null_count:
        raise DatasetError(f"{where}: {overlay_ids.null_count} rows lack key or region_id; an overlay holds regions")
    if len(overlay_ids.unique()) != len(overlay_ids):
        counts = pc.value_counts(overlay_ids)
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        raise DatasetError(f"{where}: more than one row for {name_rows(repeated)}; make the overlay again")
    position = pc.index_in(overlay_ids, value_set=base_ids).fill_null(-1).to_numpy(zero_copy_only=False)
    # For position -1 the last flag would be looked up: hence the second test.
    unknown = ~(ok[position] & (position >= 0)) if len(ok) else np.ones(len(position), dtype=np.bool_)
    if unknown.any():
        named = name_rows(overlay_ids.filter(pa.array(unknown)))
        raise DatasetError(f"{where}: no ok regions of the shard: {named}; make the overlay again for these shards")
    source = np.full(len(base_ids), -1, dtype=np.int64)
    source[position] = np.arange(len(position))
    missing = ok & (source < 0)
    if missing.any() and not partial:
        named = name_rows(base_ids.filter(pa.array(missing)))
        raise DatasetError(f"{where}: lacks {named}, and is not marked partial; make the overlay again")
    return source


def open_overlay(
    folder: Folder, name: str, *, shards: Mapping[ShardName, ShardMarker], sizes: Mapping[str, int] | None
) -> Overlay:
    """Return the overlay `name` of `shards`; `sizes` is the folder's listing, where there is one.

    Raises DatasetError when it is not there for every shard (unless its plan says that it is sparse), or holds columns
    it must not. Shards whose table has changed since are in `Overlay.changed`.
    """
    markers = _read_markers(folder, name, shards, sizes)
    for shard, marker in markers.items():
        where = folder.where(f"{shard}.{name}.json")
        if (marker.shard, marker.overlay) != (str(shard), name):
            raise DatasetError(f"{where}: is the marker of {marker.shard}.{marker.overlay}; restore the files' names")
        if sizes is not None:
            check_file(folder, f"{shard}.{name}.parquet", expected_size=marker.parquet.size, sizes=sizes)
    first, *others = markers
    for shard in others:
        if markers[shard].columns != markers[first].columns:
            raise DatasetError(f"overlay {name!r}: other columns in {shard} than in {first}; make the overlay again")
    columns = markers[first].columns
    _check_columns(name, columns)
    schema = folder.schema(f"{first}.{name}.parquet")
    twice = [column for column in (*JOIN_COLUMNS, *columns) if schema.names.count(column) > 1]
    if twice:
        where = folder.where(f"{first}.{name}.parquet")
        raise DatasetError(f"{where}: has {schema.names.count(twice[0])} columns {twice[0]}; make the overlay again")
    # A column that is not there is found by the check below, as one of type null.
    fields = {column: schema.field(column).type if column in schema.names else pa.null() for column in columns}
    changed = (shard for shard, marker in markers.items() if marker.base_sha256 != shards[shard].parquet.sha256)
    overlay = Overlay(name=name, markers=markers, fields=_replaced_types(fields), changed=frozenset(changed))
    overlay._check_schema(schema, folder.where(f"{first}.{name}.parquet"))
    return overlay


def _replaced_types(fields: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Return `fields` with the shard's own types for columns that the shard has."""
    own = {field.name: field.type for field in REGION_SCHEMA}
    return {name: own.get(name, kind) for name, kind in fields.items()}


def _read_markers(
    folder: Folder, name: str, shards: Mapping[ShardName, ShardMarker], sizes: Mapping[str, int] | None
) -> dict[ShardName, OverlayMarker]:
    names = {shard: f"{shard}.{name}.json" for shard in shards}
    if not is_overlay_name(name):
        raise DatasetError(f"{name!r} is not a name for an overlay; use small letters, digits, _ and -")
    contents = dict(zip(shards, folder.read(list(names.values())), strict=True))
    missing = [str(shard) for shard, content in contents.items() if content is None]
    if len(missing) == len(shards) and folder.read([plan_name(name)]) == [None]:
        raise DatasetError(f"{folder.url}: there is no overlay {name!r}{_those_there(name, sizes)}")
    if len(missing) == len(shards) or (missing and not _is_sparse(folder, name)):
        covered = f"overlay {name!r} covers {len(shards) - len(missing)} of {len(shards)} shards"
        raise DatasetError(f"{folder.url}: {covered}; make it for {', '.join(missing[:3])} (of {len(missing)}) too")
    decoded = {shard: content for shard, content in contents.items() if content is not None}
    return {shard: _decode(content, folder.where(names[shard])) for shard, content in decoded.items()}


def _those_there(name: str, sizes: Mapping[str, int] | None) -> str:
    """Return how a sentence goes on that says that there is no overlay `name`; `sizes` is the folder's listing."""
    if sizes is None:
        return "; check the name"
    found = {overlay[1] for file in sizes if (overlay := overlay_of_file(file)) is not None}
    if not found:
        return ", and no other; check the name, or make it: `fineclip recaption` and others do"
    near = difflib.get_close_matches(name, found, n=1)
    return (f" (did you mean {near[0]}?)" if near else "") + f"; there are {', '.join(sorted(found))}"


def _is_sparse(folder: Folder, name: str) -> bool:
    (content,) = folder.read([plan_name(name)])
    try:
        return content is not None and msgspec.json.decode(content, type=OverlayPlan).sparse
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{folder.where(plan_name(name))}: is damaged ({error}); restore it from a copy") from error


def _decode(content: bytes, where: str) -> OverlayMarker:
    check_version(content, where)
    try:
        return decode_overlay_marker(content, where)
    except RecordError as error:
        raise DatasetError(f"{error}; make the overlay again") from error


def _check_columns(name: str, columns: Sequence[str]) -> None:
    fixed = [column for column in columns if column in REGION_SCHEMA.names and column not in REPLACEABLE]
    if fixed:
        raise DatasetError(f"overlay {name!r}: holds {', '.join(fixed)}, which an overlay cannot replace")
    lacking = [column for column in CAPTION_COLUMNS if column not in columns]
    if "caption" in columns and lacking:
        raise DatasetError(f"overlay {name!r}: replaces caption but not {', '.join(lacking)}, which go with it")
