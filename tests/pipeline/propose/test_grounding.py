"""Detectors that are asked by text, with random weights of the real architectures, and with fakes for the way back."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.backends import SettingError
from pipeline.models.weights import WeightsNotFoundError
from pipeline.propose.grounding import Grounding, GroundingConfig
from pipeline.propose.spans import SpanText
from pipeline.sample import DecodedImage, Drop, Pixels
from schemas.reasons import Reason
from tests.pipeline.propose.alike import assert_alike, assert_batch_mates_change_nothing, proposals_of
from tests.pipeline.propose.painted import box_in, painted
from tests.random_grounders import GROUNDERS, NUM_QUERIES, random_grounder

MakeImage = Callable[..., DecodedImage]
Noise = Callable[..., Pixels]
SPANS, LISTS = ("grounding-dino", "mm-grounding-dino"), ("owlv2", "omdet-turbo")
LONG = "A man riding a red bicycle next to two dogs. On the beach lies a boat with a blue sail. A gull."


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grounders")
    for architecture in GROUNDERS:
        random_grounder(folder / architecture, architecture)
    return folder


@pytest.fixture(scope="module", params=[*GROUNDERS])
def grounding(request: pytest.FixtureRequest, folders: Path) -> Grounding:
    model = str(folders / request.param)
    return Grounding(GroundingConfig(model=model, min_score=0, text_threshold=0.01, max_proposals=8))


def captioned(image: DecodedImage, *captions: str) -> DecodedImage:
    return replace(image, item=replace(image.item, captions=captions))


def test_alone_and_among_different_batch_mates_an_image_gives_the_same(
    grounding: Grounding, make_image: MakeImage, noise: Noise
) -> None:
    sizes = [(120, 80), (40, 200), (33, 33), (300, 90), (64, 64), (64, 64)]
    captions = ["a dog", LONG, "a green tree near a lake", "cat", "two boats", "a red car and a bus"]
    pictures = [make_image(noise(*size, seed)) for seed, size in enumerate(sizes)]
    images = [captioned(picture, caption) for picture, caption in zip(pictures, captions, strict=True)]
    assert_batch_mates_change_nothing(grounding, images)


def test_the_same_image_with_another_caption_gives_other_proposals(
    grounding: Grounding, make_image: MakeImage, noise: Noise
) -> None:
    image = make_image(noise(64, 64, 1))
    one, other = grounding.propose([captioned(image, "a dog"), captioned(image, "two large boats")])
    assert proposals_of(one).scores.tolist() != proposals_of(other).scores.tolist()


def test_labels_are_words_of_the_caption(grounding: Grounding, make_image: MakeImage, noise: Noise) -> None:
    (found,) = grounding.propose([captioned(make_image(noise(120, 80, 3)), LONG)])
    labels = [label for label in proposals_of(found).labels if label is not None]
    assert labels
    assert all(label in LONG for label in labels)
    assert not any(label.lower().startswith(("a ", "the ")) for label in labels)


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (20, 400)])
def test_tiny_images_and_strips_do_no_harm(grounding: Grounding, make_image: MakeImage, size: tuple[int, int]) -> None:
    (found,) = grounding.propose([captioned(make_image(np.zeros((*size, 3), np.uint8)), "cat")])
    assert np.isfinite(proposals_of(found).boxes).all()


@pytest.mark.parametrize("captions", [(), ("",), ("...",)])
def test_an_image_without_a_caption_is_filtered_and_its_batch_mates_are_not(
    grounding: Grounding, make_image: MakeImage, noise: Noise, captions: tuple[str, ...]
) -> None:
    bare, image = make_image(noise(64, 64, 1)), captioned(make_image(noise(64, 64, 2)), "a dog")
    first, drop, last = grounding.propose([image, captioned(bare, *captions), image])
    assert isinstance(drop, Drop)
    assert drop.reason is Reason.NO_PHRASES
    assert drop.traceback_hash is None  # it says nothing against the model
    assert_alike(first, last)


@pytest.mark.parametrize("architecture", [*GROUNDERS])
def test_phrases_of_a_file_take_the_caption_s_place(
    folders: Path, tmp_path: Path, make_image: MakeImage, noise: Noise, architecture: str
) -> None:
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("red bicycle\nSt. Bernard\n" + "\n".join(f"thing {letter}" for letter in "abcdefghijk"))
    config = GroundingConfig(model=str(folders / architecture), phrases=str(phrases), min_score=0, max_proposals=200)
    grounding = Grounding(config)
    image = make_image(noise(64, 64, 1))
    without, with_caption = grounding.propose([image, captioned(image, "a lion")])
    assert_alike(without, with_caption)
    labels = {*proposals_of(without).labels}
    assert labels
    assert labels <= {*phrases.read_text().splitlines()}
    assert Grounding.weights(config)["phrases"] == grounding.provenance()["settings"]["phrases"]
    assert str(tmp_path) not in str(grounding.provenance())


@pytest.mark.parametrize("architecture", [*GROUNDERS])
def test_what_the_model_s_own_post_processing_keeps_is_what_is_proposed(
    folders: Path, make_image: MakeImage, noise: Noise, architecture: str
) -> None:
    """Word for word as the models' cards do it, for one image and texts that need no care."""
    grounding = Grounding(GroundingConfig(model=str(folders / architecture), min_score=0, max_proposals=8))
    processor, pixels = grounding._processor, noise(120, 80, 4)
    text: Any = "red dog." if architecture in SPANS else [["red dog"]]
    inputs = processor(images=torch.from_numpy(pixels).permute(2, 0, 1), text=text, return_tensors="pt")
    with torch.inference_mode():
        output = grounding._model(**inputs)
    (expected,) = processor.post_process_grounded_object_detection(output, threshold=0, target_sizes=[(80, 120)])
    (found,) = grounding.propose([captioned(make_image(pixels), "red dog")])
    best = expected["scores"].argsort(descending=True)[:8]
    np.testing.assert_allclose(proposals_of(found).scores, expected["scores"][best], atol=1e-5)
    clipped = expected["boxes"][best].clamp(torch.zeros(4), torch.tensor([120.0, 80, 120, 80])).numpy()
    inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    np.testing.assert_allclose(proposals_of(found).boxes[inside], clipped[inside], atol=1e-2)
    if architecture in LISTS:
        assert {*proposals_of(found).labels} == {"red dog"}


class FakeGrounder:
    """Finds the painted rectangle in the input that the model would get, by the second token or phrase of the text."""

    dtype = torch.float32

    def __init__(self, processor: Any, architecture: str) -> None:
        self.processor, self.architecture = processor.image_processor, architecture

    def __call__(self, *, pixel_values: torch.Tensor, **inputs: torch.Tensor) -> SimpleNamespace:
        count = len(pixel_values)
        num_names = 48 if self.architecture in SPANS else 2
        logits = torch.full((count, NUM_QUERIES, num_names), -20.0)
        boxes = torch.full((count, NUM_QUERIES, 4), 0.5)
        processor = self.processor
        for row, normalised in enumerate(pixel_values.permute(0, 2, 3, 1).numpy()):
            height, width = normalised.shape[:2]
            x0, y0, x1, y1 = box_in((normalised * processor.image_std + processor.image_mean) * 255)
            logits[row, 3, 1] = 20
            centre, size = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height], [(x1 - x0) / width, (y1 - y0) / height]
            boxes[row, 3] = torch.tensor([*centre, *size])
        if self.architecture == "omdet-turbo":
            structure = torch.full((count,), 2)
            return SimpleNamespace(decoder_class_logits=logits, decoder_coord_logits=boxes, classes_structure=structure)
        return SimpleNamespace(logits=logits, pred_boxes=boxes)


@pytest.mark.parametrize("architecture", ["grounding-dino", "owlv2", "omdet-turbo"])
@pytest.mark.parametrize("size", [(33, 33), (301, 197), (211, 641), (400, 40)])
def test_known_boxes_come_back_to_a_pixel(
    folders: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], architecture: str
) -> None:
    grounding = _loaded(folders, architecture)
    blank = captioned(make_image(np.zeros((*size[::-1], 3), np.uint8)), "red dog, cat")
    (prepared,) = grounding.prepare([blank])
    assert not isinstance(prepared, Drop)
    *_, inner_height, inner_width = prepared[0].tensors["pixel_values"].shape
    frame = (max(size), max(size)) if architecture == "owlv2" else prepared[0].frame[::-1]  # its input is padded square
    inner = (inner_width * size[0] / frame[0], inner_height * size[1] / frame[1])
    pixels, box = painted(size, inner)
    monkeypatch.setattr(grounding, "_model", FakeGrounder(grounding._processor, architecture))
    (found,) = grounding.propose([captioned(make_image(pixels), "red dog, cat")])
    # OWL's processor blurs before it shrinks, to the padding too.
    np.testing.assert_allclose(proposals_of(found).boxes, [box], atol=1 if architecture != "owlv2" else 3)
    assert proposals_of(found).labels == (("red",) if architecture in SPANS else ("cat",))


_models: dict[str, Grounding] = {}


def _loaded(folders: Path, architecture: str) -> Grounding:
    if architecture not in _models:
        _models[architecture] = Grounding(GroundingConfig(model=str(folders / architecture)))
    return _models[architecture]


@pytest.mark.parametrize("architecture", [*GROUNDERS])
def test_a_broken_answer_is_an_error_and_no_box(
    folders: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    class Broken(FakeGrounder):
        def __call__(self, **inputs: torch.Tensor) -> SimpleNamespace:
            output = super().__call__(**inputs)
            scores = output.decoder_class_logits if architecture == "omdet-turbo" else output.logits
            scores[0, 5, 1] = float("nan")
            return output

    grounding = _loaded(folders, architecture)
    monkeypatch.setattr(grounding, "_model", Broken(grounding._processor, architecture))
    with pytest.raises(ValueError, match="holds NaN"):
        grounding.propose([captioned(make_image(painted((120, 80), (120, 80))[0]), "red dog, cat")])


def test_a_caption_that_is_too_long_becomes_several_texts(folders: Path, make_image: MakeImage, noise: Noise) -> None:
    grounding = _loaded(folders, "grounding-dino")
    questions = grounding.questions(captioned(make_image(noise(40, 40, 1)), LONG))
    assert not isinstance(questions, Drop)
    texts = [question.text for question in questions if isinstance(question, SpanText)]
    assert len(texts) > 1
    assert " ".join(texts) == LONG


def test_a_detector_with_classes_of_its_own_is_refused_at_start(folders: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders / "owlv2", tmp_path / "model"))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "rf_detr"}))
    with pytest.raises(SettingError, match=r"is a rf_detr, .*owlv2.*--proposer detr"):
        Grounding.weights(GroundingConfig(model=str(folder)))


def test_missing_weights_say_which_flag_takes_a_path() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"--propose\.model \./nothing"):
        Grounding.weights(GroundingConfig(model="./nothing"))


def test_a_share_out_of_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--propose\.text-threshold is 2"):
        GroundingConfig(text_threshold=2)


def test_what_names_the_weights_and_their_terms(folders: Path) -> None:
    grounding = _loaded(folders, "owlv2")
    sha256 = grounding.provenance()["weights"]["sha256"]
    named = Grounding.weights(grounding.config)
    assert named == {"model": f"sha256:{sha256}", "phrases": None, "revision": None, "license": None}
    assert [terms.license for terms in Grounding.licenses(grounding.config)] == ["Apache-2.0", "unknown"]
