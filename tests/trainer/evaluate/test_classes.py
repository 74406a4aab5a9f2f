"""Files of classes, of sentences, and of ready features: what other programs write, and what is wrong with them."""

import numpy as np
import pytest

from trainer.errors import TrainingError
from trainer.evaluate.classes import read_class_features, read_classes
from trainer.evaluate.templates import read_templates


def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_a_name(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes(b"\xef\xbb\xbfcat\r\ngrass-merged\tgrass\r\n")
    assert read_classes(str(path)) == (["cat", "grass-merged"], {"grass-merged": "grass"})
    path.write_bytes(b"\xef\xbb\xbfa {}\r\n")
    assert read_templates(str(path)) == ["a {}"]


@pytest.mark.parametrize("line", ["a {colour} {}", "a {0} {}", "a {} }"])
def test_sentences_with_other_braces_are_refused(tmp_path, line):
    path = tmp_path / "sentences.txt"
    path.write_text(f"{{article}} {{}}\n{line}\n")
    with pytest.raises(TrainingError, match=r"only \{\} and \{article\} are filled in"):
        read_templates(str(path))


@pytest.mark.parametrize("rows", [np.full((2, 3), np.nan), np.array([["a"], ["b"]])])
def test_features_that_are_no_finite_numbers_are_refused(tmp_path, rows):
    path = tmp_path / "features.npy"
    np.save(path, rows)
    with pytest.raises(TrainingError, match=r"features.npy: it is no array of finite numbers"):
        read_class_features(str(path), ["cat", "dog"])


def test_several_arrays_in_place_of_one_are_refused(tmp_path):
    np.savez(tmp_path / "features.npz", a=np.ones((2, 3)))
    with pytest.raises(TrainingError, match=r"no array of finite numbers, C x D"):
        read_class_features(str(tmp_path / "features.npz"), ["cat", "dog"])
