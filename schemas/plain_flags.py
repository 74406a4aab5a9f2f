"""The parser of the light commands, and the words that it shares with `flags`: what was meant where usage is wrong."""

import argparse
import difflib
import re
from collections.abc import Collection
from typing import NoReturn

_KINDS = {"int": "a whole number", "float": "a number"}


class PlainParser(argparse.ArgumentParser):
    """argparse, without abbreviations, that says what was meant where a flag or a value is wrong."""

    def __init__(self, prog: str, description: str, *, epilog: str | None = None) -> None:
        """Make the parser of the command `prog`; line breaks of the description and epilog are kept."""
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, epilog=epilog, formatter_class=raw, allow_abbrev=False)

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
