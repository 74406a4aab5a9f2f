"""The parser of both sides' command lines: flags from dataclasses, help that fits, errors that say what was meant.

It alone in `schemas` needs jsonargparse, and only commands import it.
"""

import argparse
import dataclasses
import re
import sys
import typing
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple, NoReturn

import docstring_parser
from jsonargparse import ArgumentParser, set_parsing_settings

from schemas.plain_flags import ProseFormatter, meant

set_parsing_settings(docstring_parse_attribute_docstrings=True)

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "tuple": "a list such as [1,2]",
}
_WRONG_TYPE = re.compile(
    r'Parser key "(?P<key>[\w.]+)":\s*(?P<expected>Expected a .*?)\. Got value: (?P<value>.*)', re.DOTALL
)
_WRONG_UNION = re.compile(
    r'Parser key "(?P<key>[\w.]+)":\s*Does not validate against any of the Union subtypes\s*'
    r"Subtypes:.*?Errors:(?P<expected>.*)\n\s*Given value type: .*?\n\s*Given value: (?P<value>.*)",
    re.DOTALL,
)
_UNKNOWN_SETTING = re.compile(r"(?:Group '([\w.]+)' does not accept o|O)ption '(.+?)'(?: is not accepted)?")
_WRONG_CHOICE = re.compile(r'Parser key "(?P<key>[\w.]+)": \'(?P<value>.*)\' not among choices \[(?P<names>.*)\]')


class FlagParser(ArgumentParser):
    """Says what was meant where a flag or a value is wrong."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the usage and a sentence, and exit with 2; raise instead where `exit_on_error` is off."""
        message = self._in_words(message)
        if not self.exit_on_error:
            raise argparse.ArgumentError(None, message) from ex
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n")

    def hint(self, flag: str) -> str:
        """Return what to add to the error of an unknown flag: which one was meant."""
        return meant(flag.replace("_", "-"), self.known())

    def known(self) -> set[str]:
        """Return all flags, as they are written."""
        return {option.replace("_", "-") for action in self._actions for option in action.option_strings}

    def _in_words(self, message: str) -> str:
        """Return what jsonargparse or argparse complains of as a sentence that names flags as they are written."""
        if wrong := _WRONG_TYPE.match(message) or _WRONG_UNION.match(message):
            must_be = _must_be(wrong["expected"], wrong["value"])
            return message if must_be is None else f"{flag_of(wrong['key'])} is {wrong['value']!r}, but {must_be}"
        if unknown := re.match(r"[Uu]nrecognized arguments: (--?[\w.-]+)", message):
            flag = unknown[1]
            return message.replace(flag, flag.replace("_", "-")) + self.hint(flag)
        if re.match("[Uu]nrecognized arguments: [^-]", message):
            return f"{message} (one too many, or apart from the others)"
        if unknown := _UNKNOWN_SETTING.match(message):
            flag = flag_of(".".join(filter(None, unknown.groups())))
            return f"{flag}: there is no such setting{self.hint(flag)}"
        if choice := _WRONG_CHOICE.match(message):
            names = re.findall(r"[\w-]+", choice["names"])
            must_be = f"must be one of {', '.join(names)}{meant(choice['value'], names)}"
            return f"{flag_of(choice['key'])} is {choice['value']!r}, but {must_be}"
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            return message + meant(choice[1], re.findall(r"[\w-]+", choice[2]))
        if missing := re.match(r"(the following arguments are required: )(.*)", message):
            return missing[1] + ", ".join(map(self._as_written, missing[2].split(", ")))
        return message

    def _as_written(self, name: str) -> str:
        """Return how the help names the argument that is kept under `name`: `--out`, `DATA`."""
        for action in self._actions:
            if action.dest == name and action.option_strings:
                return flag_of(name)
            if action.dest == name and isinstance(action.metavar, str):
                return action.metavar
        return name


def _must_be(expected: str, value: str) -> str | None:
    """Return in words what the parser expected; None where it is of a kind that has none."""
    if choices := re.search(r"Literal\[(.*?)\]", expected):
        names = re.findall(r"'([^']*)'", choices[1])
        return f"must be one of {', '.join(names)}{meant(value, names)}"
    kinds = [kind for kind in re.findall(r"Expected a <class '(\w+)'>", expected) if kind != "NoneType"]
    return f"must be {' or '.join(_KINDS.get(kind, kind) for kind in kinds)}" if kinds else None


def flag_of(key: str) -> str:
    """Return how a setting is written on the command line: `--shard-size`, `--select.max-regions`."""
    return f"--{key.replace('_', '-')}"


class HelpFormatter(ProseFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults other than "off" and "none", as wide as the terminal allows and a person can read."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_off = action.default is None or action.default is False or action.default == []
        return action.help if is_off else super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return action.dest.rpartition(".")[2].upper()


class SettingFlag(NamedTuple):
    """How a field of a dataclass is a flag."""

    field: dataclasses.Field[Any]
    flag: str
    hint: Any
    """Its type."""
    help: str
    """Its docstring."""


def setting_flags(settings: type[Any], only: Collection[str] | None = None) -> Iterator[SettingFlag]:
    """Yield the flag of each field of a dataclass, inherited ones first, or of `only` some: `--shard-size`."""
    owners = [owner for owner in reversed(settings.__mro__) if dataclasses.is_dataclass(owner)]
    documented = [entry for owner in owners for entry in docstring_parser.parse_from_object(owner).params]
    helps = {entry.arg_name: " ".join((entry.description or "").replace("`", "").split()) for entry in documented}
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        if only is None or field.name in only:
            yield SettingFlag(field, flag_of(field.name), hints[field.name], helps[field.name])
