import json
from typing import Any

import numpy as np
import pytest

from schemas.coco import CocoError, Rle, compress_runs, decompress_runs, read_coco


def coco_of(**fields: Any) -> bytes:
    return json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], **fields}).encode()


def test_what_evaluators_need_is_passed_through():
    outline, counts = [1.0, 2.0, 11.0, 2.0, 11.0, 8.0], compress_runs([5, 4, 15])
    annotations = [
        {"id": 1, "image_id": 1, "bbox": [1, 2, 10, 6], "segmentation": [outline, ["odd"]], "iscrowd": 0, "area": 3},
        {
            "id": 2,
            "image_id": 1,
            "bbox": [1, 2, 3, 4],
            "segmentation": {"counts": counts, "size": [4, 6]},
            "iscrowd": 1,
        },
        {"id": 3, "image_id": 1, "bbox": [1, 2, 3, 4], "segmentation": {"counts": [5, 4, 15], "size": [4, 6]}},
        {"id": 4, "image_id": 1, "caption": "a cat"},
    ]
    licenses = [{"id": 3, "name": "CC", "url": "http://cc"}, {"id": 4, "name": "other"}]
    coco = read_coco(coco_of(annotations=annotations, licenses=licenses, info={"year": 2017}))
    assert (coco.licenses, coco.info, coco.num_annotations) == ({"3": "http://cc", "4": "other"}, {"year": 2017}, 4)
    outlined, masked, plain, caption = coco.annotations()
    assert (outlined.polygons, outlined.rle, outlined.is_crowd) == ((tuple(outline),), None, False)
    assert (masked.polygons, masked.rle, masked.is_crowd) == ((), Rle(counts=counts, height=4, width=6), True)
    assert (plain.rle, plain.is_crowd) == (masked.rle, None)
    assert (caption.is_region, caption.caption, caption.polygons, caption.rle) == (False, "a cat", (), None)
    assert list(coco.annotations()) == list(coco.annotations()), "they can be gone through again"


def test_panoptic_segments_are_annotations():
    segments = [{"id": 7, "category_id": 1, "iscrowd": 0, "bbox": [1, 2, 3, 4]}, "odd"]
    panoptic = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}],
        "info": {"year": 2017},
    }
    coco = read_coco(json.dumps(panoptic).encode())
    good, bad = coco.annotations()
    assert (good.id, good.image_id, good.box, good.problem) == ("7", "1", (1, 2, 4, 6), None)
    assert bad.problem and bad.image_id == "1"
    assert (coco.categories, coco.info) == ({"1": "cat"}, {"year": 2017})
    with pytest.raises(CocoError):
        read_coco(b"null")


def test_run_lengths_are_those_of_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 40, 2)
        pixels = np.asfortranarray((rng.random((height, width)) < rng.random()).astype(np.uint8))
        encoded = mask.encode(pixels)
        counts = encoded["counts"].decode()
        assert compress_runs(decompress_runs(counts)) == counts
        entry = {"segmentation": {"counts": counts, "size": [int(height), int(width)]}, "image_id": 1}
        coco = read_coco(json.dumps({"images": [{"id": 1, "file_name": "a"}], "annotations": [entry]}).encode())
        (annotation,) = coco.annotations()
        x, y, box_width, box_height = mask.toBbox(encoded).tolist()
        assert annotation.box == ((x, y, x + box_width, y + box_height) if pixels.any() else None)


RUNS = {"size": [4, 6], "counts": [0, 24]}


@pytest.mark.parametrize(
    ("fields", "box"),
    [
        ({"segmentation": [1, 2, 5, 2, 5, 4]}, (1, 2, 5, 4)),
        ({"segmentation": [[1, 2, 5, 2, 5, 4]], "bbox": []}, (1, 2, 5, 4)),
        ({"segmentation": [RUNS], "iscrowd": 1}, (0, 0, 6, 4)),
    ],
)
def test_outlines_and_runs_are_read_as_tools_write_them(fields, box):
    """A lone outline, an empty box, and run lengths in a list are in bug reports of supervision, YOLACT and others."""
    entry = {"id": 1, "image_id": 1, **fields}
    coco = read_coco(json.dumps({"images": [{"id": 1, "file_name": "a"}], "annotations": [entry]}).encode())
    (annotation,) = coco.annotations()
    assert (annotation.box, annotation.problem, annotation.is_region) == (box, None, True)


@pytest.mark.parametrize("segmentation", [[1, 2, 3], [[1, 2], [3, 4]], {"size": [4, 6], "counts": [1]}, "x"])
def test_a_segmentation_that_is_none_is_named(segmentation):
    entry = {"id": 1, "image_id": 1, "segmentation": segmentation}
    coco = read_coco(json.dumps({"images": [{"id": 1, "file_name": "a"}], "annotations": [entry]}).encode())
    (annotation,) = coco.annotations()
    assert "its 'segmentation' is neither outlines nor run lengths" in (annotation.problem or "")


def test_a_list_of_results_is_refused_with_what_to_give():
    with pytest.raises(CocoError, match="but a list, as a detector's results are: give the file that has 'images'"):
        read_coco(b"\xef\xbb\xbf [{}]")
