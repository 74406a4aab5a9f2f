"""Units over a Ray cluster: actors, each one `Worker`; a unit goes to whoever is free.

    wait for an actor -> it is ready, or has done a unit -> give it the next one
                      -> it died -> free its lease, put the unit back, start another actor

Actors keep their models from unit to unit. Ray's own retries are off: they would load models anew, and a unit's number
would be lost. Elsewhere than in `_schedule` nothing here knows what a unit is.
"""

import argparse
import os
import signal
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.errors import EngineError, InterruptedRunError
from pipeline.run import lease
from pipeline.run.engines import Wait, sentence_of
from pipeline.run.worker import WorkerSettings, drain_file
from pipeline.settings import RunSettings

_LOCAL = "local"
_CONNECT_S = 5.0
_POLL_S = 1.0
_MAX_DEATHS = 3
"""Of workers at one unit, after which the job ends: something in it kills them."""
_OBJECT_STORE_BYTES = 80_000_000
"""Only unit numbers and settings travel, some kB."""
_ENVIRONMENT = (
    "AWS_",
    "GOOGLE_",
    "GCSFS_",
    "FSSPEC_",
    "HF_",
    "TRANSFORMERS_",
    "OPENAI_",
    "PYTHONPATH",
    "XDG_CACHE_HOME",
)
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
"""What of the driver's environment workers get: credentials, caches, proxies."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """What stands after `--` with `--engine ray`."""

    address: str
    num_workers: int | None
    """None: as many as the cluster's CPUs and GPUs allow."""
    num_cpus: float
    num_gpus: float


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise EngineError(f"--engine ray: {message}; after -- it takes {self.format_usage().split('--', 1)[1].strip()}")


def check_options(options: Sequence[str], run: RunSettings) -> RayOptions:
    """Return the options. Raises EngineError for an unknown one, and for an address at which nothing listens."""
    parser = _Parser(prog="", add_help=False, allow_abbrev=False)
    parser.add_argument("--address", default=_LOCAL, help="HOST:PORT of the head, `auto` on one of its machines")
    parser.add_argument("--num-workers", type=int, help="actors in all; by default what the cluster has room for")
    parser.add_argument("--num-cpus", type=float, default=1.0, help="CPUs that each actor reserves")
    parser.add_argument("--num-gpus", type=float, default=0.0, help="GPUs that each actor reserves")
    given = parser.parse_args(list(options))
    if given.num_gpus != int(given.num_gpus):
        raise EngineError("--num-gpus must be whole: a worker takes a GPU of its own")
    if given.num_workers is None and (given.address == _LOCAL or run.workers > 1):
        given.num_workers = run.workers
    _check_address(given.address)
    return RayOptions(**vars(given))


def _check_address(address: str) -> None:
    """Raise EngineError where nothing listens: Ray itself would try for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in (_LOCAL, "auto"):
        return
    if address.startswith("ray://") or not port.isdigit():
        raise EngineError(f"--address {address}: give HOST:PORT of the head, `auto` on one of its machines, or `local`")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise EngineError(f"--address {address}: nothing answers there ({error.strerror or error})") from error


def run_units(units: Sequence[int], settings: WorkerSettings, options: RayOptions, wait: Wait) -> None:
    """Have each unit worked on by an actor. Raises InterruptedRunError where Ray fails, or a unit kills its workers."""
    errors: list[BaseException] = []

    def schedule() -> None:
        try:
            for stage in settings.stages:
                _schedule(stage, units, settings, options)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            errors.append(error)

    thread = threading.Thread(target=schedule, name="engine", daemon=True)
    with _cluster(options):
        thread.start()
        while thread.is_alive():
            wait(thread)
    if errors and isinstance(errors[0], InterruptedRunError):
        raise errors[0]
    if errors:
        raise InterruptedRunError(f"Ray failed: {type(errors[0]).__name__}: {errors[0]}") from errors[0]


@contextmanager
def _cluster(options: RayOptions) -> Iterator[None]:
    """Join the cluster, or start one on this machine, and leave it. Our own signal handlers stay."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    resources: dict[str, Any] = {}
    if options.address == _LOCAL:
        count = options.num_workers or 1
        resources = {
            "num_cpus": max(1, round(options.num_cpus * count)),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    # An empty folder: Ray puts the driver's first on the workers' path, where a user may have a `pipeline/` of his own.
    with tempfile.TemporaryDirectory(prefix="fineclip-ray-") as empty:
        variables = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(_ENVIRONMENT) or name.lower() in _PROXIES
        }
        try:
            ray.init(
                address=options.address,
                runtime_env={"working_dir": empty, "env_vars": {**variables, "PYTHONSAFEPATH": "1"}},
                log_to_driver=False,
                logging_level="ERROR",
                **resources,
            )
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"--address {options.address}: Ray cannot be joined: {error}. A head on whose machine there is "
                "~/.ray/auth_token asks for it: copy the file here and set RAY_AUTH_MODE=token, on its nodes too"
            ) from error
        try:
            for number, handler in before.items():
                signal.signal(number, handler)
            yield
        finally:
            ray.shutdown()


class _Actor:
    """A worker process of Ray's."""

    def __init__(self, settings: WorkerSettings, folder: str) -> None:
        # The driver is told to drain, and workers finish what they hold.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if Path(folder).is_dir():
            os.chdir(folder)  # what relative inputs mean
        self._worker = settings.worker()

    def ready(self) -> tuple[str, str]:
        """Return who holds this process's leases."""
        return lease.this_holder()

    def work(self, stage: str, unit: int) -> str:
        """Do a stage of a unit."""
        ending: str = getattr(self._worker, stage)(unit).value
        return ending


def _schedule(stage: str, units: Sequence[int], settings: WorkerSettings, options: RayOptions) -> None:
    """Give each unit to a free actor until none is left; those of dead actors again."""
    storage = settings.plan.storage
    left, deaths = list(reversed(units)), Counter[int | None]()
    actor_class = ray.remote(_Actor).options(
        num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_restarts=0, max_task_retries=0
    )
    holders: dict[Any, tuple[str, str]] = {}
    running: dict[Any, tuple[Any, int | None]] = {}
    """What an actor was asked, by the answer that is waited for: the actor, and the unit."""

    def start() -> None:
        actor = actor_class.remote(settings, str(Path.cwd()))
        running[actor.ready.remote()] = (actor, None)

    for _ in range(min(len(left), options.num_workers or _room(options))):
        start()
    while running:
        finished, _ = ray.wait([*running], timeout=_POLL_S)
        for answer in finished:
            actor, unit = running.pop(answer)
            try:
                told = ray.get(answer)
            except RayError as error:
                ray.kill(actor)
                _count_death(unit, error, deaths)
                if unit is not None:
                    lease.free(storage, settings.lease_name(unit), holders.pop(actor))
                    left.append(unit)
                start()
                continue
            if unit is None:
                holders[actor] = told
                deaths[None] = 0
            if left and storage.size(drain_file(settings.run_id)) is None:
                unit = left.pop()
                running[actor.work.remote(stage, unit)] = (actor, unit)
            else:
                ray.kill(actor)


def _count_death(unit: int | None, error: RayError, deaths: Counter[int | None]) -> None:
    """Count the death of a worker at a unit, or at its start (None), where its node may have died under it.

    Raises InterruptedRunError where it is no use to start another: after so many, and where it raised an exception.
    """
    deaths[unit] += 1
    if isinstance(error, RayTaskError):
        where = "at its start" if unit is None else f"at unit {unit}"
        raise InterruptedRunError(f"a worker failed {where}: {sentence_of(error.cause)}") from error
    if unit is None and (deaths[unit] == _MAX_DEATHS or "its creation task" in str(error)):
        raise InterruptedRunError(f"a worker could not be started: {sentence_of(error)}") from error
    if deaths[unit] == _MAX_DEATHS:
        raise InterruptedRunError(
            f"unit {unit} killed {_MAX_DEATHS} workers ({type(error).__name__}): probably out of memory; "
            "reserve more by --num-cpus, or leave its images out by --filter"
        ) from error


def _room(options: RayOptions) -> int:
    """Return how many actors the cluster has room for."""
    total = ray.cluster_resources()
    by_kind = [total.get(kind, 0.0) / number for kind, number in _needs(options) if number]
    return max(1, int(min(by_kind, default=1.0)))


def _needs(options: RayOptions) -> list[tuple[str, float]]:
    return [("CPU", options.num_cpus), ("GPU", options.num_gpus)]
