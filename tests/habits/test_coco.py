"""COCO files as tools, notebooks and people write them: an odd entry costs itself, and nothing beside it."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.sample import GivenRegion, SourceItem
from schemas.coco import compress_runs
from schemas.dataset import Dataset
from schemas.reasons import Reason
from tests.builders import annotate, check_balance, jpeg, read_rows, write_files
from tests.pipeline.read.source_builders import JPEG, read_all, reasons

GOOD = {"id": 900, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30]}


def write(tmp_path: Path, annotations: list[Any], **fields: Any) -> str:
    """Write one image, its categories and the annotations; returns the INPUT."""
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 96, "height": 64}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}],
        **fields,
    }
    write_files(tmp_path, {"a.jpg": JPEG, "x.json": json.dumps(content).encode()})
    return f"coco:{tmp_path}/x.json"


def regions(tmp_path: Path, annotations: list[Any], **fields: Any) -> tuple[GivenRegion, ...]:
    (item,) = read_all(write(tmp_path, annotations, **fields))
    assert item.drop is None
    return item.given


ODD = {
    "no numbers": {"bbox": []},
    "three numbers": {"bbox": [1, 2, 3]},
    "five numbers": {"bbox": [1, 2, 3, 4, 5]},
    "words": {"bbox": ["a", "b", "c", "d"]},
    "a null inside": {"bbox": [1, None, 3, 4]},
    "a truth value": {"bbox": [True, 2, 3, 4]},
    "lists": {"bbox": [[1, 2], [3, 4]]},
    "an object": {"bbox": {"x": 1, "y": 2}},
    "text": {"bbox": "1 2 3 4"},
    "null": {"bbox": None},
    "nothing": {"bbox": ...},
    "an empty outline": {"bbox": None, "segmentation": []},
    "an outline of words": {"bbox": None, "segmentation": [["a", "b"]]},
    "run lengths of another size": {"bbox": None, "segmentation": {"counts": [3, 2], "size": [64, 96]}},
    "an unknown category": {"category_id": 77},
    "a category that is none": {"category_id": [1]},
    "a score that is none": {"score": "high"},
    "a score list": {"score": [0.5]},
    "a crowd of two": {"iscrowd": 2},
    "a crowd in words": {"iscrowd": "perhaps"},
    "a crowd of lists": {"iscrowd": [1]},
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_annotation_is_a_region_with_a_problem_beside_the_good_ones(tmp_path, kind):
    odd = {name: value for name, value in (GOOD | {"id": 5} | ODD[kind]).items() if value is not ...}
    first, bad, last = regions(tmp_path, [GOOD, odd, GOOD | {"id": 901}])
    assert (first.problem, last.problem, bad.id) == (None, None, "5")
    assert bad.problem and bad.problem.startswith("annotations[1]: ")


@pytest.mark.parametrize(
    "odd",
    [{"bbox": [math.nan, 1, 2, 3]}, {"bbox": [1, 2, math.inf, 3]}, {"bbox": ["NaN", 1, 2, 3]}, {"bbox": [1, 2, 0, 3]}],
)
def test_boxes_that_are_numbers_stay_as_written_for_select_to_judge(tmp_path, odd):
    first, box = regions(tmp_path, [GOOD, GOOD | odd])
    assert (first.box, first.problem, box.problem) == ((10, 10, 40, 40), None, None)


@pytest.mark.parametrize(
    ("written", "box"),
    [
        ({"bbox": ["12.5", "1", "2", " 3 "]}, (12.5, 1, 14.5, 4)),
        ({"bbox": None, "segmentation": [[1, 2, 11, 2, 11, 8], [0, 4, 2, 4, 2, 5]]}, (0, 2, 11, 8)),
        (
            {"bbox": None, "segmentation": {"counts": [194, 4, 60, 4, 5882], "size": [64, 96]}},
            (3, 2, 5, 6),
        ),
        ({"bbox": [1.5, 2, 3, 4], "segmentation": [["broken"]]}, (1.5, 2, 4.5, 6)),
    ],
)
def test_what_is_meant_is_read(tmp_path, written, box):
    (region,) = regions(tmp_path, [GOOD | written])
    assert (region.box, region.problem) == (box, None)


@pytest.mark.parametrize("image_id", [1, 1.0, "1", " 1 "])
@pytest.mark.parametrize("stated", [1, "1", 1.0])
@pytest.mark.parametrize("category", [1, "1", 1.0])
def test_ids_are_compared_as_what_they_mean(tmp_path, image_id, stated, category):
    images = [{"id": stated, "file_name": "a.jpg", "width": "96", "height": 64}]
    (region,) = regions(tmp_path, [GOOD | {"image_id": image_id, "category_id": category}], images=images)
    assert (region.label, region.problem, region.id) == ("cat", None, "900")


@pytest.mark.parametrize(
    ("name", "label"),
    [("cat", "cat"), (7, "7"), (7.5, "7.5"), (None, None), ("", None), ("sem\u00e1foro", "sem\u00e1foro")],
)
def test_a_category_name_is_text_or_a_number(tmp_path, name, label):
    categories = [{"id": 1, "name": name}, {"id": 2, "name": "other"}, "odd", {"name": "no id"}]
    region = regions(tmp_path, [GOOD], categories=categories)[0]
    assert region.label == label
    assert (region.problem is None) == (label is not None)


@pytest.mark.parametrize("categories", [{"1": "cat"}, {"1": {"name": "cat"}}, {"cats": {"id": 1, "name": "cat"}}])
def test_categories_may_be_an_object(tmp_path, categories):
    first, other = regions(tmp_path, [GOOD, GOOD | {"category_id": 2}], categories=categories)
    assert (first.label, first.problem) == ("cat", None)
    assert other.problem and "category_id 2 is none of 'categories'" in other.problem


@pytest.mark.parametrize("categories", [[], None, [{"id": 1}]])
def test_an_annotations_own_category_name_counts_where_categories_have_none(tmp_path, categories):
    said = [{"category_name": "dog"}, {"category_name": ""}, {"category_name": ["dog"]}]
    found = regions(tmp_path, [{**GOOD, "category_id": None} | own for own in said], categories=categories)
    assert [region.label for region in found] == ["dog", None, None]
    assert regions(tmp_path, [GOOD | {"category_name": "dog"}])[0].label == "cat"


@pytest.mark.parametrize("categories", [[], None, {}, "none", 3, ["cat"]])
def test_without_categories_regions_have_no_label(tmp_path, categories):
    (region,) = regions(tmp_path, [GOOD], categories=categories)
    assert (region.label, region.problem) == (None, None)


def test_a_box_that_is_turned_gives_the_box_around_it(tmp_path):
    angles = (45, "90.0", 0.0, -180, "left", math.nan)
    said = [
        {**GOOD, "bbox": [10, 10, 30, 10], "attributes": {"rotation": angle, "occluded": False}} for angle in angles
    ]
    outlined = {**said[0], "segmentation": [[10, 10, 40, 10, 40, 20]]}
    (item,) = read_all(write(tmp_path, [*said, outlined, {**GOOD, "attributes": ["rotation"]}]))
    first, second, *others = (region.box for region in item.given)
    assert first == pytest.approx((25 - 14.142, 15 - 14.142, 25 + 14.142, 15 + 14.142), abs=0.001)
    assert second == pytest.approx((20, 0, 30, 30))
    assert others == [(10, 10, 40, 20)] * 5 + [(10, 10, 40, 40)]
    assert item.note and "2 of its boxes are turned ones" in item.note


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"file_name": "b.jpg"}, "id is None"),
        ({"id": None, "file_name": "b.jpg"}, "id is None"),
        ({"id": [1], "file_name": "b.jpg"}, "id is [1]"),
        ({"id": 2}, "file_name is None"),
        ({"id": 2, "file_name": ""}, "file_name is ''"),
        ({"id": 2, "file_name": ["b.jpg"]}, "file_name is ['b.jpg']"),
        ({"id": 2, "file_name": "b\0.jpg"}, "holds what no name can hold"),
        ({"id": 2, "file_name": "b\ud800.jpg"}, "holds what no name can hold"),
        (None, "it is None, not an object"),
        ("b.jpg", "it is 'b.jpg', not an object"),
    ],
)
def test_an_image_entry_that_cannot_be_used_is_a_dead_row(tmp_path, entry, words):
    images = [{"id": 1, "file_name": "a.jpg"}, entry]
    good, bad = read_all(write(tmp_path, [GOOD], images=images))
    assert (len(good.given), good.drop) == (1, None)
    assert reasons([bad]) == [Reason.BAD_RECORD]
    assert bad.drop and "images[1]: " in bad.drop.message and words in bad.drop.message


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (1, True), (True, True), ("1", True), ("true", True), ("True ", True), ("yes", True), (1.0, True),
        (0, False), (False, False), ("0", False), ("FALSE", False), ("no", False), (None, None), ("", None),
    ],
)  # fmt: skip
def test_a_crowd_is_one_however_it_is_said(tmp_path, said, means):
    (region,) = regions(tmp_path, [GOOD | {"iscrowd": said}])
    assert (region.is_crowd, region.problem) == (means, None)


def test_a_category_of_two_names_labels_nothing(tmp_path):
    names = [(1, "cat"), ("1", "dog"), (2, "bus"), (2, "bus")]
    categories = [{"id": category, "name": name} for category, name in names]
    cat, bus = regions(tmp_path, [GOOD, GOOD | {"category_id": 2}], categories=categories)
    assert cat.problem == "annotations[0]: category_id 1 is both 'cat' and 'dog'"
    assert (bus.label, bus.problem) == ("bus", None)


@pytest.mark.parametrize("other", [1, "1", 1.0])
def test_annotations_of_an_id_of_two_images_are_given_to_neither(tmp_path, other):
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": other, "file_name": "b.jpg"}, {"id": 2, "file_name": "c.jpg"}]
    write_files(tmp_path, {"b.jpg": JPEG, "c.jpg": JPEG})
    spec = write(tmp_path, [GOOD, GOOD | {"id": 2}, GOOD | {"id": 3, "image_id": 2}], images=images)
    a, b, c, dead = read_all(spec)
    assert [len(item.given) for item in (a, b, c)] == [0, 0, 1]
    for item in (a, b):
        assert item.note == "image id 1 is that of a.jpg and of b.jpg: its annotations are withheld"
    assert dead.drop and dead.drop.reason is Reason.BAD_RECORD
    assert "2 annotations name image id 1, and image id 1 is that of a.jpg and of b.jpg" in dead.drop.message


def test_boxes_beyond_all_numbers_are_judged_without_a_warning(tmp_path):
    boxes = [[1e308, 1e308, 1e308, 1e308], [1e39, 0, 5, 5], [-1e308, 0, 5, 5]]
    odd = [GOOD | {"id": place, "bbox": box} for place, box in enumerate(boxes)]
    write(tmp_path, [GOOD, *odd], images=[{"id": 1, "file_name": "a.jpg"}])
    write_files(tmp_path, {"a.jpg": jpeg(0)})
    outcome = annotate(
        f"coco:{tmp_path}/x.json", tmp_path / "out", flags=["--proposer", "manual", "--captioner", "rule"]
    )
    assert "Warning" not in outcome.out + outcome.err
    found = {row["source_id"]: row["status"] for row in read_rows(tmp_path / "out") if row["region_id"]}
    assert found == {"900": "ok", "0": "dead", "1": "dead", "2": "dead"}


# Two files, each with a numbering of its own


def two_files(tmp_path: Path, named: dict[Any, str], captioned: dict[Any, str]) -> str:
    """Write an instances file of images by id, and a captions file that calls each of its images by its name."""
    files = dict.fromkeys(named.values(), JPEG)
    images = [{"id": image_id, "file_name": name} for image_id, name in named.items()]
    write_files(tmp_path, files)
    spec = write(tmp_path, [], images=images)
    content = {
        "images": [{"id": image_id, "file_name": name} for image_id, name in captioned.items()],
        "annotations": [{"image_id": image_id, "caption": f"it is {name}"} for image_id, name in captioned.items()],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    return f"{spec}?captions=c.json"


@pytest.mark.parametrize(
    ("named", "captioned"),
    [
        ({1: "a.jpg", 2: "b.jpg"}, {1: "a.jpg", 2: "b.jpg"}),
        ({1: "a.jpg", 2: "b.jpg"}, {1: "b.jpg", 2: "a.jpg"}),
        ({1: "a.jpg", 2: "b.jpg", 3: "c.jpg"}, {2: "c.jpg", 3: "a.jpg", 1: "z.jpg"}),
        ({1: "a.jpg", 2: "b.jpg"}, {"x": "b.jpg", "y": "a.jpg", "1": "z.jpg"}),
        ({1: "a.jpg", 2: "b.jpg"}, {1: "./b.jpg", 2: "./a.jpg"}),
    ],
)
def test_captions_are_joined_by_file_name_whatever_the_ids(tmp_path, named, captioned):
    said = {name.removeprefix("./"): (f"it is {name}",) for name in captioned.values()}
    found = {item.uri: item.captions for item in read_all(two_files(tmp_path, named, captioned))}
    assert found == {name: said.get(name, ()) for name in named.values()}


def test_names_with_folders_in_one_file_only_are_the_same_where_the_ids_are(tmp_path):
    items = read_all(two_files(tmp_path, {1: "t/a.jpg", 2: "t/b.jpg"}, {1: "a.jpg", 2: "b.jpg"}))
    assert [item.caption for item in items] == ["it is a.jpg", "it is b.jpg"]


@pytest.mark.parametrize("captioned", [{1: "x.jpg", 2: "y.jpg"}, {1: "a.jpg", 2: "y.jpg"}, {2: "y.jpg", 7: "z.jpg"}])
def test_ids_that_agree_where_names_do_not_are_refused(tmp_path, captioned):
    with pytest.raises(SourceError, match=r"c\.json: image id \d is [xy]\.jpg here and [ab]\.jpg in INPUT"):
        read_all(two_files(tmp_path, {1: "a.jpg", 2: "b.jpg"}, captioned))


def test_captions_of_an_id_of_two_images_are_given_to_neither(tmp_path):
    spec = two_files(tmp_path, {1: "a.jpg", 2: "b.jpg"}, {1: "a.jpg", 2: "b.jpg"})
    content = json.loads((tmp_path / "c.json").read_bytes())
    content["images"][1]["id"] = 1
    (tmp_path / "c.json").write_text(json.dumps(content))
    *items, first = read_all(spec)
    assert [item.captions for item in items] == [(), ("it is b.jpg",)], "id 2 is only INPUT's"
    assert first.drop and "image id 1 is that of a.jpg and of b.jpg" in first.drop.message


@pytest.mark.parametrize(
    ("stray", "words"),
    [
        ([GOOD | {"image_id": 7}], "annotations[1] names image id 7, which 'images' lacks"),
        ([GOOD | {"image_id": 7}, GOOD | {"image_id": "7"}], "2 annotations name image id 7"),
        ([{"bbox": [1, 2, 3, 4]}], "annotations[1]: it names no image"),
        ([GOOD | {"image_id": None}], "annotations[1]: it names no image"),
        (["odd"], "annotations[1]: it is 'odd', not an object"),
    ],
)
def test_annotations_of_no_image_are_a_dead_row_an_image(tmp_path, stray, words):
    good, bad = read_all(write(tmp_path, [GOOD, *stray]))
    assert (len(good.given), good.drop) == (1, None)
    assert bad.drop and bad.drop.reason is Reason.BAD_RECORD and words in bad.drop.message


def test_two_entries_of_one_file_are_one_image_with_the_boxes_of_both(tmp_path):
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 96, "height": 64},
        {"id": 2, "file_name": "./a.jpg", "width": 96, "height": 64},
        {"id": 3, "file_name": "a.jpg", "width": 48, "height": 32},
    ]
    annotations = [GOOD, GOOD | {"id": 2, "image_id": 2, "bbox": [1, 2, 3, 4]}, GOOD | {"id": 3, "image_id": 3}]
    own, other, small = regions(tmp_path, annotations, images=images)
    assert (own.box, other.box, other.problem) == ((10, 10, 40, 40), (1, 2, 4, 6), None)
    assert small.problem and "48 x 32 pixels, and otherwise before" in small.problem


def read_captions(tmp_path: Path, *written: Any) -> SourceItem:
    captions = [{"id": place, "image_id": 1, "caption": caption} for place, caption in enumerate(written)]
    path = write(tmp_path / "captions", captions).removeprefix("coco:")
    (item,) = read_all(f"{write(tmp_path, [GOOD])}?captions={path}")
    return item


def test_all_captions_are_kept_by_id_and_the_first_that_says_something_counts(tmp_path):
    assert read_captions(tmp_path, " ", "second\n", "...", "fourth", "second").captions == ("second", "fourth")
    assert read_captions(tmp_path, None, 5, ["six", ""]).captions == ("5", "six")


def test_an_odd_caption_is_told_of_in_the_images_row(tmp_path):
    item = read_captions(tmp_path, None, "fine")
    assert (item.captions, len(item.given), item.drop) == (("fine",), 1, None)
    assert item.note and item.note.startswith("annotations[0]: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a COCO file"),
        (b"[]", "not a COCO file"),
        (b"{}", "images"),
        (b'{"images": {}}', "images"),
        (b'{"images": []}', "'images' are empty"),
        (b'{"images": [1, 2]}', "none of its 'images' can be used; the first: images[0]: it is 1"),
        (b'{"images": [' + b"[" * 100_000, "nested too deep"),
        (b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [', "not a COCO file"),
    ],
)
def test_a_file_that_is_none_is_refused_with_a_sentence(tmp_path, content, words):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.json: ") as caught:
        read_all(f"coco:{tmp_path}/x.json")
    assert words in str(caught.value)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_deep_entry_a_byte_order_mark_and_control_characters_do_no_harm(tmp_path, mark):
    content = json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [GOOD], "info": {"x": "\n"}})
    write_files(tmp_path, {"a.jpg": JPEG, "x.json": mark + content.replace("\\n", "\n\t\x01").encode()})
    (item,) = read_all(f"coco:{tmp_path}/x.json")
    assert len(item.given) == 1


@pytest.mark.parametrize("crowd", [1, True, "1", 1.0])
def test_crowds_and_bad_scores_leave_rows_and_the_others_are_regions(tmp_path, crowd):
    counts = compress_runs([64 * 10, 64 * 20, 64 * 66])
    annotations = [
        GOOD | {"iscrowd": 0, "segmentation": {"counts": counts, "size": [64, 96]}},
        GOOD | {"id": 2, "bbox": [50, 2, 30, 30], "score": 0.5, "segmentation": {"counts": counts, "size": [9, 9]}},
        GOOD | {"id": 3, "iscrowd": crowd, "segmentation": {"counts": [64 * 10, 64 * 20, 64 * 66], "size": [64, 96]}},
        GOOD | {"id": 4, "score": 87.5},
        GOOD | {"id": 5, "score": -1},
        GOOD | {"id": 6, "bbox": []},
    ]
    spec = write(tmp_path / "in", annotations)
    write_files(tmp_path / "in", {"a.jpg": jpeg(0)})
    annotate(spec, tmp_path / "out")
    rows = {row["source_id"]: row for row in read_rows(tmp_path / "out") if row["region_id"]}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "900": None, "2": None, "3": "crowd", "4": "bad_record", "5": "bad_record", "6": "bad_record",
    }  # fmt: skip
    assert {name: row["is_crowd"] for name, row in rows.items()} == dict.fromkeys("2456") | {"900": False, "3": True}
    assert (rows["900"]["mask_rle"], rows["2"]["mask_rle"], rows["3"]["mask_rle"]) == (counts, None, counts)
    assert "the score 87.5 is not in [0, 1]; rescale" in rows["4"]["message"]
    (sample,) = Dataset.open(tmp_path / "out").samples("train-000000")
    stored = {region.source_id: region.mask_rle for region in sample.record.regions}
    assert stored == {"900": counts, "2": None}
    check_balance(tmp_path / "out")
    # what was written is an input again, masks and all
    annotate(tmp_path / "out", tmp_path / "again")
    (sample,) = Dataset.open(tmp_path / "again").samples("train-000000")
    assert sorted(region.mask_rle or "" for region in sample.record.regions) == ["", counts]


def test_dead_rows_of_the_file_are_in_the_data_set(tmp_path):
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": None, "file_name": "b.jpg"}, 3]
    annotations = [GOOD, GOOD | {"image_id": 7}, GOOD | {"image_id": 7}, {"bbox": [1, 2, 3, 4]}]
    spec = write(tmp_path / "in", annotations, images=images)
    write_files(tmp_path / "in", {"a.jpg": jpeg(0)})
    annotate(spec, tmp_path / "out")
    rows = [row for row in read_rows(tmp_path / "out") if row["region_id"] is None]
    assert [(row["status"], row["reason"]) for row in rows] == [("ok", None), *[("dead", "bad_record")] * 4]
    assert len({row["key"] for row in rows}) == 5
    check_balance(tmp_path / "out")


def test_filter_lists_name_given_regions_by_their_ids(tmp_path):
    spec = write(tmp_path / "in", [GOOD, GOOD | {"id": 2, "bbox": [50, 2, 30, 30]}])
    write_files(tmp_path / "in", {"a.jpg": jpeg(0)})
    (tmp_path / "list.jsonl").write_text('{"key": "a", "region_id": "2", "keep": false}\n')
    annotate(spec, tmp_path / "out", "--filter", tmp_path / "list.jsonl")
    rows = {row["source_id"]: row["reason"] for row in read_rows(tmp_path / "out") if row["region_id"]}
    assert rows == {"900": None, "2": "excluded"}


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["1", "2", "12.5", "NaN", "\ud800", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "counts", "size", "x"]), inner),
    max_leaves=6,
)


@given(data=st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_one_image_and_its_annotations_the_other_is_read(tmp_path, data):
    outline = {"segmentation": [[1, 2, 3, 4, 5, 6]], "bbox": None}
    lengths = {"segmentation": {"counts": [5, 4, 15], "size": [4, 6]}, "bbox": None}
    spoilt = {
        "images": [{"id": 2, "file_name": "b.jpg", "width": 9, "height": 8, "coco_url": "u", "license": 3}],
        "annotations": [
            GOOD | {"image_id": 2, "score": 0.5, "iscrowd": 0},
            {"image_id": 2, "caption": "c", "id": 4},
            GOOD | {"image_id": 2} | outline,
            GOOD | {"image_id": 2} | lengths,
        ],
        "categories": [{"id": 2, "name": "dog"}],
        "licenses": [{"id": 3, "url": "l"}],
        "info": {"year": 1},
    }
    for _ in range(data.draw(st.integers(1, 3))):
        entries = data.draw(st.sampled_from(sorted(spoilt)))
        node = spoilt[entries] if entries == "info" else data.draw(st.sampled_from(spoilt[entries]))
        if isinstance(node, dict):
            node[data.draw(st.sampled_from(sorted(node)))] = data.draw(ANYTHING)
    whole = {
        "images": [{"id": "mine", "file_name": "a.jpg"}, *spoilt["images"]],
        "annotations": [GOOD | {"image_id": "mine", "category_id": "mine"}, *spoilt["annotations"]],
        "categories": [{"id": "mine", "name": "cat"}, *spoilt["categories"]],
        "licenses": spoilt["licenses"],
        "info": spoilt["info"],
    }
    write_files(tmp_path, {"a.jpg": JPEG, "x.json": json.dumps(whole).encode()})
    source = open_source(f"coco:{tmp_path}/x.json")
    list(source.files())
    found = {item.uri: item for item in read_all(source)}
    assert GivenRegion(box=(10, 10, 40, 40), label="cat", id="900") in found["a.jpg"].given
    assert (found["a.jpg"].data, found["a.jpg"].drop) == (JPEG, None)
    for item in found.values():  # all that is kept can be stored
        msgspec.msgpack.encode(item.given)
        "".join([item.key, item.uri, *item.captions, item.url or "", item.license or "", item.note or ""]).encode()
