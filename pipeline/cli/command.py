"""The subcommands `annotate` and `plan`: settings in, progress and a closing table out, and the exit code."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from rich.console import Console

from pipeline.cli import metrics, progress, report
from pipeline.cli.options import Options, parse
from pipeline.cli.profiles import PROFILES, WITHOUT_A_GPU
from pipeline.models.device import DeviceError, num_gpus
from pipeline.models.licenses import check_permissive
from pipeline.plan.check import check_plan
from pipeline.plan.make import make_plan
from pipeline.plan.plan import load_plan
from pipeline.read import open_source
from pipeline.read.remote import looked_up_once
from pipeline.run import job
from pipeline.run.probe import forecast, probe, workload
from pipeline.run.status import Markers, units_to_do
from pipeline.run.watch import Progress
from pipeline.store.storage import at_work, open_storage

DONE, TOO_MANY_DEAD, INTERRUPTED = 0, 1, 4


def annotate_main(arguments: Sequence[str]) -> int:
    """Run `fineclip annotate` and return its exit code. Raises errors that carry theirs."""
    console = Console(emoji=False, stderr=True)
    drain = job.Drain()
    with draining_on_signals(drain, console):
        options = parse("annotate", "Propose regions, caption them and write region-text shards.", arguments)
        check_models(options)
        with progress.working(console) as show:
            result = run_job(options, show, drain)
    report.closing(Console(emoji=False), result, options)
    keys = f"`fineclip status {options.output} --dead` the keys"
    reasons = ",".join(sorted({*result.totals.images.dead, *result.totals.regions.dead}))
    if reasons:
        keys += f"; `fineclip retry {options.output} --where reason={reasons}` repeats them once the cause is gone"
    return ending(console, result, options.run.max_dead, keys)


def run_job(options: Options, show: Callable[[Progress], None], drain: job.Drain) -> job.JobResult:
    """Run the job that the options describe; `show` and the metrics' port are told how far it is."""
    with metrics.served(options.run.metrics_port) as tell:

        def watch(seen: Progress) -> None:
            show(seen)
            tell(seen)

        return job.annotate(
            options.inputs,
            options.output,
            configuration=options.configuration,
            plan=options.plan,
            run=options.run,
            append=options.append,
            engine_options=options.engine_options,
            drain=drain,
            watch=watch,
        )


def ending(console: Console, result: job.JobResult, max_dead: float, keys: str) -> int:
    """Return the exit code of a job that ended, and say why it is not 0; `keys` says what names the dead."""
    if result.drained:
        console.print("Interrupted: the shards in hand were finished. The same command goes on from here.")
        return INTERRUPTED
    num_bytes = sum(planned.bytes for planned in result.plan.inputs)
    share_lost = result.totals.bytes_lost / num_bytes if num_bytes else 0.0
    if max(result.totals.dead_fraction, share_lost) <= max_dead:
        return DONE
    what = f"{result.totals.dead_fraction:.2%} are dead"
    if share_lost > max_dead:
        what = f"{share_lost:.2%} of the input's bytes could not be read"
    console.print(
        f"{what}, more than --max-dead {max_dead:.2%}: the table above names the reasons, and {keys}.",
        style="bold red",
        highlight=False,
        soft_wrap=True,
    )
    return TOO_MANY_DEAD


def plan_main(arguments: Sequence[str]) -> int:
    """Run `fineclip plan` and return its exit code. Raises errors that carry theirs."""
    options = parse("plan", "Cut the inputs into shards and show what annotate would do.", arguments)
    check_models(options)
    storage = open_storage(options.output)
    with at_work(storage), looked_up_once():
        plan = load_plan(storage)
        if plan is None:
            plan = make_plan(storage, options.inputs, options.configuration, options.plan)
        else:
            check_plan(
                plan,
                options.inputs,
                options.configuration,
                options.plan,
                trust_inputs=options.run.trust_inputs,
            )
        todo = units_to_do(plan, Markers(storage).refresh())
    report.plan(Console(emoji=False), plan, todo)
    num_images = options.probe.probe
    if num_images is not None and todo:
        work = workload(plan, todo)
        with progress.probing(Console(emoji=False, stderr=True)) as watch:
            measured = probe(plan, options.configuration, options.run, num_images=num_images, watch=watch)
        report.forecast(Console(emoji=False), forecast(measured, work), measured, options)
    return DONE


def check_models(options: Options) -> None:
    """Raise what a backend lacks or may not be used for, before anything is written.

    Profiles that want a GPU are refused on a machine without one, with what they would cost.
    """
    if options.run.permissive_only:
        check_permissive(options.configuration.licenses())
    own = PROFILES[options.profile]
    is_own = (options.configuration.proposer, options.configuration.captioner) == (own.proposer, own.captioner)
    wants_gpu = options.profile in WITHOUT_A_GPU and is_own
    if wants_gpu and options.run.device == "auto" and num_gpus() == 0:
        for spec in options.inputs:
            open_source(spec)  # an input that is not there is told before what its models would cost
        raise DeviceError(WITHOUT_A_GPU[options.profile])
    options.configuration.fingerprint()  # finds the models, or says which is missing


@contextlib.contextmanager
def draining_on_signals(drain: job.Drain, console: Console) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a drain; the second ends the process at once.

    Handlers, not a thread that waits for blocked signals: threads that libraries started before (BLAS does) would not
    block them, and end the process. Worker processes inherit a block from the thread of the engine.
    """
    notice = "Finishing the shards in hand; once more ends at once (nothing that is committed is lost)."

    def handle(number: int, frame: FrameType | None) -> None:
        if drain.requested:
            os.write(2, b"Ended at once: the shards in hand are made again by the same command.\n")
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
