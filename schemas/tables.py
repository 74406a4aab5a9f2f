"""The Parquet table beside a shard, and the filter list, as classes the Arrow schemas are generated from.

A shard's table has one row an image (`region_id` null) and one row a region. Rows of one image are adjacent, the
image's own first. So counts of both kinds balance from the table alone, and an image without regions is found by it.
"""

from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

UInt = Annotated[int | None, "uint64"]
Int = Annotated[int | None, "int32"]
Float = Annotated[float | None, "float32"]


class RegionRow(msgspec.Struct, kw_only=True):
    """A row of a shard's table. Columns that do not apply are null."""

    key: str
    region_id: str | None = None
    """Null in an image's own row."""
    x0: Float = None
    """Left edge of the box: pixels of the stored image, multiples of 1/16. Null in an image's own row."""
    y0: Float = None
    x1: Float = None
    """Right edge, exclusive."""
    y1: Float = None
    """Bottom edge, exclusive."""
    width: Int = None
    """Of the stored image, in pixels; null where the image could not be decoded."""
    height: Int = None
    status: str
    """`ok`, `filtered` or `dead` (`reasons.Status`)."""
    reason: str | None = None
    """Why the row is not ok (`reasons.Reason`)."""
    stage: str | None = None
    """The step that decided so (`reasons.Stage`)."""
    message: str | None = None
    """What a person should read about it; in a row that is ok: what was mended or left out."""
    traceback_hash: str | None = None
    """16 hex digits, equal for failures of the same origin."""
    count: Annotated[int, "int32"] = 1
    """How many items the row stands for: more than 1 only for proposals beyond --select.max-proposals."""
    label: str | None = None
    proposer: str | None = None
    proposal_score: Float = None
    captioner: str | None = None
    caption: str | None = None
    caption_score: Float = None
    text_hash: str | None = None
    text_sha256: str | None = None
    image_caption: str | None = None
    image_text_hash: str | None = None
    """`hashes.text_hash` of the image caption."""
    mask_rle: str | None = None
    """The region's mask in COCO's compressed run lengths, where the source gives one, or the proposer when asked."""
    tar_offset: UInt = None
    """Where the image's bytes begin in the shard's tar; null for images that are not in it."""
    tar_size: UInt = None
    """How many bytes the image has."""
    shard: str
    """The shard's stem, such as `train-000012`."""
    image_captions: list[str] | None = None
    """In an image's own row: all captions that the source gives, `image_caption` first; null where it gives none."""
    source_id: str | None = None
    """The region's id in the source, where the source gives the region and an id."""
    is_crowd: bool | None = None
    """Whether the box is of a group, not of one object, as COCO says of its regions; null where no one says."""


class FilterRow(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A row of a filter list (Parquet or JSON lines): what a person or a rule keeps."""

    key: str
    region_id: str | None = None
    """Null, or left out, for the image as a whole."""
    keep: bool
    note: str | None = None


def arrow_schema(row: type[msgspec.Struct]) -> pa.Schema:
    """Return the Arrow schema generated from a row class: its fields in order, nullable where None is allowed."""
    hints = get_type_hints(row, include_extras=True)
    return pa.schema([_arrow_field(name, hints[name]) for name in row.__struct_fields__])


_ARROW_TYPES = {
    "str": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
}


def _arrow_field(name: str, hint: object) -> pa.Field:
    annotated = get_origin(hint) is Annotated
    python_type, *width = get_args(hint) if annotated else (hint,)
    options = get_args(python_type) or (python_type,)
    base = next(option for option in options if option is not type(None))
    kind = pa.list_(pa.string()) if base == list[str] else _ARROW_TYPES[width[0] if width else base.__name__]
    return pa.field(name, kind, nullable=type(None) in options)


REGION_SCHEMA: pa.Schema = arrow_schema(RegionRow)
FILTER_SCHEMA: pa.Schema = arrow_schema(FilterRow)


def lacking_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of a shard's table that a file lacks, since an earlier release wrote it: they read as null."""
    return [field.name for field in REGION_SCHEMA if field.nullable and field.name not in schema.names]


def schema_problem(schema: pa.Schema) -> str | None:
    """Return what keeps a file from being a shard's table, or None.

    Nullable columns may be lacking (an earlier release) or added (a later one), and the order does not matter.
    """
    there = [name for name in schema.names if name in REGION_SCHEMA.names]
    twice = sorted({name for name in there if there.count(name) > 1})
    if twice:
        return f"more than one column {', '.join(twice)}"
    others = [schema.field(name) for name in there if schema.field(name).type != REGION_SCHEMA.field(name).type]
    lacking = [field.name for field in REGION_SCHEMA if not field.nullable and field.name not in there]
    told = [f"{field.name} is {field.type}, not {REGION_SCHEMA.field(field.name).type}" for field in others]
    return "; ".join([*told, *([f"lacking {', '.join(lacking)}"] if lacking else [])]) or None


def row_ids(table: pa.Table) -> pa.Array:
    """Return one string a row of a table with `key` and `region_id`: what names the region; null in an image's row."""
    ids = pc.binary_join_element_wise(table["key"], table["region_id"], "\n")
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


def name_rows(ids: pa.Array) -> str:
    """Return the first few of `row_ids` or keys, and how many there are, as messages name them."""
    first = ", ".join(str(row_id).replace("\n", "/") for row_id in ids[:3].to_pylist())
    return first if len(ids) <= 3 else f"{first} and {len(ids) - 3} more"
