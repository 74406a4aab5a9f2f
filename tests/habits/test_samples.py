"""One row for many is counted as many: pictures that share a key, samples lost together."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.read import open_source
from pipeline.read.keys import as_key
from schemas.reasons import STATUS_OF, Reason, Status
from tests.builders import annotate, check_balance, image_rows, jpeg, read_markers, run, write_tar
from tests.pipeline.read.source_builders import JPEG, read_all, reasons, tar_bytes

BOXES = ("good0.json", b'{"regions": [{"box": [2, 2, 60, 50], "label": "cat"}]}')


def read(folder: Path, names: Sequence[str]) -> dict[str, tuple[Reason | None, str]]:
    """Reason and message of each item of a tar of files with these names, by key."""
    (folder / "x.tar").write_bytes(tar_bytes([(name, JPEG + name.encode()) for name in names]))
    found = read_all(str(folder / "x.tar"))
    by_key = {
        item.key: (item.drop.reason if item.drop else None, item.drop.message if item.drop else "") for item in found
    }
    assert len(by_key) == len(found)
    return by_key


@pytest.mark.parametrize(
    "pattern",
    ["shot.{:04d}.jpg", "a/b/shot.{}.png", "v1.0_{}.jpg", "IMG.2024.{}.JPEG", "x.{}.webp", "2024.05.{:02d}.tiff"],
)
@pytest.mark.parametrize("count", [2, 7, 60])
def test_pictures_of_one_key_have_a_row_each_that_says_why(tmp_path, pattern, count):
    names = [pattern.format(number) for number in range(count)]
    found = read(tmp_path, names)
    assert found.keys() == {as_key(name) for name in names}
    for name in names:
        reason, message = found[as_key(name)]
        assert reason is Reason.SHARED_KEY
        assert name in message and f"one of {count} pictures" in message and "first dot" in message


@pytest.mark.parametrize("suffixes", [("jpg", "png"), ("jpg", "JPG"), ("jpg", "jpeg", "webp"), ("avif", "jp2")])
def test_pictures_that_differ_in_their_suffix_alone_have_a_row_each(tmp_path, suffixes):
    found = read(tmp_path, [f"a.{suffix}" for suffix in suffixes] + ["a.txt", "b.jpg"])
    assert [reason for reason, _ in found.values()] == [Reason.SHARED_KEY] * len(suffixes) + [None]


def test_what_goes_with_a_picture_is_none_of_the_samples(tmp_path):
    assert read(tmp_path, ["a.jpg", "a.seg.png", "a.depth.png", "a.npy", "b.mask.jpg", "b.jpg"]) == {
        "a": (None, ""), "b": (None, ""),
    }  # fmt: skip


@pytest.mark.parametrize("other", ["a.0001.jpg", "a.v2.jpg", "a.2.png", "a.final.3.jpg"])
def test_a_numbered_picture_beside_a_sample_is_counted_and_does_no_harm(tmp_path, other):
    found = read(tmp_path, ["a.jpg", other])
    assert found["a"][0] is None
    reason, message = found[as_key(other)]
    assert reason is Reason.COMPANION and STATUS_OF[reason] is Status.FILTERED
    assert other in message and "rename" in message


def test_a_lone_picture_with_a_dot_too_many_is_told_of(tmp_path):
    (found,) = read(tmp_path, ["b.v2.jpg"]).values()
    assert found[0] is Reason.NO_IMAGE and "first dot" in found[1]


@pytest.mark.parametrize("seed", range(20))
def test_every_picture_of_a_tar_is_counted_whatever_its_name(tmp_path, seed):
    rng = random.Random(seed)
    stems = ["a", "b", "c.1", "c.2", "d.x", "e/f.10", "e/f.11", "g"]
    names = [
        f"{rng.choice(stems)}{number % 3 or ''}.{rng.choice(['jpg', 'png', 'txt', 'json'])}" for number in range(40)
    ]
    pictures = [name for name in dict.fromkeys(names) if name.endswith(("jpg", "png"))]
    (tmp_path / "x.tar").write_bytes(
        tar_bytes([(name, b"{}" if "json" in name else b"x") for name in dict.fromkeys(names)])
    )
    found = read_all(str(tmp_path / "x.tar"))
    named = [item.uri.removeprefix("x.tar/") for item in found]
    ok = {item.uri.rpartition(".")[0] for item in found if item.drop is None}
    for name in pictures:
        told = name in named or any(item.drop and name in item.drop.message for item in found)
        goes_with = f"x.tar/{name.partition('.')[0]}" in ok and not any(character.isdigit() for character in name)
        assert told or goes_with, name


def test_foreign_files_beside_a_sample_do_not_take_its_place(tmp_path):
    members = [
        ("0001.jpg", JPEG),
        ("0001.txt", b"one"),
        ("0001.meta.json", b"no json"),
        ("0001.npy", b"\0"),
        ("README", b""),
    ]
    (tmp_path / "x.tar").write_bytes(tar_bytes(members))
    (item,) = read_all(str(tmp_path / "x.tar"))
    assert (item.key, item.caption, item.drop) == ("0001", "one", None)


@pytest.mark.parametrize("name", ["x/./e", "./x/e", "x//e", "/x/e", "x/y/../e", "././x/./e"])
def test_names_that_mean_one_path_are_one_sample(tmp_path, name):
    (tmp_path / "x.tar").write_bytes(tar_bytes([(f"{name}.jpg", JPEG), ("x/e.txt", b"one")]))
    (item,) = read_all(str(tmp_path / "x.tar"))
    assert (item.key, item.caption) == (as_key("x/e"), "one")


def test_the_share_of_the_dead_is_that_of_the_pictures(tmp_path):
    samples = [[BOXES], *([(f"good{number}.jpg", jpeg(number))] for number in range(10))]
    samples += [[(f"shot.{number:04d}.jpg", jpeg(number))] for number in range(20)]
    source = write_tar(tmp_path / "x.tar", samples)
    outcome = run(
        "annotate", source, tmp_path / "out", "--proposer", "manual", "--captioner", "rule", "--max-dead", "0.5"
    )
    assert outcome.code == 1 and "66.67% are dead" in outcome.err
    check_balance(tmp_path / "out")
    (marker,) = read_markers(tmp_path / "out")
    assert (marker.images.inputs, marker.images.ok, marker.images.dead) == (30, 10, {"shared_key": 20})


def test_rows_of_a_tar_with_all_of_it_balance_however_it_is_cut(tmp_path):
    rng = random.Random(0)
    samples = [[("0.json", BOXES[1])]]
    samples += [[(f"{number}.jpg", jpeg(number)), (f"{number}.{number}.png", b"x")] for number in range(9)]
    samples.append([(f"s.{number}.jpg", b"x") for number in range(9)])
    data = write_tar(tmp_path / "in" / "x.tar", samples).read_bytes()
    hole = rng.randrange(20_000, 30_000)
    (tmp_path / "in" / "x.tar").write_bytes(data[:hole] + bytes(9000) + data[hole + 9000 :])
    keys = []
    for number, options in enumerate(([], ["--repack", "--shard-size", "4"])):
        annotate(tmp_path / "in", tmp_path / f"out{number}", *options)
        check_balance(tmp_path / f"out{number}")
        keys.append(sorted(image_rows(tmp_path / f"out{number}")))
    assert keys[0] == keys[1]


def test_a_key_stands_for_one_thing_when_a_tar_has_several_gaps(tmp_path):
    data = bytearray(
        tar_bytes([(f"{number}.jpg", JPEG + random.Random(number).randbytes(3000)) for number in range(12)])
    )
    for number in (2, 5, 9):
        start = data.index(f"{number}.jpg".encode())
        data[start : start + 300] = b"?" * 300
    (tmp_path / "x.tar").write_bytes(data)
    found = read_all(str(tmp_path / "x.tar"))
    assert reasons(found) == [None] * 9 + [Reason.TRUNCATED] * 3
    assert [item.key for item in found[9:]] == ["x-truncated", "x-truncated-2", "x-truncated-3"]
    assert [item.bytes_lost for item in found[9:]] == [512 + 3072] * 3


@pytest.mark.parametrize("name", ["a/1", "1", ".jpg", "x/.h.jpg", ".hidden", "x/.a.b.png", "good0", "t."])
def test_a_picture_whose_name_makes_no_sample_has_a_row(tmp_path, name):
    (tmp_path / "x.tar").write_bytes(tar_bytes([("good0.jpg", jpeg(0)), (name, jpeg(1))]))
    good, other = read_all(str(tmp_path / "x.tar"))
    assert (good.key, good.drop) == ("good0", None)
    assert other.key != "good0"
    assert other.drop is not None and other.drop.reason is Reason.NO_IMAGE
    assert name.rstrip(".") in other.drop.message and "rename" in other.drop.message


@pytest.mark.parametrize("data", [b"", b"a text", b"\0\5\x16\7" + bytes(90), b"BM", b"P6", b"{}"])
@pytest.mark.parametrize("name", ["README", "._a.jpg", ".DS_Store", "x/LICENSE"])
def test_a_file_that_is_no_picture_and_of_no_sample_has_none(tmp_path, name, data):
    (tmp_path / "x.tar").write_bytes(tar_bytes([("a.jpg", JPEG), (name, data)]))
    assert [item.key for item in read_all(str(tmp_path / "x.tar"))] == ["a"]


@pytest.mark.parametrize("others", [0, 1])
def test_a_tar_without_files_is_told(tmp_path, others):
    (tmp_path / "a.tar").write_bytes(bytes(10_240))
    for number in range(others):
        (tmp_path / f"b{number}.tar").write_bytes(tar_bytes([("a.jpg", JPEG)]))
    described = open_source(str(tmp_path)).describe()
    assert described.notes == ("a.tar: a tar without files",)
