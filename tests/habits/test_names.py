"""Names: of inputs, of OUTPUT, and of pictures in data files. A name is what lies there; nothing in it is a command."""

import json
import os
import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.read.location
from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.read.keys import with_prefix
from pipeline.read.location import Location
from pipeline.read.names import Names, spellings
from pipeline.read.spec import canonical
from pipeline.store.storage import LocalStorage, open_storage
from schemas.dataset import Dataset
from schemas.names import KEY_PATTERN
from schemas.paths import as_path, is_url, printable
from schemas.stores import open_fs
from tests.builders import CHEAP, annotate, image_bytes, image_rows, members, read_rows, run, write_files, write_tar
from tests.pipeline.read.source_builders import JPEG, read_all, reasons
from tests.unprivileged import modes_hold

ODD = [
    "yolo::v9", "x?y=z", "50%20off", "a#1", "a*b", "[set]", "{0..1}", "~me", "a b", "a\nb", "a:b", "s3:", "label=cat",
    "é", "q?captions=x", "-dash", "a&b=c", "memory::x", "a\\b", "'quoted'",
]  # fmt: skip
"""Names of folders that some parser takes for something else."""


@pytest.mark.parametrize("name", ODD)
def test_a_folder_is_read_and_written_under_the_name_it_has(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    source, output = tmp_path / name, tmp_path / "outputs" / name / "out"
    write_tar(source / "0.tar", [members("a")])
    annotate(source, output)
    assert list(image_rows(output)) == ["a"]
    assert [sample.key for sample in Dataset.open(output).samples("train-000000")] == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "outputs"])
    monkeypatch.chdir(tmp_path)
    assert [item.key for item in read_all(open_source(name if name[0] != "-" else f"./{name}"))] == ["a"]


@pytest.mark.parametrize("name", [name for name in ODD if name[0] != "-"])
def test_relative_names_are_the_same_input_wherever_they_are_read_again(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    write_tar(tmp_path / name / "0.tar", [members("a")])
    monkeypatch.chdir(tmp_path)
    spec = canonical(name)
    assert spec == str(tmp_path / name)
    monkeypatch.chdir("/")
    assert [item.key for item in read_all(open_source(spec))] == ["a"]


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://b/x", True), ("https://h/x", True), ("simplecache::s3://b/x", True), ("zip://a.jpg::/x/y.zip", True),
        ("memory://b", True), ("yolo::v9/out", False), ("a:b", False), ("/a//b", False), ("x?u=1", False),
        ("::", False), ("x/s3://b", False), ("1://x", False),
    ],
)  # fmt: skip
def test_urls_are_told_from_paths_by_their_scheme(path: str, url: bool):
    assert is_url(path) is url


def test_the_home_folder_is_meant_by_a_lone_tilde_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    assert (as_path("~/x"), as_path("~"), as_path("~me/x")) == ("/home/me/x", "/home/me", f"{tmp_path}/~me/x")
    assert as_path("file:///a%20b/?c#d") == "/a%20b/?c#d"
    assert open_fs("x?y=z")[1] == f"{tmp_path}/x?y=z"
    assert isinstance(open_storage("yolo::v9/out"), LocalStorage)


def test_a_part_of_a_pattern_that_is_a_folder_is_no_pattern(tmp_path: Path):
    for folder in ("[ab]", "a", "{0..1}"):
        write_files(tmp_path / folder, {"x.jpg": JPEG})
    assert [file.uri for file in Location.of(f"{tmp_path}/[ab]/*.jpg").files()] == ["x.jpg"]
    assert [file.uri for file in Location.of(f"{tmp_path}/{{0..1}}/*.jpg").files()] == ["x.jpg"]
    with pytest.raises(SourceError, match=r"gone\.jpg: no such file"):
        Location.of(f"{tmp_path}/[ab]/gone.jpg")


def coco(folder: Path, names: list[str], where: str = "x.json") -> Path:
    """Write a COCO file that names these pictures, a box each."""
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [{"id": n, "image_id": n, "bbox": [1, 1, 20, 20], "category_id": 1} for n in range(len(names))]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    return write_files(folder, {where: json.dumps(content).encode()}) / where


def parquet(folder: Path, names: list[str]) -> Path:
    """Write a Parquet file as `datasets` does, of paths without bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [{"bytes": None, "path": name} for name in names]}), folder / "x.parquet")
    return folder / "x.parquet"


def table(folder: Path, names: list[str]) -> str:
    """Write a table of captions."""
    lines = "".join(f'"{name}",words\n' for name in names)
    write_files(folder, {"x.csv": f"file,caption\n{lines}".encode()})
    return f"folder:{folder}?captions=x.csv"


NAMINGS = [coco, parquet, table]


def spec_of(naming, folder: Path, names: list[str]) -> str:
    found = str(naming(folder, names))
    return f"coco:{found}" if naming is coco else found


SPELLED = [
    ("pics/a b.jpg", "pics/a%20b.jpg"),
    ("pics/a b.jpg", "./pics//a b.jpg"),
    ("pics/a b.jpg", "pics\\a b.jpg"),
    ("pics/a b.jpg", ".\\pics\\a%20b.jpg"),
    ("pics/a%20b.jpg", "pics/a%20b.jpg"),
    ("pics\\a.jpg", "pics\\a.jpg"),
    (unicodedata.normalize("NFD", "é/ü.jpg"), unicodedata.normalize("NFC", "é/ü.jpg")),
    (unicodedata.normalize("NFC", "é/ü.jpg"), unicodedata.normalize("NFD", "é/ü.jpg")),
    ("pics/100%.jpg", "pics/100%.jpg"),
    ("pics/#1?.jpg", "pics/#1?.jpg"),
]


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize(("on_disk", "named"), SPELLED)
def test_a_picture_is_found_however_a_tool_spells_its_name(tmp_path: Path, naming, on_disk: str, named: str):
    write_files(tmp_path, {on_disk: JPEG, "pics/other.jpg": JPEG})
    items = [item for item in read_all(spec_of(naming, tmp_path, [named])) if "other" not in item.uri]
    assert [(item.drop, item.data) for item in items] == [(None, JPEG)]


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/../pics"])
def test_absolute_names_below_input_are_the_files_they_name(tmp_path: Path, naming, form: str):
    folder = tmp_path / "in"
    write_files(folder, {"pics/a.jpg": JPEG})
    (item,) = read_all(spec_of(naming, folder, [f"{form.format(folder / 'pics')}/a.jpg"]))
    assert (item.drop, item.data) == (None, JPEG)


def test_an_input_that_is_a_link_is_the_folder_it_leads_to(tmp_path: Path):
    write_files(tmp_path / "real", {"a.jpg": JPEG})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    parquet(tmp_path / "real", [f"{tmp_path}/real/a.jpg", f"{tmp_path}/link/a.jpg"])
    assert reasons(read_all(f"parquet:{tmp_path}/link")) == [None, None]


LEADING_OUT = ["../secret.jpg", "{}/secret.jpg", "file://{}/secret.jpg", "pics/../../secret.jpg", "..\\secret.jpg",
               "%2e%2e/secret.jpg", "pics/x/../../../secret.jpg", "{}/in/../secret.jpg"]  # fmt: skip


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_name_that_leads_out_of_input_is_read_where_it_is_allowed_alone(tmp_path: Path, naming, name: str):
    write_files(tmp_path, {"secret.jpg": b"secret", "in/pics/a.jpg": JPEG})
    spec = spec_of(naming, tmp_path / "in", [name.format(tmp_path), "pics/a.jpg"])
    items = read_all(open_source(spec))
    assert sorted(map(str, reasons(items))) == ["None", "not_allowed"]
    assert all(item.data != b"secret" for item in items)
    allowed = read_all(open_source(spec, allow=[str(tmp_path)]))
    assert sorted(item.data or b"" for item in allowed) == sorted([b"secret", JPEG])


@pytest.mark.parametrize("naming", [coco, table])
def test_where_every_name_leads_out_the_input_is_refused_with_flag_and_count(tmp_path: Path, naming):
    write_files(tmp_path, {"else/a.jpg": JPEG, "else/b.jpg": JPEG, "in/pics/c.jpg": JPEG})
    names = [f"{tmp_path}/else/a.jpg", "../else/b.jpg"]
    spec = spec_of(naming, tmp_path / "in", names)
    with pytest.raises(SourceError, match=r"2 of the 2 files.*--read\.allow") as refused:
        list(open_source(spec).files())
    assert f"--read.allow {tmp_path}/else" in str(refused.value)
    if naming is coco:  # a table is of a folder's own images
        assert reasons(read_all(open_source(spec, allow=[f"{tmp_path}/else/"]))) == [None, None]


def test_the_flag_lets_a_job_read_and_is_asked_for_again(tmp_path: Path):
    write_files(tmp_path, {"else/a.jpg": image_bytes("JPEG")})
    spec, out = f"coco:{coco(tmp_path / 'in', [f'{tmp_path}/else/a.jpg'])}", tmp_path / "out"
    refused = run("annotate", spec, out, *CHEAP)
    assert refused.code == 2
    assert f"--read.allow {tmp_path}/else" in refused.err
    done = run("annotate", spec, out, *CHEAP, "--read.allow", "/nowhere", "--read.allow", tmp_path / "else")
    assert done.code == 0, done
    assert [row["status"] for row in read_rows(out)] == ["ok", "ok"]
    again = run("annotate", spec, out, *CHEAP)
    assert (again.code, "--read.allow" in again.err) == (3, True)


@pytest.mark.parametrize("naming", [coco, parquet])
@pytest.mark.parametrize("address", ["https://host/a.jpg", "http://host/a.jpg?x=1", "s3://bucket/a.jpg"])
def test_addresses_are_never_fetched_and_said_so(tmp_path: Path, naming, address: str):
    write_files(tmp_path, {"b.jpg": JPEG})
    spec = spec_of(naming, tmp_path, [address, "b.jpg"])
    (refused,) = [item for item in read_all(spec) if item.drop]
    assert address in refused.drop.message
    assert "not fetched" in refused.drop.message
    if naming is coco:
        with pytest.raises(SourceError, match=r"1 of the 1 files it names are addresses.*img2dataset"):
            list(open_source(spec_of(naming, tmp_path, [address])).files())


def test_names_of_a_remote_folder_stay_in_it(bucket, store):
    store.pipe("/bucket/in/a b.jpg", JPEG)
    store.pipe("/bucket/secret.jpg", b"secret")
    location = Location.of(f"{bucket}/in")
    names = Names(location)
    uris = [names.uri(name) for name in ("a%20b.jpg", ".\\a b.jpg", f"{bucket}/in/a b.jpg", "../secret.jpg")]
    assert uris == ["a b.jpg", "a b.jpg", "a b.jpg", "../secret.jpg"]
    assert [location.allows(uri) for uri in uris] == [True, True, True, False]
    assert location.allowing([bucket]).allows("../secret.jpg")


def test_links_in_a_folder_are_followed_wherever_they_lead(tmp_path: Path):
    """The pictures of Hugging Face's cache are links; names in files cannot make links."""
    write_files(tmp_path, {"blobs/1": JPEG, "in/b.jpg": JPEG})
    (tmp_path / "in" / "a.jpg").symlink_to(tmp_path / "blobs" / "1")
    assert reasons(read_all(str(tmp_path / "in"))) == [None, None]


def special(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "link to a pipe":
        os.mkfifo(path.parent / "pipe")
        path.symlink_to("pipe")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()


SPECIAL = ["pipe", "loop", "link to a pipe", "link to a device"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_a_row_and_never_waited_for(tmp_path: Path, kind: str):
    write_files(tmp_path, {"a.jpg": JPEG, "b.jpg": JPEG, "c.jpg": JPEG})
    (tmp_path / "a.jpg").unlink()
    special(tmp_path / "a.jpg", kind)
    special(tmp_path / "b.txt", "loop" if (tmp_path / "pipe").exists() else "pipe")
    found = {item.uri: item for item in read_all(f"folder:{tmp_path}/*.jpg")}
    assert found["a.jpg"].drop is not None and "a.jpg" in found["a.jpg"].drop.message
    assert found["b.jpg"].drop is not None and "b.txt" in found["b.jpg"].drop.message
    assert found["c.jpg"].drop is None
    whole = {item.uri: item for item in read_all(f"folder:{tmp_path}")}
    assert {uri for uri, item in whole.items() if item.drop is None} == {"c.jpg"}
    named = {item.uri: item for item in read_all(f"coco:{coco(tmp_path, ['a.jpg', 'c.jpg', 'x' * 300 + '.jpg'])}")}
    assert [item.drop is None for item in named.values()] == [False, True, False]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("suffix", ["tar", "parquet", "json", "jpg"])
def test_an_input_that_is_no_file_is_refused_by_name(tmp_path: Path, kind: str, suffix: str):
    special(tmp_path / f"x.{suffix}", kind)
    outcome = run("annotate", tmp_path / f"x.{suffix}", tmp_path / "out", *CHEAP)
    assert outcome.code == 2
    assert f"x.{suffix}" in outcome.err


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", SPECIAL)
def test_a_tar_that_is_no_file_is_a_row(tmp_path: Path, kind: str):
    write_tar(tmp_path / "1.tar", [members("a")])
    special(tmp_path / "0.tar", kind)
    annotate(f"{tmp_path}/{{0..1}}.tar", tmp_path / "out")
    assert {row["key"]: row["reason"] for row in read_rows(tmp_path / "out") if row["region_id"] is None} == {
        "0-missing": "missing",
        "a": None,
    }


def test_an_over_long_name_is_refused_by_name(tmp_path: Path):
    outcome = run("annotate", tmp_path / ("x" * 300), tmp_path / "out", *CHEAP)
    assert (outcome.code, "File name too long" in outcome.err) == (2, True)


def test_a_folder_that_may_not_be_read_is_refused_by_name(tmp_path: Path):
    write_files(tmp_path / "in", {"a.jpg": JPEG, "closed/b.jpg": JPEG})
    (tmp_path / "in" / "closed").chmod(0)
    with modes_hold():
        outcome = run("annotate", tmp_path / "in", tmp_path / "out", *CHEAP)
    (tmp_path / "in" / "closed").chmod(0o755)
    assert outcome.code == 5 and re.search("closed: .*make it readable to you", outcome.err), outcome


def test_a_disk_that_fails_is_the_inputs_and_not_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_files(tmp_path / "in", {"a.jpg": JPEG, "a.json": b'{"regions": []}'})

    def failing(folder, above=frozenset()):
        raise OSError(5, "Input/output error", f"{folder}a.jpg")
        yield

    monkeypatch.setattr("pipeline.read.location.walk", failing)
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0)
    outcome = run("annotate", f"folder:{tmp_path}/in", tmp_path / "out", *CHEAP)
    assert outcome.code == 5
    assert f"{tmp_path}/in/a.jpg: Input/output error" in outcome.err


def test_a_disk_that_fails_while_reading_is_the_inputs_after_some_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_tar(tmp_path / "in" / "0.tar", [members("a")])
    plan = run("plan", tmp_path / "in", tmp_path / "out", *CHEAP)
    assert plan.code == 0, plan
    tries = []

    open_file = pipeline.read.location.open_file

    def failing(path, *arguments):
        if not str(path).endswith(".tar"):
            return open_file(path, *arguments)
        tries.append(path)
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr("pipeline.read.location.open_file", failing)
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0)
    outcome = run("annotate", tmp_path / "in", tmp_path / "out", *CHEAP)
    assert outcome.code == 5, outcome
    assert "0.tar: Input/output error" in outcome.err
    assert len(tries) == 3
    monkeypatch.undo()
    annotate(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\rb", "a\x07b", "a\u202eb"])
def test_control_characters_of_names_reach_no_terminal(tmp_path: Path, name: str):
    outcomes = [run("annotate", tmp_path / name, tmp_path / "out", *CHEAP)]
    write_tar(tmp_path / name / "0.tar", [members("a")])
    outcomes.append(run("plan", tmp_path / name, tmp_path / "out", *CHEAP))
    outcomes.append(run("annotate", tmp_path / name, tmp_path / f"out{name}", *CHEAP))
    write_tar(tmp_path / name / f"1{name}.tar", [members("b")])
    outcomes.append(run("annotate", tmp_path / name, tmp_path / "out", *CHEAP))
    assert [outcome.code for outcome in outcomes] == [2, 0, 0, 3]
    for outcome in outcomes:
        assert name not in outcome.out + outcome.err
    assert printable(name) in outcomes[0].err


def test_bytes_that_are_no_text_can_be_printed():
    assert printable("a\udce9\ud800b\n") == "a\\udce9\\ud800b\n"


def test_a_name_has_few_spellings_and_the_one_written_is_first():
    assert spellings("plain/name.jpg") == ["plain/name.jpg"]
    assert spellings("a%20b\\c")[:4] == ["a%20b\\c", "a%20b/c", "a b\\c", "a b/c"]


def test_keys_with_a_prefix_fit_a_tar_and_stay_apart():
    keys = [f"{'k' * 78}-{number}" for number in (1, 2)]
    made = [with_prefix(key, "p" * 24) for key in keys]
    assert len(set(made)) == 2
    for key in made:
        assert re.fullmatch(KEY_PATTERN, key) and len(key) <= 95 and key.split("-")[0] == "p" * 24
    assert with_prefix("k" * 80, "p" * 14) == f"{'p' * 14}-{'k' * 80}"
    assert with_prefix("k" * 80, "") == "k" * 80


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
LABEL = b"0 .5 .5 .2 .2\n"
CORNERS = b"<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
XML = b"<annotation><object><bndbox>" + CORNERS + b"</bndbox></object></annotation>"
BESIDE = {
    "text": ("folder:{}", "{}.jpg", {"{}.txt": b"a cup"}),
    "text under the whole name": ("folder:{}", "{}.jpg", {"{}.jpg.txt": b"a cup"}),
    "record": ("folder:{}", "{}.jpg", {"{}.json": b'{"regions": [{"box": [1, 1, 9, 9]}]}'}),
    "yolo": ("yolo:{}/data.yaml", "images/{}.jpg", {"labels/{}.txt": LABEL}),
    "voc": ("voc:{}", "JPEGImages/{}.jpg", {"Annotations/{}.xml": XML}),
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize(("picture", "other"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_file_of_a_picture_is_found_where_its_accents_are_spelled_otherwise(tmp_path: Path, kind, picture, other):
    spec, image, files = BESIDE[kind]
    data = {name.format(other): content for name, content in files.items()}
    start = {"data.yaml": b"train: images\nnames: [cup]"} if kind == "yolo" else {}
    folder = write_files(tmp_path / "one", start | {image.format(picture): JPEG} | data)
    (item,) = read_all(spec.format(folder))
    assert item.caption == "a cup" or len(item.given) == 1
    told = open_source(spec.format(folder)).describe()
    assert told.captions or told.boxes
    both = write_files(tmp_path / "both", start | {image.format(name): JPEG for name in (picture, other)} | data)
    found = {item.uri: item.caption or len(item.given) for item in read_all(spec.format(both))}
    assert [bool(found[image.format(name)]) for name in (picture, other)] == [False, True]
