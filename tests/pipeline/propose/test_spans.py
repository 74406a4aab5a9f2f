"""Texts of captions and lists, and phrases from probabilities made up for their tokens: a letter is a token here."""

import pytest

from pipeline.propose.spans import SpanText, SpanTexts
from tests.random_grounders import bert_tokenizer


@pytest.fixture(scope="module")
def texts() -> SpanTexts:
    return SpanTexts(bert_tokenizer(), most=48)


def _phrase(text: SpanText, probable: dict[str, float], threshold: float = 0.25) -> str | None:
    """Return the phrase where each token of the named words has its probability, and the others none."""
    probabilities = []
    for part in text.part_of:
        word = "" if part is None else text.text[slice(*text.parts[part])]
        probabilities.append(probable.get(word, 0.01))
    return text.phrase(probabilities, threshold)


def test_a_caption_is_one_text_that_ends_with_a_full_stop(texts: SpanTexts) -> None:
    for caption in ("a dog\n on a sofa", "a dog on a sofa."):
        (text,) = texts.of_caption(caption)
        assert text.text == "a dog on a sofa."
        assert text.length == 16  # 14 letters and marks, begin and end
        assert [text.text[slice(*part)] for part in text.parts] == ["a", "dog", "on", "a", "sofa"]


@pytest.mark.parametrize(
    ("probable", "phrase"),
    [
        ({"dog": 0.9}, "dog"),
        ({"big": 0.5, "dog": 0.9}, "big dog"),
        ({"The": 0.3, "big": 0.5, "dog": 0.9, "and": 0.3}, "big dog"),  # without function words at its ends
        ({"dog": 0.9, "T-shirt": 0.8}, "dog"),  # the run around the best
        ({"dog": 0.7, "T-shirt": 0.8}, "T-shirt"),
        ({"dog": 0.9, "and": 0.3, "a": 0.3, "T-shirt": 0.8}, "dog and a T-shirt"),
        ({"T-shirt": 0.9, "Rain": 0.9}, "T-shirt"),  # not over the end of a sentence
        ({"and": 0.9}, "and"),  # all there is
        ({"dog": 0.2}, None),
        ({}, None),
    ],
)
def test_the_phrase_is_the_run_of_probable_words_around_the_best(
    texts: SpanTexts, probable: dict[str, float], phrase: str | None
) -> None:
    (text,) = texts.of_caption("The big dog and a T-shirt. Rain")
    assert _phrase(text, probable) == phrase


def test_words_of_scripts_without_spaces_are_characters_and_the_phrase_is_as_it_is_written(texts: SpanTexts) -> None:
    (text,) = texts.of_caption("一只猫坐在沙发上")
    assert _phrase(text, {"沙": 0.6, "发": 0.9}) == "沙发"
    (text,) = texts.of_caption("Größe, Éclair")
    assert _phrase(text, {"Éclair": 0.9}) == "Éclair"


def test_a_long_caption_is_cut_between_sentences_and_nothing_of_it_is_lost(texts: SpanTexts) -> None:
    caption = "A small dog on a sofa. Two red cats near it! And a bird, far away?"
    cut = texts.of_caption(caption)
    assert [text.text for text in cut] == ["A small dog on a sofa. Two red cats near it!", "And a bird, far away?"]
    assert all(len(text.part_of) <= 48 for text in cut)


def test_a_long_sentence_is_cut_between_words(texts: SpanTexts) -> None:
    caption = "a b c d " * 20
    cut = texts.of_caption(caption)
    assert len(cut) > 1
    assert " ".join(text.text.removesuffix(".") for text in cut) == caption.strip()
    assert all(len(text.part_of) <= text.length <= 48 for text in cut)


def test_a_word_that_no_text_takes_is_cut_by_the_model(texts: SpanTexts) -> None:
    (text,) = texts.of_caption("x" * 100)
    assert len(text.part_of) == text.length == 48


@pytest.mark.parametrize("caption", ["", "  \n", "...", "!?", "— ¿"])
def test_a_caption_without_words_gives_no_text(texts: SpanTexts, caption: str) -> None:
    assert texts.of_caption(caption) == ()


def test_of_a_list_the_phrase_is_the_one_with_the_best_token(texts: SpanTexts) -> None:
    (text,) = texts.of_list(["red car", "St. Bernard dog"])
    assert text.text == "red car. St Bernard dog."
    assert text.labels == ("red car", "St. Bernard dog")
    assert {*text.part_of} == {None, 0, 1}
    probabilities = [0.0] * len(text.part_of)
    assert text.phrase(probabilities, 0.5) == "red car"
    probabilities[text.part_of.index(1) + 3] = 0.3
    assert text.phrase(probabilities, 0.5) == "St. Bernard dog"


def test_a_long_list_becomes_several_texts(texts: SpanTexts) -> None:
    phrases = [f"thing {letter}" for letter in "abcdefghijkl"]
    made = texts.of_list(phrases)
    assert len(made) > 1
    assert [label for text in made for label in text.labels or ()] == phrases
    assert all(len(text.parts) == len(text.labels or ()) and len(text.part_of) <= 48 for text in made)
