"""From command line and config file to settings: one parser built from the settings' own dataclasses.

Flags, their defaults, units and help come from the dataclasses and their docstrings. The proposer and captioner are
found first, because their own configs are part of the parser (`--propose.*` and `--caption.*`).
"""

import argparse
import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from pipeline.caption import captioner_class, captioners
from pipeline.cli.flags import GROUPS, FlagParser, HelpFormatter, add_flat, add_view, as_keys, take_view
from pipeline.cli.profiles import DEFAULT_PROFILE, PROFILES
from pipeline.errors import EXIT_CODES
from pipeline.propose import proposer_class, proposers
from pipeline.propose.select import SelectSettings
from pipeline.read.exclusions import ReadFlags, ReadSettings, load_exclusions
from pipeline.read.spec import split_options, split_prefix
from pipeline.run.probe import ProbeSettings
from pipeline.settings import Configuration, PlanSettings, RunSettings
from schemas.paths import as_path, is_url

_KINDS = ("profile", "proposer", "captioner")
_PLAN = "plan"
"""The command that has the flags of `ProbeSettings`."""
_FILTER_HELP = (
    "Filter list (.parquet or .jsonl, such as the marks of fineclip view) of images and regions to leave out; may be "
    "given several times. Keys are those of OUTPUT, ids of regions those of INPUT's records: they matter to manual "
    "alone, other proposers find regions of their own."
)
_ALLOW_HELP = (
    "Folder outside of INPUT from which files are read that COCO, Parquet or a table of captions names; may be given "
    "several times. Other names that lead out of INPUT are refused: a downloaded file must not publish whatever "
    "picture can be read here."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a command line came to."""

    inputs: tuple[str, ...]
    output: str
    profile: str
    configuration: Configuration
    plan: PlanSettings
    run: RunSettings
    probe: ProbeSettings
    append: bool
    engine_options: tuple[str, ...]


def parse(command: str, description: str, arguments: Sequence[str]) -> Options:
    """Parse the arguments of `fineclip command INPUT... OUTPUT [options] [-- ENGINE OPTIONS]`.

    Prints help or an error and raises SystemExit (0 or 2) as argparse does.
    """
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    arguments, engine_options = as_keys(arguments[:at]), list(arguments[at + 1 :])
    arguments = joined(arguments, "--caption.url")
    names = chosen_names(command, arguments, _usage(command))
    parser = _parser(command, description, names)
    parsed = parser.parse_args(list(arguments))
    try:
        return _options(parser, parsed, names, engine_options)
    except ValueError as error:
        parser.error(str(error))
        raise AssertionError("unreachable") from error


def from_settings(inputs: Sequence[str], output: str, settings: Mapping[str, Any]) -> Options:
    """Return the options that a config file of `settings` would give. Raises ValueError for any that is not one."""
    chosen = {kind: settings[kind] for kind in _KINDS if kind in settings}
    names = _names_of(chosen)
    parser = _parser("annotate", "", names)
    parser.exit_on_error = False
    try:
        parsed = parser.parse_object({**settings, "paths": [*inputs, output]})
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    return _options(parser, parsed, names, engine_options=())


def joined(arguments: Sequence[str], flag: str) -> list[str]:
    """Return the arguments with the values of a flag that is given more than once as one, commas between them."""
    rest: list[str] = []
    values: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name != flag:
            rest.append(argument)
        elif (given := value if equals else next(remaining, None)) is not None:
            values.append(given)
        else:
            rest.append(argument)  # the parser says what is missing
    return [*rest, *([f"{flag}={','.join(values)}"] if values else [])]


def _usage(command: str) -> str:
    return f"fineclip {command} INPUT [INPUT ...] OUTPUT [options] [-- ENGINE OPTIONS]"


def chosen_names(command: str, arguments: Sequence[str], usage: str) -> dict[str, str]:
    """Return profile, proposer and captioner: flags before the config file, that before the profile's own."""
    early = argparse.ArgumentParser(prog=f"fineclip {command}", usage=usage, add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path, action="append", default=[])
    for kind in _KINDS:
        early.add_argument(f"--{kind}")
    flags, _ = early.parse_known_args(arguments)
    chosen: dict[str, Any] = {}
    try:
        for path in flags.config:
            chosen.update(_load_config(path))
        chosen.update({kind: getattr(flags, kind) for kind in _KINDS if getattr(flags, kind) is not None})
        return _names_of(chosen)
    except ValueError as error:
        early.error(str(error))
        raise AssertionError("unreachable") from error


def _names_of(chosen: Mapping[str, Any]) -> dict[str, str]:
    """Return profile, proposer and captioner: what is not chosen comes from the profile. Raises ValueError."""
    profile = PROFILES[_known_name("profile", chosen.get("profile", DEFAULT_PROFILE))]
    own = {"profile": DEFAULT_PROFILE, "proposer": profile.proposer, "captioner": profile.captioner}
    return {kind: _known_name(kind, chosen.get(kind, own[kind])) for kind in _KINDS}


def _load_config(path: Path) -> dict[str, Any]:
    """Return what a config file holds. Raises ValueError, naming the file, for one that is no YAML mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):  # some lines may stand for gigabytes
            raise ValueError(f"--config {path}: aliases (*NAME) are not read; write the values out")
        config = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path}: {getattr(error, 'strerror', None) or error}") from error
    except RecursionError as error:
        raise ValueError(f"--config {path}: is nested too deeply for settings") from error
    if isinstance(config, dict):
        return config
    raise ValueError(f"--config {path}: holds no settings; write lines such as `shard_size: 1000`")


def _choices(kind: str) -> list[str]:
    """Return all names of a kind, those of other packages too, which are not imported for it."""
    return {"profile": [*PROFILES], "proposer": proposers.names, "captioner": captioners.names}[kind]


def _known_name(kind: str, name: Any) -> str:
    choices = _choices(kind)
    if name not in choices:
        near = difflib.get_close_matches(str(name), choices, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {kind} {name!r}{meant} (known: {', '.join(sorted(choices))})")
    return str(name)


def _parser(command: str, description: str, names: dict[str, str]) -> FlagParser:
    parser = FlagParser(
        prog=f"fineclip {command}",
        usage=_usage(command),
        description=description,
        epilog=EXIT_CODES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        print_config="--print-config",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="INPUT ... OUTPUT",
        help="images: a folder, WebDataset tars, COCO JSON, Parquet (local or URL); then the folder to write",
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML of these settings; flags override it")
    _add_choices(parser, names)
    parser.add_argument("--append", action="store_true", help="Take new inputs into an existing OUTPUT.")
    parser.add_argument("--filter", action="append", default=[], metavar="FILE", help=_FILTER_HELP)
    for settings in (PlanSettings, RunSettings):
        add_flat(parser, settings)
    if command == _PLAN:
        add_flat(parser, ProbeSettings)
    add_flat(parser, Configuration, only=("val_fraction", "drop_empty"))
    proposer, captioner = proposer_class(names["proposer"]), captioner_class(names["captioner"])
    classes = (ReadFlags, SelectSettings, proposer.config_class, captioner.config_class)
    for group, settings in zip(GROUPS, classes, strict=True):
        parser.add_class_arguments(settings, group, skip={"allow"})
    add_view(parser)
    parser.add_argument("--read.allow", action=_Append, default=[], metavar="DIR", help=_ALLOW_HELP)
    parser.set_defaults(profile_defaults(names))
    return parser


def _add_choices(parser: FlagParser, names: dict[str, str]) -> None:
    profiles = "; ".join(f"{name}: {profile.summary}" for name, profile in PROFILES.items())
    helps = {
        "profile": f"A proposer and a captioner with the settings that suit them. {profiles}.",
        "proposer": f"What finds the regions: {proposers.listed}. Its own settings are the --propose ones.",
        "captioner": f"What describes the regions: {captioners.listed}. Its own settings are the --caption ones.",
    }
    for kind, text in helps.items():
        parser.add_argument(f"--{kind}", choices=_choices(kind), metavar="NAME", default=names[kind], help=text)


def profile_defaults(names: dict[str, str]) -> dict[str, Any]:
    """Return the profile's settings, without those that suit a backend which another one stands in for."""
    profile = PROFILES[names["profile"]]
    suits = {name: "captioner" if name.startswith("caption.") else "proposer" for name in profile.defaults}
    return {
        name: value for name, value in profile.defaults.items() if names[suits[name]] == getattr(profile, suits[name])
    }


class _Append(argparse.Action):
    """argparse's own "append" loses all but the last of a flag with a dot in its name."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Add the flag's value to those before it."""
        namespace[self.dest] = [*(namespace.get(self.dest) or []), values]


def _options(parser: FlagParser, parsed: Namespace, names: dict[str, str], engine_options: Sequence[str]) -> Options:
    parser.check_groups(parsed)
    view = take_view(parsed)
    settings = parser.settings(parsed)
    *inputs, output = settings.paths or [""]
    if not inputs:
        raise ValueError("give at least one INPUT, and OUTPUT last")
    if len(set(inputs)) < len(inputs):
        raise ValueError(f"an INPUT is named twice: {' '.join(inputs)}")
    check_output(inputs, output)
    checked = None if settings.append else inputs  # what was appended to has prefixes that only its plan knows
    excluded = load_exclusions(settings.filter, checked, proposer=names["proposer"])
    configuration = Configuration(
        proposer=names["proposer"],
        propose=settings.propose,
        captioner=names["captioner"],
        caption=settings.caption,
        read=ReadSettings(**dataclasses.asdict(settings.read), excluded=excluded),
        select=settings.select,
        view=view,
        val_fraction=settings.val_fraction,
        drop_empty=settings.drop_empty,
    )
    return Options(
        inputs=tuple(inputs),
        output=output,
        profile=names["profile"],
        configuration=configuration,
        plan=flat(PlanSettings, settings),
        run=flat(RunSettings, settings),
        probe=flat(ProbeSettings, settings) if "probe" in settings else ProbeSettings(),
        append=settings.append,
        engine_options=tuple(engine_options),
    )


def check_output(inputs: Sequence[str], output: str) -> None:
    """Raise ValueError where shards would be written to a place nobody means."""
    if not output:
        raise ValueError("OUTPUT is empty; name a folder ('.' for the current one)")
    for spec in inputs:
        folder = _as_folder(split_options(split_prefix(spec)[1])[0])
        if _as_folder(output).startswith(folder):
            raise ValueError(
                f"OUTPUT {output} lies in INPUT {spec}: its shards would be read as input; choose another folder"
            )


def _as_folder(path: str) -> str:
    """Return a URL, or a local path made absolute, with a slash at its end."""
    absolute = path if is_url(path) else os.path.abspath(as_path(path))  # noqa: PTH100 - it takes `..` away, links or none
    return absolute.rstrip("/") + "/"


def flat(kind: type[Any], settings: Namespace) -> Any:
    """Return the dataclass `kind` of the flags that `add_flat` added for it; those left out keep their defaults."""
    names = (field.name for field in dataclasses.fields(kind) if field.name in settings)
    return kind(**{name: settings[name] for name in names})
