"""What each filter measures, by hand."""

import itertools
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.audit.boxes import box_columns, overlaps
from pipeline.audit.captions import caption_columns, is_boilerplate
from pipeline.audit.filters import BY_NAME, FILTERS, parse_threshold
from pipeline.audit.hashes import image_hash
from pipeline.audit.near import WITHIN, nearest_earlier, nearest_other
from schemas.boxes import as_boxes
from schemas.folder import DatasetError
from tests.builders import image_bytes, jpeg


@pytest.mark.parametrize(
    "caption",
    [
        "a picture of a cat",
        "A photo of two dogs",
        "This is an image of a star",
        "the image shows a ring",
        "a black and white photo of a street",
        "In this picture, a man rides",
        "a close-up of a flower",
        "This image features a table",
        "We can see a bridge",
        "a cropped photograph depicting a hat",
    ],
)
def test_captions_that_speak_of_themselves_are_boilerplate(caption: str) -> None:
    assert is_boilerplate(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "a man taking a picture of a cat",
        "a wall with a photo of a dog",
        "picture frames on a shelf",
        "a red star",
        "an imaging device",
        "ein Bild von einer Katze",
        "写真",
        "",
    ],
)
def test_captions_of_things_are_none(caption: str) -> None:
    assert not is_boilerplate(caption)


def test_words_are_counted_in_any_script_and_nothing_is_measured_of_no_caption() -> None:
    columns = caption_columns(["a red star", "красная звезда", "赤い星", None, "dog dog dog dog dog"])
    assert columns["words"].tolist()[:3] == [3, 2, 3]
    assert np.isnan([columns[name][3] for name in columns]).all()
    assert columns["repetition"].tolist()[4] == 1 and columns["repetition"][0] == 0
    assert {name: len(values) for name, values in caption_columns([]).items()} == dict.fromkeys(columns, 0)


def test_a_box_is_compared_with_earlier_ones_of_its_image_alone() -> None:
    boxes = as_boxes([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10], [0, 0, 10, 10]])
    found = overlaps(boxes, ["a", "a", "a", "b"])
    assert np.isnan(found[[0, 3]]).all()
    assert found[[1, 2]].tolist() == pytest.approx([0.5, 1.0])
    columns = box_columns(boxes, np.full(4, 20, np.float32), np.full(4, 10, np.float32), ["a", "a", "a", "b"])
    assert columns["side"].tolist() == [10, 5, 10, 10]
    assert columns["area"].tolist() == pytest.approx([0.5, 0.25, 0.5, 0.5])
    assert len(overlaps(as_boxes([]), [])) == 0


def test_a_copy_in_another_format_and_size_is_near_and_another_picture_is_not() -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)).resize(
        (300, 200), Image.Resampling.BICUBIC
    )

    def saved(image: Image.Image, kind: str) -> bytes:
        file = BytesIO()
        image.save(file, kind)
        return file.getvalue()

    original, copy = image_hash(saved(smooth, "PNG")), image_hash(saved(smooth.resize((150, 100)), "JPEG"))
    other = image_hash(jpeg(3))
    assert original is not None and copy is not None and other is not None
    assert (original ^ copy).bit_count() <= 2
    assert (original ^ other).bit_count() > 12


def test_a_flat_or_broken_image_has_no_hash() -> None:
    file = BytesIO()
    Image.new("RGB", (64, 64), "white").save(file, "PNG")
    assert image_hash(file.getvalue()) is None
    assert image_hash(b"no image") is None
    assert image_hash(image_bytes("JPEG")[:200]) is None


def brute(hashes: list[int], others: list[int] | None = None) -> tuple[list[int], list[int]]:
    distances, places = [], []
    for number, mine in enumerate(hashes):
        pool = hashes[:number] if others is None else others
        near = [((mine ^ other).bit_count(), place) for place, other in enumerate(pool)]
        distance, place = min((pair for pair in near if pair[0] <= WITHIN), default=(-1, -1))
        distances.append(distance)
        places.append(place)
    return distances, places


@pytest.mark.parametrize("seed", range(4))
def test_all_pairs_within_seven_bits_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, 2**63, 30, dtype=np.uint64)
    hashes = []
    for number in range(300):
        flips = rng.choice(64, size=rng.integers(0, 11), replace=False)
        hashes.append(int(seeds[number % 30]) ^ int(np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64))))
    array, known = np.array(hashes, np.uint64), np.ones(300, np.bool_)
    distance, place = nearest_earlier(array, known)
    wanted = brute(hashes)
    assert distance.tolist() == wanted[0] and place.tolist() == wanted[1]
    assert 50 < (distance >= 0).sum() < 300
    distance, place = nearest_other(array[:100], known[:100], array[100:])
    wanted = brute(hashes[:100], hashes[100:])
    assert distance.tolist() == wanted[0] and place.tolist() == wanted[1]


def test_what_has_no_hash_is_near_nothing() -> None:
    hashes, known = np.array([5, 0, 5, 0], np.uint64), np.array([True, False, True, False])
    assert [found.tolist() for found in nearest_earlier(hashes, known)] == [[-1, -1, 0, -1], [-1, -1, 0, -1]]
    none = np.zeros(0, np.uint64)
    assert nearest_other(hashes, known, none)[0].tolist() == [-1] * 4
    assert nearest_earlier(none, np.zeros(0, np.bool_))[0].tolist() == []


@pytest.mark.parametrize("text", ["margin=1", "min_side", "min_side=", "min_side=nan", "min_side=-inf", "=3"])
def test_a_threshold_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="--threshold"):
        parse_threshold(text)


def test_thresholds_are_read() -> None:
    assert parse_threshold("min_side=24.5") == ("min_side", 24.5)
    assert parse_threshold("margin_in_image=-0.1") == ("margin_in_image", -0.1)
    assert parse_threshold("boilerplate=off") == ("boilerplate", None)


def test_no_number_is_kept_by_every_filter_and_thresholds_are_on_their_grid() -> None:
    for each, threshold in itertools.product(FILTERS, (-5.0, 0.0, 5.0)):
        assert not each.drops(np.array([np.nan], np.float32), threshold).any()
    for each in FILTERS:
        assert each.thresholds[0] == np.float32(each.low) and each.thresholds[-1] == pytest.approx(each.high)
        assert each.start is None or np.abs(each.thresholds - np.float32(each.start)).min() < 1e-6
    limit = BY_NAME["overlap"]
    assert limit.drops(np.array([0.9, 0.91], np.float32), 0.9).tolist() == [False, True]
