"""What the pipeline's command lines add to the shared parser: groups of settings, and whose setting a flag is."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pipeline.caption import CAPTIONERS, captioner_class
from pipeline.caption.view import ViewSettings
from pipeline.propose import PROPOSERS, proposer_class
from schemas import flags
from schemas.flags import flag_of, setting_flags

GROUPS = ("read", "select", "propose", "caption")
"""Groups of settings, whose flags are `--GROUP.NAME`."""
_CHOOSES = {"propose": "--proposer", "caption": "--captioner"}


class FlagParser(flags.FlagParser):
    """Says of a setting of another proposer or captioner whose it is."""

    def hint(self, flag: str) -> str:
        """Return whose setting an unknown flag is, or which flag was meant."""
        group, _, name = flag.removeprefix("--").partition(".")
        registry = {"propose": (PROPOSERS, proposer_class), "caption": (CAPTIONERS, captioner_class)}
        if name and group in registry:
            names, class_of = registry[group]
            having = [backend for backend in names if name in class_of(backend).config_class.__dataclass_fields__]
            if having:
                return f" (a setting of {', '.join(having)}: choose one with {_CHOOSES[group]})"
        return super().hint(flag)


def as_keys(arguments: Sequence[str]) -> list[str]:
    """Return a command line with grouped settings as the parser knows them: `--select.max-regions` by `max_regions`."""
    keys = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_grouped = name.startswith("--") and "." in name
        keys.append(f"--{name[2:].replace('-', '_')}{equals}{value}" if is_grouped else argument)
    return keys


class HelpFormatter(flags.HelpFormatter):
    """Shows grouped settings with hyphens, and no flag for a whole group."""

    def add_argument(self, action: argparse.Action) -> None:
        """Leave out the flags that jsonargparse adds for a whole group, such as `--select FILE`."""
        if action.dest not in GROUPS:
            super().add_argument(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = super()._format_action_invocation(action)
        for option in action.option_strings:
            shown = shown.replace(option, flag_of(option[2:]) if option.startswith("--") else option)
        return shown


def add_flat(parser: ArgumentParser, settings: type[Any], only: Sequence[str] | None = None) -> None:
    """Add a flag for each field of a dataclass: `--shard-size` for `shard_size`, its docstring as help."""
    for field, flag, hint, text in setting_flags(settings, only):
        if hint is bool:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            parser.add_argument(flag, type=hint, default=field.default, help=text)


def add_view(parser: ArgumentParser) -> None:
    """Add the settings of what a captioner sees, which all captioners have, to those of the one that was chosen."""
    for field, flag, hint, text in setting_flags(ViewSettings):
        parser.add_argument(f"--caption.{flag[2:].replace('-', '_')}", type=hint, default=field.default, help=text)


def take_view(parsed: Namespace) -> ViewSettings:
    """Take what `add_view` added out of what was parsed: the captioner's own class has no such settings."""
    return ViewSettings(**{field.name: parsed.caption.pop(field.name) for field in fields(ViewSettings)})
