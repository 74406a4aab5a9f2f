"""Images are taken out by key, address or hash, with all their rows, and the doctor proves that they are gone."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.overlay.drop_list import load_drop_list
from schemas.dataset import Dataset, DatasetError
from schemas.hashes import sha256
from tests.builders import (
    annotate,
    check_balance,
    digests,
    image_bytes,
    jpeg,
    members,
    read_rows,
    run,
    write_files,
    write_tar,
)
from tests.pipeline.overlay.conftest import recaptioned


def listed(path: Path, *lines: str) -> Path:
    path.write_text("# what was asked for\n\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A tar of eight samples with addresses; one is dead, one filtered, one stored otherwise than it came."""
    samples = [members(f"pic{number}") for number in range(8)]
    samples[5] = members("pic5", image=b"broken")
    samples[6] = members("pic6", image=jpeg(6, 20, 20))
    samples[7] = [("pic7.gif", image_bytes("GIF")), *members("pic7")[1:]]
    for number, sample in enumerate(samples):
        record = json.loads(sample[2][1]) | {"url": f"https://pictures.example/{number}.jpg"}
        samples[number] = [*sample[:2], (sample[2][0], json.dumps(record).encode())]
    write_tar(tmp_path / "tars" / "000.tar", samples[:4])
    write_tar(tmp_path / "tars" / "001.tar", samples[4:])
    return tmp_path / "tars"


@pytest.fixture
def annotated(pictures: Path, tmp_path: Path) -> Path:
    annotate(pictures, tmp_path / "data")
    return tmp_path / "data"


def keys_of(output: Path) -> set[str]:
    return {row["key"] for row in read_rows(output)}


def test_keys_addresses_and_hashes(annotated: Path, tmp_path: Path) -> None:
    stored = Dataset.open(annotated).read_sample("pic2").image
    drop = listed(
        tmp_path / "drop.txt", "pic0", "https://pictures.example/1.jpg", f"sha256:{sha256(stored).upper()}", "nobody"
    )
    made = run("materialize", annotated, tmp_path / "out", "--drop", drop)
    assert made.code == 0, made
    assert "Left out: 3 images, by 4 lines" in made.out
    assert "1 line of it means no image of the data set:\n  nobody\n" in made.out
    assert keys_of(tmp_path / "out") == {"pic3", "pic4", "pic5", "pic6", "pic7"}
    assert [sample.key for sample in Dataset.open(tmp_path / "out").samples("train-000000", verify=True)] == ["pic3"]
    check_balance(tmp_path / "out")
    assert run("doctor", tmp_path / "out", "--max-repeated", "1").code == 0
    dropped = json.loads((tmp_path / "out" / "dataset.json").read_text())["dropped"]
    assert {name: dropped[name] for name in ("num_images", "num_lines", "num_lines_met")} == {
        "num_images": 3,
        "num_lines": 4,
        "num_lines_met": 3,
    }
    assert len(dropped["list_sha256"]) == 64
    assert len(dropped["on"]) == len("2026-01-01")
    again = run("materialize", annotated, tmp_path / "out", "--drop", drop)
    assert (again.code, "Nothing to do" in again.out) == (0, True), again


def test_what_is_not_stored_as_it_came_is_looked_up_in_the_source(
    annotated: Path, pictures: Path, tmp_path: Path
) -> None:
    """The bytes of a GIF are stored as others, those of a dead or filtered image not at all."""
    drop = listed(
        tmp_path / "drop.txt", sha256(image_bytes("GIF")), sha256(b"broken"), "https://pictures.example/6.jpg"
    )
    made = run("materialize", annotated, tmp_path / "out", "--drop", drop)
    assert made.code == 0, made
    assert keys_of(tmp_path / "out") == {f"pic{number}" for number in range(5)}
    for tar in pictures.iterdir():
        tar.unlink()
    drop = listed(tmp_path / "drop.txt", "pic0", sha256(image_bytes("GIF")))
    blind = run("materialize", annotated, tmp_path / "blind", "--drop", drop)
    assert blind.code == 0, blind
    assert "1 line of it means no image" in blind.out
    assert "since the source cannot be read" in blind.out


def test_with_an_overlay(annotated: Path, tmp_path: Path) -> None:
    recaptioned(annotated)
    drop = listed(tmp_path / "drop.txt", "pic1")
    made = run("materialize", annotated, tmp_path / "out", "--overlay", "wide", "--drop", drop)
    assert made.code == 0, made
    seen = Dataset.open(annotated, overlays=["wide"]).regions(["key", "caption"]).to_pylist()
    rows = Dataset.open(tmp_path / "out").regions(["key", "caption"]).to_pylist()
    assert rows == [row for row in seen if row["key"] != "pic1"]
    check_balance(tmp_path / "out")


def test_lists_in_parquet_and_json_lines(annotated: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["https://pictures.example/3.jpg"], "why": ["asked"]}), tmp_path / "drop.parquet")
    write_files(tmp_path, {"drop.jsonl": b'{"key": "pic3", "note": "asked"}\n'})
    for name in ("drop.parquet", "drop.jsonl"):
        assert run("materialize", annotated, tmp_path / name[5:], "--drop", tmp_path / name).code == 0
        assert "pic3" not in keys_of(tmp_path / name[5:])


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("drop.csv", "key\npic1\n", ("pic1",)),
        (
            "drop.csv",
            '# asked for\nKey,why,url\n"a,b",none,\n,,https://p.example/1.jpg\n',
            ("a,b", "https://p.example/1.jpg"),
        ),
        ("drop.csv", "pic1\npic2\n", ("pic1", "pic2")),
        ("drop.txt", "\ufeffurl\r\nhttps://p.example/1.jpg\r\n", ("https://p.example/1.jpg",)),
        ("drop.txt", "a,b\nkey\n", ("a,b", "key")),
        ("drop.txt", "https://p.example/a\u2028b.jpg\n", ("https://p.example/a\u2028b.jpg",)),
        ("drop.jsonl", '\ufeff{"key": "pic1"}\n', ("pic1",)),
    ],
)
def test_a_header_is_no_line_of_a_list(tmp_path: Path, name: str, content: str, lines: tuple[str, ...]) -> None:
    """It counted as a key that no image had."""
    (tmp_path / name).write_text(content)
    assert load_drop_list(str(tmp_path / name)).lines == lines


def test_a_table_that_names_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "drop.csv").write_text("name,why\npic1,asked\n")
    with pytest.raises(DatasetError, match="its first line is 'name,why', and names none of the columns key, url"):
        load_drop_list(str(tmp_path / "drop.csv"))


@pytest.mark.parametrize(
    ("lines", "told"),
    [("nobody", "none of its lines means an image"), ("", "names no image"), ("\xff", "cannot read this list")],
)
def test_lists_that_mean_nothing_are_refused(annotated: Path, tmp_path: Path, lines: str, told: str) -> None:
    (tmp_path / "drop.txt").write_bytes(lines.encode("latin-1"))
    refused = run("materialize", annotated, tmp_path / "out", "--drop", tmp_path / "drop.txt")
    assert (refused.code, told in refused.err) == (2, True), refused
    assert not (tmp_path / "out").exists()


def test_another_list_is_another_data_set(annotated: Path, tmp_path: Path) -> None:
    assert run("materialize", annotated, tmp_path / "out", "--drop", listed(tmp_path / "a", "pic1")).code == 0
    refused = run("materialize", annotated, tmp_path / "out", "--drop", listed(tmp_path / "b", "pic2"))
    assert (refused.code, "materialized.dropped" in refused.err) == (3, True), refused
    assert "say how OUT is to differ" in run("materialize", annotated, tmp_path / "none").err


def test_runs_and_orders_of_a_list_give_the_same_bytes(annotated: Path, tmp_path: Path) -> None:
    for name, lines in (("a", ("pic1", "pic2")), ("b", ("pic2", "pic1", "pic2"))):
        assert run("materialize", annotated, tmp_path / name, "--drop", listed(tmp_path / "l", *lines)).code == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_the_doctor_finds_what_is_there_and_proves_what_is_not(annotated: Path, tmp_path: Path) -> None:
    recaptioned(annotated)
    stored = Dataset.open(annotated).read_sample("pic2").image
    drop = listed(
        tmp_path / "drop.txt", "pic1", "pic5", "https://pictures.example/3.jpg", sha256(stored), sha256(b"broken")
    )
    assert run("sheet", annotated, annotated / "sheet.html").code == 0
    there = run("doctor", annotated, "--absent", drop, "--json", tmp_path / "found.json")
    assert there.code == 1, there
    found = [finding["message"] for finding in json.loads((tmp_path / "found.json").read_text())["findings"]]
    for line, place in (
        ("pic1", "train-000000.tar: member pic1.jpg"),
        ("pic1", "train-000000.tar: member pic1.json, key"),
        ("pic1", "train-000000.parquet: column key"),
        ("pic1", "train-000000.wide.parquet: column key"),
        ("pic1", "sheet.html: its text"),
        ("pic5", "train-000001.parquet: column key"),
        ("https://pictures.example/3.jpg", "train-000000.tar: member pic3.json, url"),
        (sha256(stored), "train-000000.tar: the bytes of member pic2.jpg"),
    ):
        assert f"{line} is still in {place}" in found
    assert run("materialize", annotated, tmp_path / "out", "--drop", drop).code == 0
    gone = run("doctor", tmp_path / "out", "--absent", drop)
    assert gone.code == 0, gone
    assert "none is there" in gone.out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("_attempts/train-000000.tar.0123456789abcdef", "tar"),
        ("_run/log.jsonl", b'{"message": "pic1.jpg: cannot be read"}\n'),
        ("marks.jsonl", b'{"key": "pic1", "keep": false}\n'),
        ("sheets/sheet.html", b"<p>pic1</p>"),
        ("pic1.jpg", b""),
        ("_plan/items.parquet", "items"),
    ],
)
def test_each_place_is_looked_into(annotated: Path, tmp_path: Path, name: str, content: bytes | str) -> None:
    drop = listed(tmp_path / "drop.txt", "pic1")
    out = tmp_path / "out"
    assert run("materialize", annotated, out, "--drop", drop).code == 0
    if content == "tar":
        content = (annotated / "train-000000.tar").read_bytes()
    if content == "items":
        source = write_files(tmp_path / "folder", {"pic1.jpg": jpeg(1), "pic1.json": b'{"regions": []}'})
        annotate(source, tmp_path / "other")
        content = (tmp_path / "other" / "_plan" / "items.parquet").read_bytes()
    assert isinstance(content, bytes)
    write_files(out, {name: content})
    found = run("doctor", out, "--absent", drop)
    assert (found.code, "pic1 is still in" in found.out.replace("\n", " ")) == (1, True), found


def test_a_file_that_cannot_be_searched_proves_nothing(annotated: Path, tmp_path: Path) -> None:
    drop = listed(tmp_path / "drop.txt", "pic1")
    out = tmp_path / "out"
    assert run("materialize", annotated, out, "--drop", drop).code == 0
    tar = out / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    cut = run("doctor", out, "--absent", drop)
    assert (cut.code, "cannot be searched" in cut.out) == (1, True), cut


def test_a_key_that_is_a_word_counts_where_keys_are(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "000.tar", [members("manual"), members("other")])
    annotate(tmp_path / "tars", tmp_path / "data")
    drop = listed(tmp_path / "drop.txt", "manual")
    assert run("doctor", tmp_path / "data", "--absent", drop).code == 1
    assert run("materialize", tmp_path / "data", tmp_path / "out", "--drop", drop).code == 0
    assert run("doctor", tmp_path / "out", "--absent", drop).code == 0, "the proposer is called so"
