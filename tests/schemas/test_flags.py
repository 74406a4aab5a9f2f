"""The parser of both sides' command lines: what is wrong is told in a sentence that names the flag as it is written."""

import argparse
import dataclasses
import re
import subprocess
import sys
from typing import Literal

import pytest

from schemas.flags import FlagParser, setting_flags


@dataclasses.dataclass
class Settings:
    """Settings."""

    shard_size: int = 1
    """Images of a
    `shard`."""
    limit: int | None = None
    """L."""
    scale: float | None = None
    """S."""
    size: int | tuple[int, int] | None = None
    """S."""
    kind: Literal["near", "far"] | None = None
    """K."""


def parser() -> FlagParser:
    made = FlagParser(prog="tool")
    for field, flag, hint, text in setting_flags(Settings):
        made.add_argument(flag, type=hint, default=field.default, help=text)
    made.add_argument("--select.max_regions", type=int | None)
    made.add_argument("--out", required=True)
    made.add_argument("data", metavar="DATA")
    return made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--shard-size many", "--shard-size is 'many', but must be a whole number"),
        ("--limit x", "--limit is 'x', but must be a whole number"),
        ("--limit 1.5", "--limit is '1.5', but must be a whole number"),
        ("--scale x", "--scale is 'x', but must be a number"),
        ("--size x", "--size is 'x', but must be a whole number or a list such as [1,2]"),
        ("--kind nerar", "--kind is 'nerar', but must be one of near, far; did you mean near?"),
        ("--select.max_regions x", "--select.max-regions is 'x', but must be a whole number"),
        ("--shard_sise 3", "unrecognized arguments: --shard-sise 3; did you mean --shard-size?"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit) as exited:
        parser().parse_args(["data", "--out", "o", *arguments.split()])
    assert exited.value.code == 2
    assert capsys.readouterr().err.endswith(f"\ntool: error: {message}\n")


def test_an_error_can_be_raised_instead():
    raising = parser()
    raising.exit_on_error = False
    with pytest.raises(argparse.ArgumentError, match="--limit is 'x', but must be a whole number"):
        raising.parse_args(["data", "--out", "o", "--limit", "x"])


def test_what_is_missing_is_named_as_it_is_written(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args([])
    assert re.search(r"required: (--out, DATA|DATA, --out)$", capsys.readouterr().err.strip())


def test_flags_have_their_fields_docstrings():
    flags = {flag: text for _, flag, _, text in setting_flags(Settings)}
    assert flags["--shard-size"] == "Images of a shard."


def test_inherited_fields_are_flags_too_and_the_last_docstring_counts():
    @dataclasses.dataclass
    class More(Settings):
        limit: int | None = 3
        """At most."""
        colour: str = "red"
        """C."""

    flags = {flag: (hint, text) for _, flag, hint, text in setting_flags(More)}
    assert flags["--shard-size"] == (int, "Images of a shard.")
    assert flags["--limit"] == (int | None, "At most.")
    assert [*flags][-1] == "--colour"


def test_nothing_else_here_needs_the_parser():
    code = "import sys; sys.modules.update(jsonargparse=None, docstring_parser=None); import schemas, schemas.dataset"
    subprocess.run([sys.executable, "-c", code], check=True)
