"""RegionCLIP's rule: with the mini CLIP and the concepts of scenes it must be right more often than chance."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.caption.base import PreparingCaptioner
from pipeline.caption.clip_rule import ClipRule, ClipRuleConfig
from pipeline.caption.concepts import filled, find_pool
from pipeline.sample import Caption, Crop, Drop
from pipeline.scenes.draw import draw_scene
from schemas.reasons import STATUS_OF, Reason, Stage, Status


def _config(**settings: object) -> ClipRuleConfig:
    defaults = {"model": "mini", "concepts": "scenes", "template": "a {}", "batch_size": 16}
    return ClipRuleConfig(**(defaults | settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def captioner() -> ClipRule:
    return ClipRule(_config())


@pytest.fixture(scope="module")
def crops() -> dict[str, Crop]:
    """Crops of scenes by what they show, such as `red star 3`."""
    found = {}
    for index in range(12):
        scene = draw_scene(5, "train", index)
        for box, attributes in zip(scene.boxes.tolist(), scene.attributes, strict=True):
            x0, y0, x1, y1 = (int(edge) for edge in box)
            found[f"{attributes.colour} {attributes.shape} {len(found)}"] = Crop(
                region_id=f"{len(found):016x}",
                pixels=scene.pixels[y0:y1, x0:x1],
                box=(x0, y0, x1, y1),
                image_width=256,
                image_height=256,
                label=None,
            )
    return found


def test_the_nearest_concept_is_named(captioner: ClipRule, crops: dict[str, Crop]) -> None:
    outcomes = captioner.caption(list(crops.values()), [None] * len(crops))
    named = [outcome.text if isinstance(outcome, Caption) else "" for outcome in outcomes]
    right = [filled("a {}", key.rsplit(" ", 1)[0]) == text for key, text in zip(crops, named, strict=True)]
    assert sum(right) > 0.3 * len(right), "of 110 concepts, so chance is below .01"


def test_the_score_is_the_softmax_over_the_pool(captioner: ClipRule, crops: dict[str, Crop]) -> None:
    crop = next(iter(crops.values()))
    clip = captioner._clip
    pool = find_pool("scenes")
    with torch.inference_mode():
        image = clip.model.encode_image(captioner.prepare([crop], [None]).pictures, normalize=True)[0]
        concepts = [
            clip.model.encode_text(clip.tokenizer(list(prompts)), normalize=True).mean(dim=0)
            for prompts in pool.prompts
        ]
        similarities = torch.stack([image @ concept / concept.norm() for concept in concepts])
    expected, index = (similarities / 0.01).softmax(dim=0).max(dim=0)
    (outcome,) = captioner.caption([crop], [None])
    assert isinstance(outcome, Caption)
    assert outcome.text == filled("a {}", pool.concepts[index])
    assert outcome.score == pytest.approx(expected.item(), abs=1e-4)


def test_batch_mates_change_nothing(captioner: ClipRule, crops: dict[str, Crop]) -> None:
    assert isinstance(captioner, PreparingCaptioner)
    some = list(crops.values())[:5]
    together = captioner.caption(some, [None] * 5)
    alone = [captioner.caption([crop], [None])[0] for crop in some]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Caption)
        assert isinstance(other, Caption)
        assert one.text == other.text
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_an_unsure_guess_filters_the_region(captioner: ClipRule, crops: dict[str, Crop]) -> None:
    unsure = ClipRule(_config(temperature=10.0))
    (outcome,) = unsure.caption(list(crops.values())[:1], [None])
    assert isinstance(outcome, Drop)
    assert (outcome.reason, outcome.stage) == (Reason.LOW_CONFIDENCE, Stage.CAPTION)
    assert STATUS_OF[outcome.reason] is Status.FILTERED
    assert "probability of 0.0" in outcome.message
    assert outcome.traceback_hash is None


def test_a_pool_is_read_from_a_file_and_named_by_content(tmp_path: Path, crops: dict[str, Crop]) -> None:
    file = tmp_path / "pool.txt"
    file.write_text("# mine\nred  circle\n\nblue star\nred circle\n", encoding="utf-8")
    assert find_pool(str(file)).concepts == ("red circle", "blue star")
    config = _config(concepts=str(file), template="this is a {}!", min_confidence=0.0)
    (outcome,) = ClipRule(config).caption(list(crops.values())[:1], [None])
    assert isinstance(outcome, Caption)
    assert outcome.text in {"this is a red circle!", "this is a blue star!"}
    before = ClipRule.weights(config)
    assert str(tmp_path) not in str(before)
    file.write_text("red circle\n", encoding="utf-8")
    assert ClipRule.weights(config)["concepts"] != before["concepts"]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe\x00", None])
def test_a_pool_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "pool.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"--caption\.concepts .*pool\.txt"):
        ClipRule.weights(_config(concepts=str(file)))


def test_the_pool_that_ships_is_clean() -> None:
    pool = find_pool(None)
    assert 500 < len(pool.concepts) < 700
    assert all(concept == concept.strip().lower() for concept in pool.concepts)
    assert len({len(prompts) for prompts in pool.prompts}) == 1
    assert pool.prompts[0][0] == "a photo of a person."


@pytest.mark.parametrize(
    ("template", "concept", "expected"),
    [
        ("a photo of a {}", "dog", "a photo of a dog"),
        ("a photo of a {}", "Orange", "a photo of an Orange"),
        ("a photo of the {}", "owl", "a photo of the owl"),
        ("a photo of a large {}", "owl", "a photo of a large owl"),
        ("gala {}", "owl", "gala owl"),
    ],
)
def test_the_article_fits_the_concept(template: str, concept: str, expected: str) -> None:
    assert filled(template, concept) == expected


@pytest.mark.parametrize("settings", [{"template": "a dog"}, {"temperature": 0.0}, {"min_confidence": 1.5}])
def test_settings_that_cannot_work_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"--caption\.{next(iter(settings)).replace('_', '-')}"):
        _config(**settings)


def test_any_crop_has_an_outcome(captioner: ClipRule, crops: dict[str, Crop]) -> None:
    crop = dataclasses.replace(next(iter(crops.values())), pixels=np.zeros((1, 3, 3), np.uint8))
    assert len(captioner.caption([crop], [None])) == 1
