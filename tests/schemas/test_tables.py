from typing import get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.reasons import Status
from schemas.tables import (
    FILTER_SCHEMA,
    REGION_SCHEMA,
    FilterRow,
    RegionRow,
    lacking_columns,
    name_rows,
    row_ids,
    schema_problem,
)
from tests.shards import to_parquet, to_table


def test_a_row_of_every_field_survives_parquet():
    values = {"string": "x", "float": 0.0625, "int32": -7, "uint64": 2**63 + 1, "bool": True}
    values["list<item: string>"] = ["x", "y"]
    row = RegionRow(**{field.name: values[str(field.type)] for field in REGION_SCHEMA})
    empty = RegionRow(key="k", status=Status.OK, shard="train-000000")
    table = pq.read_table(pa.BufferReader(to_parquet(to_table([row, empty]))))
    assert table.schema.equals(REGION_SCHEMA)
    assert [RegionRow(**fields) for fields in table.to_pylist()] == [row, empty]


@pytest.mark.parametrize(("row", "schema"), [(RegionRow, REGION_SCHEMA), (FilterRow, FILTER_SCHEMA)])
def test_the_schema_says_what_the_class_says(row, schema):
    assert tuple(schema.names) == row.__struct_fields__
    hints = get_type_hints(row)
    assert {field.name: field.nullable for field in schema} == {
        name: type(None) in getattr(hint, "__args__", ()) for name, hint in hints.items()
    }


@pytest.mark.parametrize("name", ["key", "status", "count", "shard"])
def test_what_every_row_has_is_not_nullable(name):
    assert not REGION_SCHEMA.field(name).nullable


def test_row_ids_tell_regions_of_different_images_apart():
    table = pa.table({"key": ["a", "a", "ab"], "region_id": ["b1", None, "1"]})
    assert row_ids(table).to_pylist() == ["a\nb1", None, "ab\n1"]


def test_messages_name_the_first_few_rows():
    ids = pa.array([f"k\n{i}" for i in range(5)])
    assert name_rows(ids) == "k/0, k/1, k/2 and 2 more"
    assert name_rows(ids[:1]) == "k/0"


def test_nullable_columns_may_be_added_or_lacking_and_nothing_else():
    fields = list(REGION_SCHEMA)
    assert schema_problem(pa.schema([*reversed(fields), pa.field("mood", pa.string())])) is None
    assert schema_problem(pa.schema([field for field in fields if field.name != "mask_rle"])) is None
    assert lacking_columns(pa.schema([field for field in fields if field.name != "mask_rle"])) == ["mask_rle"]
    assert schema_problem(pa.schema([field for field in fields if field.name != "key"])) == "lacking key"
    other = pa.schema([pa.field("x1", pa.float64()) if field.name == "x1" else field for field in fields])
    assert schema_problem(other) == "x1 is double, not float"
    assert schema_problem(pa.schema([*fields, fields[0]])) == "more than one column key"
