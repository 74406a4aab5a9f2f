"""Overlays and filter lists, stores other than a local disk, and what is refused."""

import json

import fsspec
import msgspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fineclip import main
from pipeline.doctor.command import doctor_main
from tests.pipeline.doctor import plant
from tests.pipeline.doctor.test_faults import S0, S1, examine, found_of
from tests.shards import caption_overlay, write_file, write_index, write_overlay


@pytest.fixture
def folder(tmp_path):
    markers = plant.write_sound(tmp_path / "data")
    for marker, samples in zip(markers, plant.SHARDS, strict=True):
        write_overlay(str(tmp_path / "data"), marker, "better", caption_overlay(samples, "a better"))
    return tmp_path / "data"


def test_an_overlay_that_fits_is_healthy(folder):
    assert examine(folder, "--overlay", "better")[0] == 0


def test_a_shard_whose_table_is_another_than_the_overlay_s_is_named(folder):
    plant.change_table(folder, lambda table: plant.change_cell(table, "message", "b", 3, "other"))
    code, told = examine(folder, "--overlay", "better")
    assert (code, found_of(told, "error")) == (0, set())
    assert found_of(told, "warning") == {("overlay", "train-000000", None)}
    assert "made from another table of this shard" in told["findings"][0]["message"]
    assert examine(folder)[1]["findings"] != told["findings"]


def test_an_overlay_that_lacks_a_region_is_an_error_of_its_shard(folder):
    marker = plant.write_sound(folder)[0]
    write_overlay(str(folder), marker, "better", caption_overlay(plant.SHARDS[0], "x").slice(1))
    assert found_of(examine(folder, "--overlay", "better")[1], "error") == {("overlay", S0, None)}


def test_an_overlay_whose_file_is_another_is_an_error(folder):
    name = f"{S1}.better.parquet"
    plant.flip_byte(folder / name, 30)
    assert ("file-hash", S1, None) in found_of(examine(folder, "--overlay", "better")[1], "error")


def test_an_empty_caption_of_an_overlay_is_an_error_only_with_it(folder):
    marker = plant.write_sound(folder)[0]
    table = caption_overlay(plant.SHARDS[0], "x")
    texts = ["", *table["caption"].to_pylist()[1:]]
    table = table.set_column(table.column_names.index("caption"), table.schema.field("caption"), pa.array(texts))
    write_overlay(str(folder), marker, "better", table)
    assert found_of(examine(folder, "--overlay", "better")[1], "error") == {("empty-caption", S0, "c")}
    assert examine(folder)[0] == 0


def test_an_overlay_that_is_not_there_is_an_error(folder):
    assert found_of(examine(folder, "--overlay", "worse")[1], "error") == {("overlay", None, None)}


def filter_of(folder, *rows):
    path = folder.parent / "keep.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows))
    return str(path)


def test_a_filter_list_takes_bad_captions_away(folder):
    plant.write_first(folder, plant.with_region("b", 1, caption=" "))
    bad = plant.SHARDS[0][1].record.regions[1].id
    dropped = filter_of(folder, {"key": "b", "region_id": bad, "keep": False})
    assert examine(folder)[0] == 1
    assert examine(folder, "--filter", dropped)[0] == 0


def test_a_filter_list_of_other_data_is_an_error(folder):
    foreign = filter_of(folder, {"key": "unknown", "region_id": None, "keep": False})
    code, told = examine(folder, "--filter", foreign)
    assert (code, found_of(told, "error")) == (1, {("filter", None, None)})
    assert "no such image in the data set: unknown" in told["findings"][0]["message"]


def test_a_filter_list_is_not_matched_with_tables_that_cannot_be_read(folder):
    (folder / f"{S1}.parquet").unlink()
    listed = filter_of(folder, {"key": "e", "region_id": None, "keep": False})
    _, told = examine(folder, "--filter", listed)
    assert found_of(told, "error") == {("missing-file", S1, None)}
    assert ("filter", None, None) in found_of(told, "note")


class UnlistedFileSystem(MemoryFileSystem):
    """A store without listing, as web servers are."""

    protocol = "unlisteddoctor"

    def ls(self, path, detail=True, **kwargs):
        raise NotImplementedError(path)


fsspec.register_implementation("unlisteddoctor", UnlistedFileSystem, clobber=True)


@pytest.fixture(params=["memory", "unlisteddoctor"])
def url(request):
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield f"{request.param}://bucket/data"
    MemoryFileSystem.store.clear()


def test_remote_data_sets_are_examined_in_place(url, tmp_path):
    plant.write_sound(url)
    write_index(url, [S0, S1])
    assert doctor_main([url]) == 0
    with fsspec.open(f"{url}/{S0}.tar") as file:
        content = bytearray(file.read())
    content[700] ^= 1
    write_file(url, f"{S0}.tar", bytes(content))
    assert doctor_main([url, "--json", str(tmp_path / "told.json")]) == 1
    told = json.loads((tmp_path / "told.json").read_bytes())
    assert {("file-hash", S0, None), ("image-hash", S0, "a")} <= found_of(told, "error")


def test_no_data_set_is_a_usage_error(tmp_path, capsys):
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2
    assert main(["doctor", str(tmp_path)]) == 2
    assert "no shard here (no train-NNNNNN.json)" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--sample=0", "--world-size=0", "--batch-size=x", "--max-repeated=2"])
def test_numbers_out_of_range_are_usage_errors(tmp_path, option, capsys):
    with pytest.raises(SystemExit) as exited:
        doctor_main([str(tmp_path), option])
    assert exited.value.code == 2
    assert option.split("=")[0] in capsys.readouterr().err


def test_a_file_that_the_store_refuses_is_an_error_of_its_shard(folder):
    (folder / f"{S0}.tar").unlink()
    (folder / f"{S0}.tar").mkdir()
    assert ("unreadable", S0, None) in found_of(examine(folder)[1], "error")


def test_nothing_is_written_into_the_data_set(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    examine(folder, "--overlay", "better")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
