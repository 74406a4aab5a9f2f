"""The plan says at once what an input gives, where from, and what lies there unread."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.plan.plan import load_plan
from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.read.describe import InputSummary
from pipeline.read.summary import lines, summarise
from pipeline.store.storage import open_storage
from tests.builders import (
    CHEAP,
    SEARCH,
    annotate,
    image_bytes,
    image_rows,
    jpeg,
    members,
    read_rows,
    run,
    write_files,
    write_photos,
    write_tar,
    write_tars,
)

JPEG = jpeg(0)


def summary_of(spec: str | Path) -> InputSummary:
    source = open_source(str(spec))
    return summarise(source, source.describe(), next(iter(source.parts(10, False))))


def text_of(spec: str | Path) -> str:
    return "\n".join(lines(summary_of(spec)))


def unread(summary: InputSummary) -> dict[str, str]:
    return {entry.name: entry.like for entry in summary.described.unread}


def coco(folder: Path, bbox: list[float], *, num: int = 4, width: int = 96, height: int = 64) -> str:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": width, "height": height} for n in range(num)]
    boxes: list[dict[str, Any]] = [{"id": n, "image_id": n, "bbox": bbox} for n in range(num)]
    write_files(folder, {f"{n}.jpg": JPEG for n in range(num)})
    write_files(folder, {"boxes.json": json.dumps({"images": images, "annotations": boxes}).encode()})
    return f"coco:{folder / 'boxes.json'}"


def parquet(folder: Path, **columns: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "0.parquet")
    return str(folder)


def test_a_folder_is_counted_by_suffix_and_what_is_not_read_is_named(tmp_path: Path):
    files = {"a.jpg": JPEG, "b.JPG": JPEG, "c.png": image_bytes("PNG"), "a.txt": b"words", "voc/a.xml": b"<a/>"}
    write_files(tmp_path, {**files, "x.heic": b"", "labels/a.txt": b"1 0.5 0.5 0.1 0.1", "notes.md": b""})
    summary = summary_of(tmp_path)
    assert summary.described.images == {".jpg": 2, ".png": 1}
    assert (summary.num_looked_at, summary.num_captioned, summary.num_boxed) == (3, 1, 0)
    found = unread(summary)
    assert (found[".xml"], found[".heic"], found[".md"]) == ("boxes", "images", "other")
    text = text_of(tmp_path)
    assert "images: 3 (2 .jpg, 1 .png)" in text
    assert "with 1 of the first 3" in text
    assert "1 .xml (looks like boxes)" in text


def test_a_table_of_captions_is_named(tmp_path: Path):
    write_files(tmp_path, {"a.jpg": JPEG, "t.csv": b"file,caption\na.jpg,words\n"})
    assert f"captions: from {tmp_path}/t.csv; with 1 of the first 1" in text_of(f"folder:{tmp_path}?captions=t.csv")


def test_members_of_tars_are_told(tmp_path: Path):
    samples = [[*members(f"k{n}"), (f"k{n}.bbox.json", b"[]"), (f"k{n}.cls", b"3")] for n in range(3)]
    write_tar(tmp_path / "0.tar", samples)
    summary = summary_of(tmp_path)
    assert summary.described.captions == (".txt members",)
    assert summary.described.boxes == ("`regions` of .json members",)
    assert unread(summary) == {".bbox.json members": "boxes", ".cls members": "other"}
    assert (summary.num_looked_at, summary.num_captioned, summary.num_boxed) == (3, 3, 3)


FIELDS = {"url": "https://h/a.jpg", "text": "a dog", "title": "", "boxes": [[1, 2, 3, 4]], "mask": "x", "key": "k"}


@pytest.mark.parametrize("packed", [True, False])
def test_fields_of_json_that_are_not_read_are_told(tmp_path: Path, packed: bool):
    entries = [(f"{n}.{suffix}", data) for n in range(3)
               for suffix, data in (("jpg", JPEG), ("json", json.dumps(FIELDS).encode()))]  # fmt: skip
    spec = str(write_tar(tmp_path / "0.tar", [entries]) if packed else write_files(tmp_path, dict(entries)))
    described = open_source(spec).describe()
    assert {entry.name: (entry.like, entry.count) for entry in described.unread} == {
        "field 'boxes' of .json": ("boxes", 3), "field 'text' of .json": ("captions", 3),
    }  # fmt: skip


def test_columns_of_parquet_are_told(tmp_path: Path):
    objects = [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [1]}] * 2
    spec = parquet(tmp_path, image=[JPEG, JPEG], text=["a", ""], detections=objects, depth=[JPEG] * 2,
                   alt_text=["x"] * 2,
                   width=[1, 2], label=[0, 1])  # fmt: skip
    summary = summary_of(spec)
    assert summary.described.captions == ("column 'text'",)
    assert (summary.num_looked_at, summary.num_captioned) == (2, 1)
    found = {name: like for name, like in unread(summary).items() if like != "other"}
    assert found == {"column 'detections'": "boxes", "column 'depth'": "images", "column 'alt_text'": "captions"}


def test_files_of_splits_that_may_count_alike_are_told(tmp_path):
    for name in ("train", "validation"):
        pq.write_table(pa.table({"image": [JPEG], "id": [1]}), tmp_path / f"{name}.parquet")
    (note,) = open_source(f"parquet:{tmp_path}").describe().notes
    assert "called by column 'id' alone: if train.parquet and validation.parquet count alike" in note
    assert open_source(f"parquet:{tmp_path}/train.parquet").describe().notes == ()


def test_coco_counts_its_annotations_and_names_the_json_beside(tmp_path: Path):
    spec = coco(tmp_path, [1, 2, 30, 40])
    write_files(tmp_path, {"captions_val.json": b"{}"})
    summary = summary_of(spec)
    assert (summary.described.num_images, summary.num_boxed) == (4, 4)
    assert summary.described.boxes[0].startswith("4 annotations of")
    assert unread(summary) == {"captions_val.json": "captions"}


def test_a_remote_tar_is_not_fetched_to_look_into_it(bucket, store, tmp_path: Path):
    store.pipe("/bucket/0.tar", write_tar(tmp_path / "0.tar", [members("a")]).read_bytes())
    summary = summary_of(f"{bucket}/0.tar")
    assert (summary.num_looked_at, summary.described.is_quick) == (0, False)
    assert "told once they are read" in text_of(f"{bucket}/0.tar")


def test_what_will_die_is_told(tmp_path: Path):
    write_files(tmp_path, {"a.jpg": JPEG, "b.jpg": b"", "c.jpg": JPEG, "c.txt": b"\xff\xfe\xff"})
    assert summary_of(tmp_path).dropped == {"caption_encoding": 1, "empty_file": 1}
    assert "of the first 3, 1 will be empty_file" in text_of(tmp_path)


def test_plan_and_annotate_print_it_and_the_plan_keeps_it(tmp_path: Path):
    photos = write_photos(tmp_path / "photos", 3)
    write_files(photos, {"a\x1b[31m.xml\x1b[31m": b"x"})
    for command in ("plan", "annotate"):
        outcome = run(command, photos, tmp_path / "out", *CHEAP)
        assert outcome.code == 0, outcome
        assert "with 3 of the first 3" in " ".join((outcome.out + outcome.err).split())
        assert "\x1b" not in outcome.out + outcome.err
    plan = load_plan(open_storage(str(tmp_path / "out")))
    assert plan is not None
    assert plan.inputs[0].summary == summary_of(photos)


def hugging_face(folder: Path) -> str:
    objects = [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [1]}]
    return parquet(folder, image=[{"bytes": JPEG, "path": "a.jpg"}], detections=objects)


def export(suffix: str, *files: tuple[str, bytes]):
    def write(folder: Path) -> str:
        return str(write_files(folder, {"images/a.jpg": JPEG, **dict(files)}))

    write.__name__ = suffix
    return write


def tars_of_others(folder: Path) -> str:
    write_tar(folder / "0.tar", [[("a.jpg", JPEG), ("a.xml", b"<a/>"), ("a.json", b'{"boxes": [[1, 2, 3, 4]]}')]])
    return str(folder)


def coco_of_captions(folder: Path) -> str:
    captions = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "words"}]}
    return f"coco:{write_files(folder, {'a.jpg': JPEG, 'c.json': json.dumps(captions).encode()}) / 'c.json'}"


WITHOUT_BOXES = [
    hugging_face,
    export("voc", ("annotations/a.xml", b"<annotation/>")),
    export("yolo", ("labels/a.txt", b"0 0.5 0.5 0.1 0.1")),
    export("labelme", ("annotations/a.json", b'{"shapes": []}')),
    export("csv", ("boxes.csv", b"file,x0,y0,x1,y1\n")),
    export("none"),
    tars_of_others,
    coco_of_captions,
]


@pytest.mark.parametrize("write", WITHOUT_BOXES, ids=lambda write: write.__name__)
def test_manual_is_refused_where_no_boxes_can_come(tmp_path: Path, write):
    spec = write(tmp_path / "in")
    for command in ("plan", "annotate"):
        outcome = run(command, spec, tmp_path / "out", *CHEAP)
        assert outcome.code == 2, outcome
        assert "--proposer manual takes the boxes" in outcome.err
        assert "coco:FILE.json" in outcome.err
    assert not (tmp_path / "out" / "_plan").exists()


def test_the_refusal_names_what_looks_like_boxes(tmp_path: Path):
    assert "column 'detections'" in run("plan", hugging_face(tmp_path / "in"), tmp_path / "out", *CHEAP).err


def test_manual_takes_boxes_of_later_samples_and_records_without_any(tmp_path: Path):
    write_tar(tmp_path / "in" / "0.tar", [members("a", boxes=()), members("b", boxes=())])
    annotate(tmp_path / "in", tmp_path / "out")
    assert set(image_rows(tmp_path / "out")) == {"a", "b"}


def test_one_of_several_inputs_without_boxes_is_refused_by_name(tmp_path: Path):
    tars, photos = write_tars(tmp_path / "tars", 1, 1), write_files(tmp_path / "photos", {"a.jpg": JPEG})
    outcome = run("plan", tars, photos, tmp_path / "out", *CHEAP)
    assert (outcome.code, str(photos) in outcome.err) == (2, True)


def test_records_beside_images_are_read_as_members_of_tars_are(tmp_path: Path):
    record = {"regions": [{"box": [2, 2, 30, 40], "label": "cat"}], "url": "https://h/a.jpg", "license": "CC0"}
    write_files(tmp_path / "in", {"a.jpg": JPEG, "a.json": json.dumps(record).encode(), "b.jpg": JPEG})
    annotate(tmp_path / "in", tmp_path / "out")
    regions = [row for row in read_rows(tmp_path / "out") if row["region_id"]]
    assert [(row["key"], row["status"], row["label"]) for row in regions] == [("a", "ok", "cat")]


def img2dataset_files(folder: Path) -> Path:
    """Write what img2dataset's `files` output has: pictures, texts and records in folders, a table for each."""
    names = [f"00000000{n}" for n in range(3)]
    for name in names[:2]:
        record = {"caption": f"words {name}", "url": f"https://h/{name}", "key": name, "status": "success", "width": 9}
        files = {"jpg": JPEG, "txt": f"words {name}".encode(), "json": json.dumps(record).encode()}
        write_files(folder / "00000", {f"{name}.{suffix}": data for suffix, data in files.items()})
    status = ["success", "success", "failed_to_download"]
    columns = {"url": names, "key": names, "status": status, "caption": names}
    pq.write_table(pa.table(columns), folder / "00000.parquet")
    write_files(folder, {"00000_stats.json": b"{}"})
    return folder


def test_the_files_layout_of_img2dataset_is_a_folder(tmp_path: Path):
    source = open_source(str(img2dataset_files(tmp_path)))
    assert source.kind == "folder"
    items = [item for parts in source.parts(10, False) for part in parts for item in source.read(part)]
    assert [item.url for item in items] == ["https://h/000000000", "https://h/000000001"]
    assert summary_of(tmp_path).num_captioned == 2


@pytest.mark.parametrize("null", [None, {"bytes": None, "path": None}])
def test_rows_that_their_producer_marked_as_failed_are_not_dead(tmp_path: Path, null: Any):
    image = JPEG if null is None else {"bytes": JPEG, "path": None}
    spec = parquet(tmp_path / "in", image=[image, null, null, null], status=["success", "failed_to_download",
                   "failed_to_resize", "success"], caption=list("abcd"))  # fmt: skip
    outcome = run("annotate", spec, tmp_path / "out", "--proposer", "selective_search", "--captioner", "rule",
                  "--max-dead", "1")  # fmt: skip
    assert outcome.code == 0, outcome
    rows = [row for row in read_rows(tmp_path / "out") if row["region_id"] is None]
    found = [(row["status"], row["reason"]) for row in rows]
    assert found == [("ok", None), *[("filtered", "not_downloaded")] * 2, ("dead", "no_image")]
    assert "failed_to_resize" in rows[2]["message"]


@pytest.mark.parametrize(
    ("bbox", "doubt"),
    [
        ([10, 10, 30, 30], None),
        ([60, 40, 90, 60], "reach beyond their images"),
        ([0.1, 0.2, 0.3, 0.4], "lie within 0..1"),
        ([0, 0, 96.5, 64.4], None),
        ([float("nan"), 0, 1, 1], None),
    ],
)
def test_boxes_that_can_hardly_be_right_are_told(tmp_path: Path, bbox: list[float], doubt: str | None):
    spec = coco(tmp_path / "in", bbox, num=12)
    assert (doubt or "None") in str(summary_of(spec).box_doubt)
    outcome = run("annotate", spec, tmp_path / "out", *CHEAP, "--max-dead", "1")
    assert outcome.code == 0, outcome
    told = " ".join(outcome.out.split())
    assert ("12 of 12 given boxes" in told) == (doubt is not None), outcome.out


def test_boxes_of_tars_are_judged_by_the_images_own_size(tmp_path: Path):
    write_tar(tmp_path / "0.tar", [members(f"k{n}", boxes=[(50.0, 40.0, 150.0, 90.0)]) for n in range(12)])
    assert "reach beyond" in str(summary_of(tmp_path).box_doubt)


def test_an_input_that_fails_to_be_described_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="no column of image bytes"):
        open_source(parquet(tmp_path, url=["x"])).describe()


def test_a_coco_file_whose_images_are_nowhere_is_refused_before_anything_is_written(tmp_path: Path):
    (tmp_path / "x.json").write_text(
        json.dumps({"images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)], "annotations": []})
    )
    outcome = run("annotate", f"coco:{tmp_path}/x.json", tmp_path / "out", *SEARCH)
    assert outcome.code == 2
    assert "3 images named there, and none found" in outcome.err and "x.json?images=DIR" in outcome.err
    assert not list((tmp_path / "out").glob("_plan/*"))
