"""The subcommand `retry`: what died in a data set, again from its source."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from pipeline.caption import captioner_class
from pipeline.cli import progress
from pipeline.cli.command import draining_on_signals, ending
from pipeline.cli.counts import print_counts
from pipeline.cli.flags import FlagParser, HelpFormatter, add_flat, as_keys
from pipeline.cli.options import flat, joined
from pipeline.cli.report import print_times
from pipeline.errors import EXIT_CODES, InterruptedRunError, ServerGoneError
from pipeline.plan.plan import Plan
from pipeline.propose import proposer_class
from pipeline.retry.recorded import names_of, recorded_configuration, settings_of
from pipeline.retry.where import COLUMNS, Condition, parse_condition
from pipeline.run.job import Drain
from pipeline.run.retry import RetryResult, open_output, retry
from pipeline.settings import Configuration, RunSettings
from schemas.store_errors import storage_errors
from schemas.text import counted

_USAGE = "fineclip retry OUTPUT --where COLUMN=VALUE[,VALUE] [options] [-- ENGINE OPTIONS]"
_DESCRIPTION = """\
Repeat images and regions that are dead, from their sources, with the configuration that OUTPUT was made with. What
could not be read before is read where it can be now. Only the shards that hold them are written anew, under their
names; until one is whole again readers are told that it is being repaired. `fineclip status OUTPUT --dead` lists what
is dead. The same command goes on where it was stopped."""
_WHERE_HELP = (
    "Which of the dead: reason=oom,timeout takes both reasons; given again, what is repeated must meet that too: "
    f"--where reason=oom --where stage=caption. Columns: {', '.join(COLUMNS)}."
)
_FILTER_HELP = "The filter lists that OUTPUT was made with, if it was: its plan holds their hash alone."


@dataclass(frozen=True, kw_only=True)
class _Options:
    output: str
    where: tuple[Condition, ...]
    configuration: Configuration
    run: RunSettings
    engine_options: tuple[str, ...]


def retry_main(arguments: Sequence[str]) -> int:
    """Run `fineclip retry` and return its exit code. Raises errors that carry theirs."""
    console = Console(emoji=False, stderr=True)
    drain = Drain()
    with draining_on_signals(drain, console):
        plan, options = _parse(arguments)
        with progress.working(console, repairs=True) as show, _naming_the_server(console, plan, arguments):
            result = retry(
                plan,
                options.where,
                configuration=options.configuration,
                run=options.run,
                engine_options=options.engine_options,
                drain=drain,
                watch=show,
            )
    _closing(Console(emoji=False), result, options)
    if not result.dead.wanted:
        return 0
    keys = f"`fineclip status {options.output} --dead` the keys"
    return ending(console, result.job, options.run.max_dead, keys)


@contextlib.contextmanager
def _naming_the_server(console: Console, plan: Plan, arguments: Sequence[str]) -> Iterator[None]:
    """Say, before what went wrong, that no address of a captioner's server is recorded, where none was given."""
    has_server = "url" in captioner_class(names_of(plan)["captioner"]).config_class.__dataclass_fields__
    is_given = any(argument.startswith(("--caption.url", "--caption.serve")) for argument in arguments)
    try:
        yield
    except (ServerGoneError, InterruptedRunError):
        if has_server and not is_given:
            console.print(
                "The captions come from a server, whose address OUTPUT does not record: give --caption.url URL, "
                "or --caption.serve COMMAND.",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        raise


def _closing(console: Console, result: RetryResult, options: _Options) -> None:
    print_counts(console, result.job.totals)
    asked = " and ".join(map(str, options.where))
    if not result.dead.wanted:
        told = f"Nothing to do: nothing dead has {asked}."
        if result.dead.reasons:
            held = ", ".join(f"{reason} ({count:,})" for reason, count in sorted(result.dead.reasons.items()))
            told += f" Reasons of what is dead: {held}."
    else:
        print_times(console, result.job)
        before, now = result.before, result.job.totals
        rows, shards = counted(result.dead.num_wanted, "row"), counted(len(result.dead.wanted), "shard")
        told = f"Repeated what has {asked}: {rows} of {shards}."
        for name, old, new in (("images", before.images, now.images), ("regions", before.regions, now.regions)):
            if old.num_dead or new.num_dead:
                told += f" Dead {name}: {old.num_dead:,} before, {new.num_dead:,} now."
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    for overlay in result.carried:
        told = (
            f"Overlay {overlay}: regions that are new have no row there; run what made it again: it does these alone."
        )
        console.print(told, highlight=False, markup=False, soft_wrap=True)


def _parse(arguments: Sequence[str]) -> tuple[Plan, _Options]:
    """Return the plan of OUTPUT and the options; prints help or an error and raises SystemExit (0 or 2)."""
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    arguments, engine_options = joined(as_keys(arguments[:at]), "--caption.url"), tuple(arguments[at + 1 :])
    plan = None
    if arguments and arguments[0] and not arguments[0].startswith("-"):
        with storage_errors(arguments[0]):
            plan = open_output(arguments[0])
    parser = _parser(plan)
    parsed = parser.parse_args(list(arguments))
    if plan is None:
        parser.error("OUTPUT comes first: the flags of the models depend on what it was made with")
    if not parsed.where:
        parser.error("say what to repeat by --where COLUMN=VALUE, such as --where reason=oom,timeout")
    where = tuple(map(parse_condition, parsed.where))
    try:
        parser.check_groups(parsed)
        settings = parser.settings(parsed)
        run = flat(RunSettings, settings)
        configuration = recorded_configuration(
            plan, propose=settings.propose, caption=settings.caption, filters=settings.filter
        )
    except (TypeError, ValueError) as error:
        if hasattr(error, "exit_code"):
            raise
        parser.error(str(error))
    return plan, _Options(
        output=arguments[0], where=where, configuration=configuration, run=run, engine_options=engine_options
    )


def _parser(plan: Plan | None) -> FlagParser:
    """Return the parser; with the settings of the models that the data set was made with, where it is known."""
    parser = FlagParser(
        prog="fineclip retry",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("output", metavar="OUTPUT", help="a data set made by fineclip annotate: a folder, or a URL")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE[,VALUE]", help=_WHERE_HELP)
    parser.add_argument("--filter", action="append", default=[], metavar="FILE", help=_FILTER_HELP)
    add_flat(parser, RunSettings, only=_run_flags())
    if plan is not None:
        names = names_of(plan)
        classes = {"propose": proposer_class(names["proposer"]), "caption": captioner_class(names["captioner"])}
        recorded: dict[str, Any] = {}
        for group, backend in classes.items():
            parser.add_class_arguments(backend.config_class, group)
            known = settings_of(plan, group, backend.config_class)
            recorded |= {f"{group}.{name}": value for name, value in known.items()}
        parser.set_defaults(recorded)
    return parser


def _run_flags() -> list[str]:
    left_out = ("two_pools", "propose_accelerator", "caption_accelerator", "trust_inputs", "metrics_port")
    return [name for name in RunSettings.__dataclass_fields__ if name not in left_out]
