"""What goes wrong in real folders and tars: each thing ends as a counted row with a reason, or as a clear error.

All bad images lie in one folder, all bad samples in one folder of tars; each is annotated once.
"""

import io
import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from pipeline.read.keys import as_key
from schemas.dataset import Dataset
from tests.builders import (
    CHEAP,
    Members,
    annotate,
    check_balance,
    image_bytes,
    image_rows,
    jpeg,
    members,
    read_markers,
    read_rows,
    run,
    write_files,
    write_photos,
    write_tar,
)

NAN, INFINITY = float("nan"), float("inf")
EXIF_ORIENTATION = 0x0112
PROCESS_STATUS = Path("/proc/self/status")


def animation(image_format: str) -> bytes:
    frames = [Image.new("RGB", (96, 64), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:], duration=100)
    return buffer.getvalue()


def palette_with_transparency() -> bytes:
    image = Image.new("P", (96, 64), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0)
    return buffer.getvalue()


def deep_png() -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write."""
    rows = b"".join(b"\0" + struct.pack(">H", 40_000) * 3 * 96 for _ in range(64))
    return png(96, 64, depth=16, colour_type=2, rows=rows)


def huge_png() -> bytes:
    """A valid black and white PNG of 20,000 x 20,000 pixels: 50 KB that decode to 1.2 GB of RGB."""
    return png(20_000, 20_000, depth=1, colour_type=0, rows=bytes(20_000 * (1 + 20_000 // 8)))


def png(width: int, height: int, *, depth: int, colour_type: int, rows: bytes) -> bytes:

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = zlib.compress(rows, level=1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def rotated_jpeg() -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return image_bytes("JPEG", exif=exif)


FOLDER = {
    "good.jpg": jpeg(1),
    "truncated.jpg": jpeg(2)[:-2000],
    "words.jpg": b"This is not a photograph.\n",
    "zero.jpg": b"",
    "cmyk.jpg": image_bytes("JPEG", mode="CMYK"),
    "deep.png": deep_png(),
    "gray.jpg": image_bytes("JPEG", mode="L"),
    "palette.png": palette_with_transparency(),
    "animated-gif.gif": animation("GIF"),
    "animated-webp.webp": animation("WEBP"),
    "rotated.jpg": rotated_jpeg(),
    "dot.png": image_bytes("PNG", width=1, height=1),
    "huge.png": huge_png(),
    "a/twin.jpg": jpeg(3),
    "b/twin.jpg": jpeg(4),
    "sibling.jpg": jpeg(5),
    "sibling.png": image_bytes("PNG"),
    "Some.Photo.01.JPG": jpeg(6),
    "été 图.jpg": jpeg(7),
    "lines.jpg": jpeg(8),
    "lines.txt": b"first line\nsecond line\n",
    "nul.jpg": jpeg(9),
    "nul.txt": b"before\0after",
    "emoji.jpg": jpeg(10),
    "emoji.txt": "a \N{DOG} runs".encode(),
    "latin.jpg": jpeg(11),
    "latin.txt": "caf\xe9".encode("latin-1"),
    "blank.jpg": jpeg(12),
    "blank.txt": b"",
    "not-an-image.pdf": b"%PDF",
}

NOT_OK = {
    "truncated": ("dead", "truncated", "decode"),
    "words": ("dead", "decode", "decode"),
    "zero": ("dead", "empty_file", "read"),
    "dot": ("filtered", "low_resolution", "select"),
    "huge": ("dead", "too_large", "decode"),
    "latin": ("dead", "caption_encoding", "read"),
}

STORED = {
    "good": ("jpg", False),
    "cmyk": ("jpg", True),
    "deep": ("png", True),
    "gray": ("jpg", True),
    "palette": ("png", True),
    "animated-gif": ("jpg", True),
    "animated-webp": ("jpg", True),
    "rotated": ("jpg", True),
}
"""How each image is stored: suffix, and whether it was re-encoded."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("folder")
    annotate(write_files(base / "photos", {**FOLDER, "good.json": b'{"regions": []}'}), base / "out")
    return base / "out"


def test_a_folder_of_bad_images_balances(folder: Path):
    check_balance(folder)
    (marker,) = read_markers(folder)
    images = sum(not name.endswith((".txt", ".pdf")) for name in FOLDER)
    assert (marker.images.inputs, marker.images.ok) == (images, images - len(NOT_OK))


@pytest.mark.parametrize("key", NOT_OK)
def test_what_cannot_be_used_is_a_row_with_a_reason(folder: Path, key: str):
    row = image_rows(folder)[key]
    assert (row["status"], row["reason"], row["stage"]) == NOT_OK[key]
    assert row["message"]
    assert row["tar_offset"] is None


@pytest.mark.parametrize("key", STORED)
def test_what_a_shard_cannot_hold_is_stored_upright_in_8_bit_rgb(folder: Path, key: str):
    sample = Dataset.open(folder).read_sample(key, verify=True)
    assert (sample.suffix, sample.record.reencoded) == STORED[key]
    with Image.open(io.BytesIO(sample.image)) as image:
        assert (image.mode, image.size) == ("RGB", (sample.record.width, sample.record.height))
        assert getattr(image, "n_frames", 1) == 1
        assert image.getexif().get(EXIF_ORIENTATION, 1) == 1


def test_a_rotated_image_is_stored_with_its_sides_swapped(folder: Path):
    record = Dataset.open(folder).read_sample("rotated").record
    assert (record.width, record.height) == (64, 96)


def test_transparency_is_white_and_an_animation_its_first_frame(folder: Path):
    corners = {}
    for key in ("palette", "animated-gif"):
        with Image.open(io.BytesIO(Dataset.open(folder).read_sample(key).image)) as image:
            corners[key] = image.getpixel((0, 0))
    assert corners["palette"] == (255, 255, 255)
    red, green, blue = corners["animated-gif"]
    assert red > 200 and green < 50 and blue < 50


def test_names_that_are_no_keys_become_keys_that_stay_apart(folder: Path):
    keys = {sample.record.source.uri: sample.key for sample in Dataset.open(folder).samples("train-000000")}
    assert keys["a/twin.jpg"].startswith("a-twin-") and keys["b/twin.jpg"].startswith("b-twin-")
    assert keys["sibling.jpg"].startswith("sibling-jpg-") and keys["sibling.png"].startswith("sibling-png-")
    assert keys["Some.Photo.01.JPG"].startswith("some-photo-01-")
    assert keys["été 图.jpg"].startswith("ete-")
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize(
    ("key", "caption"),
    [
        ("lines", "first line\nsecond line"),
        ("nul", "before\ufffdafter"),
        ("emoji", "a \N{DOG} runs"),
        ("blank", None),
        ("good", None),
    ],
)
def test_captions_are_stored_as_they_are(folder: Path, key: str, caption: str | None):
    sample = Dataset.open(folder).read_sample(key)
    assert sample.record.image_caption == sample.image_caption == image_rows(folder)[key]["image_caption"] == caption


@pytest.mark.skipif(not PROCESS_STATUS.exists(), reason="peak memory is read from Linux's /proc")
def test_a_huge_image_is_refused_before_it_fills_memory(tmp_path: Path):
    folder = write_files(tmp_path / "photos", {"huge.png": huge_png(), "huge.json": b'{"regions": []}'})
    code = f"import sys, fineclip; print(fineclip.main(sys.argv[1:]), open('{PROCESS_STATUS}').read())"
    command = [sys.executable, "-c", code, "annotate", str(folder), str(tmp_path / "out"), *CHEAP]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "100.00% are dead, more than --max-dead 1.00%" in ran.stderr
    assert image_rows(tmp_path / "out")["huge"]["reason"] == "too_large"
    peak = re.search(r"VmHWM:\s+(\d+) kB", ran.stdout)
    assert peak is not None and int(peak[1]) * 1024 < 0.8e9


GOOD_BOX = (10.0, 10.0, 50.0, 50.0)
BOXES = {
    "inside": (GOOD_BOX, ("ok", None, None)),
    "beyond": ((200.0, 10.0, 250.0, 50.0), ("filtered", "outside", "select")),
    "nan": ((NAN, 10.0, 50.0, 50.0), ("dead", "invalid_box", "select")),
    "infinite": ((10.0, 10.0, INFINITY, 50.0), ("dead", "invalid_box", "select")),
    "inverted": ((50.0, 10.0, 10.0, 50.0), ("dead", "invalid_box", "select")),
    "empty": ((10.0, 10.0, 10.0, 50.0), ("dead", "invalid_box", "select")),
    "sliver": ((10.0, 10.0, 13.0, 50.0), ("filtered", "small", "select")),
}
"""A given box, and how its row ends."""

SAMPLES: dict[str, Members] = {
    "no-image": [("no-image.txt", b"a caption alone")],
    "no-json": [("no-json.jpg", jpeg(1)), ("no-json.json", b"{broken")],
    "odd-regions": [("odd-regions.jpg", jpeg(1)), ("odd-regions.json", b'{"regions": [{"box": [1, 2]}]}')],
    "two-images": [("two-images.jpg", jpeg(1)), ("two-images.png", image_bytes("PNG"))],
    "other-size": [
        ("other-size.jpg", jpeg(1)),
        (
            "other-size.json",
            json.dumps({"width": 640, "height": 480, "regions": [{"box": GOOD_BOX}]}).encode(),
        ),
    ],
    "dotted": [("dotted.name.jpg", jpeg(1))],
}
SAMPLE_ENDINGS = {
    "no-image": ("dead", "no_image", "read"),
    "no-json": ("dead", "bad_record", "read"),
    "odd-regions": ("ok", None, None),
    as_key("two-images.jpg"): ("dead", "shared_key", "read"),
    as_key("two-images.png"): ("dead", "shared_key", "read"),
    "other-size": ("dead", "size_mismatch", "decode"),
    "dotted": ("dead", "no_image", "read"),
    "cut-truncated": ("dead", "truncated", "read"),
    "words-truncated": ("dead", "truncated", "read"),
    "nothing-truncated": ("dead", "truncated", "read"),
}


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tars: boxes, samples, keys that repeat, a cut one, and two that are none."""
    base = tmp_path_factory.mktemp("tars")
    source = base / "source"
    write_tar(source / "a-boxes.tar", [members(name, boxes=[box]) for name, (box, _) in BOXES.items()])
    write_tar(source / "b-samples.tar", SAMPLES.values())
    write_tar(source / "c-twice.tar", [members("twice", boxes=[GOOD_BOX]), members("twice", boxes=[])])
    whole = write_tar(source / "cut.tar", [members(f"cut-{number}", boxes=[GOOD_BOX]) for number in range(3)])
    data = whole.read_bytes()
    whole.write_bytes(data[: data.index(b"cut-2.jpg") + 1000])
    write_files(source, {"nothing.tar": b"", "words.tar": b"This is not a tar.\n"})
    annotate(source, base / "out")
    return base / "out"


def test_a_folder_of_bad_tars_balances(tars: Path):
    check_balance(tars)
    assert len(read_markers(tars)) == 6


@pytest.mark.parametrize("name", BOXES)
def test_a_given_box_ends_as_a_region_or_as_a_row_with_a_reason(tars: Path, name: str):
    image, region = [row for row in read_rows(tars) if row["key"] == name]
    assert image["status"] == "ok"
    assert (region["status"], region["reason"], region["stage"]) == BOXES[name][1]


@pytest.mark.parametrize("key", SAMPLE_ENDINGS)
def test_a_bad_sample_is_a_row_with_a_reason(tars: Path, key: str):
    row = image_rows_of(tars, key)
    assert [(r["status"], r["reason"], r["stage"]) for r in row] == [SAMPLE_ENDINGS[key]]


def image_rows_of(output: Path, key: str) -> list[dict[str, object]]:
    return [row for row in read_rows(output) if row["key"] == key and row["region_id"] is None]


def test_the_second_sample_of_a_key_is_dead(tars: Path):
    first, second = image_rows_of(tars, "twice")
    assert first["status"] == "ok"
    assert (second["status"], second["reason"], second["stage"]) == ("dead", "duplicate_key", "read")


def test_a_cut_tar_yields_the_samples_before_the_cut(tars: Path):
    keys = [row["key"] for row in read_rows(tars) if str(row["key"]).startswith("cut-") and row["region_id"] is None]
    assert keys == ["cut-0", "cut-1", "cut-truncated"]
    (row,) = image_rows_of(tars, "cut-truncated")
    assert "the archive ends inside cut-2.jpg" in str(row["message"])


def test_equal_boxes_are_one_region_unless_overlap_is_wanted(tmp_path: Path):
    source = write_tar(tmp_path / "a.tar", [members("equal", boxes=[GOOD_BOX, GOOD_BOX])])
    annotate(source, tmp_path / "one")
    assert [row["reason"] for row in read_rows(tmp_path / "one")] == [None, None, "overlap"]
    annotate(source, tmp_path / "both", "--select.max-iou", "1")
    first, second = Dataset.open(tmp_path / "both").read_sample("equal").record.regions
    assert first.box == second.box == GOOD_BOX
    assert first.id != second.id


def test_a_box_that_reaches_out_of_its_image_is_clipped(tmp_path: Path):
    annotate(write_tar(tmp_path / "a.tar", [members("wide", boxes=[(-5.0, -5.0, 500.0, 500.0)])]), tmp_path / "out")
    (region,) = Dataset.open(tmp_path / "out").read_sample("wide").record.regions
    assert region.box == (0.0, 0.0, 96.0, 64.0)


def test_a_key_in_two_tars_is_reported(tmp_path: Path):
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / "source" / name, [members("same"), members(name[0])])
    outcome = annotate(tmp_path / "source", tmp_path / "out")
    assert "1 key lies in more than one shard, such as same" in outcome.out
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["repeated_keys"] == ["same"]


def test_more_dead_than_allowed_is_exit_code_1(tmp_path: Path):
    folder = write_photos(tmp_path / "photos", 4)
    write_files(folder, {"bad.jpg": b"words"})
    outcome = run("annotate", folder, tmp_path / "out", *CHEAP)
    assert outcome.code == 1
    assert "20.00% are dead, more than --max-dead 1.00%" in " ".join(outcome.err.split())
    assert "images dead: decode" in outcome.out
    again = run("annotate", folder, tmp_path / "out", *CHEAP, "--max-dead", "0.2")
    assert again.code == 0, again


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "no image, tar, Parquet or Arrow file is there; check the path"),
        ({"notes.pdf": b"x"}, "is there, only 1 .pdf"),
        ({"a.jpg": jpeg(0), "b.tar": b"x"}, "holds files of several kinds"),
    ],
)
def test_an_input_with_nothing_to_read_is_exit_code_2(tmp_path: Path, files: dict[str, bytes], sentence: str):
    (tmp_path / "in").mkdir()
    write_files(tmp_path / "in", files)
    outcome = run("annotate", tmp_path / "in", tmp_path / "out", *CHEAP)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there_is_exit_code_2(tmp_path: Path):
    outcome = run("annotate", tmp_path / "nowhere", tmp_path / "out", *CHEAP)
    assert outcome.code == 2
    assert f"{tmp_path}/nowhere: no such file or folder" in outcome.err


def test_an_output_below_a_file_is_exit_code_5(tmp_path: Path):
    folder = write_photos(tmp_path / "photos", 1)
    (tmp_path / "file").write_bytes(b"in the way")
    outcome = run("annotate", folder, tmp_path / "file" / "out", *CHEAP)
    assert outcome.code == 5
    assert str(tmp_path / "file") in outcome.err
    assert "a file is in the way: choose another OUTPUT" in outcome.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--proposer", "yolov9", "--propose.min-score", "1.5"),
            "--propose.min-score is 1.5, but must be between 0 and 1",
        ),
        (("--proposer", "yolov9", "--propose.batch-size", "0"), "--propose.batch-size is 0, but must be at least 1"),
        (("--proposer", "yolov9", "--propose.max-proposals", "0"), "--propose.max-proposals is 0"),
        (("--captioner", "blip2", "--caption.batch-size", "-4"), "--caption.batch-size is -4"),
        (
            ("--captioner", "clip_rule", "--caption.model", "mini", "--caption.concepts", "/nope"),
            "--caption.concepts /nope",
        ),
        (("--device", "gpu"), "--device is 'gpu'; known: auto, cpu, cuda, cuda:N"),
    ],
)
def test_settings_that_cannot_work_are_told_before_any_work(tmp_path: Path, flags: tuple[str, ...], message: str):
    outcome = run("annotate", "scenes:2", tmp_path / "out", "--profile", "weightless", *flags)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
    assert not (tmp_path / "out").exists()


def test_a_hash_that_is_given_must_be_that_of_the_weights(tmp_path: Path):
    model = tmp_path / "yolov9t.safetensors"
    save_file({"any": np.zeros(1)}, model)
    yolo = ("--proposer", "yolov9", "--propose.engine", "libreyolo", "--propose.model", model)
    outcome = run("annotate", "scenes:2", tmp_path / "out", *yolo, "--captioner", "rule", "--propose.sha256", "abc")
    assert outcome.code == 2
    assert "not the one that --propose.sha256 names: abc" in outcome.err


def test_an_output_without_shards_says_that_it_can_be_deleted(tmp_path: Path):
    assert run("plan", "scenes:2", tmp_path / "out", "--profile", "weightless").code == 0
    outcome = run("annotate", "scenes:2", tmp_path / "out", "--profile", "mini")
    assert outcome.code == 3
    assert "it has no shard yet: delete it" in outcome.err


def test_a_missing_input_is_told_before_the_cost_of_the_models(tmp_path: Path):
    outcome = run("annotate", tmp_path / "nowhere", tmp_path / "out")
    assert outcome.code == 2
    assert "nowhere" in outcome.err
    assert "GPU" not in outcome.err
