"""Segment Anything 3 with random weights, and the way back of boxes and masks with a fake."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from pipeline.backends import SettingError
from pipeline.propose.sam3 import Sam3, Sam3Config
from pipeline.sample import DecodedImage, Drop, Pixels, Proposals
from schemas.reasons import Reason
from tests.pipeline.propose.painted import box_in, coverage, painted
from tests.random_grounders import NUM_QUERIES, random_sam3

MakeImage = Callable[..., DecodedImage]
Noise = Callable[..., Pixels]
# pycocotools' decode is older than numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sam3") / "model"
    random_sam3(folder)
    return folder


@pytest.fixture(scope="module")
def sam3(folder: Path) -> Sam3:
    return Sam3(Sam3Config(model=str(folder), min_score=0, max_proposals=8, phrases_per_batch=2, masks=True))


def _captioned(image: DecodedImage, *captions: str) -> DecodedImage:
    return replace(image, item=replace(image.item, captions=captions))


def _alike(one: Proposals | Drop, other: Proposals | Drop) -> None:
    assert isinstance(one, Proposals)
    assert isinstance(other, Proposals)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    assert (one.labels, one.masks) == (other.labels, other.masks)


def test_neither_batch_mates_nor_other_phrases_change_what_is_found(
    sam3: Sam3, make_image: MakeImage, noise: Noise
) -> None:
    images = [
        _captioned(make_image(noise(120, 80, 1)), "a dog"),
        make_image(noise(50, 50, 2)),
        _captioned(make_image(noise(40, 300, 3)), "a red car near two boats and a lake"),
    ]
    together = sam3.propose(images)
    assert isinstance(together[1], Drop)
    assert together[1].reason is Reason.NO_PHRASES
    for image, among in zip(images[::2], together[::2], strict=True):
        _alike(sam3.propose([image])[0], among)
    (alone,) = sam3.propose([_captioned(images[0], "a dog")])
    (more,) = sam3.propose([_captioned(images[0], "a dog, a cat and a bus")])
    assert isinstance(more, Proposals)
    assert isinstance(alone, Proposals)
    of_dog = [score for score, label in zip(more.scores, more.labels, strict=True) if label == "dog"]
    np.testing.assert_allclose(of_dog, alone.scores[: len(of_dog)], atol=1e-5)


def test_boxes_do_not_depend_on_whether_masks_are_kept(
    sam3: Sam3, make_image: MakeImage, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = _captioned(make_image(noise(90, 60, 1)), "a dog")
    (masked,) = sam3.propose([image])
    monkeypatch.setattr(sam3, "config", replace(sam3.config, masks=False))
    (bare,) = sam3.propose([image])
    assert isinstance(bare, Proposals)
    assert isinstance(masked, Proposals)
    assert bare.masks is None
    np.testing.assert_array_equal(bare.boxes, masked.boxes)


class FakeSam3:
    """Finds the painted rectangle, by the second phrase, and its mask at a quarter of the input."""

    dtype = torch.float32

    def __init__(self, processor: Any) -> None:
        self.processor = processor.image_processor

    def get_vision_features(self, pixel_values: torch.Tensor) -> Any:
        level = (pixel_values[..., :1, :1],)
        return _Seen(fpn_hidden_states=(pixel_values,), fpn_position_encoding=level)

    def __call__(self, *, vision_embeds: Any, **_: torch.Tensor) -> SimpleNamespace:
        images = vision_embeds.fpn_hidden_states[0]
        pixels = images[0].permute(1, 2, 0).numpy()
        pixels = (pixels * self.processor.image_std + self.processor.image_mean) * 255
        side = len(pixels)
        logits = torch.full((len(images), NUM_QUERIES), -20.0)
        logits[1, 3] = 20
        boxes = torch.zeros((len(images), NUM_QUERIES, 4))
        boxes[:, 3] = torch.tensor(box_in(pixels)) / side
        masks = torch.full((len(images), NUM_QUERIES, side, side), -20.0)
        masks[:, 3] = torch.from_numpy(coverage(pixels) - 0.5).float() * 40
        return SimpleNamespace(
            pred_logits=logits, pred_boxes=boxes, pred_masks=masks, presence_logits=torch.full((len(images), 1), 20.0)
        )


class _Seen(SimpleNamespace):
    pass


@pytest.mark.parametrize("size", [(56, 56), (301, 97), (500, 40), (1000, 1500)])
def test_known_boxes_and_masks_come_back(
    sam3: Sam3, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    blank = _captioned(make_image(np.zeros((*size[::-1], 3), np.uint8)), "a dog and a red thing")
    (prepared,) = sam3.prepare([blank])
    assert not isinstance(prepared, Drop)
    height, width = prepared[0].frame
    pixels, (x0, y0, x1, y1) = painted(size, (56 * size[0] / width, 56 * size[1] / height))
    monkeypatch.setattr(sam3, "_model", FakeSam3(sam3._processor))
    monkeypatch.setattr(sam3, "config", replace(sam3.config, min_score=0.5))
    (found,) = sam3.propose([_captioned(make_image(pixels), "a dog and a red thing")])
    assert isinstance(found, Proposals)
    assert found.labels == ("red thing",)
    np.testing.assert_allclose(found.boxes, [[x0, y0, x1, y1]], atol=max(1, max(size) / 56 / 10))
    assert found.masks is not None
    mask = coco.decode({"size": [*size[::-1]], "counts": str(found.masks[0]).encode()})
    assert mask.shape == size[::-1]
    truth = np.zeros_like(mask)
    truth[y0:y1, x0:x1] = 1
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85  # of 56 pixels a side


def test_a_broken_answer_is_an_error(sam3: Sam3, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeSam3):
        def __call__(self, **inputs: Any) -> SimpleNamespace:
            output = super().__call__(**inputs)
            output.presence_logits[0] = float("nan")
            return output

    monkeypatch.setattr(sam3, "_model", Broken(sam3._processor))
    with pytest.raises(ValueError, match="holds NaN"):
        sam3.propose([_captioned(make_image(painted((56, 56), (56, 56))[0]), "a dog and a red thing")])


def test_a_phrase_that_is_too_long_and_another_model_are_told(folder: Path, tmp_path: Path) -> None:
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("a phrase of far more than thirty tokens")
    with pytest.raises(SettingError, match=r"--propose.phrases: 'a phrase .* and the model takes 32 at most"):
        Sam3(Sam3Config(model=str(folder), phrases=str(phrases)))
    with pytest.raises(ValueError, match=r"--propose\.phrases-per-batch is 0"):
        Sam3Config(phrases_per_batch=0)


def test_what_names_the_weights_and_their_terms(sam3: Sam3) -> None:
    sha256 = sam3.provenance()["weights"]["sha256"]
    named = {"model": f"sha256:{sha256}", "phrases": None, "revision": None, "license": None}
    assert Sam3.weights(sam3.config) == named
    assert [terms.license for terms in Sam3.licenses(Sam3Config())] == ["Apache-2.0", "SAM License"]
