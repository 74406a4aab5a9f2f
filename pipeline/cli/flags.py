"""The parser of the command line: flags from dataclasses, help that fits, and errors that say what was meant."""

import argparse
import dataclasses
import difflib
import inspect
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import docstring_parser
from jsonargparse import ArgumentParser, set_parsing_settings

from pipeline.caption import CAPTIONERS, captioner_class
from pipeline.propose import PROPOSERS, proposer_class

set_parsing_settings(docstring_parse_attribute_docstrings=True)

GROUPS = ("read", "select", "crop", "propose", "caption")
"""Groups of settings, whose flags are `--GROUP.NAME`."""
_MAX_HELP_WIDTH = 110


class FlagParser(ArgumentParser):
    """Says what was meant where a flag or a value is wrong."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the usage and a sentence, and exit with 2; raise instead where `exit_on_error` is off."""
        wrong_type = re.match(r'Parser key "([\w.]+)":\s*Expected a <class \'(\w+)\'>. Got value: (.*)', message)
        either = re.match(r'Parser key "([\w.]+)":\s*Does not validate against any.*Given value: (\S*)', message, re.S)
        unknown = re.match(r"[Uu]nrecognized arguments: (--?[\w.-]+)", message)
        if wrong_type:
            key, kind, value = wrong_type.groups()
            message = f"{_flag_of(key)} is {value!r}, but must be {_KINDS.get(kind, kind)}"
        elif either:
            key, value = either.groups()
            kinds = [_KINDS.get(kind, kind) for kind in re.findall(r"Expected a <class '(\w+)'>", message)]
            message = f"{_flag_of(key)} is {value!r}, but must be {' or '.join(k for k in kinds if k != 'NoneType')}"
        elif unknown:
            flag = unknown.group(1)
            message = message.replace(flag, flag.replace("_", "-")) + self._hint(flag)
        if not self.exit_on_error:
            raise argparse.ArgumentError(None, message) from ex
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n")

    def _hint(self, flag: str) -> str:
        """Return whose setting an unknown flag is, or which flag was meant."""
        group, _, name = flag.removeprefix("--").partition(".")
        registry = {"propose": (PROPOSERS, proposer_class), "caption": (CAPTIONERS, captioner_class)}
        if name and group in registry:
            names, class_of = registry[group]
            having = [backend for backend in names if name in class_of(backend).config_class.__dataclass_fields__]
            if having:
                return f" (a setting of {', '.join(having)}: choose one with {_CHOOSES[group]})"
        known = {option.replace("_", "-") for action in self._actions for option in action.option_strings}
        near = difflib.get_close_matches(flag.replace("_", "-"), known, n=1)
        return f"; did you mean {near[0]}?" if near else ""


_CHOOSES = {"propose": "--proposer", "caption": "--captioner"}
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def _flag_of(key: str) -> str:
    """Return how a setting is written on the command line: `--shard-size`, `--select.max-regions`."""
    return f"--{key.replace('_', '-')}"


def as_keys(arguments: Sequence[str]) -> list[str]:
    """Return a command line with grouped settings as the parser knows them: `--select.max-regions` by `max_regions`."""
    keys = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_grouped = name.startswith("--") and "." in name
        keys.append(f"--{name[2:].replace('-', '_')}{equals}{value}" if is_grouped else argument)
    return keys


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults other than "off" and "none", as wide as the terminal allows and a person can read."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(prog, max_help_position=30, width=min(columns, _MAX_HELP_WIDTH) - 2)

    def add_argument(self, action: argparse.Action) -> None:
        """Leave out the flags that jsonargparse adds for a whole group, such as `--select FILE`."""
        if action.dest not in GROUPS:
            super().add_argument(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = super()._format_action_invocation(action)
        for option in action.option_strings:
            shown = shown.replace(option, f"--{option[2:].replace('_', '-')}" if option.startswith("--") else option)
        return shown

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_off = action.default is None or action.default is False or action.default == []
        return action.help if is_off else super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return action.dest.rpartition(".")[2].upper()


def add_flat(parser: ArgumentParser, settings: type[Any], only: Sequence[str] | None = None) -> None:
    """Add a flag for each field of a dataclass: `--shard-size` for `shard_size`, its docstring as help."""
    documented = docstring_parser.parse_from_object(settings).params
    helps = {entry.arg_name: (entry.description or "").replace("\n", " ").replace("`", "") for entry in documented}
    hints = inspect.get_annotations(settings, eval_str=True)
    for field in dataclasses.fields(settings):
        if only is not None and field.name not in only:
            continue
        flag = "--" + field.name.replace("_", "-")
        if hints[field.name] is bool:
            parser.add_argument(flag, action="store_true", help=helps[field.name])
        else:
            parser.add_argument(flag, type=hints[field.name], default=field.default, help=helps[field.name])
