"""The parser of the light commands, and the words that it shares with `flags`: what was meant where usage is wrong."""

import argparse
import difflib
import re
import shutil
import textwrap
from collections.abc import Collection
from typing import Any, NoReturn

_KINDS = {"int": "a whole number", "float": "a number"}
_MAX_HELP_WIDTH = 110


class ProseFormatter(argparse.RawDescriptionHelpFormatter):
    """Fits descriptions to the terminal, up to what a person can read: indented lines stay lines, others are filled."""

    def __init__(self, prog: str, max_help_position: int = 24) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(prog, max_help_position=max_help_position, width=min(columns, _MAX_HELP_WIDTH) - 2)

    def _format_usage(self, usage: str | None, *others: Any) -> str:
        text = super()._format_usage(usage, *others)
        if usage is None:  # argparse has wrapped its own
            return text
        return "\n".join(_fill(line, self._width, " " * 7) for line in text.rstrip().split("\n")) + "\n\n"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _fill(" ".join(text.split()), width).split("\n")

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(textwrap.indent(_filled(part, width), indent) for part in text.split("\n\n"))


def _filled(paragraph: str, width: int) -> str:
    """Return a paragraph in lines of at most `width`; one with indented lines keeps them, what is cut hangs below."""
    lines = paragraph.split("\n")
    if not any(line.startswith(" ") for line in lines):
        return _fill(paragraph, width)
    hangs = [len(match[0]) if (match := re.match(r" +\S+ +", line)) else 0 for line in lines]
    return "\n".join(_fill(line, width, " " * hang) for line, hang in zip(lines, hangs, strict=True))


def _fill(text: str, width: int, indent: str = "") -> str:
    """Return text in lines of at most `width`, all but the first after `indent`; flags are never cut at a hyphen."""
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


class PlainParser(argparse.ArgumentParser):
    """argparse, without abbreviations, that says what was meant where a flag or a value is wrong."""

    def __init__(self, prog: str, description: str, *, epilog: str | None = None) -> None:
        """Make the parser of the command `prog`; indented lines of the description and epilog are kept."""
        prose = ProseFormatter
        super().__init__(prog=prog, description=description, epilog=epilog, formatter_class=prose, allow_abbrev=False)

    def add_repeated(self, flag: str, metavar: str, meaning: str) -> None:
        """Add a flag that may be given several times; its values are a list."""
        told = f"{meaning}; may be given several times"
        self.add_argument(flag, action="append", default=[], metavar=metavar, help=told)

    def error(self, message: str) -> NoReturn:
        """Print the usage and a sentence, and exit with 2."""
        super().error(self._in_words(message))

    def _in_words(self, message: str) -> str:
        known = [option for action in self._actions for option in action.option_strings]
        if wrong := re.match(r"argument (\S+): invalid (int|float) value: (.*)", message):
            return f"{wrong[1]} is {wrong[3]}, but must be {_KINDS[wrong[2]]}"
        if unknown := re.match(r"unrecognized arguments: (--?[\w-]+)", message):
            return message + meant(unknown[1], known)
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            return message + meant(choice[1], re.findall(r"[\w-]+", choice[2]))
        if re.match("unrecognized arguments: [^-]", message):
            return f"{message}: too many are given"
        return message


def meant(given: str, known: Collection[str]) -> str:
    """Return what to add to an error about a name: which of the known ones was meant, or nothing."""
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
