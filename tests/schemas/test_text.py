import pytest

from schemas.text import says_something


@pytest.mark.parametrize("text", ["a", "7", "é", "犬", "ก", "½", "  x  ", "#1", "\u200bcat"])
def test_a_letter_or_digit_of_any_script_says_something(text):
    assert says_something(text)


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "\u00a0", "\u200b\u200d\ufeff", "...", "-", "!?", "\u2800", "\u3164", "\u00ad", "***"]
)
def test_blanks_invisible_characters_and_punctuation_say_nothing(text):
    assert not says_something(text)
