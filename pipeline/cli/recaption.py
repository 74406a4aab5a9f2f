"""The subcommand `recaption`: new captions on the boxes of a data set, as an overlay."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from rich.console import Console

from pipeline.caption import captioner_class, captioners
from pipeline.cli import progress
from pipeline.cli.command import draining_on_signals, ending
from pipeline.cli.counts import print_counts
from pipeline.cli.flags import FlagParser, HelpFormatter, add_flat, add_view, as_keys, take_view
from pipeline.cli.options import chosen_names, flat, joined, profile_defaults
from pipeline.cli.profiles import PROFILES
from pipeline.cli.report import print_times
from pipeline.errors import EXIT_CODES
from pipeline.models.licenses import check_permissive
from pipeline.run.job import Drain, JobResult
from pipeline.run.recaption import recaption
from pipeline.settings import CaptionConfiguration, RunSettings

_USAGE = "fineclip recaption DATA --captioner NAME --as OVERLAY [options] [-- ENGINE OPTIONS]"
_DESCRIPTION = """\
Caption the regions of a data set anew: boxes and images stay as they are, no proposer is loaded, and the captions
are an overlay beside the shards. Readers take it by name (--overlay)."""
_OF_ANNOTATE = ("two_pools", "propose_accelerator", "caption_accelerator", "trust_inputs")
"""Settings of proposers, and of inputs, which are not read again."""


@dataclass(frozen=True, kw_only=True)
class _Options:
    data: str
    overlay: str
    configuration: CaptionConfiguration
    run: RunSettings
    engine_options: tuple[str, ...]


def recaption_main(arguments: Sequence[str]) -> int:
    """Run `fineclip recaption` and return its exit code. Raises errors that carry theirs."""
    console = Console(emoji=False, stderr=True)
    drain = Drain()
    with draining_on_signals(drain, console):
        options = _parse(arguments)
        if options.run.permissive_only:
            check_permissive(options.configuration.licenses())
        with progress.working(console) as show:
            result = recaption(
                options.data,
                options.overlay,
                configuration=options.configuration,
                run=options.run,
                engine_options=options.engine_options,
                drain=drain,
                watch=show,
            )
    _closing(Console(emoji=False), result, options)
    keys = f"rows with status 'dead' in the tables *.{options.overlay}.parquet the keys"
    return ending(console, result, options.run.max_dead, keys)


def _closing(console: Console, result: JobResult, options: _Options) -> None:
    print_counts(console, result.totals)
    if result.num_units_run == 0:
        console.print(f"Nothing to do: all {result.plan.num_units:,} shards were done.", highlight=False)
    else:
        print_times(console, result)
    told = f"Overlay {options.overlay} of {options.data}: readers take it by --overlay {options.overlay}."
    console.print(told, highlight=False, markup=False, soft_wrap=True)


def _parse(arguments: Sequence[str]) -> _Options:
    """Return the options; prints help or an error and raises SystemExit (0 or 2) as argparse does."""
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    arguments, engine_options = as_keys(arguments[:at]), tuple(arguments[at + 1 :])
    arguments = joined(arguments, "--caption.url")
    names = chosen_names("recaption", arguments, _USAGE)
    parser = _parser(names)
    parsed = parser.parse_args(list(arguments))
    if parsed.captioner is None and parsed.profile is None:
        parser.error("name the captioner by --captioner NAME, or by a --profile")
    if getattr(captioner_class(names["captioner"]), "needs_source", False):
        parser.error(f"--captioner {names['captioner']} says what the source says, and recaption reads no source")
    try:
        parser.check_groups(parsed)
        view = take_view(parsed)
        settings = parser.settings(parsed)
        configuration = CaptionConfiguration(captioner=names["captioner"], caption=settings.caption, view=view)
        run = flat(RunSettings, settings)
    except ValueError as error:
        parser.error(str(error))
    return _Options(
        data=settings.data,
        overlay=settings["as"],
        configuration=configuration,
        run=run,
        engine_options=engine_options,
    )


def _parser(names: dict[str, str]) -> FlagParser:
    parser = FlagParser(
        prog="fineclip recaption",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        print_config="--print-config",
    )
    parser.add_argument("data", metavar="DATA", help="a data set made by fineclip annotate: a folder, or a URL")
    parser.add_argument("--as", required=True, metavar="OVERLAY", help="Name of the overlay to make or go on with.")
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML of these settings; flags override it")
    parser.add_argument(
        "--profile", choices=[*PROFILES], metavar="NAME", help="Take the captioner of a profile, with its settings."
    )
    described = f"What describes the regions: {captioners.listed}. Its own settings are the --caption ones."
    parser.add_argument("--captioner", choices=captioners.names, metavar="NAME", help=described)
    add_flat(parser, RunSettings, only=[field.name for field in fields(RunSettings) if field.name not in _OF_ANNOTATE])
    parser.add_class_arguments(captioner_class(names["captioner"]).config_class, "caption")
    add_view(parser)
    suiting = {name: value for name, value in profile_defaults(names).items() if name.startswith("caption.")}
    parser.set_defaults(suiting)
    return parser
