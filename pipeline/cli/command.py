"""The subcommands `annotate`, `plan` and `status`: settings in, progress and a closing table out, and the exit code."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from rich.console import Console

from pipeline.backends import SettingError
from pipeline.cli import progress, report
from pipeline.cli.cost import cpu_cost
from pipeline.cli.options import EXIT_CODES, Options, parse
from pipeline.cli.profiles import PAPER, PROFILES
from pipeline.errors import EngineError, InterruptedRunError, WorkError
from pipeline.models.device import DeviceError, num_gpus
from pipeline.models.licenses import LicenseError, check_permissive
from pipeline.models.minis import MiniError
from pipeline.models.weights import WeightsNotFoundError
from pipeline.plan.check import PlanError, check_plan
from pipeline.plan.make import make_plan
from pipeline.plan.plan import Plan, load_plan
from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.run import job
from pipeline.run.probe import forecast, probe, workload
from pipeline.run.status import Markers, units_to_do
from pipeline.store.storage import StorageError, open_storage, storage_errors
from pipeline.write.shards import BalanceError
from schemas.records import RecordError

DONE, TOO_MANY_DEAD, USAGE, REFUSED, INTERRUPTED, STORAGE, UNBALANCED = range(7)

_CODE_OF: dict[type[Exception], int] = {
    SourceError: USAGE,
    RecordError: USAGE,
    PlanError: REFUSED,
    StorageError: STORAGE,
    BalanceError: UNBALANCED,
    EngineError: USAGE,
    WorkError: USAGE,
    InterruptedRunError: INTERRUPTED,
    ImportError: USAGE,
    DeviceError: USAGE,
    WeightsNotFoundError: USAGE,
    MiniError: USAGE,
    LicenseError: USAGE,
    SettingError: USAGE,
}


def annotate_main(arguments: Sequence[str]) -> int:
    """Run `fineclip annotate` and return its exit code."""
    description = "Propose regions, caption them and write region-text shards."
    return _report_errors(lambda: _annotate(parse("annotate", description, arguments)))


def _annotate(options: Options) -> int:
    _check_models(options)
    console = Console(emoji=False, stderr=True)
    drain = job.Drain()
    with _draining_on_signals(drain, console), progress.Bar(console) as bar:
        result = job.annotate(
            options.inputs,
            options.output,
            configuration=options.configuration,
            plan=options.plan,
            run=options.run,
            append=options.append,
            beam_options=options.beam_options,
            drain=drain,
            watch=bar.show,
        )
    report.closing(Console(emoji=False), result, options)
    if result.drained:
        console.print("Interrupted: the shards in hand were finished. The same command goes on from here.")
        return INTERRUPTED
    return _too_many_dead(console, result.totals.dead_fraction, options.run.max_dead)


def _too_many_dead(console: Console, fraction: float, limit: float) -> int:
    if fraction <= limit:
        return DONE
    console.print(
        f"{fraction:.2%} are dead, more than --max-dead {limit:.2%}: the table above names the reasons, and rows "
        "with status 'dead' in OUTPUT's .parquet files name the keys.",
        style="bold red",
        highlight=False,
    )
    return TOO_MANY_DEAD


def plan_main(arguments: Sequence[str]) -> int:
    """Run `fineclip plan` and return its exit code."""
    description = "Cut the inputs into shards and show what annotate would do."
    return _report_errors(lambda: _plan(parse("plan", description, arguments)))


def _plan(options: Options) -> int:
    _check_models(options)
    storage = open_storage(options.output)
    with storage_errors(storage.url):
        plan = load_plan(storage)
        if plan is None:
            plan = make_plan(storage, options.inputs, options.configuration, options.plan)
        else:
            check_plan(plan, options.inputs, options.configuration, options.plan)
        todo = units_to_do(plan, Markers(storage).refresh())
    report.plan(Console(emoji=False), plan, todo)
    if options.probe.probe is not None and todo:
        _probe(options, plan, todo, num_images=options.probe.probe)
    return DONE


def _probe(options: Options, plan: Plan, todo: list[int], *, num_images: int) -> None:
    work = workload(plan, todo)
    with progress.probing(Console(emoji=False, stderr=True)) as watch:
        measured = probe(plan, options.configuration, options.run, num_images=num_images, watch=watch)
    report.forecast(Console(emoji=False), forecast(measured, work), measured, options)


def status_main(arguments: Sequence[str]) -> int:
    """Run `fineclip status OUTPUT` and return its exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        wants_help = list(arguments) in (["-h"], ["--help"])
        text = (
            "usage: fineclip status OUTPUT\n\nCounts images and regions by status and reason, from the shards' markers."
        )
        (sys.stdout if wants_help else sys.stderr).write(f"{text}\n\n{EXIT_CODES}\n")
        return DONE if wants_help else USAGE
    return _report_errors(lambda: _status(arguments[0]))


def _status(output: str) -> int:
    storage = open_storage(output)
    with storage_errors(storage.url):
        plan = load_plan(storage)
        if plan is None:
            raise SourceError(
                f"{output}: no data set is here (there is no _plan/plan.json); see fineclip annotate --help"
            )
        markers = Markers(storage).refresh()
    report.status(Console(emoji=False), plan, markers.totals, units_to_do(plan, markers))
    return DONE if markers.totals.balanced else UNBALANCED


def _check_models(options: Options) -> None:
    """Raise what a backend lacks or may not be used for, before anything is written."""
    if options.run.permissive_only:
        check_permissive(options.configuration.licenses())
    _check_gpu(options)
    options.configuration.fingerprint()  # finds the models, or says which is missing


def _check_gpu(options: Options) -> None:
    """Raise DeviceError, with what it would cost, for the paper's models on a machine of their own without a GPU."""
    paper = PROFILES[PAPER]
    ours = (options.configuration.proposer, options.configuration.captioner) == (paper.proposer, paper.captioner)
    if options.profile == PAPER and ours and options.run.device == "auto" and num_gpus() == 0:
        for spec in options.inputs:
            open_source(spec)  # an input that is not there is told before what its models would cost
        raise DeviceError(cpu_cost())


def _report_errors(run: Callable[[], int]) -> int:
    """Print an error that a person can act on without a traceback, and return its exit code.

    Raises ModuleNotFoundError: which extra holds the package is known to the command that found this module.
    """
    try:
        return run()
    except ModuleNotFoundError:
        raise
    except tuple(_CODE_OF) as error:
        Console(emoji=False, stderr=True).print(
            f"fineclip: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        return next(code for kind, code in _CODE_OF.items() if isinstance(error, kind))


@contextlib.contextmanager
def _draining_on_signals(drain: job.Drain, console: Console) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a drain; the second ends the process at once.

    Handlers, not a thread that waits for blocked signals: threads that libraries started before (BLAS does) would not
    block them, and end the process. Worker processes inherit a block from the thread of the engine.
    """
    notice = "Finishing the shards in hand; once more ends at once (nothing that is committed is lost)."

    def handle(number: int, frame: FrameType | None) -> None:
        if drain.requested:
            os._exit(INTERRUPTED)
        drain.request()
        # by another thread: the handler may have interrupted this one while it writes to the same stream
        threading.Thread(target=console.print, args=(notice,)).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
