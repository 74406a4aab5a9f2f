"""Which columns of a table of rows hold pictures, captions, keys and regions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline.read.base import SourceError
from pipeline.read.captions import CAPTION_NAMES, caption_columns
from pipeline.read.objects import BOXES, COLUMN, LABELS, holds_boxes
from pipeline.read.parquet_files import find_name, is_bytes, is_list, is_numbers, is_text
from pipeline.read.phrases import EXPRESSIONS, LONE_LABELS, OF_PICTURE, SPANS
from pipeline.read.picture_cells import may_hold_pictures

CANDIDATES = {
    "image": ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "images", "picture", "photo"),
    "key": ("key", "id", "image_id", "__key__"),
    "url": ("url", "image_url"),
    "license": ("license",),
    "objects": (COLUMN, *BOXES),
    "status": ("status",),
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that hold what a sample is made of; None where the file has no such column."""

    image: str
    captions: tuple[str, ...]
    key: str | None
    url: str | None
    license: str | None
    objects: str | None
    """Regions, as `pipeline.read.objects` reads them, or boxes alone."""
    labels: str | None = None
    """The categories of boxes alone."""
    expressions: str | None = None
    """What a box alone is of, as `pipeline.read.phrases` reads it."""
    spans: tuple[str, ...] = ()
    """Spans of the caption with boxes in shares, as `pipeline.read.phrases` reads them."""
    status: str | None
    """What the program that made the file says of each row: img2dataset writes "success", or why it has no image."""

    @property
    def names(self) -> list[str]:
        """The columns to read, each once."""
        found = (self.image, *self.captions, self.key, self.url, self.license, self.objects, self.status)
        found = (*found, self.labels, self.expressions, *self.spans)
        return list(dict.fromkeys(name for name in found if name is not None))


def find_columns(
    schema: pa.Schema, options: Mapping[str, str], where: str, *, told: Mapping[str, Collection[str]]
) -> Columns:
    """Return the columns of a file: those `options` name, else those with a usual name and a usable type.

    `told` are columns of text by role, whose values are pictures or paths, or list objects as JSON. Raises SourceError,
    naming the columns there are, for an option's column that is not there or cannot be used, where no column holds
    images, and where a column that is needed is there twice.
    """
    image, key, url, license_, objects, status = (
        _column(schema, role, options, where, told.get(role, ())) for role in CANDIDATES
    )
    if image is None:
        raise SourceError(
            f"{where}: no column of image bytes among {_described(schema)}; name one as in ?image=COLUMN "
            "(a table of addresses must be downloaded first, with img2dataset for instance)"
        )
    usable = [field.name for field in schema if _is_caption(field.type) and field.name != image]
    if "caption" in options:
        if options["caption"] not in usable:
            raise _unusable(schema, "caption", options, where)
        usable = [options["caption"]]
    labels, expressions = _beside_boxes(schema, objects)
    captions = tuple(usable)
    if "caption" not in options:
        captions = caption_columns(name for name in usable if name != expressions)
    spans = tuple(name for name in SPANS if name in schema.names)
    columns = Columns(
        image=image,
        captions=captions,
        key=key,
        url=url,
        license=license_,
        objects=objects,
        status=status,
        labels=labels,
        expressions=expressions,
        spans=() if objects else spans,
    )
    twice = [name for name in columns.names if schema.names.count(name) > 1]
    if twice:
        raise SourceError(f"{where}: has {schema.names.count(twice[0])} columns {twice[0]!r}; write it with one")
    return columns


def _beside_boxes(schema: pa.Schema, objects: str | None) -> tuple[str | None, str | None]:
    """Return the columns of categories and of expressions, where the column `objects` holds boxes alone.

    Beside a list of boxes, what has a caption's name is of the picture, and lists go before text, which may be JSON.
    """
    kind = next((field.type for field in schema if field.name == objects), None)
    if kind is None or not (is_numbers(kind) or (is_text(kind) and str(objects).lower() in BOXES)):
        return None, None
    labels = [field for field in schema if _is_label(field.type)]
    said = [field for field in schema if _is_caption(field.type)]
    if is_numbers(kind) and not is_list(kind.value_type):
        labels_named, said_named = ([field.name for field in fields] for fields in (labels, said))
        return find_name(labels_named, LONE_LABELS), find_name(said_named, EXPRESSIONS)
    of_boxes = tuple(name for name in EXPRESSIONS if name not in CAPTION_NAMES)
    return _find_list(labels, LABELS), _find_list(said, of_boxes)


def _find_list(fields: Collection[pa.Field], candidates: tuple[str, ...]) -> str | None:
    """Return the first of the names that a list has, or else one that text has, which is of each box."""
    lists = [field.name for field in fields if is_list(field.type)]
    texts = tuple(name for name in candidates if name not in OF_PICTURE)
    return find_name(lists, candidates) or find_name([field.name for field in fields], texts)


def _is_label(kind: pa.DataType) -> bool:
    """Return whether a type is text or a number of a class, or lists of such."""
    kind = kind.value_type if is_list(kind) else kind
    return is_text(kind) or bool(pa.types.is_integer(kind))


def _column(schema: pa.Schema, role: str, options: Mapping[str, str], where: str, told: Collection[str]) -> str | None:
    usable = [field.name for field in schema if _is_usable(role, field.type)]
    usable += told
    if role not in options:
        return find_name(usable, CANDIDATES[role])
    if options[role] not in usable:
        raise _unusable(schema, role, options, where)
    return options[role]


def _unusable(schema: pa.Schema, role: str, options: Mapping[str, str], where: str) -> SourceError:
    return SourceError(f"{where}: ?{role}={options[role]} names no usable column among {_described(schema)}")


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _is_usable(role: str, kind: pa.DataType) -> bool:
    if role == "image":
        return may_hold_pictures(kind)
    if role == "objects":
        inner = kind.value_type if is_list(kind) else kind
        return is_numbers(kind) or (
            pa.types.is_struct(inner) and holds_boxes([inner.field(place).name for place in range(inner.num_fields)])
        )
    return is_text(kind) or (role == "key" and bool(pa.types.is_integer(kind)))


def _is_caption(kind: pa.DataType) -> bool:
    """Return whether a type is text, bytes, or a list or struct with such in it."""
    if is_list(kind):
        return _is_caption(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_is_caption(kind.field(place).type) for place in range(kind.num_fields))
    return is_text(kind) or is_bytes(kind)
