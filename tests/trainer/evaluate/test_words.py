"""The words of captions, told from features that are known."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.evaluate.test_tasks import CPU, model_with_weights, truth_of
from tests.trainer.runs import write_data
from trainer.errors import TrainingError
from trainer.evaluate import words
from trainer.evaluate.embed import Embedded, Rows
from trainer.evaluate.metrics import Scores
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.vocabulary import Vocabulary, read_vocabulary

VOCABULARY = Vocabulary(
    words={"colour": ("red", "green"), "shape": ("star", "ring", "heart")},
    sentences=["a {colour} {shape}", "a {shape}"],
    pairs=[("colour", "shape")],
)


@pytest.fixture
def encoder() -> TextEncoder:
    return TextEncoder(model=model_with_weights(), device=CPU, vocabulary=VOCABULARY)


def embedded_as(encoder: TextEncoder, folder: Path, said: list[str], captions: list[str]) -> Embedded:
    """Return regions that look like `said` in the model's eyes, and whose captions are `captions`."""
    truth = truth_of(write_data(folder))
    assert truth.num_regions == len(said) == len(captions)
    image = Rows(features=torch.zeros(len(truth.images), 8), at=np.arange(len(truth.images)))
    regions = Rows(features=encoder.captions(said), at=np.arange(len(said)))
    return Embedded(truth=dataclasses.replace(truth, region_captions=captions), image=image, regions={"roi": regions})


def measured(embedded: Embedded, encoder: TextEncoder) -> dict[str, float]:
    found = words.run(embedded, encoder)
    return {name: value.value if isinstance(value, Scores) else value for name, value in found}


def test_every_word_and_pair_is_told_from_features_of_its_sentences(encoder, tmp_path):
    captions = [f"a {c} {s}" for c in ("red", "green") for s in ("star", "ring", "heart")] * 3
    found = measured(embedded_as(encoder, tmp_path, captions, captions), encoder)
    assert found["colour_shape_accuracy@1"] == found["colour_shape_mean_class_accuracy@1"] == 1
    assert (found["colour_chance@1"], found["shape_chance@1"], found["colour_shape_chance@1"]) == (1 / 2, 1 / 3, 1 / 6)
    assert {found[f"num_{name}_regions"] for name in ("colour", "shape", "colour_shape")} == {18}


def test_a_wrong_word_is_wrong_and_is_its_image_s(encoder, tmp_path):
    captions = ["a red star"] * 17 + ["a green ring"]
    embedded = embedded_as(encoder, tmp_path, ["a green ring", *captions[1:]], captions)
    scores = dict(words.run(embedded, encoder))["colour_shape_accuracy@1"]
    assert scores.hits.tolist() == [0] + [1] * 17
    assert scores.images.tolist() == embedded.truth.region_image.tolist()


def test_captions_that_do_not_say_are_left_out(encoder, tmp_path):
    captions = ["A red star.", "a red and green star", "a star", "nothing"] + ["a green heart"] * 14
    found = measured(embedded_as(encoder, tmp_path, captions, captions), encoder)
    assert (found["num_colour_regions"], found["num_shape_regions"], found["num_colour_shape_regions"]) == (15, 17, 15)
    with pytest.raises(TrainingError, match="no caption of a region has a word of colour"):
        measured(embedded_as(encoder, tmp_path / "none", ["a"] * 18, ["a star"] * 18), encoder)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("no json", "JSONDecodeError"),
        ({"words": {"colour": ["red"]}, "sentences": ["a {shape}"]}, "no sentence has {colour}"),
        ({"words": {"colour": ["red"]}, "sentences": ["a {colour} {shape}"]}, "a sentence has {shape}"),
        ({"sentences": []}, "KeyError: 'words'"),
    ],
)
def test_a_file_that_holds_no_words_is_refused(tmp_path, written, message):
    path = tmp_path / "words.json"
    path.write_text(written if isinstance(written, str) else json.dumps(written))
    with pytest.raises(TrainingError, match=message):
        read_vocabulary(str(path))
