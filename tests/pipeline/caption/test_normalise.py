"""Captions are tidied, never emptied, and those that say nothing are refused with a reason."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.caption.normalise import finished, normalised, repetition
from pipeline.caption.rule import Rule, RuleConfig
from pipeline.sample import Caption, Crop, Drop
from pipeline.scenes.words import every_region_caption
from schemas.reasons import STATUS_OF, Reason, Stage, Status

PROMPT = "Describe this image in one sentence."

_AROUND = ['"', "'", "`", "\u201c", "\u201d", "Assistant:", "caption :", "<|im_end|>", "</s>", " ", "\n", PROMPT]
_PIECES = st.sampled_from(_AROUND) | st.text(max_size=4)
_TEXTS = st.text(max_size=60) | st.lists(_PIECES, max_size=12).map("".join)
_WORDS = ("a", "the", "red", "small", "old", "dog", "kite", "tree's", "on", "near", "it", "is")
_SENTENCES = st.lists(st.sampled_from(_WORDS), min_size=1).map(" ".join)
_WRAPS = st.sampled_from(["{}", '"{}"', " {}\n", "Assistant: {}", "{}<|im_end|>", PROMPT + " {}"])


@given(text=_TEXTS, prompt=st.none() | st.just(PROMPT) | st.text(max_size=6))
@example(text="e\u200b\u0301", prompt=None)
@example(text="'\u0301'", prompt=None)
def test_normalising_twice_changes_nothing_more(text: str, prompt: str | None) -> None:
    once = normalised(text, prompt)
    assert normalised(once, prompt) == once
    assert once == " ".join(once.split())
    assert unicodedata.is_normalized("NFC", once)
    once.encode()  # no lone surrogate


@given(
    sentence=_SENTENCES, wrap=st.sampled_from(["{}", '"{}"', " {}\n", "Assistant: {}", "{}<|im_end|>", PROMPT + " {}"])
)
def test_a_good_text_stays_as_it_is_whatever_surrounds_it(sentence: str, wrap: str) -> None:
    assert normalised(wrap.format(sentence), PROMPT) == sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a dog\n\ton\u00a0a  mat \x00", "a dog on a mat"),
        ("\u201cA dog.\u201d", "A dog."),
        ("'A dog's bone'", "'A dog's bone'"),
        ('"Stop" and "Go"', '"Stop" and "Go"'),
        ("ASSISTANT: Caption: 'a dog'", "a dog"),
        ("Describe this image in one sentence. A dog.", "A dog."),
        ("cafe\u0301", "caf\u00e9"),
        ("\U0001f468\u200d\U0001f469 a couple", "\U0001f468\u200d\U0001f469 a couple"),
        ("a dog, 'Rex'", "a dog, 'Rex'"),
        ("\ud800a dog\u202e", "a dog"),
    ],
)
def test_what_is_taken_away_and_what_stays(text: str, expected: str) -> None:
    assert normalised(text, PROMPT) == expected


def test_a_prompt_is_cut_off_at_a_word_s_end_only() -> None:
    assert normalised("a photo of a dog", "a photo of") == "a dog"
    assert normalised("a photograph", "a photo") == "a photograph"


@pytest.mark.parametrize(
    "text",
    [
        "a a a a a a",
        "dog dog dog",
        "a red car, a red car, a red car",
        "the image shows a man in the park in the park in the park",
        "A dog. a dog! A DOG",
        "very very very very tall",
        "a" * 40,
        "\u72d7\u548c\u732b" * 10,
    ],
)
def test_a_stuck_model_is_caught(text: str) -> None:
    outcome = finished(Caption(text=text, score=0.9))
    assert isinstance(outcome, Drop)
    assert (outcome.reason, outcome.stage) == (Reason.REPEATED_CAPTION, Stage.CAPTION)
    assert STATUS_OF[outcome.reason] is Status.DEAD


@pytest.mark.parametrize(
    "text",
    [
        "a very very very tall tree",
        "red and red",
        "a dog and a dog",
        "side by side by the sea",
        "duck duck goose",
        "1 1 2 3 5 8",
        "a man and a woman and a child and a dog",
        "Donaudampfschifffahrtsgesellschaft",
    ],
)
def test_speech_that_only_looks_repeated_passes(text: str) -> None:
    assert repetition(text) is None
    assert finished(Caption(text=text, score=None)) == Caption(text=text, score=None)


@pytest.mark.parametrize("text", ["", " \n", '""', "Assistant:", "...", "\u200b", PROMPT, "<|im_end|>"])
def test_a_text_without_words_is_empty(text: str) -> None:
    outcome = finished(Caption(text=text, score=0.5), PROMPT)
    assert isinstance(outcome, Drop)
    assert outcome.reason is Reason.EMPTY_CAPTION
    assert repr(text) in outcome.message


def test_what_the_mini_and_the_paper_s_model_say_passes_unchanged() -> None:
    for text in [*every_region_caption(), "a close up of a cat laying on a couch", "two people riding on a horse."]:
        assert finished(Caption(text=text, score=0.123456)) == Caption(text=text, score=0.1235)


def test_what_the_rule_says_passes_unchanged() -> None:
    rng = np.random.default_rng(0)
    crops = [
        Crop(
            region_id=f"{number:016x}",
            pixels=np.repeat(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8), 1 + number % 4, axis=number % 2),
            box=(number % 7, number % 5, 8 + number % 11, 9 + number % 13),
            image_width=24,
            image_height=24,
            label=(None, "dog", "traffic light")[number % 3],
        )
        for number in range(200)
    ]
    for caption in Rule(RuleConfig()).caption(crops, [None] * len(crops)):
        assert finished(caption) == caption


def test_failures_pass_through() -> None:
    drop = Drop(reason=Reason.TIMEOUT, stage=Stage.CAPTION, message="gone")
    assert finished(drop, PROMPT) is drop
