"""Running the graph on an engine: the local runners, pinned, and whatever Beam options after `--` name.

Beam's own default runner is not used: it first tries to download another one. Runners that were seen to lose records
without an error are refused.
"""

import argparse
import contextlib
import difflib
import functools
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability import job_server
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from apache_beam.utils import interactive_utils, subprocess_server

from pipeline.errors import EngineError, InterruptedRunError
from pipeline.run.engines import Wait, sentence_of
from pipeline.run.graph import build
from pipeline.run.worker import WorkerSettings
from pipeline.settings import RunSettings
from schemas.names import RUN_DIR

_JOB_SERVER_TIMEOUT_S = 30 * 24 * 3600
_LOCAL = {"DirectRunner", "FnApiRunner", "direct", ""}
_FAR_AWAY = {"DataflowRunner", "apache_beam.runners.dataflow.dataflow_runner.DataflowRunner"}
"""Runners whose machines never have a file system in common with this one."""


def check_options(beam_options: Sequence[str], run: RunSettings) -> PipelineOptions:
    """Return Beam's options, with `run.workers` local processes. Raises EngineError for what must not be used."""
    options, workers = PipelineOptions(list(beam_options)), run.workers
    runner = options.view_as(StandardOptions).runner or ""
    direct = options.view_as(DirectOptions)
    _check_names(options, beam_options, is_local=runner in _LOCAL)
    if "Dask" in runner:
        raise EngineError(f"--runner={runner}: Beam's DaskRunner loses records without an error; use another runner")
    if direct.direct_running_mode == "multi_threading":
        raise EngineError(
            "--direct_running_mode=multi_threading loses records in about half of its runs without an error; "
            "use --workers, which starts processes"
        )
    if runner in _LOCAL:
        options.view_as(StandardOptions).runner = "DirectRunner"
        if workers > 1:
            direct.direct_running_mode = "multi_processing"
            direct.direct_num_workers = workers
            logs = options.view_as(WorkerOptions)  # whose default is a page of Beam's own steps for each process
            logs.default_sdk_harness_log_level = logs.default_sdk_harness_log_level or "ERROR"
        return options
    if workers > 1:
        raise EngineError(f"--workers is for this machine; give --runner={runner} its own options after --")
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise EngineError(f"--runner={runner}: {error}") from error
    given = {argument.partition("=")[0].replace("-", "_").lstrip("_") for argument in beam_options}
    if "job_server_timeout" not in given:  # Beam's default ends a unit of more than five minutes on Prism
        options.view_as(PortableOptions).job_server_timeout = _JOB_SERVER_TIMEOUT_S
    return options


def _check_names(options: PipelineOptions, given: Sequence[str], *, is_local: bool) -> None:
    """Raise EngineError for an option that Beam does not know: it would be ignored without a word.

    Engines behind a job server have options of their own, so with them only what looks misspelt is refused.
    """

    def check(parser: argparse.ArgumentParser) -> None:
        _, unknown = parser.parse_known_args(list(given))
        if is_local and unknown and not unknown[0].startswith("-"):
            raise EngineError(f"{unknown[0]}: is no option of Beam's; INPUT and OUTPUT stand before the `--`")
        known = [option for action in parser._actions for option in action.option_strings]
        for name in (argument.partition("=")[0] for argument in unknown if argument.startswith("-")):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6 if is_local else 0.85)
            if is_local or near:
                meant = f"; did you mean {near[0]}?" if near else ""
                raise EngineError(f"{name}: Beam knows no such option{meant}")

    options.get_all_options(add_extra_args_fn=check)


def run_units(units: Sequence[int], settings: WorkerSettings, options: PipelineOptions, wait: Wait) -> None:
    """Annotate `units` on the engine; `wait` is called with the thread that runs it, and returns when it has ended.

    Raises EngineError for local paths on a runner of other machines, and InterruptedRunError where the engine fails or
    a local worker process ended early.
    """
    _check_paths(settings, options)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    os.environ["PYTHONSAFEPATH"] = "1"  # a worker must not import a `pipeline/` of the folder it is started in
    errors: list[BaseException] = []
    thread = threading.Thread(target=_run, args=(units, settings, options, errors), name="engine", daemon=True)
    with _noticing_dead_workers(errors):
        thread.start()
        while thread.is_alive() and not errors:
            wait(thread)
    if errors and isinstance(errors[0], InterruptedRunError):
        raise errors[0]
    if errors:
        where = f"{RUN_DIR}/{settings.run_id}.engine.txt"
        settings.plan.storage.replace(where, "".join(traceback.format_exception(errors[0])).encode())
        raise InterruptedRunError(
            f"the engine failed: {sentence_of(errors[0])}; {where} in OUTPUT has its traceback. "
            "The same command goes on from here"
        ) from errors[0]


def _check_paths(settings: WorkerSettings, options: PipelineOptions) -> None:
    """Raise EngineError for an OUTPUT or an INPUT of this machine where none of the engine's can see it."""
    if options.view_as(StandardOptions).runner not in _FAR_AWAY:
        return
    plan = settings.plan
    inputs = (file.uri for planned, file in plan.files() if planned.kind != "scenes")
    local = next((uri for uri in inputs if "://" not in uri), None)
    where = f"OUTPUT {plan.storage.url}" if plan.storage.is_local else f"INPUT {local}"
    if plan.storage.is_local or local is not None:
        raise EngineError(
            f"{where} is a path of this machine, which the workers of --runner=DataflowRunner do not see: "
            "give URLs of an object store, such as gs://bucket/folder"
        )


def _run(units: Sequence[int], settings: WorkerSettings, options: PipelineOptions, errors: list[BaseException]) -> None:
    # Worker processes inherit this: a Ctrl-C in the terminal reaches them too, and they have shards to finish.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    _mend_job_servers()
    # In a notebook Beam would import its interactive runner, which needs packages of its own and writes into the cell.
    beam.pipeline.is_in_ipython = interactive_utils.is_in_ipython = lambda: False
    try:
        pipeline = beam.Pipeline(runner=_runner(options), options=options)
        build(pipeline, units, settings)
        pipeline.run().wait_until_finish()
    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
        errors.append(error)


def _mend_job_servers() -> None:
    """Let Beam start job servers from this thread, in sessions of their own.

    Beam sets a signal handler, which no other thread than the main one may; and a Ctrl-C in the terminal would end the
    server together with the units that are to be finished. Servers are stopped when the process ends, by `atexit`.
    """
    job_server.signal = SimpleNamespace(
        signal=lambda number, handler: None, getsignal=signal.getsignal, SIGINT=signal.SIGINT
    )
    subprocess_server.subprocess = SimpleNamespace(
        **{name: getattr(subprocess, name) for name in subprocess.__all__}
        | {"Popen": functools.partial(subprocess.Popen, start_new_session=True)}
    )


def _runner(options: PipelineOptions) -> beam.runners.PipelineRunner | None:
    """Return the local runner with the options its worker processes need, or None to let Beam make the one named."""
    if options.view_as(StandardOptions).runner != "DirectRunner":
        return None
    environment = None
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode == "multi_processing":
        # Beam's own command keeps a shell between driver and worker, which dies of a Ctrl-C that the worker withstands.
        command = f"exec {shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
        environment = SubprocessSDKEnvironment.from_command_string(command)
        direct.direct_running_mode = "in_memory"  # else the runner puts its own environment in place of this one
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(environment, provision_info=fn_runner.ExtendedProvisionInfo(provision))


@contextlib.contextmanager
def _noticing_dead_workers(errors: list[BaseException]) -> Iterator[None]:
    """Collect the error of Beam's thread beside a dead worker process, for which Beam itself would wait for ever."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.thread is not None and arguments.thread.name == "run_worker":
            message = f"a worker process died ({arguments.exc_value}); probably out of memory: use fewer --workers"
            errors.append(InterruptedRunError(message))
        else:
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
