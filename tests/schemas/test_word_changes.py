"""Wrong captions differ from right ones in one word, which the data have too."""

from schemas.word_changes import Change, Vocabulary


def changes(caption: str, others: list[str], nouns: tuple[str, ...] = ()) -> list[Change]:
    return Vocabulary.of([caption, *others], nouns).changes(caption)


def test_one_word_is_changed_to_another_of_its_kind():
    found = changes("a small red star", ["a large blue ring", "an orange cross"], ("star", "ring", "dog"))
    assert found == [
        Change("colour", "a small blue star"),
        Change("colour", "a small orange star"),
        Change("size", "a large red star"),
        Change("noun", "a small red ring"),
    ]


def test_articles_and_capitals_fit():
    assert [c.caption for c in changes("A red star", ["an orange star"])] == ["An orange star"]
    assert [c.caption for c in changes("an orange star", ["a red star"])] == ["a red star"]
    assert [c.caption for c in changes("Red stars", ["blue"])] == ["Blue stars"]


def test_words_of_the_same_meaning_do_not_stand_for_each_other():
    assert changes("a tiny cat", ["a little one", "small"]) == []
    assert changes("a gray wall", ["a grey wall", "silver"]) == []


def test_parts_of_words_are_no_words():
    assert changes("a redhead with a blue-ish scarf", ["a red hat", "a green hat"]) == []


def test_a_word_that_the_caption_has_too_is_no_change():
    assert changes("a red and blue kite", ["a green kite"]) == [
        Change("colour", "a green and blue kite"),
        Change("colour", "a red and green kite"),
    ]


def test_nouns_of_several_words():
    found = changes("a traffic light at night", ["the fire hydrant"], ("traffic light", "fire hydrant", "cat"))
    assert found == [Change("noun", "a fire hydrant at night")]
