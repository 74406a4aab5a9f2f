"""Engines: what schedules units over processes and machines. A module each, imported only when it runs.

    check_options(options, run)                   what stands after `--`, parsed; EngineError for what must not be used
    run_units(units, settings, options, wait)     each unit to a `Worker`, in the job's own stages

An engine may lose a unit or do it twice: the driver trusts the markers alone, and runs what is left again.
"""

import importlib
import logging
import re
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from pipeline.errors import UnseenOutputError
from pipeline.run.worker import WorkerSettings
from pipeline.settings import RunSettings

ENGINES = {"beam": "pipeline.run.beam_engine", "ray": "pipeline.run.ray_engine"}
"""Name of each engine and the module that it is."""

Wait = Callable[[threading.Thread], None]
"""Called with the thread that an engine runs in; returns when a poll is over or the thread has ended."""


class Engine(Protocol):
    """What an engine's module has."""

    def check_options(self, options: Sequence[str], run: RunSettings) -> Any:
        """Return the parsed options. Raises EngineError for what is unknown or must not be used."""

    def run_units(self, units: Sequence[int], settings: WorkerSettings, options: Any, wait: Wait) -> None:
        """Have the units worked on. Raises InterruptedRunError where the engine fails."""


def load_engine(name: str) -> Engine:
    """Import an engine, which takes seconds: a finished job must not; nor must its users read what Beam warns of."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        return cast(Engine, importlib.import_module(ENGINES[name]))
    finally:
        root.setLevel(level)


def sentence_of(error: BaseException) -> str:
    """Return what an engine's error says, in one line: a worker's own sentence where there is one in its text."""
    text = "".join(traceback.format_exception(error))
    if told := re.search(rf"{UnseenOutputError.__name__}: (.+)", text):
        return told[1].partition(" [while running")[0]
    if told := re.search(r"ModuleNotFoundError: (No module named '[\w.]+')", text):
        return f"{told[1]} on a worker: every machine needs the packages that this one has"
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first_line}"
