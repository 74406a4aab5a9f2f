from hypothesis import given
from hypothesis import strategies as st

from pipeline.scenes.words import (
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    Attributes,
    every_region_caption,
    parse_region_caption,
    region_caption,
)

attributes = st.builds(
    Attributes,
    st.sampled_from(SIZES),
    st.sampled_from(list(COLOURS)),
    st.sampled_from(TEXTURES),
    st.sampled_from(SHAPES),
)


@given(attributes)
def test_captions_are_read_back(truth):
    assert parse_region_caption(region_caption(truth)) == truth


@given(st.text())
def test_other_texts_are_no_captions(text):
    assert parse_region_caption(text) is None or text.strip().lower().removesuffix(".") in every_region_caption()


def test_the_grammar_in_words():
    assert region_caption(Attributes("small", "red", "striped", "star")) == "a small red striped star"
    assert parse_region_caption(" A small red striped star. ") == Attributes("small", "red", "striped", "star")
    assert parse_region_caption("a red small striped star") is None
    assert parse_region_caption("a small red star") is None


def test_all_captions_are_distinct():
    captions = every_region_caption()
    assert len(captions) == len(set(captions)) == 3 * 11 * 4 * 10
