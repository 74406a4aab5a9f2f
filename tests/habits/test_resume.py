"""Resume and `status` look at the data, not only at the marker; inputs are known again by their bytes."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from pipeline.plan import samples
from pipeline.plan.plan import load_plan
from pipeline.plan.samples import PIECE, changed_files, sample, sampled
from pipeline.read.base import SourceFile
from pipeline.store.storage import open_storage
from tests.builders import (
    CHEAP,
    Outcome,
    annotate,
    data_files,
    digests,
    image_rows,
    jpeg,
    members,
    run,
    write_files,
    write_photos,
    write_tar,
    write_tars,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tars(tmp_path / "in", 2, 2)


@pytest.fixture
def output(source: Path, tmp_path: Path) -> Path:
    """A complete OUTPUT of two shards."""
    annotate(source, tmp_path / "out")
    return tmp_path / "out"


def again(source: Path, output: Path, *flags: str) -> Outcome:
    return run("annotate", source, output, *CHEAP, "--max-dead", "1", *flags)


def status(output: Path, *flags: str) -> Outcome:
    return run("status", output, *flags)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


DAMAGE: list[Callable[[Path], None]] = [Path.unlink, cut, grow]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["train-000000.tar", "train-000001.parquet"])
def test_a_published_file_that_was_lost_or_changed_is_made_again(source: Path, output: Path, name: str, damage):
    before = digests(output)
    damage(output / name)
    told = status(output)
    assert (told.code, name in told.out, "complete" in told.out) == (5, True, False)
    outcome = again(source, output)
    assert outcome.code == 0, outcome
    assert "Made again" in outcome.out and name in outcome.out
    assert digests(output) == before
    assert status(output).code == 0
    assert "Nothing to do" in again(source, output).out


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_marker_that_was_lost_or_damaged_is_made_again(source: Path, output: Path, damage):
    before = digests(output)
    damage(output / "train-000000.json")
    assert status(output).code in (0, 5)
    assert "complete" not in status(output).out
    outcome = again(source, output)
    assert outcome.code == 0, outcome
    assert digests(output) == before


def test_a_whole_shard_that_was_deleted_is_made_again(source: Path, output: Path):
    before = digests(output)
    for suffix in ("tar", "parquet", "json"):
        (output / f"train-000001.{suffix}").unlink()
    assert again(source, output).code == 0
    assert digests(output) == before


def test_damage_of_one_split_leaves_the_other_alone(source: Path, tmp_path: Path):
    for _ in range(2):
        outcome = again(source, tmp_path / "out", "--val-fraction", "0.5")
        assert outcome.code == 0, outcome
    before = digests(tmp_path / "out")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("train-*")}
    (tmp_path / "out" / "val-000000.tar").unlink()
    assert again(source, tmp_path / "out", "--val-fraction", "0.5").code == 0
    assert digests(tmp_path / "out") == before
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("train-*")} == times


@pytest.mark.parametrize("left", [["decision"], ["decision", "marker"], ["marker"]])
def test_a_repair_that_was_stopped_in_between_is_gone_on_with(source: Path, output: Path, left: list[str]):
    """`withdraw` removes the decision, then the marker; stopped anywhere, the next job finds the damage again."""
    before = digests(output)
    (output / "train-000000.tar").unlink()
    files = {"decision": output / "_commit" / "train-000000.json", "marker": output / "train-000000.json"}
    for name in left:
        files[name].unlink()
    outcome = again(source, output)
    assert outcome.code == 0, outcome
    assert digests(output) == before


def test_a_shard_of_another_data_set_is_refused_and_named(source: Path, output: Path, tmp_path: Path):
    annotate(source, tmp_path / "other", "--select.min-side", "9")
    for suffix in ("tar", "parquet", "json"):
        shutil.copy(tmp_path / "other" / f"train-000001.{suffix}", output)
    for outcome in (status(output), again(source, output)):
        assert outcome.code == 3
        assert "train-000001.json is of another configuration" in outcome.err


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"num_units": 2}', b"\xff\xfe", b'"x"'])
@pytest.mark.parametrize("name", ["dataset.json", "sizes.json", "index.json", "README.md"])
def test_files_of_the_whole_are_written_again(source: Path, output: Path, name: str, content: bytes):
    before = data_files(output)
    (output / name).write_bytes(content)
    assert again(source, output).code == 0
    assert data_files(output) == before


@pytest.mark.parametrize("content", [None, b"", b"PAR1 cut", b"\x00" * 5000])
@pytest.mark.parametrize("name", ["units", "items", "files"])
def test_a_damaged_table_of_the_plan_is_a_sentence(tmp_path: Path, name: str, content: bytes | None):
    photos, output = write_photos(tmp_path / "photos", 3), tmp_path / "out"
    assert run("plan", photos, output, *CHEAP).code == 0
    path = output / "_plan" / f"{name}.parquet"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    os.utime(photos / "000.jpg", (1, 1))  # so that the table of files is read
    outcome = again(photos, output)
    assert outcome.code == 5, outcome
    assert f"_plan/{name}.parquet is missing or damaged" in outcome.err


def touched(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))


def copied(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("copy"), copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)


@pytest.mark.parametrize("change", [touched, copied])
@pytest.mark.parametrize("flags", [(), ("--append",)])
def test_inputs_with_other_times_and_the_same_bytes_are_the_same(
    tmp_path: Path, change: Callable[[Path], None], flags: tuple[str, ...]
):
    tars, photos = write_tars(tmp_path / "tars", 2, 2), write_photos(tmp_path / "photos", 3)
    arguments = ("annotate", tars, photos, tmp_path / "out", *CHEAP)
    assert run(*arguments).code == 0
    before = digests(tmp_path / "out")
    change(tars)
    change(photos)
    outcome = run(*arguments, *flags)
    assert (outcome.code, "Nothing to do" in outcome.out) == (0, True), outcome
    assert digests(tmp_path / "out") == before


def one_byte(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("at", [0, 0.5, 1])
@pytest.mark.parametrize("size", [10, PIECE, 2 * PIECE, 20 * PIECE])
def test_other_bytes_at_head_middle_or_tail_are_noticed(tmp_path: Path, at: float, size: int):
    path = tmp_path / "x"
    path.write_bytes(os.urandom(size))
    file = SourceFile(uri="x", size=size, etag="1")
    before = sample(str(tmp_path), file)
    one_byte(path, at)
    assert len(before) == 16
    assert sample(str(tmp_path), file) != before


@pytest.mark.parametrize("size", [1, 1000, PIECE + 1, 3 * PIECE])
def test_small_files_are_sampled_whole(tmp_path: Path, size: int):
    file = SourceFile(uri="x", size=size, etag="1")
    (tmp_path / "x").write_bytes(bytes(size))
    before = sample(str(tmp_path), file)
    for at in range(0, size, max(1, size // 40)):
        content = bytearray(size)
        content[at] = 1
        (tmp_path / "x").write_bytes(bytes(content))
        assert sample(str(tmp_path), file) != before, at


def test_what_cannot_be_sampled_has_no_sample(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for uri, etag in (("pipe", "1"), ("gone", ""), ("gone", "1")):
        assert sample(str(tmp_path), SourceFile(uri=uri, size=1, etag=etag)) == ""
    assert sample("s3://bucket", SourceFile(uri="x", size=1, etag="1")) == ""


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, SourceFile]:
    """Forty files of an input of which only some are sampled."""
    monkeypatch.setattr(samples, "MAX_SAMPLED", 10)
    write_files(tmp_path, {f"{n}": b"%03d" % n for n in range(40)})
    files = [SourceFile(uri=f"{n}", size=3, etag="1") for n in range(40)]
    found = {file.uri: file for file in sampled(str(tmp_path), files)}
    assert [file.uri for file in found.values()] == [file.uri for file in files]
    assert 1 < sum(bool(file.sample) for file in found.values()) < 25
    return found


def with_etag(file: SourceFile, etag: str) -> SourceFile:
    return msgspec.structs.replace(file, etag=etag, sample="")


def test_of_many_files_some_vouch_for_all_that_were_touched_with_them(tmp_path: Path, many: dict[str, SourceFile]):
    now = {uri: with_etag(file, "2") for uri, file in many.items()}
    assert changed_files(str(tmp_path), many, now) == []
    unsampled = next(uri for uri, file in many.items() if not file.sample)
    now[unsampled] = msgspec.structs.replace(now[unsampled], size=4)
    assert changed_files(str(tmp_path), many, now) == [unsampled]


def test_nobody_vouches_for_a_file_that_was_touched_alone(tmp_path: Path, many: dict[str, SourceFile]):
    unsampled = next(uri for uri, file in many.items() if not file.sample)
    now = {**many, unsampled: with_etag(many[unsampled], "2")}
    assert changed_files(str(tmp_path), many, now) == [unsampled]


def test_where_a_sampled_file_changed_no_other_vouches(tmp_path: Path, many: dict[str, SourceFile]):
    chosen = next(uri for uri, file in many.items() if file.sample)
    (tmp_path / chosen).write_bytes(b"abc")
    now = {uri: with_etag(file, "2") for uri, file in many.items()}
    assert set(changed_files(str(tmp_path), many, now)) == {uri for uri, f in many.items() if not f.sample} | {chosen}


def changed_size(tars: Path) -> None:
    write_tar(tars / "00000.tar", [members("other")])


def changed_bytes(tars: Path) -> None:
    one_byte(tars / "00000.tar", 0)


def removed(tars: Path) -> None:
    (tars / "00000.tar").unlink()


@pytest.mark.parametrize("change", [changed_size, changed_bytes, removed])
def test_changed_inputs_are_refused_until_they_are_trusted(source: Path, output: Path, change: Callable[[Path], None]):
    before = digests(output)
    change(source)
    refused = again(source, output)
    assert (refused.code, "--trust-inputs" in refused.err, "00000.tar" in refused.err) == (3, True, True)
    outcome = again(source, output, "--trust-inputs")
    assert (outcome.code, "Nothing to do" in outcome.out) == (0, True), outcome
    assert digests(output) == before


def test_trusted_inputs_are_read_as_they_are_now(source: Path, tmp_path: Path):
    assert run("plan", source, tmp_path / "out", *CHEAP).code == 0
    write_tar(source / "00000.tar", [members("other")])
    assert again(source, tmp_path / "out", "--trust-inputs").code == 0
    assert set(image_rows(tmp_path / "out")) == {"other", "000010000", "000010001"}


def test_append_takes_new_files_beside_trusted_ones(source: Path, output: Path):
    changed_bytes(source)
    write_tar(source / "00002.tar", [members("new")])
    assert again(source, output, "--append").code == 3
    assert again(source, output, "--append", "--trust-inputs").code == 0
    assert "new" in image_rows(output)


def test_added_files_are_not_a_matter_of_trust(source: Path, output: Path):
    write_tar(source / "00002.tar", [members("new")])
    refused = again(source, output, "--trust-inputs")
    assert (refused.code, "--append" in refused.err) == (3, True)


def test_a_plan_of_an_earlier_version_is_still_read(source: Path, output: Path):
    """Without samples, summaries and allowed folders: what was planned before these were kept."""
    table = output / "_plan" / "files.parquet"
    pq.write_table(pq.read_table(table).drop_columns(["sample"]), table)
    path, decision = output / "_plan" / "plan.json", output / "_commit" / "plan.json"
    plan, decided = json.loads(path.read_text()), json.loads(decision.read_text())
    del plan["allow"]
    for entry in plan["inputs"]:
        del entry["summary"]
    path.write_text(json.dumps(plan))
    decided["files"]["_plan/plan.json"]["size"] = path.stat().st_size
    decision.write_text(json.dumps(decided))
    loaded = load_plan(open_storage(str(output)))
    assert loaded is not None
    assert [file.sample for _, file in loaded.files()] == ["", ""]
    assert again(source, output).code == 0
    touched(source)
    assert again(source, output).code == 3


@pytest.mark.parametrize("suffix", ["tar", "parquet", "json"])
def test_an_object_store_is_looked_at_alike(source: Path, bucket: str, store, suffix: str):
    output = f"{bucket}/out"
    assert run("annotate", source, output, *CHEAP).code == 0
    store.rm(f"/bucket/out/train-000001.{suffix}")
    assert run("status", output).code == (5 if suffix != "json" else 0)
    outcome = run("annotate", source, output, *CHEAP)
    assert outcome.code == 0, outcome
    assert ("Made again" in outcome.out) == (suffix != "json")  # the decision holds the marker
    assert "complete" in run("status", output).out


def test_the_dead_are_named_with_source_and_reason(tmp_path: Path):
    photos = write_photos(tmp_path / "photos", 3)
    write_files(photos, {"a.jpg": b"no image", "sub/b.jpg": b"", "c.jpg": jpeg(1)[:500]})
    tars = tmp_path / "tars"
    write_tar(tars / "0.tar", [members("x", image=b"no image"), members("y", boxes=[(float("nan"), 0, 1, 1)])])
    outcome = run("annotate", photos, tars, tmp_path / "out", *CHEAP)
    assert outcome.code == 1
    assert f"fineclip status {tmp_path}/out --dead" in outcome.out
    assert f"{photos}: a.jpg" in outcome.out
    lines = [line.split("\t") for line in status(tmp_path / "out", "--dead").out.splitlines()]
    found = {line[0].split("/")[0]: (line[1], line[3]) for line in lines}
    assert {line[2] for line in lines} == {"read", "decode", "select"}
    assert found == {
        "photos-a": ("decode", f"{photos}: a.jpg"),
        "photos-c": ("truncated", f"{photos}: c.jpg"),
        next(key for key in found if key.startswith("photos-sub")): ("empty_file", f"{photos}: sub/b.jpg"),
        "tars-x": ("decode", f"{tars}: 0.tar"),
        "tars-y": ("invalid_box", f"{tars}: 0.tar"),
    }
    of_one = status(tmp_path / "out", "--dead", "--reason", "invalid_box").out.splitlines()
    assert [line.split("\t")[1] for line in of_one] == ["invalid_box"]
    assert status(tmp_path / "out", "--reason", "nonsense").code == 2


@pytest.mark.parametrize("number", [2, 7, 1_000_000])
@pytest.mark.parametrize("marker", ["a copy", "{", "{}"])
def test_a_shard_that_the_plan_does_not_have_is_named_and_nothing_is_done(
    source: Path, output: Path, number: int, marker: str
):
    for suffix in ("tar", "parquet", "json"):
        shutil.copy(output / f"train-000000.{suffix}", output / f"train-{number:06d}.{suffix}")
    if marker != "a copy":
        (output / f"train-{number:06d}.json").write_text(marker)
    before = digests(output)
    for told in (status(output), again(source, output)):
        assert told.code == 3, told
        assert f"train-{number:06d}.json is not in the plan, which has 2 units" in told.err
        assert "complete" not in told.out
    assert digests(output) == before


@pytest.mark.parametrize("damage", ['{"x":' + "[" * 50_000, "[" * 50_000 + "]" * 50_000, "{", "", "\udc80"])
def test_a_damaged_dataset_json_is_written_anew(source: Path, output: Path, damage: str):
    before = (output / "dataset.json").read_bytes()
    (output / "dataset.json").write_bytes(damage.encode("utf-8", "surrogateescape"))
    outcome = again(source, output)
    assert (outcome.code, "Traceback" in outcome.err) == (0, False), outcome
    assert (output / "dataset.json").read_bytes() == before


def test_a_deeply_nested_dataset_json_is_a_sentence_to_whoever_reads_it(output: Path):
    (output / "dataset.json").write_text('{"x":' + "[" * 50_000)
    outcome = run("doctor", output)
    assert outcome.code not in (0, 99) and "dataset.json" in outcome.out + outcome.err
    assert "Traceback" not in outcome.out + outcome.err
