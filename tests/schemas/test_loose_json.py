import json

import msgspec
import pytest

from schemas.loose_json import LooseJsonError, decode_json, id_text, number, shown, split_json, text
from schemas.text import mended


@pytest.mark.parametrize(
    ("value", "meant"),
    [(1, 1.0), ("12.5", 12.5), (" 3 ", 3.0), (True, None), (None, None), ("x", None), ([1], None), (10**400, None)],
)
def test_numbers_are_what_they_mean(value, meant):
    assert number(value) == meant


@pytest.mark.parametrize(
    ("value", "meant"),
    [(1, "1"), (1.0, "1"), ("1", "1"), (" 1 ", "1"), ("a", "a"), (1.5, "1.5"), (True, None), (None, None), ("", None)],
)
def test_ids_are_what_they_mean(value, meant):
    assert id_text(value) == meant
    assert text(float("nan")) is None


def test_a_file_is_split_whatever_stands_in_its_strings():
    class Shape(msgspec.Struct):
        entries: list[msgspec.Raw]

    values = ["\\ud800", "\\\\ud800", "\U0001f600", "NaN, Infinity", 'a \\" NaN', "\n", "]", "\\"]
    data = json.dumps({"entries": [*values, float("nan"), -float("inf")]}).encode().replace(b"\\n", b"\n")
    found = [decode_json(bytes(entry)) for entry in split_json(data, Shape).entries]
    assert found == [*values, "NaN", "-Infinity"]
    broken = b'{"entries": ["\\ud800 x", "\\ud83d\\ude00", "\\\\ud800"]}'
    assert [mended(decode_json(bytes(entry))) for entry in split_json(broken, Shape).entries] == [
        "\ufffd x", "\U0001f600", "\\ud800",
    ]  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"entries": 3}'])
def test_what_is_no_json_of_the_shape_is_told_of(data):
    class Shape(msgspec.Struct):
        entries: list[msgspec.Raw]

    with pytest.raises(LooseJsonError):
        split_json(data, Shape)
    if data != b'{"entries": 3}':
        with pytest.raises(LooseJsonError):
            decode_json(data)


def test_values_are_shown_briefly():
    assert shown("x\ud800\0") == r"'x\ud800\x00'"
    assert shown("x" * 200) == "'" + "x" * 79 + "..."
