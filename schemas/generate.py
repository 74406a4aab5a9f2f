"""Writes the committed schema files from the classes: `python -m schemas.generate`.

image_record.schema.json       JSON Schema of a sample's `.json` member
shard_marker.schema.json       JSON Schema of a shard's marker
overlay_marker.schema.json     JSON Schema of an overlay's marker
regions.arrow-schema.json      columns of a shard's table and of a filter list
"""

import ast
import inspect
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from schemas.records import ImageRecord, OverlayMarker, ShardMarker
from schemas.tables import FILTER_SCHEMA, REGION_SCHEMA, FilterRow, RegionRow

FOLDER = Path(__file__).parent
"""Where the generated files are committed."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def generated_files() -> dict[str, str]:
    """Return the contents of the generated files by name."""
    contents = {
        "image_record.schema.json": _json_schema(ImageRecord),
        "shard_marker.schema.json": _json_schema(ShardMarker),
        "overlay_marker.schema.json": _json_schema(OverlayMarker),
        "regions.arrow-schema.json": {
            "regions": _columns(RegionRow, REGION_SCHEMA),
            "filter_list": _columns(FilterRow, FILTER_SCHEMA),
        },
    }
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in contents.items()}


def _json_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema of a record, described by its docstrings."""
    (schema,), definitions = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    for struct in _structs(kind):
        definition = definitions[struct.__name__]
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])  # as Python 3.13 keeps docstrings
        for name, text in _field_docs(struct).items():
            definition["properties"][name]["description"] = text
    return {"$schema": _DIALECT, **schema, "$defs": dict(sorted(definitions.items()))}


def _structs(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """Return the record's class and those of its fields, at any depth."""
    found = [kind]
    for struct in found:
        for field in msgspec.structs.fields(struct):
            candidates = [field.type, *getattr(field.type, "__args__", ())]
            found += [c for c in candidates if inspect.isclass(c) and issubclass(c, msgspec.Struct) and c not in found]
    return found


def _field_docs(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstrings that stand below a class's fields."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for statement, below in pairwise(definition.body):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[field] = " ".join(text.split())
    return docs


def _columns(row: type[msgspec.Struct], schema: pa.Schema) -> list[dict[str, Any]]:
    docs = _field_docs(row)
    return [
        {"name": field.name, "type": str(field.type), "nullable": field.nullable}
        | ({"description": docs[field.name]} if field.name in docs else {})
        for field in schema
    ]


def main() -> None:
    """Write the generated files."""
    for name, content in generated_files().items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
