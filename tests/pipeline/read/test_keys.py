import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.read.keys import (
    as_key,
    input_prefixes,
    key_in_split,
    keys_of_files,
    splits_told_apart_by_name,
    unique_prefix,
    with_prefix,
)
from schemas.hashes import sha256
from schemas.names import KEY_PATTERN


@given(st.text())
def test_any_name_gives_a_key_of_at_most_80_characters(name):
    key = as_key(name)
    assert re.fullmatch(KEY_PATTERN, key)
    assert len(key) <= 80
    assert as_key(key) == key


@given(st.from_regex(rf"\A{KEY_PATTERN}\Z").filter(lambda name: len(name) <= 80))
def test_a_key_is_kept(name):
    assert as_key(name) == name


@given(st.lists(st.text(), unique=True))
def test_different_names_give_different_keys(names):
    assert len({as_key(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("cats/001", "cats-001"),
        ("IMG_0001", "img_0001"),
        ("Ärger mit Öl.final", "arger-mit-ol-final"),
        ("--a  &  b--", "a-b"),
        ("_" * 81, None),
        ("x" * 200, "x" * 60),
        ("猫の写真", None),
    ],
)
def test_other_names_become_a_slug_and_eight_digits_of_their_hash(name, slug):
    digest = sha256(name.encode())
    assert as_key(name) == f"{slug or digest[8:16]}-{digest[:8]}"


def test_a_lone_surrogate_has_a_key_too():
    assert re.fullmatch(KEY_PATTERN, as_key("bad\udcff"))


def test_files_are_named_by_their_paths_without_extension():
    assert keys_of_files(["a.jpg", "b_2.JPEG", "c/d.png"]) == ["a", "b_2", as_key("c/d")]


@pytest.mark.parametrize("uris", [["a.jpg", "a.png", "b.jpg"], ["a.jpg", "A.jpg", "b.jpg"]])
def test_files_alike_but_for_extension_or_capitals_are_named_in_full(uris):
    keys = keys_of_files(uris)
    assert keys == [as_key(uris[0]), as_key(uris[1]), "b"]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("spec", "prefix"),
    [
        ("data/CC3M", "cc3m"),
        ("webdataset:s3://bucket/my data.v2/", "my_data_v2"),
        ("a/train-00.tar.gz", "train_00"),
        ("coco:a/instances.json?images=b", "instances"),
        ("data/写真", "input"),
    ],
)
def test_a_prefix_comes_from_the_last_component(spec, prefix):
    assert unique_prefix(spec, []) == prefix


def test_prefixes_are_unique_and_without_dash():
    taken: list[str] = []
    for spec in ("a/train", "b/train", "c/train_2", "d/train-2"):
        taken.append(unique_prefix(spec, taken))
    assert taken == ["train", "train_2", "train_2_2", "train_2_3"]


def test_several_inputs_have_a_prefix_each_and_so_has_one_that_comes_later():
    assert input_prefixes(["a/train"]) == [""]
    assert input_prefixes(["a/train", "b/train"]) == ["train", "train_2"]
    assert input_prefixes(["b/train"], ["", "train"], extends=True) == ["train_2"]


def test_a_lone_input_has_no_prefix():
    assert with_prefix("k", "") == "k"
    assert with_prefix("k", "p") == "p-k"


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        ("train/data-00000-of-00001.arrow", "train-17"),
        ("data/train-00000-of-00002.parquet", "train-17"),
        ("en/test-00001-of-00002.parquet", "en_test-17"),
        ("data/rows.parquet", "17"),
        ("rows.parquet", "17"),
    ],
)
def test_a_row_of_a_split_has_its_name_before_its_key(uri, key):
    assert key_in_split("17", uri) == key


@pytest.mark.parametrize(
    ("uris", "told"),
    [
        (["train.parquet", "validation.parquet"], ("train.parquet", "validation.parquet")),
        (["a/train-0.parquet", "a/train-1.parquet", "a/val-0.parquet"], ("a/train-0.parquet", "a/val-0.parquet")),
        (["part-0.parquet", "part-1.parquet"], ()),
        (["train/x.parquet", "val/y.parquet"], ()),
        (["train-00000-of-00001.parquet", "val-00000-of-00001.parquet"], ()),
    ],
)
def test_splits_that_their_names_alone_tell_are_found(uris, told):
    assert splits_told_apart_by_name(uris) == told


@given(
    st.sets(st.tuples(st.sampled_from(["en/", "en-us/", "en_us/", "en/us/", "us/"]), st.sampled_from(["1", "us-1"])))
)
def test_rows_of_different_splits_have_different_keys(rows):
    assert len({key_in_split(key, f"{folder}0.parquet") for folder, key in rows}) == len(rows)
