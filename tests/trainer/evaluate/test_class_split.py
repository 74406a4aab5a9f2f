"""Base and novel classes: the field's split, that of scenes, and files."""

import json

import pytest

from pipeline.scenes.words import CLASS_LISTS, HELD_OUT, class_name
from trainer.errors import TrainingError
from trainer.evaluate.class_split import NAMED, read_class_split


def test_ov_coco_has_48_base_and_17_novel_classes():
    split = read_class_split("ov-coco")
    assert [len(group) for group in split.groups.values()] == [48, 17]
    assert len(set(split.names)) == 65
    assert split.is_base("person") and not split.is_base("airplane")


def test_the_classes_of_scenes_are_those_that_the_generator_draws():
    drawn = {name: {class_name(*pair) for pair in pairs} for name, pairs in CLASS_LISTS.items()}
    assert set(read_class_split("scenes").names) == drawn["open24"]
    split = read_class_split("scenes-held-out")
    assert set(split.names) == drawn["open34"]
    assert set(split.groups["held_out"]) == {class_name(*pair) for pair in HELD_OUT}
    assert [len(group) for group in NAMED["scenes"].values()] == [18, 6]


def test_names_come_in_the_order_of_the_data(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"base": ["cat"], "novel": ["dog"]}))
    assert read_class_split(str(path)).ordered(["dog", "bird", "cat"], "DATA") == ["dog", "cat"]
    with pytest.raises(TrainingError, match="'dog': no such category in DATA, which has 'cat'"):
        read_class_split(str(path)).ordered(["cat"], "DATA")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"base": ["cat"]}', "has no 'novel'"),
        ('{"novel": ["cat"], "base": []}', "has no 'base'"),
        ('{"base": ["cat"], "novel": ["cat"]}', "'cat' is there twice"),
        ('{"base": "cat", "novel": ["dog"]}', "'base' is no list of names"),
        ('{"base": ["cat"], "novel": [1]}', "'novel' is no list of names"),
        ('{"base": ["cat"], "novel": ["dog"], "all": ["cow"]}', "'all' is what all groups are told under"),
        ('["cat"]', "give ov-coco, scenes, scenes-held-out, or a JSON file"),
        ("cat", "or a JSON file"),
    ],
)
def test_a_file_that_is_no_split_is_refused(tmp_path, content, said):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(TrainingError, match=said):
        read_class_split(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"missing\.json"):
        read_class_split(str(tmp_path / "missing.json"))


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "split.json"
    path.write_bytes(b'\xef\xbb\xbf{"base": ["cat"], "novel": ["dog"]}')
    assert read_class_split(str(path)).names == ("cat", "dog")


def test_a_class_that_is_spelt_otherwise_in_the_data_is_shown(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"base": ["Traffic Light"], "novel": ["dog"]}')
    with pytest.raises(TrainingError, match=r"'Traffic Light': no such category .*; is 'traffic light' meant"):
        read_class_split(str(path)).ordered(["traffic light", "dog"], "DATA")
