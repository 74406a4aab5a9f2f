"""Files of words, a line each, whoever reads them."""

from pathlib import Path

import pytest

from pipeline.backends import SettingError
from pipeline.word_list import read_word_list


def test_lines_are_tidied_told_apart_from_comments_and_given_once(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xef\xbb\xbfred  cat\r\n# a comment\r\n\r\n dog \r\nred cat\r\n")
    assert read_word_list(path, "--nouns", "noun") == ("red cat", "dog"), "the mark before it is no part of the first"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"# none\n", "holds no noun; write one a line"), (b"caf\xe9\n", "give a text file in UTF-8"), (None, "No such")],
)
def test_a_file_without_words_is_a_sentence(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=f"^--nouns .*words.txt: .*{message}"):
        read_word_list(path, "--nouns", "noun")
