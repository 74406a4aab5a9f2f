import gzip
import json
import math
from pathlib import Path

import pytest

from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.sample import GivenRegion
from schemas.reasons import Reason
from tests.builders import write_files
from tests.pipeline.read.source_builders import JPEG, read_all, reasons

IMAGES = [
    {"id": 7, "file_name": "b.jpg", "width": 40, "height": 30, "license": 1, "coco_url": "http://x/b.jpg"},
    {"id": 3, "file_name": "a.jpg", "width": 20.0, "height": 10},
]
BOXES = [
    {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4.5]},
    {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    {"id": 3, "image_id": 7, "category_id": 5, "bbox": [-5, 0, 99, float("nan")], "score": 0.25, "caption": "far"},
]
CAPTIONS = [
    {"id": 12, "image_id": 7, "caption": "later"},
    {"id": 11, "image_id": 7, "caption": "first\n"},
]


def write(path: Path, **fields) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": IMAGES, "annotations": [], **fields}))
    return path


@pytest.fixture
def instances(tmp_path) -> Path:
    """An instances file beside its images."""
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(JPEG + name.encode())
    categories = [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}]
    licenses = [{"id": 1, "name": "CC", "url": "http://cc"}]
    return write(tmp_path / "instances.json", annotations=BOXES, categories=categories, licenses=licenses)


def test_images_come_by_file_name_with_their_regions(instances):
    a, b = read_all(str(instances))
    assert (a.key, a.uri, a.data, a.given, a.given_size) == ("a", "a.jpg", JPEG + b"a.jpg", (), (20, 10))
    assert (b.key, b.index, b.given_size, b.url, b.license) == ("b", 1, (40, 30), "http://x/b.jpg", "http://cc")
    near, crowd, far = b.given
    assert near == GivenRegion(box=(1, 2, 4, 6.5), label="cat", id="1")
    assert (crowd.is_crowd, crowd.box, crowd.id) == (True, (0, 0, 9, 9), "2")
    assert (far.label, far.score, far.caption, far.box[:3]) == ("dog", 0.25, "far", (-5, 0, 94))
    assert math.isnan(far.box[3])


def test_captions_come_from_their_own_file_lowest_id_first(instances, tmp_path):
    captions = write(tmp_path / "c" / "captions.json", annotations=CAPTIONS)
    for option in (f"captions={captions}", "captions=c/captions.json"):
        assert [item.caption for item in read_all(f"coco:{instances}?{option}")] == [None, "first"]


def test_a_captions_file_may_know_more_images(instances, tmp_path):
    images = [*IMAGES, {"id": 99, "file_name": "z.jpg"}]
    captions = [*CAPTIONS, {"id": 1, "image_id": 99, "caption": "z"}]
    path = write(tmp_path / "captions.json", images=images, annotations=captions)
    assert [item.caption for item in read_all(f"{instances}?captions={path}")] == [None, "first"]


def test_images_may_lie_elsewhere(instances, tmp_path):
    folder = tmp_path / "train 2017"
    folder.mkdir()
    (tmp_path / "b.jpg").rename(folder / "b.jpg")
    spec = f"coco:{instances}?images=train 2017"
    assert reasons(read_all(spec)) == [Reason.MISSING, None]
    files = {file.uri: file.size for file in open_source(spec).files()}
    assert files == {str(instances): instances.stat().st_size, "a.jpg": 0, "b.jpg": len(JPEG) + 5}


def test_remote_json_and_images(bucket, store, instances):
    store.pipe("/bucket/instances.json", instances.read_bytes())
    store.pipe("/bucket/images/b.jpg", JPEG)
    assert reasons(read_all(f"{bucket}/instances.json?images=images")) == [Reason.MISSING, None]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"images": [{"id": 1}]}, "file_name"),
        ({"images": []}, "empty"),
        ({"images": None}, "'images' and 'annotations'"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(tmp_path, fields, words):
    path = write(tmp_path / "x.json", **fields)
    with pytest.raises(SourceError) as caught:
        read_all(f"coco:{path}")
    assert words in str(caught.value)
    assert "x.json" in str(caught.value)


def test_captions_of_unknown_images_are_a_row_of_their_own(instances, tmp_path):
    path = write(tmp_path / "captions.json", annotations=[{"id": 1, "image_id": 404, "caption": "x"}])
    *known, stray = read_all(f"{instances}?captions={path}")
    assert reasons(known) == [None, None]
    assert stray.drop and stray.drop.reason is Reason.BAD_RECORD
    assert "annotations[0] names image id 404, which 'images' lacks" in stray.drop.message


def test_a_pattern_is_no_coco_input_nor_a_folder_of_no_known_layout(tmp_path):
    with pytest.raises(SourceError, match="not a pattern"):
        open_source(f"coco:{tmp_path}/*.json")
    write(tmp_path / "instances.json")
    with pytest.raises(SourceError, match=r"found no _annotations\.coco\.json"):
        open_source(f"coco:{tmp_path}")


FOLDERS = {
    "roboflow": ("train/_annotations.coco.json", "train/b.jpg", "valid/_annotations.coco.json", "valid/b.jpg"),
    "cvat": (
        "annotations/instances_train.json", "images/train/b.jpg",
        "annotations/instances_valid.json", "images/valid/b.jpg",
    ),
    "coco": ("annotations/instances_train.json", "train/b.jpg", "annotations/instances_valid.json", "valid/b.jpg"),
}  # fmt: skip


@pytest.mark.parametrize("layout", FOLDERS)
def test_folders_of_tools_give_each_image_the_boxes_of_its_own_file(tmp_path, layout):
    first, picture, second, other = FOLDERS[layout]
    write(tmp_path / first, images=IMAGES[:1], annotations=BOXES[:1])
    write(tmp_path / second, images=IMAGES[:1], annotations=BOXES[1:2])
    for name in (picture, other):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JPEG + name.encode())
    items = read_all(f"coco:{tmp_path}")
    assert [(item.uri, item.data, [region.id for region in item.given]) for item in items] == [
        (picture, JPEG + picture.encode(), ["1"]), (other, JPEG + other.encode(), ["2"]),
    ]  # fmt: skip
    assert [item.uri for item in read_all(f"coco:{tmp_path}?split=valid")] == [other]
    with pytest.raises(SourceError, match=r"has no split 'test'; there are train, valid"):
        read_all(f"coco:{tmp_path}?split=test")
    source = open_source(f"coco:{tmp_path}")
    assert {file.uri for file in source.files() if file.etag} == {
        picture, other, str(tmp_path / first), str(tmp_path / second)
    }  # fmt: skip
    told = source.describe()
    assert (told.num_images, len(told.boxes), told.unread) == (2, 2, ())


def test_a_folder_of_fiftyone_and_captions_of_a_folder_are_read(tmp_path):
    write(tmp_path / "f" / "labels.json", annotations=BOXES[:1])
    write(tmp_path / "c" / "annotations" / "instances_val2017.json", annotations=BOXES[:1])
    write(tmp_path / "c" / "annotations" / "captions_val2017.json", annotations=CAPTIONS)
    for name in ("f/data/a.jpg", "f/data/b.jpg", "c/val2017/a.jpg", "c/val2017/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    assert [(item.uri, len(item.given)) for item in read_all(f"coco:{tmp_path}/f")] == [
        ("data/a.jpg", 0), ("data/b.jpg", 1),
    ]  # fmt: skip
    assert [(item.caption, len(item.given)) for item in read_all(f"coco:{tmp_path}/c")] == [(None, 0), ("first", 1)]


@pytest.mark.parametrize("kept", [False, True])
def test_compressed_files_of_a_folder_are_found_and_read_once(tmp_path, kept):
    for name, entries in (("instances_val", BOXES[:1]), ("captions_val", CAPTIONS)):
        plain = tmp_path / "annotations" / f"{name}.json"
        write(plain, annotations=entries)
        plain.with_suffix(".json.gz").write_bytes(gzip.compress(plain.read_bytes()))
        if not kept:
            plain.unlink()
    write_files(tmp_path, {"images/a.jpg": JPEG, "images/b.jpg": JPEG})
    assert [(item.caption, len(item.given)) for item in read_all(f"coco:{tmp_path}")] == [(None, 0), ("first", 1)]
    read = {file.uri for file in open_source(f"coco:{tmp_path}").files() if ".json" in file.uri}
    suffix = ".json" if kept else ".json.gz"
    assert read == {f"{tmp_path}/annotations/{name}_val{suffix}" for name in ("captions", "instances")}


def test_an_image_of_two_files_of_a_folder_is_read_once_and_told(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / "annotations" / f"instances_{split}.json", images=IMAGES[:1], annotations=BOXES[:1])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.jpg").write_bytes(JPEG)
    good, dead = read_all(f"coco:{tmp_path}")
    assert (good.uri, len(good.given)) == ("images/b.jpg", 1)
    assert dead.drop and "instances_val.json: images/b.jpg is of another file, too" in dead.drop.message


@pytest.mark.parametrize("folder", ["coco", "coco/train2017"])
def test_lvis_names_its_images_by_their_addresses(tmp_path, folder):
    path = tmp_path / "coco" / "train2017"
    path.mkdir(parents=True)
    (path / "000000391895.jpg").write_bytes(JPEG)
    image = {
        "id": 391895,
        "coco_url": "http://images.cocodataset.org/train2017/000000391895.jpg",
        "height": 4,
        "width": 5,
    }
    box = {"id": 1, "image_id": 391895, "category_id": 1, "bbox": [1, 1, 2, 2]}
    write(tmp_path / "lvis_v1_train.json", images=[image], annotations=[box])
    (item,) = read_all(f"coco:{tmp_path}/lvis_v1_train.json?images={tmp_path}/{folder}")
    assert (item.data, len(item.given), item.url) == (JPEG, 1, image["coco_url"])


def test_entries_of_one_file_name_are_joined_and_counted(tmp_path):
    """Frames of several videos under one name: a bug report of Geti's export."""
    (tmp_path / "a.jpg").write_bytes(JPEG)
    images = [{"id": number, "file_name": "a.jpg", "width": 40, "height": 30} for number in (1, 2)]
    annotations = [{"id": number, "image_id": number, "bbox": [1, 2, 3, 4]} for number in (1, 2)]
    (item,) = read_all(f"coco:{write(tmp_path / 'x.json', images=images, annotations=annotations)}")
    assert len(item.given) == 2
    assert item.note == "2 entries of 'images' have this file name; what they say is joined"


def test_spans_of_an_images_caption_are_captions_of_its_regions_as_mdetr_has_them(tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    size = {"file_name": "a.jpg", "width": 40, "height": 30}
    images = [{"id": 1, "caption": "a grey cat on a mat", **size}, {"id": 2, "caption": "the pet", **size}]
    box = {"category_id": 1, "bbox": [1, 2, 3, 4]}
    annotations = [
        {"id": 1, "image_id": 1, "tokens_positive": [[0, 10]], **box},
        {"id": 2, "image_id": 1, "tokens_positive": [[0, 6], [16, 19]], **box},
        {"id": 3, "image_id": 2, "tokens_positive": [[0, 7]], **box},
        {"id": 4, "image_id": 2, "tokens_positive": [[0, 8]], **box},
        {"id": 5, "image_id": 2, "tokens_positive": "all", **box},
        {"id": 6, "image_id": 2, "tokens_positive": [], **box},
    ]
    path = write(tmp_path / "x.json", images=images, annotations=annotations)
    (item,) = read_all(f"coco:{path}")
    assert item.captions == ("a grey cat on a mat", "the pet")
    assert [region.caption for region in item.given] == ["a grey cat", "a grey mat", "the pet", None, None, None]
    assert [region.problem is not None for region in item.given] == [False] * 3 + [True, True, False]
    assert "annotations[3]: tokens_positive [[0, 8]] are no spans" in (item.given[3].problem or "")
    assert open_source(f"coco:{path}").describe().captions == (str(path),)
