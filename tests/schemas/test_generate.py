import json

import pytest

from schemas.generate import FOLDER, generated_files, main
from schemas.tables import REGION_SCHEMA


@pytest.mark.parametrize("name", sorted(generated_files()))
def test_committed_files_are_what_the_classes_say(name):
    committed = (FOLDER / name).read_text(encoding="utf-8")
    assert committed == generated_files()[name], "run `python -m schemas.generate` and commit what it writes"


def test_no_other_generated_file_is_left_over():
    assert {path.name for path in FOLDER.glob("*.json")} == set(generated_files())


def test_main_writes_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr("schemas.generate.FOLDER", tmp_path)
    main()
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == generated_files()


def test_the_record_is_described_down_to_its_regions():
    schema = json.loads(generated_files()["image_record.schema.json"])
    assert schema["$ref"] == "#/$defs/ImageRecord"
    assert set(schema["$defs"]) == {"ImageRecord", "ImageSource", "Region"}
    region = schema["$defs"]["Region"]
    assert "additionalProperties" not in region, "later releases may add fields"
    assert region["properties"]["box"]["minItems"] == region["properties"]["box"]["maxItems"] == 4
    assert "right and bottom exclusive" in region["properties"]["box"]["description"]


def test_tables_are_described_column_by_column():
    tables = json.loads(generated_files()["regions.arrow-schema.json"])
    assert [column["name"] for column in tables["regions"]] == REGION_SCHEMA.names
    assert {"name": "y1", "type": "float", "nullable": True, "description": "Bottom edge, exclusive."} in tables[
        "regions"
    ]
    assert tables["filter_list"][1]["description"] == "Null, or left out, for the image as a whole."
