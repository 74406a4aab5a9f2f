"""Each fault that is planted into a sound data set is found and named, and nothing else is."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.doctor.command import doctor_main
from schemas.names import DATASET_JSON
from schemas.records import Counts
from schemas.tables import REGION_SCHEMA
from schemas.tar import BLOCK
from tests.pipeline.doctor import plant
from tests.shards import tiny_sample, write_index, write_shard

S0, S1 = "train-000000", "train-000001"
AGAIN = "run the same `fineclip annotate` again"

Found = tuple[str, str | None, str | None]
"""Check, shard and key."""


def flip_a_byte_of_an_image(folder: Path) -> None:
    plant.flip_byte(folder / f"{S0}.tar", plant.offset_of(folder, "b.jpg") + 300)


def flip_a_byte_of_a_header(folder: Path) -> None:
    plant.flip_byte(folder / f"{S0}.tar", plant.offset_of(folder, "b.json") - BLOCK + 124)


def cut_the_tar(folder: Path) -> None:
    path = folder / f"{S0}.tar"
    path.write_bytes(path.read_bytes()[: plant.offset_of(folder, "b.jpg") + 100])


def cut_the_end_of_the_tar(folder: Path) -> None:
    path = folder / f"{S0}.tar"
    path.write_bytes(path.read_bytes()[:-BLOCK])


def compress_the_table_otherwise(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / f"{S0}.parquet"), folder / f"{S0}.parquet", compression="gzip")


def spoil_the_table(folder: Path) -> None:
    path = folder / f"{S0}.parquet"
    path.write_bytes(path.read_bytes()[:-4] + b"????")


def retype_a_column(folder: Path) -> None:
    place = REGION_SCHEMA.names.index("x0")
    plant.change_table(folder, lambda table: table.set_column(place, "x0", table["x0"].cast(pa.float64())))


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def order_members(*order: int) -> Callable[[Path], None]:
    def change(members: plant.Members) -> plant.Members:
        return [members[place] for place in order] + members[len(order) :]

    return lambda folder: plant.change_tar(folder, change)


def add_a_member(folder: Path) -> None:
    plant.change_tar(folder, lambda members: [*members, ("c.npy", b"numbers")])


def take_a_sample_out(folder: Path) -> None:
    plant.change_tar(folder, lambda members: [pair for pair in members if not pair[0].startswith("c.")])


def take_a_record_out(folder: Path) -> None:
    plant.change_tar(folder, lambda members: [pair for pair in members if pair[0] != "c.json"])


def change_another_text(folder: Path) -> None:
    plant.change_tar(folder, lambda members: [(n, b"else" if n == "a.txt" else data) for n, data in members])


def box_outside(folder: Path) -> None:
    plant.write_first(folder, plant.with_region("b", 1, box=(40.0, 2.0, 60.5, 20.0)))


def box_off_the_grid(folder: Path) -> None:
    plant.write_first(folder, plant.with_region("b", 1, box=(1.03, 2.0, 11.5, 20.0)))


def cell(column: str, key: str, position: int, value: object) -> Callable[[Path], None]:
    return lambda folder: plant.change_table(
        folder, lambda table: plant.change_cell(table, column, key, position, value)
    )


def part_rows(folder: Path) -> None:
    plant.change_table(folder, lambda table: pa.concat_tables([table.slice(1, 1), table.slice(0, 1), table.slice(2)]))


def drop_a_region_row(folder: Path) -> None:
    plant.change_table(folder, lambda table: pa.concat_tables([table.slice(0, 1), table.slice(2)]))
    plant.change_marker(folder, regions=Counts(inputs=8, ok=5, filtered={"small": 3}))


def image_that_is_none(folder: Path) -> None:
    plant.write_first(folder, plant.with_image("b", b"\xff\xd8 not a JPEG"))


def image_of_other_size(folder: Path) -> None:
    first, second, third = plant.SHARDS[0]
    wider = dataclasses.replace(second, record=msgspec.structs.replace(second.record, width=49))
    plant.write_first(folder, [first, wider, third])


def image_under_a_wrong_suffix(folder: Path) -> None:
    plant.change_tar(folder, lambda members: [(n.replace("b.jpg", "b.png"), data) for n, data in members])


def leave_parts_of_a_job(folder: Path) -> None:
    (folder / "_attempts").mkdir()
    (folder / "_attempts" / "train-000000.tar.0123456789abcdef").write_bytes(b"half")


def leave_a_decision(folder: Path) -> None:
    (folder / "_commit").mkdir()
    (folder / "_commit" / "train-000002.json").write_bytes(b"{}")


def leave_a_tar(folder: Path) -> None:
    (folder / "train-000003.tar").write_bytes(b"")


def forget_a_shard(folder: Path) -> None:
    write_index(str(folder), [S0])


def empty_image_caption(folder: Path) -> None:
    plant.write_first(folder, [tiny_sample("a", image_caption=" "), *plant.SHARDS[0][1:]])


def same_key_twice(folder: Path) -> None:
    write_shard(str(folder), [*plant.SHARDS[1], tiny_sample("b")], index=1, dead=["z"])


def caption_of(text: str) -> Callable[[Path], None]:
    return lambda folder: plant.write_first(folder, plant.with_region("b", 1, caption=text))


def missing_caption(folder: Path) -> None:
    cell("caption", "b", 1, None)(folder)


def other_caption_in_the_table(folder: Path) -> None:
    plant.change_table(folder, lambda table: plant.change_caption(table, "b", 1, "a horse"))


def unbalanced(folder: Path) -> None:
    plant.change_marker(folder, regions=Counts(inputs=10, ok=6, filtered={"small": 3}))


def other_counts(folder: Path) -> None:
    plant.change_marker(folder, regions=Counts(inputs=9, ok=5, filtered={"small": 4}))


def other_version(folder: Path) -> None:
    plant.replace_in(folder / f"{S0}.json", b'"schema_version":"1"', b'"schema_version":"2"')


def other_version_of_a_record(folder: Path) -> None:
    old, new = b'{"schema_version":"1","key":"b"', b'{"schema_version":"2","key":"b"'
    plant.change_tar(folder, lambda members: [(name, data.replace(old, new)) for name, data in members])


def name_a_shard_that_is_not_there(folder: Path) -> None:
    write_index(str(folder), [S0, S1, "train-000007"])


def totals_of_others(folder: Path) -> None:
    counts = {"inputs": 9, "ok": 9, "filtered": {}, "dead": {}}
    index = {"schema_version": "1", "shards": [S0, S1], "images": counts}
    (folder / DATASET_JSON).write_bytes(msgspec.json.encode(index))


def rename_shard(folder: Path) -> None:
    for suffix in ("tar", "parquet", "json"):
        (folder / f"{S0}.{suffix}").rename(folder / f"train-000005.{suffix}")


ERRORS: list[tuple[str, Callable[[Path], None], set[Found]]] = [
    ("flip a byte of an image", flip_a_byte_of_an_image, {("file-hash", S0, None), ("image-hash", S0, "b")}),
    ("flip a byte of a header", flip_a_byte_of_a_header, {("file-hash", S0, None), ("tar-cut", S0, "b")}),
    ("cut the tar", cut_the_tar, {("file-size", S0, None), ("tar-cut", S0, "b")}),
    ("cut the end of the tar", cut_the_end_of_the_tar, {("file-size", S0, None), ("tar-end", S0, None)}),
    ("compress the table otherwise", compress_the_table_otherwise, {("file-size", S0, None)}),
    ("spoil the table", spoil_the_table, {("file-hash", S0, None), ("table", S0, None)}),
    ("retype a column", retype_a_column, {("table-schema", S0, None)}),
    ("remove tar", remove(f"{S0}.tar"), {("missing-file", S0, None)}),
    ("remove parquet", remove(f"{S0}.parquet"), {("missing-file", S0, None)}),
    ("order members 0, 3, 1, 2, 4", order_members(0, 3, 1, 2, 4), {("tar-layout", S0, "a"), ("tar-layout", S0, "b")}),
    ("order members 0, 2, 1", order_members(0, 2, 1), {("tar-layout", S0, "a")}),
    ("add a member", add_a_member, {("tar-layout", S0, "c")}),
    ("take a sample out", take_a_sample_out, {("table-differs", S0, "c"), ("counts", S0, None)}),
    ("take a record out", take_a_record_out, {("tar-layout", S0, "c")}),
    ("change another text", change_another_text, {("record", S0, "a")}),
    ("box outside", box_outside, {("record", S0, "b"), ("box", S0, "b")}),
    ("box off the grid", box_off_the_grid, {("box", S0, "b")}),
    ("cell x0, b, 1, float(nan)", cell("x0", "b", 1, float("nan")), {("box", S0, "b"), ("table-differs", S0, "b")}),
    ("cell x0, b, 1, None", cell("x0", "b", 1, None), {("box", S0, "b"), ("table-differs", S0, "b")}),
    ("cell x1, b, 1, 12.0", cell("x1", "b", 1, 12.0), {("table-differs", S0, "b")}),
    ("cell tar offset, b, 0, 1024", cell("tar_offset", "b", 0, 1024), {("tar-offset", S0, "b")}),
    (
        "cell tar offset, b, 0, None",
        cell("tar_offset", "b", 0, None),
        {("tar-offset", S0, "b"), ("table-order", S0, "b")},
    ),
    ("cell shard, b, 0, S1", cell("shard", "b", 0, S1), {("table", S0, "b")}),
    (
        "cell status, b, 3, ok",
        cell("status", "b", 3, "ok"),
        {("empty-caption", S0, "b"), ("status", S0, "b"), ("counts", S0, None), ("table-differs", S0, "b")},
    ),
    ("cell reason, b, 3, oom", cell("reason", "b", 3, "oom"), {("status", S0, "b"), ("counts", S0, None)}),
    ("part rows", part_rows, {("table-order", S0, "a")}),
    ("drop a region row", drop_a_region_row, {("table-differs", S0, "a")}),
    ("image that is none", image_that_is_none, {("image-decode", S0, "b")}),
    ("same key twice", same_key_twice, {("repeated-key", S1, "b")}),
    *(
        (f"caption {text!r}", caption_of(text), {("empty-caption", S0, "b")})
        for text in ("", " ", "\u00a0", "\u200b\ufeff", "...", "\u3164", "!?\n", "\u2764")
    ),
    ("missing caption", missing_caption, {("empty-caption", S0, "b"), ("table-differs", S0, "b")}),
    ("other caption in the table", other_caption_in_the_table, {("table-differs", S0, "b")}),
    ("unbalanced", unbalanced, {("counts", S0, None)}),
    ("other counts", other_counts, {("counts", S0, None)}),
    ("other version", other_version, {("schema-version", S0, None)}),
    ("other version of a record", other_version_of_a_record, {("schema-version", S0, "b")}),
    ("name a shard that is not there", name_a_shard_that_is_not_there, {("missing-file", "train-000007", None)}),
    ("totals of others", totals_of_others, {("counts", None, None)}),
    ("rename shard", rename_shard, {("marker", "train-000005", None)}),
    ("image of other size", image_of_other_size, {("image-size", S0, "b")}),
    ("image under a wrong suffix", image_under_a_wrong_suffix, {("image-format", S0, "b")}),
]
WARNINGS: list[tuple[str, Callable[[Path], None], set[Found]]] = [
    ("leftovers", leave_parts_of_a_job, {("leftovers", None, None)}),
    ("decided, not published", leave_a_decision, {("unpublished", "train-000002", None)}),
    ("tar without marker", leave_a_tar, {("stray-file", "train-000003", None)}),
    ("a shard not in dataset.json", forget_a_shard, {("index", S1, None)}),
    ("empty image caption", empty_image_caption, {("empty-caption", S0, "a")}),
]


def examine(folder: Path, *options: str) -> tuple[int, dict]:
    """Return the exit code of the command and what it wrote as JSON."""
    path = folder.parent / "findings.json"
    code = doctor_main([str(folder), "--json", str(path), *options])
    return code, json.loads(path.read_bytes())


def found_of(told: dict, level: str) -> set[Found]:
    return {(one["check"], one["shard"], one["key"]) for one in told["findings"] if one["level"] == level}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plant.write_sound(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("text", ["7", "\u732b", "\u0917\u093e\u092f", "\u00bd", "a\u200b"])
def test_a_caption_of_any_script_says_something(folder, text):
    caption_of(text)(folder)
    assert examine(folder)[0] == 0


ONE_OF_MANY = re.compile(r"(?<![\d.,])1 (?!(?:is|has|was|dataset|ms)\b)[a-z]+s\b")


def test_a_sound_data_set_is_healthy(folder, capsys):
    write_index(str(folder), [S0, S1])
    code, told = examine(folder)
    assert (code, told["num_errors"], told["num_warnings"]) == (0, 0, 0)
    assert capsys.readouterr().out.splitlines()[-1] == "healthy: 2 shards, 5 images, 9 regions"


@pytest.mark.parametrize(("plant_fault", "expected"), [pytest.param(*case[1:], id=case[0]) for case in ERRORS])
def test_a_planted_fault_is_an_error_with_shard_key_and_remedy(folder, capsys, plant_fault, expected):
    plant_fault(folder)
    code, told = examine(folder)
    assert found_of(told, "error") == expected
    assert found_of(told, "warning") == set()
    assert code == 1
    out = capsys.readouterr().out
    for finding in told["findings"]:
        assert finding["message"] and finding["remedy"]
        assert not ONE_OF_MANY.search(finding["message"] + finding["remedy"]), finding
        assert finding["shard"] is None or finding["shard"] in out
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[-1].endswith(("in 2 shards", "in 1 shard"))


@pytest.mark.parametrize(("plant_fault", "expected"), [pytest.param(*case[1:], id=case[0]) for case in WARNINGS])
def test_what_reads_but_a_person_should_know_is_a_warning(folder, plant_fault, expected):
    plant_fault(folder)
    code, told = examine(folder)
    assert (code, found_of(told, "error"), found_of(told, "warning")) == (0, set(), expected)
    assert not any(ONE_OF_MANY.search(one["message"] + one["remedy"]) for one in told["findings"])


@pytest.mark.parametrize("name", [f"{S0}.tar", f"{S0}.parquet"])
def test_the_remedy_of_a_broken_shard_names_the_files_to_remove(folder, name):
    (folder / name).unlink()
    _, told = examine(folder)
    assert (
        f"remove {S0}.json and _commit/{S0}.json and {AGAIN}: it makes just this shard"
        in (told["findings"][0]["remedy"])
    )


def test_images_are_not_decoded_if_not_wanted(folder):
    image_that_is_none(folder)
    assert examine(folder, "--no-decode")[0] == 0


def test_captions_repeated_more_than_accepted_are_a_warning(folder):
    texts = {"a": (0, "A man."), "b": (1, "a  MAN"), "c": (0, "a man")}
    changed = [plant.with_region(key, place, caption=text) for key, (place, text) in texts.items()]
    same = [samples[position] for position, samples in enumerate(changed)]
    plant.write_first(folder, same)
    _, told = examine(folder, "--max-repeated", "0.2")
    (warning,) = [one for one in told["findings"] if one["level"] == "warning"]
    assert (warning["check"], warning["shard"], warning["key"]) == ("repeated-captions", S0, "a")
    assert warning["message"] == (
        "22% of 9 captions repeat an earlier one (more than 20%); 'A man.' alone stands 3 times"
    )
    assert examine(folder, "--max-repeated", "0.23")[1]["num_warnings"] == 0


def test_fewer_shards_than_workers_are_an_error_and_drops_are_counted(folder):
    code, told = examine(folder, "--world-size", "8", "--workers", "6", "--batch-size", "256")
    assert (code, found_of(told, "error")) == (1, {("shards-per-worker", None, None)})
    (dropped,) = [one for one in told["findings"] if one["check"] == "dropped-samples"]
    assert "leave out 5 of 5 samples per epoch: 5 in batches not filled, 0 in batches that" in dropped["message"]
    assert "fineclip train" in dropped["remedy"]


def test_a_shape_that_loses_nothing_is_a_note(folder):
    code, told = examine(folder, "--batch-size", "1")
    assert (code, told["num_warnings"]) == (0, 0)
    assert ("dropped-samples", None, None) in found_of(told, "note")


def test_many_findings_of_a_kind_are_grouped(folder, capsys):
    write_shard(str(folder), [tiny_sample(f"k{i}") for i in range(12)])
    plant.change_table(
        folder,
        lambda table: table.set_column(
            table.column_names.index("x1"), table.schema.field("x1"), pa.array([None] * len(table), pa.float32())
        ),
    )
    _, told = examine(folder)
    assert {"level": "error", "check": "box", "count": 24} in told["counts"]
    out = capsys.readouterr().out
    assert "error  box  (24)" in out
    assert "... and 19 more" in out


def test_names_in_the_tar_do_not_steer_the_terminal(folder, capsys):
    plant.change_tar(folder, lambda members: [*members, ("\x1b[2Jc.txt", b"")])
    assert examine(folder)[0] == 1
    assert "\x1b" not in capsys.readouterr().out


def test_a_sample_of_shards_is_the_same_one_each_time(folder):
    for index in range(2, 8):
        write_shard(str(folder), [tiny_sample(f"s{index}")], index=index)
    for index in range(8):
        plant.flip_byte(folder / f"train-{index:06d}.tar", BLOCK + 40)
    read = [{one["shard"] for one in examine(folder, "--sample", "3")[1]["findings"]} - {None} for _ in range(2)]
    assert len(read[0]) == 3
    assert read[0] == read[1]
