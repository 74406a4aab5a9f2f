import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline.backends import SettingError
from pipeline.propose.phrases import Phrases, check_lengths, noun_phrases, phrases_of, read_phrases
from pipeline.sample import Drop
from schemas.reasons import STATUS_OF, Reason, Status


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        (
            "A man riding a red bicycle next to two dogs on the beach.",
            ["man", "red bicycle", "two dogs", "beach"],
        ),
        ("An espresso in a red and white cup, on a wooden table", ["espresso", "white cup", "wooden table"]),
        ("Two people are standing in front of a brick building", ["Two people", "brick building"]),
        ("a dog. A DOG, a dog", ["dog"]),  # each once, whatever its case
        ("man's best friend: a well-known T-shirt", ["man's best friend", "well-known T-shirt"]),
        ("Flags hanging from a ceiling", ["Flags", "ceiling"]),
        ("sofa https://example.org/a-very-nice-cat.jpg", ["sofa"]),
        ("  a\n  cat  ", ["cat"]),
        ("Ein Hund auf der Wiese", ["Ein Hund auf der Wiese"]),  # as it is: its words are not known
        ("Ein sehr großer Hund läuft über die grüne Wiese", []),  # too long for a phrase
        ("一只猫坐在沙发上", []),
        ("a photo of the", []),
        ("red, white and blue", []),
        ("!!! 123 ...", []),
        ("", []),
    ],
)
def test_noun_phrases_by_the_rule(caption, phrases):
    assert [*noun_phrases(caption)] == phrases


def _image(make_image, caption):
    image = make_image(np.zeros((8, 8, 3), np.uint8))
    return replace(image, item=replace(image.item, captions=(caption,) if caption is not None else ()))


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        (None, "the image has no caption to find the phrases of"),
        ("  ", "the image has no caption to find the phrases of"),
        ("一只猫", "the image's caption has no noun phrase by the rule for English: '一只猫'"),
    ],
)
def test_an_image_without_phrases_is_filtered_and_told_what_to_do(make_image, caption, message):
    drop = phrases_of(_image(make_image, caption), None)
    assert isinstance(drop, Drop)
    assert drop.reason is Reason.NO_PHRASES
    assert STATUS_OF[drop.reason] is Status.FILTERED
    assert drop.message == f"{message}; --propose.phrases FILE gives the phrases to look for in every image"


def test_phrases_of_a_file_need_no_caption(make_image):
    assert phrases_of(_image(make_image, None), Phrases(phrases=("cat",))) == ("cat",)


def test_a_file_of_phrases_is_read_and_named_by_what_it_holds(tmp_path):
    file, other = tmp_path / "phrases.txt", tmp_path / "other.txt"
    file.write_text("\ufeff# things\ncat\n\n  a   red bicycle \nCat\nchat noir\n", encoding="utf-8")
    other.write_text("cat\na red bicycle\nchat noir", encoding="utf-8")
    assert read_phrases(str(file)).phrases == ("cat", "a red bicycle", "chat noir")
    assert read_phrases(str(file)).sha256 == read_phrases(str(other)).sha256
    assert read_phrases(None) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"# nothing\n\n", "holds no phrase; write one a line"),
        (b"cat\n???\n", "'???' names nothing; write words"),
        (b"\xff\xfe\x00", "can't decode"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path, content, message):
    file = tmp_path / "phrases.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError, match=f"--propose.phrases {file}: .*{re.escape(message)}"):
        read_phrases(str(file))


def test_a_phrase_that_the_text_tower_does_not_take_is_told():
    from tests.random_grounders import clip_tokenizer

    tokenizer = clip_tokenizer(16)
    check_lengths(Phrases(phrases=("short",)), tokenizer, most=16)
    check_lengths(None, tokenizer, most=16)
    with pytest.raises(SettingError, match="'a very long phrase' has 17 tokens, and the model takes 16 at most"):
        check_lengths(Phrases(phrases=("short", "a very long phrase")), tokenizer, most=32)
