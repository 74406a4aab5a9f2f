import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.caption.colours import COLOUR_NAMES
from pipeline.caption.rule import Rule, RuleConfig
from pipeline.sample import Crop

RULE = Rule(RuleConfig())
IDS = [f"{number:016x}" for number in range(64)]
"""Enough ids to meet every sentence form."""


def a_crop(pixels, *, region_id=IDS[0], box=(40, 40, 60, 60), size=(100, 100), label=None):
    return Crop(region_id=region_id, pixels=pixels, box=box, image_width=size[0], image_height=size[1], label=label)


def solid(rgb, height=20, width=20):
    return np.full((height, width, 3), rgb, dtype=np.uint8)


def texts(*crops):
    return [caption.text for caption in RULE.caption(crops, [None] * len(crops))]


def all_forms(pixels, **known):
    return texts(*(a_crop(pixels, region_id=region_id, **known) for region_id in IDS))


@st.composite
def crops(draw):
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    num_colours, seed = draw(st.integers(1, 6)), draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (num_colours, 3), dtype=np.uint8)
    pixels = palette[random.integers(0, num_colours, (y1 - y0, x1 - x0))]
    label = draw(st.none() | st.text(max_size=12) | st.sampled_from(["umbrella", "hot dog", "skis", "wine glass"]))
    return a_crop(
        pixels,
        region_id=draw(st.text(string.hexdigits, min_size=16, max_size=16)),
        box=(x0, y0, x1, y1),
        size=(width, height),
        label=label,
    )


@settings(max_examples=300)
@given(crops())
def test_sentences_are_well_formed(crop):
    [text] = texts(crop)
    assert text == " ".join(text.split())
    assert re.fullmatch(r"[A-Z].+[^\s.,]\.", text)
    assert " ," not in text
    assert ",," not in text
    for article, following in re.findall(r"\b(an?) (\w)", text if crop.label is None else "", flags=re.IGNORECASE):
        assert (article.lower() == "an") == (following in "aeiou"), text


def test_the_article_agrees_with_the_first_adjective():
    assert any(text.startswith("An orange ") for text in all_forms(solid((255, 130, 10))))
    assert all(not re.search(r"\ba (orange|olive)", text, re.IGNORECASE) for text in all_forms(solid((255, 130, 10))))
    assert any(text.startswith("A red ") for text in all_forms(solid((255, 0, 0))))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 0, 0), "red"),
        ((0, 0, 255), "blue"),
        ((255, 255, 255), "white"),
        ((0, 0, 0), "black"),
        ((0, 128, 0), "green"),
    ],
)
def test_a_solid_crop_is_named_by_its_colour_alone(rgb, name):
    for text in all_forms(solid(rgb)):
        words = re.findall("|".join(sorted(COLOUR_NAMES, key=len, reverse=True)), text)
        assert words == [name], text


def test_two_colours_are_named_by_share():
    pixels = solid((255, 0, 0), height=24, width=24)
    pixels[:8] = (255, 255, 255)
    found = all_forms(pixels)
    assert any("red and white" in text for text in found)
    assert any("mostly red with some white" in text for text in found)
    pixels[:12] = (255, 255, 255)
    assert not any("mostly" in text for text in all_forms(pixels))


def test_a_trace_of_another_colour_is_not_named():
    pixels = solid((255, 0, 0), height=24, width=24)
    pixels[:2] = (255, 255, 255)
    assert not any("white" in text for text in all_forms(pixels))


def test_many_colours_are_said_to_be_many():
    palette = np.array([(255, 0, 0), (0, 0, 255), (255, 255, 0), (0, 128, 0), (255, 255, 255)], dtype=np.uint8)
    pixels = np.repeat(palette, 4, axis=0)[None].repeat(20, axis=0)
    assert all("of many colors" in text or "multicolored" in text for text in all_forms(pixels))


@pytest.mark.parametrize(
    ("box", "word"),
    [
        ((0, 0, 9, 9), "tiny"),
        ((0, 0, 20, 20), "small"),
        ((0, 0, 30, 30), "medium-sized"),
        ((0, 0, 60, 60), "large"),
        ((0, 0, 90, 90), "very large"),
    ],
)
def test_size_is_relative_to_the_image(box, word):
    assert any(re.search(rf"\ba {word} ", text, re.IGNORECASE) for text in all_forms(solid((255, 0, 0)), box=box))


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((0, 0, 20, 20), "in the upper left"),
        ((40, 0, 60, 20), "at the top"),
        ((80, 80, 100, 100), "in the lower right"),
        ((40, 40, 60, 60), "in the center"),
        ((0, 40, 20, 60), "on the left side"),
        ((0, 0, 100, 100), "filling most"),
    ],
)
def test_every_sentence_says_where(box, place):
    assert all(place in text.lower() for text in all_forms(solid((255, 0, 0)), box=box))


@pytest.mark.parametrize(
    ("box", "words"), [((0, 0, 10, 40), "tall|taller than wide"), ((0, 0, 40, 10), "wide|wider than tall")]
)
def test_orientation_is_said(box, words):
    assert any(re.search(rf"\b({words})\b", text) for text in all_forms(solid((255, 0, 0)), box=box))


@pytest.mark.parametrize(
    ("label", "noun"),
    [
        ("hot_dog", "hot dog"),
        ("tench, Tinca tinca", "tench"),
        (" St.  Bernard.\n", "St. Bernard"),
        ("t-shirt", "t-shirt"),
        ("bicycle\x00 \ud800", "bicycle"),
    ],
)
def test_labels_are_the_noun(label, noun):
    assert all(f" {noun}" in text for text in all_forms(solid((255, 0, 0)), label=label))


@pytest.mark.parametrize("label", [None, "", " _ ", ".,;", "\n\t"])
def test_without_a_label_a_region_is_an_area(label):
    assert all(re.search(r" (area|region|patch)\b", text) for text in all_forms(solid((255, 0, 0)), label=label))


def test_plural_labels_take_no_article():
    for text in all_forms(solid((255, 0, 0)), label="scissors"):
        assert not re.search(r"\ban? ", text, re.IGNORECASE), text
    for singular in ("bus", "wine glass", "iris"):
        assert all(re.search(r"\ban? ", text, re.IGNORECASE) for text in all_forms(solid((255, 0, 0)), label=singular))


def test_sentences_vary_with_the_region_alone():
    assert len(set(all_forms(solid((255, 0, 0)), label="dog"))) == 4
    crop, mate = a_crop(solid((255, 0, 0))), a_crop(solid((0, 0, 255)), region_id=IDS[1])
    expected = texts(crop)[0]
    assert texts(mate, crop, crop)[1:] == [expected, expected]
    assert Rule(RuleConfig(batch_size=1)).caption([crop], ["What is this?"])[0].text == expected


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (23, 25), (25, 23), (500, 500)])
def test_crops_of_every_shape_are_sampled(shape):
    assert all("red" in text for text in texts(a_crop(solid((255, 0, 0), *shape))))


def test_crops_may_be_views_and_read_only():
    pixels = solid((255, 0, 0), 50, 50)[3:40:1, 5:33]
    pixels.setflags(write=False)
    assert "red" in texts(a_crop(pixels))[0]


def test_captions_have_no_score_and_match_the_prompts_in_number():
    assert RULE.prompt is None
    assert RULE.caption([a_crop(solid((0, 0, 0)))], [None])[0].score is None
    with pytest.raises(ValueError, match="zip"):
        RULE.caption([a_crop(solid((0, 0, 0)))], [])


def test_provenance_names_no_weights():
    provenance = RULE.provenance()
    assert (provenance["name"], provenance["weights"], provenance["settings"]) == ("rule", None, {"batch_size": 64})


def test_settings_are_checked():
    with pytest.raises(ValueError, match="batch-size is 0"):
        RuleConfig(batch_size=0)
