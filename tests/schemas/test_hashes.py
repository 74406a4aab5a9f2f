import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import hashes
from schemas.boxes import as_boxes

BOX = as_boxes([1.0, 2.0, 30.5, 40.0625])[0]


def test_the_digests_of_version_1_never_change():
    """Ids are in every shard, overlay and filter list: a change of these needs a new schema version."""
    assert hashes.region_id("coco-000000000139", BOX, "yolov9", 0) == "34aae881ff954f20"
    assert hashes.text_hash("A man, riding a  WAVE!") == "aff8ac8c9d55cb4f"
    assert hashes.text_sha256("A man") == "0432ad29a1952d7d4c0f2c9b9b58bfcc373f3ed65fbc71ecb0b83bbe7d520ecb"
    assert (
        hashes.fingerprint({"b": [1, 0.5, None, True], "a": "é"})
        == "433b7ac5470111479a970248a13d72872321471815ac18117140bd28071323b6"
    )
    assert hashes.key_fraction("a", "val") == 0.6697042306297121


def test_region_ids_change_with_each_ingredient():
    moved = BOX.copy()
    moved[3] += 1 / 16
    ids = {
        hashes.region_id("a", BOX, "yolov9", 0),
        hashes.region_id("b", BOX, "yolov9", 0),
        hashes.region_id("a", moved, "yolov9", 0),
        hashes.region_id("a", BOX, "fastsam", 0),
        hashes.region_id("a", BOX, "yolov9", 1),
    }
    assert len(ids) == 5
    assert all(len(region_id) == 16 and int(region_id, 16) >= 0 for region_id in ids)


def test_region_ids_do_not_depend_on_the_sign_of_zero_or_the_array():
    zero = np.array([0.0, 0.0, 1.0, 1.0], dtype=np.float32)
    negative = np.array([-0.0, 0.0, 1.0, 1.0], dtype=np.float64)
    assert hashes.region_id("a", zero, "m", 0) == hashes.region_id("a", negative, "m", 0)


def test_a_box_of_nan_has_an_id():
    box = np.full(4, np.nan, dtype=np.float32)
    assert hashes.region_id("a", box, "m", 0) == hashes.region_id("a", box.copy(), "m", 0)


@given(st.text())
@example("\u089d\u0130\u1ab7")
@example("\u1fa7\u0304x")
def test_normalising_twice_changes_nothing_more(text):
    once = hashes.normalise_text(text)
    assert hashes.normalise_text(once) == once


@pytest.mark.parametrize(
    "text", ["a red car", "A red car.", "  A  RED\tcar!! ", "a red-car", "\uff21 red car", "a 'red' car"]
)
def test_texts_that_say_the_same_share_a_hash(text):
    assert hashes.text_hash(text) == hashes.text_hash("a red car")


@pytest.mark.parametrize("text", ["a red cat", "a redcar", "red car", "a réd car"])
def test_texts_that_say_something_else_do_not(text):
    assert hashes.text_hash(text) != hashes.text_hash("a red car")


def test_the_exact_text_has_its_own_hash():
    assert hashes.text_sha256("A") != hashes.text_sha256("a")
    assert hashes.text_sha256("\ud800")  # half a surrogate pair, as broken sources have it


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()))
def test_fingerprints_do_not_depend_on_order(configuration):
    backwards = dict(reversed(configuration.items()))
    assert hashes.fingerprint(configuration) == hashes.fingerprint(backwards)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_cannot_say_has_no_fingerprint(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        hashes.fingerprint({"a": number})


@given(st.text(), st.text())
def test_fractions_lie_in_the_unit_interval(key, salt):
    assert 0 <= hashes.key_fraction(key, salt) < 1
